//! The table of all keys in `docs/configuration.md`, made of the types that a recipe is read into.
//!
//! Invariant: the page shows every key with its default and what its field's documentation says;
//! `OCTET_WRITE_DOCS=1 cargo test -p octet keys` writes it anew.

use super::{Recipe, Weights};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const SOURCES: [&str; 3] = [
    include_str!("../recipe.rs"),
    include_str!("../../../learner/src/config.rs"),
    include_str!("../../../tracking/src/config.rs"),
];
const MARKS: (&str, &str) = ("<!-- keys: begin -->\n", "<!-- keys: end -->");

/// A field: its name, its type, and what is said of it.
struct Field {
    name: String,
    kind: String,
    about: String,
}

/// The fields of every struct of the sources, by the struct's name.
fn structs() -> BTreeMap<String, Vec<Field>> {
    let mut all: BTreeMap<String, Vec<Field>> = BTreeMap::new();
    for source in SOURCES {
        let mut here: BTreeMap<String, Vec<Field>> = BTreeMap::new();
        let (mut inside, mut about) = (None, Vec::new());
        for line in source.lines() {
            let text = line.trim();
            if let Some(said) = text.strip_prefix("/// ") {
                about.push(said.to_owned());
            } else if let Some(rest) = line.strip_prefix("pub struct ") {
                inside = rest.split([' ', '(', '<']).next().map(str::to_owned);
                about.clear();
            } else if line == "}" {
                inside = None;
            } else if let (Some(name), Some(rest)) = (&inside, text.strip_prefix("pub ")) {
                if let Some((field, kind)) = rest.trim_end_matches(',').split_once(": ") {
                    let kind = kind.rsplit("::").next().unwrap_or(kind).to_owned();
                    let about = std::mem::take(&mut about).join(" ");
                    let field = Field { name: field.to_owned(), kind, about };
                    here.entry(name.clone()).or_default().push(field);
                }
            } else if !text.starts_with("#[") {
                about.clear();
            }
        }
        // The recipe's file comes first: what others call the same is not what is written.
        for (name, fields) in here {
            all.entry(name).or_insert(fields);
        }
    }
    all
}

fn table() -> String {
    let structs = structs();
    let mut defaults = json!(Recipe::default());
    // What a recipe leaves out where it says nothing.
    defaults["weights"] = json!(Weights::default());
    defaults["reward"]["schedule"] = json!([]);
    let mut text = String::new();
    for section in &structs["Recipe"] {
        // `[tracking]` and `[learner]` are of other crates, where the type has another name.
        let kind = if section.name == "tracking" { "Config" } else { section.kind.as_str() };
        let _ = write!(text, "\n### `[{}]`\n\n{}\n\n", section.name, section.about);
        text.push_str("| key | default | meaning |\n|---|---|---|\n");
        for field in &structs[kind] {
            let default = match &defaults[&section.name][&field.name] {
                Value::Null => "none".to_owned(),
                value => format!("`{value}`"),
            };
            let about = field.about.replace('|', "\\|");
            let _ = writeln!(text, "| `{}` | {default} | {about} |", field.name);
        }
    }
    text.push('\n');
    text
}

#[test]
fn the_page_lists_all_keys() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = std::fs::read_to_string(&page).expect("docs/configuration.md");
    let (before, rest) = text.split_once(MARKS.0).expect("the mark where the table begins");
    let (found, after) = rest.split_once(MARKS.1).expect("the mark where the table ends");
    let expected = table();
    for section in ["run", "learner", "tracking", "weights"] {
        assert!(expected.contains(&format!("### `[{section}]`")), "{section} is in the table");
    }
    if std::env::var_os("OCTET_WRITE_DOCS").is_some() {
        let text = format!("{before}{}{expected}{}{after}", MARKS.0, MARKS.1);
        std::fs::write(&page, text).expect("write docs/configuration.md");
        return;
    }
    assert!(
        found == expected,
        "docs/configuration.md does not list the keys of this version; \
         run OCTET_WRITE_DOCS=1 cargo test -p octet keys"
    );
}
