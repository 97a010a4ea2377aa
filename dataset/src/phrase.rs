//! Requests in words: formal, casual or terse.
//!
//! Invariant: every value is either beside its parameter's name, or worked in by the catalogue's own
//! fragment, or of a class that only one parameter of the tool has.

use crate::catalogue::{ParameterPlan, ToolPlan};
use crate::draw::Draw;
use crate::lexicon::{be, capital, enumeration};
use crate::value::{Kind, Said};

/// How a request is worded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Style {
    /// "Please book a table with party size 4."
    Formal,
    /// "hey, can you book a table for a party of 4?"
    Casual,
    /// "book table, 4"
    Terse,
}

impl Style {
    /// The three.
    pub const ALL: [Style; 3] = [Style::Formal, Style::Casual, Style::Terse];

    /// The name used in `extra_info.style`.
    pub fn name(self) -> &'static str {
        match self {
            Style::Formal => "formal",
            Style::Casual => "casual",
            Style::Terse => "terse",
        }
    }
}

/// A value for a parameter of a tool: the parameter's index, and what is said.
pub(crate) type Given = (usize, Said);

/// The request for this tool with these values, in schema order.
pub(crate) fn request(tool: &ToolPlan, given: &[Given], style: Style, draw: &mut Draw) -> String {
    let ask = if tool.ask.len() == 1 || draw.chance(70) {
        &tool.ask[0]
    } else {
        draw.pick(&tool.ask[1..])
    };
    let mut given = given.to_vec();
    if draw.chance(20) {
        draw.shuffle(&mut given);
    }
    match style {
        Style::Formal => formal(tool, ask, &given, draw),
        Style::Casual => casual(tool, ask, &given, draw),
        Style::Terse => terse(tool, ask, &given, draw),
    }
}

/// A request that is not for a tool, worded in this style.
pub(crate) fn plain(wish: &str, style: Style, draw: &mut Draw) -> String {
    let question = ["what", "who", "how"].iter().any(|w| wish.starts_with(w));
    match style {
        Style::Terse => wish.to_owned(),
        Style::Formal if question => format!("{}?", capital(wish)),
        Style::Formal => match draw.below(2) {
            0 => format!("Please {wish}."),
            _ => format!("Could you {wish}?"),
        },
        Style::Casual if question => format!("hey, {wish}?"),
        Style::Casual => match draw.below(3) {
            0 => format!("hey, can you {wish}?"),
            1 => format!("{wish} please"),
            _ => format!("hi, {wish}"),
        },
    }
}

fn formal(tool: &ToolPlan, ask: &str, given: &[Given], draw: &mut Draw) -> String {
    if given.is_empty() {
        return match draw.below(3) {
            0 => format!("Please {ask}."),
            1 => format!("I would like to {ask}."),
            _ => format!("Could you {ask}?"),
        };
    }
    let cued = |(index, said): &Given| format!("{} {}", tool.params[*index].words(), said.text);
    let list = enumeration(&given.iter().map(cued).collect::<Vec<_>>());
    match draw.below(6) {
        0 => format!("Please {ask} with {list}."),
        1 => format!("Please {ask}, using {list}."),
        2 => {
            let is = |(index, said): &Given| {
                let param = &tool.params[*index];
                let words = param.words();
                let is = be(std::slice::from_ref(&words));
                let is = if param.kind == Kind::Flag { format!("{is} set to") } else { is.into() };
                format!("the {words} {is} {}", said.text)
            };
            let list = enumeration(&given.iter().map(is).collect::<Vec<_>>());
            format!("I would like to {ask}. {}.", capital(&list))
        }
        3 => {
            let field = |(index, said): &Given| {
                format!("{}: {}.", capital(&tool.params[*index].words()), said.text)
            };
            let list: Vec<String> = given.iter().map(field).collect();
            format!("Could you {ask}? {}", list.join(" "))
        }
        4 => format!("Please {ask} {}.", fragments(tool, given, draw)),
        _ => format!("I would like to {ask} {}.", fragments(tool, given, draw)),
    }
}

fn casual(tool: &ToolPlan, ask: &str, given: &[Given], draw: &mut Draw) -> String {
    let mut wish = ask.to_owned();
    if !given.is_empty() {
        wish.push(' ');
        wish.push_str(&fragments(tool, given, draw));
    }
    match draw.below(7) {
        0 => format!("hey, can you {wish}?"),
        1 => format!("can you {wish}, thanks"),
        2 => format!("I need to {wish}"),
        3 => format!("{wish} please"),
        4 => format!("hi, I want to {wish}"),
        5 => format!("help me {wish}"),
        _ => format!("could you quickly {wish}?"),
    }
}

fn terse(tool: &ToolPlan, ask: &str, given: &[Given], draw: &mut Draw) -> String {
    let short = match draw.below(3) {
        0 => tool.name.replace('_', " "),
        _ => ask
            .split(' ')
            .filter(|w| !["a", "an", "the", "my"].contains(w))
            .collect::<Vec<_>>()
            .join(" "),
    };
    let joint = *draw.pick(&[" ", ": ", "="]);
    let mut parts = Vec::new();
    for (index, said) in given {
        if tool.speaks_for_itself(*index) && draw.chance(50) {
            parts.push(said.text.clone());
        } else {
            parts.push(format!("{}{joint}{}", tool.params[*index].words(), said.text));
        }
    }
    match (parts.is_empty(), draw.below(2)) {
        (true, _) => short,
        (false, 0) => format!("{short}: {}", parts.join(", ")),
        (false, _) => format!("{short}, {}", parts.join(", ")),
    }
}

/// The values worked into the sentence.
fn fragments(tool: &ToolPlan, given: &[Given], draw: &mut Draw) -> String {
    let mut parts = Vec::with_capacity(given.len());
    for (index, said) in given {
        let generic = if parts.is_empty() || draw.chance(60) { "with" } else { "and" };
        parts.push(fragment(&tool.params[*index], said, generic, draw));
    }
    parts.join(" ")
}

fn fragment(param: &ParameterPlan, said: &Said, generic: &str, draw: &mut Draw) -> String {
    let words = param.words();
    if param.kind == Kind::Flag {
        let (own, with) =
            if said.text == "yes" { (&param.yes, "with") } else { (&param.no, "without") };
        return own.clone().unwrap_or_else(|| format!("{with} {words}"));
    }
    match &param.said {
        Some(template) if draw.chance(80) => template.replace("{}", &said.text),
        _ => format!("{generic} {words} {}", said.text),
    }
}
