//! By what the rows of an evaluation are put into groups.
//!
//! Invariant: a group depends on the row and its prompt's length alone, so every model is judged on the same groups.

use octet_dataset::{Example, Tool};
use octet_reward_service::measure::wanted;
use serde_json::Value;

/// A way to group rows.
pub struct Facet {
    /// Its key in JSON and its plot's file name.
    pub key: &'static str,
    /// Its heading.
    pub title: &'static str,
    group: fn(&Row) -> Option<Group>,
}

/// A group: where it stands in its table, and its name.
pub type Group = (usize, String);

/// What facets look at.
pub struct Row<'a> {
    example: &'a Example,
    tools: Vec<Tool>,
    prompt_tokens: usize,
}

impl<'a> Row<'a> {
    /// A row whose prompt has this many tokens.
    pub fn new(example: &'a Example, prompt_tokens: usize) -> Self {
        let tools = example.tools.iter().filter_map(|tool| Tool::from_value(tool, "tools").ok());
        Self { example, tools: tools.collect(), prompt_tokens }
    }

    fn extra(&self, key: &str) -> Option<Group> {
        Some((0, self.example.extra_info.get(key)?.as_str()?.to_owned()))
    }
}

/// All facets, in the order of a report.
pub const FACETS: [Facet; 9] = [
    Facet {
        key: "behaviour",
        title: "What the row wants",
        group: |row| {
            let behaviour = row.example.behaviour();
            Some((behaviour as usize, behaviour.name().to_owned()))
        },
    },
    Facet { key: "category", title: "Category", group: |row| row.extra("category") },
    Facet {
        key: "tools_offered",
        title: "Tools offered",
        group: |row| Some(bucket(row.tools.len(), &[0, 1, 2, 3, 4, 6, 10])),
    },
    Facet {
        key: "wanted_place",
        title: "Place of the wanted tool among several",
        group: |row| {
            let place = place(row)?;
            Some(match place {
                0 => (0, "first".to_owned()),
                place if place + 1 == row.tools.len() => (2, "last".to_owned()),
                _ => (1, "between".to_owned()),
            })
        },
    },
    Facet {
        key: "schema_parameters",
        title: "Parameters in all schemas, at any depth",
        group: |row| {
            let count = row.tools.iter().map(|tool| size(&tool.parameters).0).sum();
            Some(bucket(count, &[0, 1, 4, 8, 16, 32, 64]))
        },
    },
    Facet {
        key: "schema_depth",
        title: "Depth of the deepest schema",
        group: |row| {
            let depth = row.tools.iter().map(|tool| size(&tool.parameters).1).max()?;
            Some(bucket(depth, &[0, 1, 2, 3]))
        },
    },
    Facet {
        key: "prompt_tokens",
        title: "Prompt length in tokens",
        group: |row| Some(bucket(row.prompt_tokens, &[0, 64, 128, 256, 512, 1024, 2048, 4096])),
    },
    Facet {
        key: "calls_wanted",
        title: "Calls wanted",
        group: |row| Some(bucket(wanted(&row.example.ground_truth)?.len(), &[1, 2, 3, 4])),
    },
    Facet { key: "phrasing", title: "Phrasing", group: |row| row.extra("style") },
];

impl Facet {
    /// The row's group; none if the facet says nothing of it.
    pub fn group(&self, row: &Row) -> Option<Group> {
        (self.group)(row)
    }
}

/// Where the one wanted tool stands among several offered, from 0.
fn place(row: &Row) -> Option<usize> {
    let calls = wanted(&row.example.ground_truth)?;
    let [call] = calls.as_slice() else { return None };
    let place = row.tools.iter().position(|tool| tool.name == call.name)?;
    (row.tools.len() > 1).then_some(place)
}

/// The bucket between two edges that a number falls into; the last has no end.
fn bucket(number: usize, edges: &[usize]) -> Group {
    let at = edges.iter().rposition(|edge| *edge <= number).unwrap_or_default();
    let from = edges.get(at).copied().unwrap_or_default();
    let name = match edges.get(at + 1) {
        None => format!("{from}+"),
        Some(next) if next - from == 1 => from.to_string(),
        Some(next) => format!("{from}-{}", next - 1),
    };
    (at, name)
}

/// How many parameters a schema has at any depth, and how deep they lie.
fn size(schema: &serde_json::Map<String, Value>) -> (usize, usize) {
    // Schemas come from files: one that never ends in depth must not end the process.
    fn within(schema: &serde_json::Map<String, Value>, left: usize) -> (usize, usize) {
        let (mut count, mut depth) = (0, 0);
        if left == 0 {
            return (count, depth);
        }
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        for (_, property) in properties {
            let inner = property.as_object().map_or((0, 0), |schema| within(schema, left - 1));
            count += 1 + inner.0;
            depth = depth.max(1 + inner.1);
        }
        if let Some(items) = schema.get("items").and_then(Value::as_object) {
            let inner = within(items, left - 1);
            count += inner.0;
            depth = depth.max(inner.1);
        }
        (count, depth)
    }
    within(schema, 64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_fall_into_buckets() {
        let edges = [0, 1, 4, 8];
        for (number, name) in [(0, "0"), (1, "1-3"), (3, "1-3"), (4, "4-7"), (8, "8+"), (99, "8+")]
        {
            assert_eq!(bucket(number, &edges).1, name);
        }
    }

    #[test]
    fn groups_of_a_row() {
        let tool = |name: &str| {
            json!({"name": name, "parameters": {"properties": {
                "a": {"type": "string"},
                "l": {"type": "array", "items": {"type": "object", "properties": {"x": {}, "y": {}}}}}}})
        };
        let example = Example::from_value(json!({
            "prompt": [{"role": "user", "content": "x"}],
            "tools": [tool("f"), tool("g"), tool("h")],
            "reward_model": {"ground_truth": {"tool_call": {"name": "g", "parameters": {}}}},
            "extra_info": {"style": "terse"}}))
        .unwrap();
        let row = Row::new(&example, 300);
        let groups: Vec<_> =
            FACETS.iter().filter_map(|f| Some((f.key, f.group(&row)?.1))).collect();
        let wanted = [
            ("behaviour", "execute"),
            ("tools_offered", "3"),
            ("wanted_place", "between"),
            ("schema_parameters", "8-15"),
            ("schema_depth", "2"),
            ("prompt_tokens", "256-511"),
            ("calls_wanted", "1"),
            ("phrasing", "terse"),
        ];
        assert_eq!(groups, wanted.map(|(key, name)| (key, name.to_owned())));
    }
}
