//! Distributions against plain f64 arithmetic, and draws against their probabilities.

use super::*;

fn logits() -> Vec<f32> {
    (0..300).map(|i| ((i * 37 % 101) as f32 * 0.11).sin() * 4.0).collect()
}

#[test]
fn log_probs_are_those_of_a_softmax() {
    let logits = logits();
    let row = RowDistribution::new(&logits, Shaping { temperature: 0.7, ..Shaping::default() });
    let total: f64 = logits.iter().map(|&l| (f64::from(l) / 0.7).exp()).sum();
    for &l in &logits {
        let truth = f64::from(l) / 0.7 - total.ln();
        assert!((f64::from(row.log_prob(l)) - truth).abs() < 1e-5);
    }
}

#[test]
fn cut_distributions_sum_to_one_and_keep_the_likeliest() {
    let logits = logits();
    for (top_p, top_k) in [(0.5, 0), (1.0, 7), (0.9, 40)] {
        let row = RowDistribution::new(&logits, Shaping { temperature: 1.0, top_p, top_k });
        let kept: Vec<f32> =
            logits.iter().copied().filter(|&l| row.log_prob(l).is_finite()).collect();
        let total: f64 = kept.iter().map(|&l| f64::from(row.log_prob(l)).exp()).sum();
        assert!((total - 1.0).abs() < 1e-5, "{total}");
        let least = kept.iter().copied().fold(f32::INFINITY, f32::min);
        assert!(logits.iter().all(|&l| l < least || row.log_prob(l).is_finite()));
        assert!(kept.len() < logits.len());
    }
}

#[test]
fn greedy_draws_the_largest_with_certainty() {
    let logits = [0.0f32, 3.0, 1.0];
    let row = RowDistribution::new(&logits, Shaping { temperature: 0.0, ..Shaping::default() });
    assert_eq!(row.draw(&logits, 0.999), 1);
    assert_eq!(row.log_prob(3.0), 0.0);
    assert_eq!(row.log_prob(1.0), f32::NEG_INFINITY);
}

#[test]
fn quantiles_draw_tokens_as_often_as_they_are_likely() {
    let logits = logits();
    let row = RowDistribution::new(&logits, Shaping::default());
    let draws = 200_000;
    let mut counts = vec![0u32; logits.len()];
    for i in 0..draws {
        counts[row.draw(&logits, (i as f32 + 0.5) / draws as f32) as usize] += 1;
    }
    for (&l, &count) in logits.iter().zip(&counts) {
        let (seen, expected) =
            (f64::from(count) / f64::from(draws), f64::from(row.log_prob(l)).exp());
        assert!((seen - expected).abs() < 2e-5, "{seen} for {expected}");
    }
    assert_eq!(row.draw(&logits, 1.0), row.draw(&logits, 0.999_999_9));
}

#[test]
fn slopes_pass_finite_differences() {
    let logits = logits();
    let shaping = Shaping { temperature: 0.8, ..Shaping::default() };
    let targets = [(3u32, 0.7f32), (9, -0.2), (3, 0.1)];
    let loss = |logits: &[f32]| -> f64 {
        let row = RowDistribution::new(logits, shaping);
        targets.iter().map(|&(t, d)| f64::from(d * row.log_prob(logits[t as usize]))).sum()
    };
    let mut slope = logits.clone();
    RowDistribution::new(&logits, shaping).slope(&mut slope, targets.iter().copied());
    for j in [0, 3, 9, 200] {
        let mut moved = logits.clone();
        moved[j] += 0.01;
        let up = loss(&moved);
        moved[j] -= 0.02;
        let measured = (up - loss(&moved)) / 0.02;
        assert!(
            (measured - f64::from(slope[j])).abs() < 2e-4,
            "{j}: {measured} against {}",
            slope[j]
        );
    }
}

#[test]
fn entropy_is_that_of_the_probabilities() {
    let logits = logits();
    let row = RowDistribution::new(&logits, Shaping { top_k: 50, ..Shaping::default() });
    let truth: f64 = logits
        .iter()
        .map(|&l| f64::from(row.log_prob(l)))
        .filter(|l| l.is_finite())
        .map(|l| -l * l.exp())
        .sum();
    assert!((f64::from(row.entropy(&logits)) - truth).abs() < 1e-4);
}
