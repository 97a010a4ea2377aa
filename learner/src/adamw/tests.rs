//! What PyTorch cannot tell: thread counts, refusals, the file. Its values are in
//! `tests/trl_parity.rs`.
#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;
use std::fs;

fn spec(name: &str, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), shape: shape.to_vec() }
}

/// Repeatable numbers in [−1, 1) without a pattern that sums would hide.
fn noise(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / 2_147_483_648.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

const SHAPES: [(&str, [usize; 2]); 4] = [
    ("embed.weight", [301, 211]),
    ("norm.weight", [1, 77]),
    ("layers.0.mlp.weight", [64, 256]),
    ("layers.1.mlp.weight", [150, 70]),
];

fn train(threads: usize, steps: u32, muon: Option<f64>) -> (AdamW, Vec<Vec<f32>>, Vec<u64>) {
    let specs: Vec<TensorSpec> = SHAPES.iter().map(|(name, shape)| spec(name, shape)).collect();
    let hyperparameters =
        Hyperparameters { weight_decay: 0.01, muon, ..Hyperparameters::default() };
    let mut optimizer = AdamW::new(hyperparameters, specs.clone()).unwrap();
    let mut values: Vec<Vec<f32>> = specs.iter().map(|spec| noise(1, spec.elements())).collect();
    let mut norms = Vec::new();
    for step in 0..steps {
        let gradients: Vec<Vec<f32>> =
            specs.iter().map(|spec| noise(step + 2, spec.elements())).collect();
        let mut parameters: Vec<Parameter<'_>> = values
            .iter_mut()
            .zip(&gradients)
            .map(|(values, gradient)| Parameter { values, gradient })
            .collect();
        let update = pool(threads).install(|| optimizer.update(&mut parameters, 1e-3)).unwrap();
        assert!(update.scale < 1.0);
        norms.push(update.gradient_norm.to_bits());
    }
    (optimizer, values, norms)
}

#[test]
fn the_thread_count_changes_no_bit() {
    for muon in [None, Some(0.95)] {
        let one = train(1, 3, muon);
        for threads in [2, 3] {
            assert_eq!(one, train(threads, 3, muon));
        }
    }
}

#[test]
fn the_norm_is_the_norm() {
    assert_eq!(gradient_norm([[3.0f32].as_slice(), [4.0].as_slice()]), 5.0);
    assert_eq!(gradient_norm([]), 0.0);
    let many = noise(9, 3 * CHUNK + 5);
    let plain: f64 = many.iter().map(|value| f64::from(*value).powi(2)).sum();
    assert!((gradient_norm([many.as_slice()]) - plain.sqrt()).abs() < 1e-9);
}

#[test]
fn the_first_step_by_hand() {
    // Both means are corrected to the gradient and its square, so the step is the rate, signed;
    // decay takes 0.1 · 0.5 of the matrix and nothing of the bias.
    let hyperparameters = Hyperparameters {
        weight_decay: 0.5,
        max_gradient_norm: None,
        ..Hyperparameters::default()
    };
    let specs = vec![spec("a.weight", &[1, 2]), spec("a.bias", &[1])];
    let mut optimizer = AdamW::new(hyperparameters, specs).unwrap();
    let (mut matrix, mut bias) = ([1.0f32, 1.0], [1.0f32]);
    let mut parameters = [
        Parameter { values: &mut matrix, gradient: &[4.0, -0.25] },
        Parameter { values: &mut bias, gradient: &[7.0] },
    ];
    let update = optimizer.update(&mut parameters, 0.1).unwrap();
    assert_eq!(update.scale, 1.0);
    for (found, expected) in matrix.iter().chain(&bias).zip([0.85, 1.05, 0.9]) {
        assert!((found - expected).abs() < 1e-6, "expected {expected}, found {found}");
    }
}

#[test]
fn decay_spares_norms_and_biases() {
    for (name, shape, expected) in [
        ("model.layers.0.self_attn.q_proj.weight", &[8, 8][..], true),
        ("model.embed_tokens.weight", &[64, 8], true),
        ("model.layers.0.self_attn.q_proj.bias", &[8], false),
        ("model.layers.0.input_layernorm.weight", &[8], false),
        ("model.norm.weight", &[1, 8], false),
    ] {
        assert_eq!(decays(&spec(name, shape)), expected, "{name}");
    }
}

#[test]
fn a_refused_update_changes_nothing() {
    let mut optimizer =
        AdamW::new(Hyperparameters::default(), vec![spec("a", &[2]), spec("b", &[2])]).unwrap();
    let before = optimizer.clone();
    let (mut a, mut b) = ([1.0f32, 2.0], [3.0f32, 4.0]);
    let mut update = |gradient: &[f32], rate: f64| {
        let mut parameters = [
            Parameter { values: &mut a, gradient: &[0.5, 0.5] },
            Parameter { values: &mut b, gradient },
        ];
        optimizer.update(&mut parameters, rate).unwrap_err()
    };
    let error = update(&[0.0, f32::NAN], 0.1);
    assert!(error.to_string().contains("found NaN at element 1 of tensor \"b\""), "{error}");
    assert!(matches!(update(&[0.0], 0.1), AdamWError::Size { expected: 2, found: 1, .. }));
    assert!(matches!(update(&[0.0, 0.0], f64::NAN), AdamWError::Hyperparameter { .. }));
    assert_eq!(optimizer.update(&mut [], 0.1), Err(AdamWError::Count { expected: 2, found: 0 }));
    assert_eq!((optimizer, a, b), (before, [1.0, 2.0], [3.0, 4.0]));
}

#[test]
fn nonsense_is_refused() {
    let twice = AdamW::new(Hyperparameters::default(), vec![spec("a", &[1]), spec("a", &[1])]);
    assert_eq!(twice, Err(AdamWError::Duplicate { name: "a".to_owned() }));
    for hyperparameters in [
        Hyperparameters { beta1: 1.0, ..Hyperparameters::default() },
        Hyperparameters { beta2: f64::NAN, ..Hyperparameters::default() },
        Hyperparameters { epsilon: 0.0, ..Hyperparameters::default() },
        Hyperparameters { max_gradient_norm: Some(0.0), ..Hyperparameters::default() },
    ] {
        let error = AdamW::new(hyperparameters, Vec::new()).unwrap_err();
        assert!(matches!(error, AdamWError::Hyperparameter { .. }));
    }
}

fn specs() -> Vec<TensorSpec> {
    SHAPES.iter().map(|(name, shape)| spec(name, shape)).collect()
}

#[test]
fn the_state_reads_back_to_the_bit_and_writes_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) =
        (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    // Other tools read it: two tensors for each parameter, one where Muon updates.
    for (muon, expected) in [(Some(0.95), 6), (None, 8)] {
        let (optimizer, ..) = train(2, 2, muon);
        optimizer.write(&first).unwrap();
        let read = AdamW::read(&first, optimizer.hyperparameters, specs()).unwrap();
        assert_eq!((read.steps(), &read), (2, &optimizer));
        read.write(&second).unwrap();
        assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
        let bytes = fs::read(&first).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let momentum = tensors.tensor("exp_avg.layers.0.mlp.weight").unwrap();
        assert_eq!((momentum.shape(), tensors.len()), ([64, 256].as_slice(), expected));
    }
}

#[test]
fn unusable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimizer.safetensors");
    let (optimizer, ..) = train(1, 1, None);
    let read = |specs| AdamW::read(&path, Hyperparameters::default(), specs).unwrap_err();
    assert!(matches!(read(specs()), StateError::Disk(_)));
    optimizer.write(&path).unwrap();
    let mut other = specs();
    other[2].shape = vec![256, 64];
    let error = read(other).to_string();
    assert!(error.contains("\"exp_avg.layers.0.mlp.weight\" as f32 [256, 64]"), "{error}");
    assert!(error.contains("found F32 [64, 256]"), "{error}");
    assert!(matches!(read(specs()[..2].to_vec()), StateError::Count { expected: 4, found: 8, .. }));
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    assert!(matches!(read(specs()), StateError::Size { .. }));
    // Another safetensors file.
    let values = vec![0u8; 4];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &values);
    let plain = safetensors::serialize([("w", view.unwrap())], None).unwrap();
    fs::write(&path, plain).unwrap();
    assert!(read(specs()).to_string().contains("no \"octet.adamw\""));
}

proptest! {
    #[test]
    fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), length in 0u64..80) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("optimizer.safetensors");
        for prefix in [Vec::new(), length.to_le_bytes().to_vec()] {
            fs::write(&path, [prefix, bytes.clone()].concat()).unwrap();
            prop_assert!(AdamW::read(&path, Hyperparameters::default(), specs()).is_err());
        }
    }
}
