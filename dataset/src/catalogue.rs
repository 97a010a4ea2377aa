//! The catalogue of tools, read from the embedded files in `catalogue/`.
//!
//! Invariant: training and held-out share no tool name, parameter name or domain.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::draw::Draw;
use crate::lexicon::{listed, made_up, open, open_name};
use crate::value::{Class, Derivation, Kind, Said, person};

/// A parameter, as the generator knows it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterPlan {
    /// The name in the schema.
    pub name: String,
    /// What its values look like.
    #[serde(default = "choice")]
    pub kind: Kind,
    /// The values of a [`Kind::Choice`].
    #[serde(default)]
    pub choices: Vec<String>,
    /// Other words for choices.
    #[serde(default)]
    pub synonyms: BTreeMap<String, String>,
    /// How a value is worked into a sentence; `{}` stands for it.
    pub said: Option<String>,
    /// How true is worked into a sentence.
    pub yes: Option<String>,
    /// How false is.
    pub no: Option<String>,
    /// The description in the schema, where the kind's own does not do.
    pub about: Option<String>,
    /// Whether a call may leave it out.
    #[serde(default)]
    pub optional: bool,
}

fn choice() -> Kind {
    Kind::Choice
}

/// A tool, as the generator knows it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolPlan {
    /// The name in the schema.
    pub name: String,
    /// The domain, filled in from the table that the tool stands in.
    #[serde(skip)]
    pub domain: String,
    /// Domains whose tools might serve a request for this one.
    #[serde(skip)]
    pub near: Vec<String>,
    /// The description in the schema.
    pub about: String,
    /// What people say when they want it.
    pub ask: Vec<String>,
    /// The parameters, in the schema's order.
    pub params: Vec<ParameterPlan>,
}

impl ParameterPlan {
    /// The name as words.
    pub fn words(&self) -> String {
        self.name.replace('_', " ")
    }

    pub(crate) fn draw(&self, draw: &mut Draw) -> Said {
        if self.kind != Kind::Choice {
            return self.kind.draw(draw);
        }
        let choice = draw.pick(&self.choices);
        let synonym = self.synonyms.get(choice).filter(|_| draw.chance(50));
        Said {
            text: synonym.unwrap_or(choice).clone(),
            value: json!(choice),
            derivation: Derivation::Chosen,
        }
    }

    fn schema(&self) -> Value {
        let mut schema = Map::new();
        schema.insert("type".into(), self.kind.json_type().into());
        if let Some(item) = self.kind.item() {
            schema.insert("items".into(), json!({"type": item.json_type()}));
        }
        if !self.choices.is_empty() {
            schema.insert("enum".into(), json!(self.choices));
        }
        if let Some(about) = self.about.as_deref().or(self.kind.about()) {
            schema.insert("description".into(), about.into());
        }
        Value::Object(schema)
    }
}

impl ToolPlan {
    /// The tool's schema, in the OpenAI form.
    pub fn schema(&self) -> Value {
        let properties: Map<String, Value> =
            self.params.iter().map(|p| (p.name.clone(), p.schema())).collect();
        let required: Vec<&str> =
            self.params.iter().filter(|p| !p.optional).map(|p| p.name.as_str()).collect();
        json!({"type": "function", "function": {
            "name": self.name,
            "description": self.about,
            "parameters": {"type": "object", "properties": properties, "required": required},
        }})
    }

    /// Whether this tool might serve a request for that one.
    pub(crate) fn is_near(&self, other: &ToolPlan) -> bool {
        self.domain == other.domain
            || self.near.contains(&other.domain)
            || other.near.contains(&self.domain)
    }

    /// Whether the value of a parameter can be told from all others of this tool without a cue.
    pub(crate) fn speaks_for_itself(&self, index: usize) -> bool {
        let kind = self.params[index].kind;
        let same = self.params.iter().filter(|p| p.kind.class() == kind.class()).count();
        kind.class() != Class::Flag && kind.item().is_none() && same == 1
    }
}

/// The tools and refusable requests of one split.
#[derive(Debug)]
pub struct Catalogue {
    /// The tools, in the files' order.
    pub tools: Vec<ToolPlan>,
    refusals: Refusals,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusals {
    harmful: Vec<String>,
    harmful_with_a_tool: Vec<String>,
    unserved: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Domains {
    domain: Vec<Domain>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Domain {
    name: String,
    #[serde(default)]
    near: Vec<String>,
    tool: Vec<ToolPlan>,
}

static TRAINING: LazyLock<Catalogue> = LazyLock::new(|| {
    Catalogue::read("training", "training.toml", include_str!("../catalogue/training.toml"))
});
static HELD_OUT: LazyLock<Catalogue> = LazyLock::new(|| {
    Catalogue::read("held_out", "held_out.toml", include_str!("../catalogue/held_out.toml"))
});

impl Catalogue {
    /// The training tools.
    pub fn training() -> &'static Catalogue {
        &TRAINING
    }

    /// The tools that training never sees.
    pub fn held_out() -> &'static Catalogue {
        &HELD_OUT
    }

    fn read(split: &str, file: &str, text: &str) -> Self {
        let refusals = include_str!("../catalogue/refusals.toml");
        let refusals: BTreeMap<String, Refusals> = embedded("refusals.toml", refusals);
        let domains: Domains = embedded(file, text);
        let tools = domains.domain.into_iter().flat_map(|domain| {
            let Domain { name, near, tool } = domain;
            tool.into_iter().map(move |tool| ToolPlan {
                domain: name.clone(),
                near: near.clone(),
                ..tool
            })
        });
        Catalogue { tools: tools.collect(), refusals: refusals[split].clone() }
    }

    pub(crate) fn harmful(&self, draw: &mut Draw) -> String {
        let template = draw.pick(&self.refusals.harmful);
        filled(template, draw)
    }

    pub(crate) fn harmful_end(&self, draw: &mut Draw) -> String {
        let template = draw.pick(&self.refusals.harmful_with_a_tool);
        filled(template, draw)
    }

    pub(crate) fn unserved(&self, draw: &mut Draw) -> String {
        let template = draw.pick(&self.refusals.unserved);
        filled(template, draw)
    }
}

fn filled(template: &str, draw: &mut Draw) -> String {
    let mut text = template.to_owned();
    for slot in ["{person}", "{company}", "{city}", "{topic}", "{product}"] {
        if text.contains(slot) {
            let word = match slot {
                "{person}" => person(draw),
                "{company}" => open_name("companies", draw),
                "{city}" => open_name("cities", draw),
                "{topic}" => open("topics", draw),
                _ => {
                    if draw.chance(50) {
                        listed("products", draw)
                    } else {
                        made_up(draw)
                    }
                }
            };
            text = text.replace(slot, &word);
        }
    }
    text
}

/// Reads a file that is part of the program. The tests read every one, so a fault is found there.
pub(crate) fn embedded<T: DeserializeOwned>(file: &str, text: &str) -> T {
    match toml::from_str(text) {
        Ok(value) => value,
        Err(error) => panic!("expected dataset/catalogue/{file} to be well formed: {error}"),
    }
}
