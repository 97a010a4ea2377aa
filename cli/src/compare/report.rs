//! A comparison as Markdown that reads well on a screen too, as JSON, and drawn.
//!
//! Invariant: what is printed is what `compare.md` holds; every number of it is in `compare.json`.

use super::drawing;
use super::numbers::{Comparison, Contest, Cost, Group, Method, Spread};
use super::plan::Plan;
use crate::evaluation::interval::Difference;
use crate::evaluation::markdown::p_value;
use crate::report::text::count;
use anyhow::{Context, Result};

/// Writes `compare.md`, `compare.json`, `compare.svg` and `compare.png` into the output directory.
///
/// # Errors
/// A file cannot be written.
pub fn write(plan: &Plan, contest: &Contest) -> Result<()> {
    let into = |name: &str, text: String| {
        let path = plan.out.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    into("compare.md", markdown(contest))?;
    into("compare.json", serde_json::to_string_pretty(contest)? + "\n")?;
    drawing::write(&plan.out, contest)
}

/// The comparison as Markdown.
pub fn markdown(contest: &Contest) -> String {
    let setting = &contest.setting;
    let seeds: Vec<String> = contest.seeds.iter().map(u64::to_string).collect();
    let completions = match setting.samples {
        1 => "1 completion".to_owned(),
        more => format!("{more} completions"),
    };
    let mut text = format!(
        "# Comparison\n\n{} held-out rows of {}, {completions} a row at temperature {}, at most {} tokens; reward `{}`. \
         Seeds {}.\n\n",
        setting.rows,
        setting.data,
        setting.temperature,
        setting.max_tokens,
        setting.function,
        seeds.join(", ")
    );
    text += &results(contest);
    text += &costs(contest);
    if !contest.comparisons.is_empty() {
        text += &comparisons(contest);
    }
    text
}

fn results(contest: &Contest) -> String {
    let names = contest.methods.first().map_or(&[][..], |method| &method.groups);
    let (all, behaviours) = names.split_last().map_or((None, &[][..]), |(a, b)| (Some(a), b));
    let mut head: Vec<String> =
        ["recipe", "objective", "before", "after", "change"].map(str::to_owned).into();
    // One behaviour alone is all rows.
    let behaviours = if behaviours.len() > 1 { behaviours } else { &[] };
    head.extend(behaviours.iter().map(|group| group.name.clone()));
    head.push("reward".into());
    let row = |method: &Method| {
        let Some((all, groups)) = method.groups.split_last() else { return Vec::new() };
        let mut cells = vec![
            method.name.clone(),
            method.objective.clone(),
            percent(all.before),
            share(&all.accuracy),
            method.change.map_or_else(|| "-".into(), |change| points(&change)),
        ];
        let of = |group: &Group| format!("{} → {}", percent(group.before), share(&group.accuracy));
        cells.extend(groups.iter().take(behaviours.len()).map(of));
        cells.push(format!("{:.3} → {}", all.reward_before, spread(&all.reward, 3, 1.0)));
        cells
    };
    let rows = contest.methods.iter().map(row).collect();
    let rows_of =
        behaviours.iter().chain(all).map(|group| format!("{} {}", group.rows, group.name));
    format!(
        "{}\nShares of completions with the full reward ({} rows), and mean rewards. ± is the standard deviation over \
         the seeds; intervals are 95 %, from rows drawn again.\n\n",
        table(&head, rows),
        rows_of.collect::<Vec<_>>().join(", ")
    )
}

fn costs(contest: &Contest) -> String {
    let head = ["recipe", "steps", "minutes a run", "tokens sampled", "tokens learned"];
    let row = |method: &Method| {
        let each = |of: fn(&Cost) -> f64| Spread::new(method.costs.iter().map(of).collect());
        vec![
            method.name.clone(),
            format!("{:.0}", each(|cost| cost.steps as f64).mean),
            spread(&each(|cost| cost.seconds / 60.0), 1, 1.0),
            count(each(|cost| cost.sampled_tokens as f64).mean.round() as u64),
            count(each(|cost| cost.learned_tokens as f64).mean.round() as u64),
        ]
    };
    format!(
        "{}\nOf one run, on average: minutes of its steps; completion tokens; tokens through forward and backward, each \
         prompt once.\n\n",
        table(&head.map(str::to_owned), contest.methods.iter().map(row).collect())
    )
}

fn comparisons(contest: &Contest) -> String {
    let head = ["", "accuracy", "p", "mean reward", "accuracy by seed"];
    let row = |found: &Comparison| {
        let by_seed: Vec<String> =
            found.by_seed.iter().map(|change| format!("{:+.1}", 100.0 * change)).collect();
        vec![
            format!("{} against {}", found.method, found.with),
            found.accuracy.map_or_else(|| "-".into(), |change| points(&change)),
            found.p.map_or_else(|| "-".into(), p_value),
            found.reward.map_or_else(
                || "-".into(),
                |Difference { change, .. }| {
                    let [low, high] = change.interval;
                    format!("{:+.3} [{low:+.3}, {high:+.3}]", change.value)
                },
            ),
            by_seed.join(", "),
        ]
    };
    let test = match contest.comparisons.iter().any(|found| found.only_right.is_some()) {
        true => "McNemar's exact test",
        false => "the paired bootstrap over rows, with a row's completions of all seeds together",
    };
    format!(
        "{}\nIn points of accuracy. p is that of {test}, raised by Holm's procedure for {} comparisons. It asks whether \
         these policies differ on rows like these; whether other seeds would say the same is for the last column.\n",
        table(&head.map(str::to_owned), contest.comparisons.iter().map(row).collect()),
        contest.comparisons.len()
    )
}

/// A table whose columns are as wide as what is in them.
fn table(head: &[String], rows: Vec<Vec<String>>) -> String {
    let clean = |cell: &String| cell.replace('|', "\\|");
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(clean).collect()).collect();
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).chain(head.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths.iter().enumerate().map(|(at, width)| match at {
        0 => "-".repeat(*width),
        _ => format!("{}:", "-".repeat(width - 1)),
    });
    let rule: Vec<String> = rule.collect();
    [line(head), line(&rule)].into_iter().chain(rows.iter().map(|row| line(row))).collect()
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn share(found: &Spread) -> String {
    format!("{} %", spread(found, 1, 100.0))
}

fn spread(found: &Spread, digits: usize, factor: f64) -> String {
    let mean = factor * found.mean;
    match found.std {
        Some(std) => format!("{mean:.digits$} ± {:.digits$}", factor * std),
        None => format!("{mean:.digits$}"),
    }
}

fn points(found: &Difference) -> String {
    let [low, high] = found.change.interval.map(|end| 100.0 * end);
    format!("{:+.1} [{low:+.1}, {high:+.1}]", 100.0 * found.change.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(share(&Spread::new(vec![0.7, 0.8])), "75.0 ± 7.1 %");
        assert_eq!(share(&Spread::new(vec![0.7])), "70.0 %");
    }

    #[test]
    fn a_table_is_aligned() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let found = table(&row(["recipe", "±"]), vec![row(["a|b", "1.0 ± 0.1"])]);
        let wanted = "| recipe |         ± |\n| ------ | --------: |\n| a\\|b   | 1.0 ± 0.1 |\n";
        assert_eq!(found, wanted);
    }
}
