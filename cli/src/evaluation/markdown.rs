//! A study as Markdown: what `--report` prints and `--markdown` writes.
//!
//! Invariant: every table can be read without the others, and says what its numbers are of.

use super::interval::{Difference, Estimate};
use super::study::{Comparison, ModelStudy, Numbers, Study};
use octet_reward_service::measure::Deed;

/// The study as Markdown.
pub fn markdown(study: &Study) -> String {
    let mut text = String::new();
    let setting = &study.setting;
    let suite = setting.suite.as_ref().map_or(String::new(), |suite| format!(", suite {suite}"));
    line(&mut text, "# Evaluation");
    line(
        &mut text,
        &format!(
            "{} rows of {}{suite}; {} completions a row at temperature {}; reward `{}`; seed {}. Intervals are 95 %, \
             from rows drawn again; a row's completions stay together.",
            setting.rows,
            setting.data,
            setting.samples,
            setting.temperature,
            setting.function,
            setting.seed
        ),
    );
    overview(&mut text, study);
    for comparison in &study.comparisons {
        compared(&mut text, &study.models[0].model, comparison);
    }
    for model in &study.models {
        of_model(&mut text, model);
    }
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push_str("\n\n");
}

fn table(text: &mut String, head: &[&str], rows: Vec<Vec<String>>) {
    let rule: Vec<&str> =
        head.iter().enumerate().map(|(i, _)| if i == 0 { "---" } else { "---:" }).collect();
    text.push_str(&format!("| {} |\n| {} |\n", head.join(" | "), rule.join(" | ")));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text.push('\n');
}

const NUMBERS: [&str; 6] =
    ["rows", "accuracy", "mean reward", "exact match", "right tools", "argument F1"];

fn cells(numbers: &Numbers) -> Vec<String> {
    vec![
        numbers.rows.to_string(),
        share(numbers.accuracy),
        mean(numbers.reward),
        share(numbers.exact),
        share(numbers.tool_names),
        share(numbers.argument_f1),
    ]
}

fn overview(text: &mut String, study: &Study) {
    let head: Vec<&str> = std::iter::once("model").chain(NUMBERS).collect();
    let row = |model: &ModelStudy| [vec![model.model.clone()], cells(&model.all)].concat();
    table(text, &head, study.models.iter().map(row).collect());
    line(
        text,
        "Accuracy is the share with the full reward; exact match the share that `tool-call` gives 1.0. Right tools and \
         argument F1 are of rows that want calls.",
    );
}

fn compared(text: &mut String, first: &str, comparison: &Comparison) {
    line(text, &format!("## {} against {first}", comparison.model));
    let row = |name: &str, found: Option<Difference>, percent: bool| {
        let found = found?;
        let [low, high] = found.change.interval;
        let change = match percent {
            true => format!(
                "{:+.1} points [{:+.1}, {:+.1}]",
                100.0 * found.change.value,
                100.0 * low,
                100.0 * high
            ),
            false => format!("{:+.3} [{low:+.3}, {high:+.3}]", found.change.value),
        };
        Some(vec![name.to_owned(), change, p_value(found.p)])
    };
    let rows =
        [row("accuracy", comparison.accuracy, true), row("mean reward", comparison.reward, false)];
    table(text, &["", "change", "p (paired bootstrap)"], rows.into_iter().flatten().collect());
    if let (Some([one, two]), Some(p)) = (comparison.only_right, comparison.mcnemar) {
        let found = format!(
            "Right in {first} alone: {one} rows; in {} alone: {two}. McNemar's exact p = {}.",
            comparison.model,
            p_value(p)
        );
        line(text, &found);
    }
    if let Some(p) = comparison.p {
        line(
            text,
            &format!("After Holm's correction for the number of comparisons: p = {}.", p_value(p)),
        );
    }
}

fn of_model(text: &mut String, model: &ModelStudy) {
    line(text, &format!("## {}", model.model));
    if !model.suite.is_empty() {
        let row = |score: &super::suite::SuiteScore| {
            vec![score.name.to_owned(), format!("{:.2}%", 100.0 * score.accuracy)]
        };
        table(
            text,
            &["the leaderboard's total", "accuracy"],
            model.suite.iter().map(row).collect(),
        );
    }
    if !model.pass_at.is_empty() {
        line(text, "### At least one of k completions right (pass@k)");
        let row = |pass: &super::study::PassAt| vec![pass.k.to_string(), share(Some(pass.chance))];
        table(text, &["k", "pass@k"], model.pass_at.iter().map(row).collect());
    }
    line(text, "### Wanted and done");
    let head: Vec<&str> = std::iter::once("wanted").chain(Deed::ALL.map(Deed::name)).collect();
    let row = |(wanted, counts): &(&str, [usize; 6])| {
        let counts = counts.iter().map(usize::to_string);
        std::iter::once((*wanted).to_owned()).chain(counts).collect()
    };
    table(text, &head, model.confusion.wanted.iter().map(row).collect());
    for facet in &model.facets {
        line(text, &format!("### {}", facet.title));
        let head: Vec<&str> = std::iter::once("").chain(NUMBERS).collect();
        let row =
            |(name, numbers): &(String, Numbers)| [vec![name.clone()], cells(numbers)].concat();
        table(text, &head, facet.groups.iter().map(row).collect());
    }
    if !model.argument_types.is_empty() {
        line(text, "### Arguments by type");
        let row = |(kind, wanted, right): &(String, usize, Estimate)| {
            vec![kind.clone(), wanted.to_string(), share(Some(*right))]
        };
        table(text, &["type", "wanted", "right"], model.argument_types.iter().map(row).collect());
    }
    if !model.places.is_empty() {
        line(text, "### Places of tools");
        let row = |place: &super::study::Place| {
            vec![place.place.to_string(), place.wanted.to_string(), place.called.to_string()]
        };
        table(
            text,
            &["place among several", "wanted", "called first"],
            model.places.iter().map(row).collect(),
        );
    }
}

/// A share and its interval in percent; a dash where there is none.
pub fn share(estimate: Option<Estimate>) -> String {
    estimate.map_or("-".to_owned(), |estimate| {
        let [low, high] = estimate.interval.map(|end| 100.0 * end);
        format!("{:.1}% [{low:.1}, {high:.1}]", 100.0 * estimate.value)
    })
}

fn mean(estimate: Option<Estimate>) -> String {
    estimate.map_or("-".to_owned(), |estimate| {
        let [low, high] = estimate.interval;
        format!("{:.3} [{low:.3}, {high:.3}]", estimate.value)
    })
}

/// A p-value with as many digits as mean anything.
pub fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}
