//! What a data set consists of, in numbers.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::example::Example;
use crate::tool::Tool;
use crate::truth::{Behaviour, GroundTruth};

/// Counts over the rows of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statistics {
    /// How many rows.
    pub rows: usize,
    /// Rows by behaviour.
    pub behaviours: BTreeMap<Behaviour, usize>,
    /// Rows by `extra_info.style`.
    pub styles: BTreeMap<String, usize>,
    /// Rows by `extra_info.domain`.
    pub domains: BTreeMap<String, usize>,
    /// Rows by the number of tools offered.
    pub tools_offered: BTreeMap<usize, usize>,
    /// How many tools of different names there are.
    pub tools: usize,
    /// Parameters of different tools by type; a string with choices counts as `enum`.
    pub parameters: BTreeMap<String, usize>,
    /// How many of those a call may leave out.
    pub optional_parameters: usize,
    /// Calls of all ground truths.
    pub calls: usize,
    /// Characters of messages and tool schemas: the least, the sum, the most.
    pub prompt_chars: [usize; 3],
}

impl Statistics {
    /// Counts these rows.
    pub fn of(rows: &[Example]) -> Self {
        let mut statistics = Statistics { rows: rows.len(), ..Statistics::default() };
        let mut tools: BTreeMap<String, Tool> = BTreeMap::new();
        for row in rows {
            *statistics.behaviours.entry(row.behaviour()).or_default() += 1;
            *statistics.tools_offered.entry(row.tools.len()).or_default() += 1;
            for (key, counts) in
                [("style", &mut statistics.styles), ("domain", &mut statistics.domains)]
            {
                if let Some(name) = row.extra_info.get(key).and_then(Value::as_str) {
                    *counts.entry(name.to_owned()).or_default() += 1;
                }
            }
            statistics.calls += match &row.ground_truth {
                GroundTruth::Calls(calls) => calls.len(),
                GroundTruth::Possible(calls) => calls.len(),
                GroundTruth::Clarify { .. } | GroundTruth::Refuse | GroundTruth::Text(_) => 0,
            };
            for tool in row.tools.iter().filter_map(|value| Tool::from_value(value, "tool").ok()) {
                tools.entry(tool.name.clone()).or_insert(tool);
            }
            statistics.count_chars(row);
        }
        statistics.tools = tools.len();
        for tool in tools.values() {
            statistics.count_parameters(tool);
        }
        statistics
    }

    fn count_chars(&mut self, row: &Example) {
        let messages = row.prompt.iter().filter_map(|message| message.content.as_deref());
        let chars = messages.map(|text| text.chars().count()).sum::<usize>()
            + row.tools.iter().map(|tool| tool.to_string().chars().count()).sum::<usize>();
        let [least, sum, most] = self.prompt_chars;
        let least = if sum == 0 { chars } else { least.min(chars) };
        self.prompt_chars = [least, sum + chars, most.max(chars)];
    }

    fn count_parameters(&mut self, tool: &Tool) {
        let required: Vec<&str> = tool.required().collect();
        for (name, schema) in tool.properties() {
            let kind = match schema.get("type") {
                _ if schema.get("enum").is_some() => "enum".to_owned(),
                Some(Value::String(kind)) => kind.clone(),
                Some(other) => other.to_string(),
                None => "any".to_owned(),
            };
            *self.parameters.entry(kind).or_default() += 1;
            if !required.contains(&name.as_str()) {
                self.optional_parameters += 1;
            }
        }
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn counts<K: fmt::Display>(counts: &BTreeMap<K, usize>) -> String {
            let counts: Vec<String> = counts.iter().map(|(k, n)| format!("{k} {n}")).collect();
            if counts.is_empty() { "not said".to_owned() } else { counts.join(", ") }
        }
        let [least, sum, most] = self.prompt_chars;
        let mean = sum.checked_div(self.rows).unwrap_or_default();
        let offered: usize = self.tools_offered.iter().map(|(tools, rows)| tools * rows).sum();
        let offered = offered as f64 / self.rows.max(1) as f64;
        let behaviours: Vec<String> = self
            .behaviours
            .iter()
            .map(|(name, &n)| format!("{name} {n} ({:.0} %)", 100.0 * n as f64 / self.rows as f64))
            .collect();
        for (name, text) in [
            ("rows", self.rows.to_string()),
            ("behaviours", behaviours.join(", ")),
            ("phrasing", counts(&self.styles)),
            ("domains", counts(&self.domains)),
            ("tools", format!("{} of different names", self.tools)),
            (
                "offered",
                format!("{offered:.1} a row; rows by number: {}", counts(&self.tools_offered)),
            ),
            (
                "parameters",
                format!("{}; optional {}", counts(&self.parameters), self.optional_parameters),
            ),
            ("calls", self.calls.to_string()),
            ("prompt", format!("{mean} characters (from {least} to {most})")),
        ] {
            writeln!(f, "{name:<12}{text}")?;
        }
        Ok(())
    }
}
