//! What was found, as a table for people and as JSON lines for programs.
//!
//! Invariant: both are made of the same readings, and a reading's unit follows from its name: the last part
//! of `sampling.decode.tokens` is a [`Quantity`].

use serde_json::{Map, Value, json};
use std::fmt;
use std::time::Duration;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Seconds of the whole work, the median of all repetitions.
    Seconds,
    /// Tokens a second.
    Tokens,
    /// Necessary floating-point operations a second, in 10⁹.
    Flops,
    /// The same as a share of the machine's own matrix-product speed.
    Share,
    /// Bytes a second, in 10⁹.
    Bandwidth,
    /// The same as a share of the machine's memory bandwidth.
    BandwidthShare,
    /// The most memory that was resident.
    Peak,
    /// The memory that was planned for.
    Planned,
    /// Seconds that the cost model expects.
    Predicted,
    /// How far off the cost model is.
    Difference,
}

/// One number.
#[derive(Clone, Debug)]
pub struct Reading {
    item: &'static str,
    quantity: Quantity,
    value: f64,
    label: Option<String>,
    conditions: Map<String, Value>,
}

/// What a part of the bench found.
#[derive(Clone, Debug)]
pub struct Findings {
    part: &'static str,
    headline: String,
    conditions: Map<String, Value>,
    readings: Vec<Reading>,
}

/// The seconds of repetitions of the same work.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Quantity {
    /// The last part of a reading's name, and its unit.
    fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Seconds => ("seconds", "s"),
            Self::Tokens => ("tokens", "tokens/s"),
            Self::Flops => ("flops", "GFLOP/s"),
            Self::Share => ("share", "%"),
            Self::Bandwidth => ("bandwidth", "GB/s"),
            Self::BandwidthShare => ("bandwidth_share", "%"),
            Self::Peak => ("peak", "MiB"),
            Self::Planned => ("planned", "MiB"),
            Self::Predicted => ("predicted", "s"),
            Self::Difference => ("difference", "%"),
        }
    }
}

impl Findings {
    /// Nothing found yet by `part`.
    pub fn new(part: &'static str, headline: String, conditions: Map<String, Value>) -> Self {
        Self { part, headline, conditions, readings: Vec::new() }
    }

    /// A number.
    pub fn add(&mut self, item: &'static str, quantity: Quantity, value: f64) {
        self.add_under(item, quantity, value, None, Map::new());
    }

    /// The median of repetitions, which stand in the conditions.
    pub fn time(&mut self, item: &'static str, samples: &Samples) {
        let mut conditions = Map::new();
        conditions.insert("samples".into(), json!(samples.0));
        self.add_under(item, Quantity::Seconds, samples.median(), None, conditions);
    }

    /// A number with conditions of its own, in the table's row `label`.
    pub fn add_under(
        &mut self,
        item: &'static str,
        quantity: Quantity,
        value: f64,
        label: Option<String>,
        conditions: Map<String, Value>,
    ) {
        self.readings.push(Reading { item, quantity, value, label, conditions });
    }

    /// A condition of all readings.
    pub fn condition(&mut self, name: &str, value: Value) {
        self.conditions.insert(name.into(), value);
    }

    /// Operations in `seconds`, also as a share of the machine's `gflops`.
    pub fn flops(&mut self, item: &'static str, operations: f64, seconds: f64, gflops: f64) {
        let found = operations / seconds / 1e9;
        self.add(item, Quantity::Flops, found);
        self.add(item, Quantity::Share, 100.0 * found / gflops);
    }

    /// The most memory that was resident, where the system says it, and what was planned.
    pub fn memory(&mut self, peak: Option<u64>, planned: u64) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        if let Some(peak) = peak {
            self.add("memory", Quantity::Peak, mib(peak));
        }
        self.add("memory", Quantity::Planned, mib(planned));
    }

    /// One JSON object a reading; `common` holds for the whole bench.
    pub fn lines(&self, common: &Map<String, Value>) -> Vec<String> {
        let line = |reading: &Reading| {
            let (name, unit) = reading.quantity.name();
            let mut conditions = common.clone();
            conditions.extend(self.conditions.clone());
            conditions.extend(reading.conditions.clone());
            let line = json!({
                "name": format!("{}.{}.{name}", self.part, reading.item),
                "value": reading.value,
                "unit": unit,
                "conditions": conditions,
            });
            line.to_string()
        };
        self.readings.iter().map(line).collect()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.part)?;
        if !self.headline.is_empty() {
            write!(f, "  {}", self.headline)?;
        }
        let mut row = "";
        for reading in &self.readings {
            let label = reading.label.as_deref().unwrap_or(reading.item);
            if label != row {
                write!(f, "\n  {:<14}", label.replace('_', " "))?;
                row = label;
            }
            write!(f, "{reading}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value;
        match self.quantity {
            Quantity::Seconds => write!(f, "  {value:>9.3} s"),
            Quantity::Tokens => write!(f, "  {value:>8.0} tokens/s"),
            Quantity::Flops => write!(f, "  {value:>7.1} GFLOP/s"),
            Quantity::Share => write!(f, "  {value:>3.0} % of the machine's"),
            Quantity::Bandwidth => write!(f, "  {value:>6.2} GB/s"),
            Quantity::BandwidthShare => write!(f, "  {value:>3.0} % of its memory's"),
            Quantity::Peak => write!(f, "  {value:>9.0} MiB at most"),
            Quantity::Planned => write!(f, "  {value:>9.0} MiB planned"),
            Quantity::Predicted => write!(f, "  {value:>9.3} s predicted"),
            Quantity::Difference => write!(f, "  {value:>+5.1} %"),
        }
    }
}

impl Samples {
    /// One more repetition.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64());
    }

    /// The middle one, or the mean of the two in the middle; 0 of none.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.get(middle) {
            None => 0.0,
            Some(upper) if sorted.len() % 2 == 1 => *upper,
            Some(upper) => (sorted[middle - 1] + upper) / 2.0,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let of = |values: &[f64]| Samples(values.to_vec()).median();
        assert_eq!(of(&[]), 0.0);
        assert_eq!(of(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn a_line_has_name_value_unit_and_all_conditions() {
        let mut found = Findings::new("learning", "2 groups".into(), Map::new());
        found.condition("groups", json!(2));
        found.flops("update", 3e9, 2.0, 6.0);
        let mut common = Map::new();
        common.insert("threads".into(), json!(2));
        let lines = found.lines(&common);
        assert_eq!(
            lines,
            [
                r#"{"name":"learning.update.flops","value":1.5,"unit":"GFLOP/s","conditions":{"threads":2,"groups":2}}"#,
                r#"{"name":"learning.update.share","value":25.0,"unit":"%","conditions":{"threads":2,"groups":2}}"#,
            ]
        );
        let table = found.to_string();
        assert!(table.starts_with("learning  2 groups\n  update"), "{table}");
        assert!(table.ends_with("1.5 GFLOP/s   25 % of the machine's"), "{table}");
    }
}
