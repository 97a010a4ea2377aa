//! Invented tools: an open vocabulary of names, parameters and descriptions.
//!
//! Invariant: no invented tool has the name of a catalogue tool, nor a parameter that the held-out
//! tools have; tools of different domains share no word of their names.

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use super::cues::cue;
use super::words::{invented as pseudo_word, known, recurring};
use crate::catalogue::{Catalogue, ParameterPlan, ToolPlan};
use crate::draw::Draw;
use crate::lexicon::{capital, listed};
use crate::value::{Class, Kind};

static TOOL_NAMES: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let both = [Catalogue::training(), Catalogue::held_out()];
    both.iter().flat_map(|c| &c.tools).map(|tool| tool.name.as_str()).collect()
});
static HELD_OUT_PARAMETERS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let tools = &Catalogue::held_out().tools;
    tools.iter().flat_map(|tool| &tool.params).map(|param| param.name.as_str()).collect()
});

/// Kinds of invented parameters, with weights that keep most values copied.
const KINDS: [(Kind, usize); 27] = [
    (Kind::Person, 6),
    (Kind::City, 6),
    (Kind::Company, 4),
    (Kind::Product, 3),
    (Kind::Topic, 3),
    (Kind::Place, 5),
    (Kind::Title, 5),
    (Kind::Note, 3),
    (Kind::Word, 10),
    (Kind::Address, 4),
    (Kind::Email, 4),
    (Kind::Path, 4),
    (Kind::Id, 5),
    (Kind::Code, 5),
    (Kind::Phone, 2),
    (Kind::Date, 12),
    (Kind::Time, 5),
    (Kind::Minutes, 6),
    (Kind::Count, 10),
    (Kind::Amount, 6),
    (Kind::Price, 5),
    (Kind::Decimal, 4),
    (Kind::Flag, 8),
    (Kind::Choice, 10),
    (Kind::Words, 4),
    (Kind::People, 2),
    (Kind::Counts, 3),
];
/// Kinds of a parameter that has the name of the thing itself: `rate_song(song, …)`.
const NAMESAKES: [Kind; 8] = [
    Kind::Person,
    Kind::Person,
    Kind::Place,
    Kind::Company,
    Kind::Title,
    Kind::Word,
    Kind::Product,
    Kind::Id,
];
const RARE_KINDS: [Kind; 8] = [
    Kind::Grams,
    Kind::Metres,
    Kind::Days,
    Kind::Percent,
    Kind::Year,
    Kind::Country,
    Kind::Emails,
    Kind::Codes,
];

/// Shares of what is invented: see [`super::ColdStartSpec`].
#[derive(Clone, Copy)]
pub(super) struct Shares {
    pub made_up: f64,
    pub natural: f64,
    pub namesakes: f64,
}

/// A few tools in at least two domains; more of them, with more parameters, at a higher level.
pub(super) fn pool(level: f64, shares: Shares, draw: &mut Draw) -> Vec<ToolPlan> {
    let size = 2 + (level * 6.0).round() as usize;
    let domains = if size < 5 { 2 } else { 3 };
    let mut words = Words { used: HashSet::new(), shares };
    let themes: Vec<Theme> = (0..domains).map(|_| Theme::draw(&mut words, draw)).collect();
    let mut tools: Vec<ToolPlan> = Vec::with_capacity(size);
    for index in 0..size {
        tools.push(tool(&themes[index % domains], index % domains, level, &mut words, draw));
    }
    tools
}

/// Draws words, each at most once.
struct Words {
    used: HashSet<String>,
    shares: Shares,
}

/// How many invented words, in a hundred, have a beginning that comes again, where there are namesakes.
const RECURRING: usize = 15;

impl Words {
    fn fresh(&mut self, list: &str, draw: &mut Draw) -> String {
        loop {
            let word = if draw.fraction(self.shares.made_up) {
                if self.shares.namesakes > 0.0 && draw.chance(RECURRING) {
                    recurring(draw)
                } else {
                    pseudo_word(draw)
                }
            } else if list == "choice_words" {
                listed(list, draw)
            } else {
                known(list, draw)
            };
            if self.used.insert(word.clone()) {
                return word;
            }
        }
    }
}

/// What the tools of a domain have in common.
enum Theme {
    /// get_lamp, delete_lamp
    Noun(String),
    /// find_lamp, find_harbor
    Verb(String),
    /// Nothing.
    Open,
}

impl Theme {
    fn draw(words: &mut Words, draw: &mut Draw) -> Self {
        match draw.below(3) {
            0 => Theme::Noun(words.fresh("nouns", draw)),
            1 => Theme::Verb(words.fresh("verbs", draw)),
            _ => Theme::Open,
        }
    }
}

fn tool(theme: &Theme, domain: usize, level: f64, words: &mut Words, draw: &mut Draw) -> ToolPlan {
    loop {
        let (verb, noun) = match theme {
            Theme::Noun(noun) => (words.fresh("verbs", draw), noun.clone()),
            Theme::Verb(verb) => (verb.clone(), words.fresh("nouns", draw)),
            Theme::Open => (words.fresh("verbs", draw), words.fresh("nouns", draw)),
        };
        let adjective = draw.chance(25).then(|| words.fresh("adjectives", draw));
        let object = match &adjective {
            Some(adjective) => format!("{adjective} {noun}"),
            None => noun.clone(),
        };
        // "standard_deviation": a thing alone, asked for by a verb that many tools could have.
        let thing = adjective.is_some() && !matches!(theme, Theme::Verb(_)) && draw.chance(30);
        let (name, ask) = if thing {
            let verb = *draw.pick(&["get", "compute", "show", "find", "make"]);
            (object.replace(' ', "_"), vec![format!("{verb} the {object}")])
        } else {
            let name = format!("{verb} {object}").replace(' ', "_");
            let article = *draw.pick(&["a", "the", "my", ""]);
            let said = match theme {
                // What the tools of a domain have in common may be said otherwise; what tells them
                // apart may not.
                Theme::Noun(_) => paraphrase(Some(&verb), &object, words, draw),
                Theme::Verb(_) => paraphrase(None, &object, words, draw),
                Theme::Open if draw.chance(50) => paraphrase(Some(&verb), &object, words, draw),
                Theme::Open => paraphrase(None, &object, words, draw),
            };
            let said = if draw.chance(55) { format!("{verb} {article} {object}") } else { said };
            let plain = with_article(&said);
            (name, vec![plain, format!("{verb} {object}"), format!("{verb} this {object}")])
        };
        if TOOL_NAMES.contains(name.as_str()) {
            continue;
        }
        let about = with_article(&match draw.below(4) {
            _ if thing => format!("{} of a {}", capital(&object), listed("nouns", draw)),
            0 => format!("{} a {object}", capital(&verb)),
            1 => format!("{} the {object} of a {}", capital(&verb), listed("nouns", draw)),
            2 => format!("{} {object}", capital(&verb)),
            _ => format!("{} one {object} for a {}", capital(&verb), listed("nouns", draw)),
        });
        // No draw is made where there is nothing to choose: older corpora stay what they are.
        let namesake = words.shares.namesakes > 0.0 && draw.fraction(words.shares.namesakes);
        let namesake =
            Some(&noun).filter(|noun| namesake && !HELD_OUT_PARAMETERS.contains(noun.as_str()));
        let params = parameters(level, &name, namesake, words, draw);
        return ToolPlan {
            name,
            domain: format!("invented {domain}"),
            near: Vec::new(),
            about,
            ask,
            params,
        };
    }
}

/// A request in other words than the tool's name: the name has to be read in the schema. Without a verb
/// of the name, the object is said in full and another verb stands before it.
fn paraphrase(verb: Option<&str>, object: &str, words: &mut Words, draw: &mut Draw) -> String {
    let article = *draw.pick(&["a", "the", "my", ""]);
    let Some(verb) = verb else {
        let verb = match draw.below(3) {
            0 => words.fresh("verbs", draw),
            1 => "get".to_owned(),
            _ => listed("verbs", draw),
        };
        return format!("{verb} {article} {object}");
    };
    match draw.below(4) {
        0 => format!("{verb} {article} {object} {}", words.fresh("nouns", draw)),
        1 => format!("{verb} {article} {} {object}", words.fresh("nouns", draw)),
        2 => format!("{verb} {article} {}", words.fresh("nouns", draw)),
        _ => format!("get {article} {object} to {verb}"),
    }
}

/// The phrase with "an" before a vowel and no doubled blank.
fn with_article(phrase: &str) -> String {
    let mut phrase = phrase.replace("  ", " ");
    for vowel in ['a', 'e', 'i', 'o', 'u'] {
        phrase = phrase.replace(&format!(" a {vowel}"), &format!(" an {vowel}"));
    }
    phrase
}

/// `namesake`: the thing that the tool is for, where its first parameter has that name.
fn parameters(
    level: f64,
    tool: &str,
    namesake: Option<&String>,
    words: &mut Words,
    draw: &mut Draw,
) -> Vec<ParameterPlan> {
    let most = 2 + (level * 3.0).round() as usize;
    let count = (draw.weighted(&[22, 33, 25, 13, 7]) + 1).min(most);
    let mut kinds: Vec<Kind> = (0..count).map(|_| kind(draw)).collect();
    if namesake.is_some() {
        kinds[0] = *draw.pick(&NAMESAKES);
    }
    let mut params: Vec<ParameterPlan> = Vec::with_capacity(count);
    for (index, &kind) in kinds.iter().enumerate() {
        let thing = namesake.filter(|_| index == 0);
        let name = match thing {
            Some(thing) => thing.clone(),
            None => loop {
                let said: Vec<&str> = std::iter::once(tool)
                    .chain(params.iter().map(|param| param.name.as_str()))
                    .flat_map(|name| name.split('_'))
                    .collect();
                let name = parameter_name(kind, &said, words.shares.made_up, draw);
                let taken = params.iter().any(|param| param.name == name);
                if !taken && !HELD_OUT_PARAMETERS.contains(name.as_str()) {
                    break name;
                }
            },
        };
        let alone = kinds.iter().filter(|other| other.class() == kind.class()).count() == 1;
        let mut param = parameter(name, kind, alone, words, draw);
        if thing.is_some() {
            param.optional = false;
            // "call the plumber Ann Lee": the value stands right behind what it is.
            if alone && draw.chance(50) {
                param.said = Some("{}".to_owned());
            }
        }
        params.push(param);
    }
    if params.iter().all(|param| param.optional) {
        params[0].optional = false;
    }
    params
}

fn kind(draw: &mut Draw) -> Kind {
    if draw.chance(10) {
        return *draw.pick(&RARE_KINDS);
    }
    let weights = KINDS.map(|(_, weight)| weight);
    KINDS[draw.weighted(&weights)].0
}

/// `said` are words of the tool and of its other parameters. Real parameters repeat them
/// (`hire_walker(walker, walk_length)`), so the word before is not enough to tell what comes next.
fn parameter_name(kind: Kind, said: &[&str], made_up: f64, draw: &mut Draw) -> String {
    let word = |list: &str, draw: &mut Draw| {
        if draw.chance(22) {
            (*draw.pick(said)).to_owned()
        } else if draw.fraction(made_up) {
            pseudo_word(draw)
        } else {
            known(list, draw)
        }
    };
    let typical: &[&str] = match kind {
        Kind::Person => &["name", "owner", "person", "guest", "author"],
        Kind::City => &["city", "town", "location", "origin"],
        Kind::Company => &["company", "firm", "supplier"],
        Kind::Place => &["place", "venue", "shop"],
        Kind::Title | Kind::Note => &["title", "text", "comment", "label"],
        Kind::Address => &["address", "street"],
        Kind::Email | Kind::Emails => &["email", "mail", "recipient"],
        Kind::Path => &["path", "file", "source"],
        Kind::Id => &["id", "number", "key"],
        Kind::Code | Kind::Codes => &["code", "symbol", "tag"],
        Kind::Phone => &["phone", "mobile"],
        Kind::Date => &["date", "day"],
        Kind::Time => &["time", "hour"],
        Kind::Minutes => &["duration", "length", "minutes"],
        Kind::Count | Kind::Amount => &["count", "size", "number", "amount", "level"],
        Kind::Price | Kind::Decimal => &["price", "cost", "rate", "value"],
        Kind::Percent => &["percent", "share"],
        Kind::Choice => &["mode", "type", "level", "style"],
        _ => &[],
    };
    if !typical.is_empty() && draw.chance(45) {
        let typical = *draw.pick(typical);
        return match draw.below(3) {
            0 => typical.to_owned(),
            1 => format!("{}_{typical}", word("nouns", draw)),
            _ => format!("{}_{typical}", word("adjectives", draw)),
        };
    }
    match draw.below(10) {
        0..4 => word("nouns", draw),
        4..8 => format!("{}_{}", word("adjectives", draw), word("nouns", draw)),
        8 => format!("{}_{}", word("nouns", draw), word("nouns", draw)),
        _ => {
            format!("{}_{}_{}", word("adjectives", draw), word("nouns", draw), word("nouns", draw))
        }
    }
}

fn parameter(
    name: String,
    kind: Kind,
    alone: bool,
    words: &mut Words,
    draw: &mut Draw,
) -> ParameterPlan {
    let label = name.replace('_', " ");
    let choices = if kind == Kind::Choice {
        (0..draw.between(2, 4)).map(|_| words.fresh("choice_words", draw)).collect()
    } else {
        Vec::new()
    };
    // No draw is made where there is nothing to choose: older corpora stay what they are.
    let natural_cue = words.shares.natural > 0.0 && draw.fraction(words.shares.natural);
    let said = match draw.below(100) {
        _ if natural_cue => Some(cue(kind, &label, alone, draw)),
        0..30 => None,
        30..50 if alone && kind.item().is_none() => Some(natural(kind, &label)),
        _ => Some(match draw.below(11) {
            0 => format!("for the {label} {{}}"),
            1 => format!("with {{}} as {label}"),
            2 => format!("where the {label} is {{}}"),
            3 => format!("of {label} {{}}"),
            4 => format!("at {label} {{}}"),
            5 => format!("in the {label} {{}}"),
            6 => format!("and {label} {{}}"),
            7 => format!("with {{}} {label}"),
            8 => format!("in {{}} {label}"),
            9 => format!("of {{}} {label}"),
            _ => format!("{label} {{}}"),
        }),
    };
    let (yes, no) = match draw.below(3) {
        _ if kind != Kind::Flag => (None, None),
        0 => (None, None),
        1 => (Some(format!("and {label}")), Some(format!("and not {label}"))),
        _ => (Some(format!("and make it {label}")), Some(format!("but not {label}"))),
    };
    ParameterPlan {
        name,
        kind,
        choices,
        synonyms: BTreeMap::new(),
        said,
        yes,
        no,
        about: None,
        optional: draw.chance(30),
    }
}

/// How a value of this kind is worked in when no other could be meant.
fn natural(kind: Kind, label: &str) -> String {
    match (kind.class(), kind) {
        (_, Kind::Date) => "on {}".to_owned(),
        (_, Kind::Time) => "at {}".to_owned(),
        (_, Kind::Minutes | Kind::Days | Kind::Person | Kind::Company) => "for {}".to_owned(),
        (_, Kind::City | Kind::Address) => "in {}".to_owned(),
        (_, Kind::Email | Kind::Phone) => "to {}".to_owned(),
        (_, Kind::Place) => "at {}".to_owned(),
        (_, Kind::Title) => "called {}".to_owned(),
        (_, Kind::Topic) => "about {}".to_owned(),
        (Class::Quoted, _) => "saying {}".to_owned(),
        (_, Kind::Count | Kind::Amount) => format!("with {{}} {label}"),
        (_, Kind::Path | Kind::Id | Kind::Word | Kind::Code) => "{}".to_owned(),
        _ => format!("with {label} {{}}"),
    }
}
