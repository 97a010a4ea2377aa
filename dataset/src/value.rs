//! Values of parameters: how a person says one, and what the call must hold.
//!
//! Invariant: what is said and the parameter's schema together settle the value; nothing has to be
//! guessed. A converted value differs from what was said in a way the description names.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::draw::Draw;
use crate::lexicon::{
    capital, digits, enumeration, letters, list, listed, made_up, open, open_name,
};

/// What the values of a parameter look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // The names say it; catalogue/training.toml uses them.
pub enum Kind {
    Person,
    City,
    Country,
    Company,
    Product,
    Topic,
    Language,
    Place,
    Title,
    Note,
    Word,
    Address,
    Email,
    Path,
    Folder,
    Id,
    Code,
    Phone,
    Date,
    Time,
    Minutes,
    Days,
    Grams,
    Metres,
    Percent,
    Count,
    Amount,
    Year,
    Price,
    Decimal,
    Flag,
    Choice,
    Words,
    Products,
    People,
    Cities,
    Titles,
    Emails,
    Codes,
    Counts,
}

/// How a value got from the request into the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Derivation {
    /// As it was said.
    Copied,
    /// In another form: a date, a unit, a number in words.
    Converted,
    /// One of the schema's choices, or yes or no.
    Chosen,
}

/// A value, as said and as meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// What the request says.
    pub text: String,
    /// What the call must hold.
    pub value: Value,
    /// How the one becomes the other.
    pub derivation: Derivation,
}

/// What can be told apart without a cue: two values of one class need their parameters' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Text,
    Quoted,
    Number,
    Marked(Kind),
    /// Never without its parameter's name.
    Flag,
}

const WORDS: [&str; 13] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl Kind {
    /// The JSON Schema type.
    pub fn json_type(self) -> &'static str {
        match self {
            Kind::Minutes | Kind::Days | Kind::Grams | Kind::Metres | Kind::Percent => "integer",
            Kind::Count | Kind::Amount | Kind::Year => "integer",
            Kind::Price | Kind::Decimal => "number",
            Kind::Flag => "boolean",
            kind if kind.item().is_some() => "array",
            _ => "string",
        }
    }

    /// What a list is a list of.
    pub fn item(self) -> Option<Kind> {
        Some(match self {
            Kind::Words => Kind::Word,
            Kind::Products => Kind::Product,
            Kind::People => Kind::Person,
            Kind::Cities => Kind::City,
            Kind::Titles => Kind::Title,
            Kind::Emails => Kind::Email,
            Kind::Codes => Kind::Code,
            Kind::Counts => Kind::Amount,
            _ => return None,
        })
    }

    /// The description that settles the form, where the type does not.
    pub fn about(self) -> Option<&'static str> {
        Some(match self {
            Kind::Date => "YYYY-MM-DD",
            Kind::Time => "HH:MM",
            Kind::Minutes => "in minutes",
            Kind::Days => "in days",
            Kind::Grams => "in grams",
            Kind::Metres => "in metres",
            Kind::Percent => "in percent",
            _ => return None,
        })
    }

    pub(crate) fn class(self) -> Class {
        match self {
            Kind::Person | Kind::City | Kind::Country | Kind::Company | Kind::Product => {
                Class::Text
            }
            Kind::Topic | Kind::Language | Kind::Place | Kind::Title | Kind::Word => Class::Text,
            Kind::Address => Class::Text,
            Kind::Note => Class::Quoted,
            Kind::Count | Kind::Amount | Kind::Year | Kind::Price | Kind::Decimal => Class::Number,
            Kind::Flag => Class::Flag,
            Kind::Words | Kind::Products | Kind::People | Kind::Cities | Kind::Titles => {
                Class::Text
            }
            Kind::Counts => Class::Number,
            Kind::Emails => Class::Marked(Kind::Email),
            Kind::Folder => Class::Marked(Kind::Path),
            Kind::Codes => Class::Marked(Kind::Code),
            marked => Class::Marked(marked),
        }
    }

    /// Draws a value. A [`Kind::Choice`] is drawn by its parameter, which knows the choices.
    pub(crate) fn draw(self, draw: &mut Draw) -> Said {
        if let Some(item) = self.item() {
            return several(item, draw);
        }
        match self {
            Kind::Date => date(draw),
            Kind::Time => time(draw),
            Kind::Minutes => duration(draw),
            Kind::Days => unit(draw, "days", 2..=20, ("weeks", 7, 1..=5)),
            Kind::Grams => unit(draw, "grams", 50..=950, ("kilograms", 1000, 1..=9)),
            Kind::Metres => unit(draw, "metres", 100..=950, ("kilometres", 1000, 1..=12)),
            Kind::Percent => {
                let number = draw.between(1, 100);
                let text = if draw.chance(50) {
                    format!("{number} percent")
                } else {
                    format!("{number}%")
                };
                copied_as(text, json!(number))
            }
            Kind::Count => {
                let number = draw.between(2, 12);
                if draw.chance(50) {
                    converted(WORDS[number].to_owned(), json!(number))
                } else {
                    copied_as(number.to_string(), json!(number))
                }
            }
            Kind::Amount => number(draw.between(11, 999)),
            Kind::Year => number(draw.between(1950, 2030)),
            Kind::Price => fraction(draw.between(2, 400), *draw.pick(&[5, 25, 40, 75, 80, 99])),
            Kind::Decimal => fraction(draw.between(1, 99), draw.between(1, 9) * 10),
            Kind::Flag => {
                let yes = draw.chance(60);
                Said {
                    text: if yes { "yes" } else { "no" }.to_owned(),
                    value: json!(yes),
                    derivation: Derivation::Chosen,
                }
            }
            Kind::Note => {
                let text = note(draw);
                copied_as(format!("\"{text}\""), json!(text))
            }
            _ => copied(self.text(draw)),
        }
    }

    /// Draws the text of a kind that is copied as it stands.
    fn text(self, draw: &mut Draw) -> String {
        match self {
            Kind::Person => person(draw),
            Kind::City => open_name("cities", draw),
            Kind::Country => open_name("countries", draw),
            Kind::Company => {
                let name = open_name("companies", draw);
                if draw.chance(50) {
                    format!("{name} {}", listed("company_endings", draw))
                } else {
                    name
                }
            }
            Kind::Product => open("products", draw),
            Kind::Topic => {
                let topic = open("topics", draw);
                if draw.chance(30) {
                    format!("{} {topic}", listed("adjectives", draw))
                } else {
                    topic
                }
            }
            Kind::Language => {
                if draw.chance(70) {
                    listed("languages", draw)
                } else {
                    capital(&made_up(draw))
                }
            }
            Kind::Place => {
                let name = open_name("places", draw);
                if draw.chance(60) {
                    format!("{name} {}", listed("place_endings", draw))
                } else {
                    name
                }
            }
            Kind::Title => {
                let words = draw.between(1, 2);
                let words: Vec<_> = (0..words).map(|_| open_name("title_words", draw)).collect();
                words.join(" ")
            }
            Kind::Address => {
                let street = open_name("streets", draw);
                format!("{} {street} {}", draw.between(1, 199), listed("street_endings", draw))
            }
            Kind::Email => email(draw),
            Kind::Path => path(draw),
            Kind::Folder => folder(draw),
            Kind::Id => id(draw),
            Kind::Code => {
                let length = draw.between(3, 4);
                letters(length, b'A', draw)
            }
            Kind::Phone => {
                format!("+{} {} {}", draw.between(1, 99), digits(3, draw), digits(4, draw))
            }
            _ => open("nouns", draw),
        }
    }
}

fn copied(text: String) -> Said {
    let value = json!(text);
    copied_as(text, value)
}

fn copied_as(text: String, value: Value) -> Said {
    Said { text, value, derivation: Derivation::Copied }
}

fn converted(text: String, value: Value) -> Said {
    Said { text, value, derivation: Derivation::Converted }
}

fn number(number: usize) -> Said {
    copied_as(number.to_string(), json!(number))
}

/// A number with hundredths, written as JSON writes it.
fn fraction(whole: usize, hundredths: usize) -> Said {
    let value = json!((whole * 100 + hundredths) as f64 / 100.0);
    copied_as(value.to_string(), value)
}

fn several(item: Kind, draw: &mut Draw) -> Said {
    let count = draw.between(2, 3);
    let mut items: Vec<Said> = Vec::new();
    while items.len() < count {
        let next = item.draw(draw);
        if !items.contains(&next) {
            items.push(next);
        }
    }
    let texts: Vec<String> = items.iter().map(|said| said.text.clone()).collect();
    let values: Vec<Value> = items.into_iter().map(|said| said.value).collect();
    copied_as(enumeration(&texts), Value::Array(values))
}

fn date(draw: &mut Draw) -> Said {
    let (year, month, day) = (draw.between(2025, 2028), draw.between(1, 12), draw.between(1, 28));
    let iso = format!("{year}-{month:02}-{day:02}");
    let name = MONTHS[month - 1];
    match draw.below(100) {
        0..35 => copied(iso),
        35..68 => converted(format!("{day} {name} {year}"), json!(iso)),
        _ => converted(format!("{name} {day}, {year}"), json!(iso)),
    }
}

fn time(draw: &mut Draw) -> Said {
    let (hour, minute) = (draw.between(6, 22), *draw.pick(&[0, 0, 10, 15, 20, 30, 40, 45]));
    let iso = format!("{hour:02}:{minute:02}");
    if draw.chance(50) {
        return copied(iso);
    }
    let half = if hour < 12 { "am" } else { "pm" };
    let hour = if hour > 12 { hour - 12 } else { hour };
    if minute == 0 {
        converted(format!("{hour} {half}"), json!(iso))
    } else {
        converted(format!("{hour}:{minute:02} {half}"), json!(iso))
    }
}

fn duration(draw: &mut Draw) -> Said {
    match draw.below(100) {
        0..8 => converted("half an hour".to_owned(), json!(30)),
        8..16 => converted("one hour".to_owned(), json!(60)),
        _ => {
            let minutes = draw.between(5, 95);
            unit(draw, "minutes", minutes..=minutes, ("hours", 60, 2..=8))
        }
    }
}

/// A quantity in its own unit or, every other time, in a larger one of which one is `times` as much.
fn unit(
    draw: &mut Draw,
    small: &str,
    range: std::ops::RangeInclusive<usize>,
    (large, times, larger): (&str, usize, std::ops::RangeInclusive<usize>),
) -> Said {
    if draw.chance(50) {
        let number = draw.between(*range.start(), *range.end());
        return copied_as(format!("{number} {small}"), json!(number));
    }
    let number = draw.between(*larger.start(), *larger.end());
    let large = if number == 1 { large.trim_end_matches('s') } else { large };
    let said = if draw.chance(40) { WORDS[number].to_owned() } else { number.to_string() };
    converted(format!("{said} {large}"), json!(number * times))
}

pub(crate) fn person(draw: &mut Draw) -> String {
    format!("{} {}", open_name("first_names", draw), open_name("last_names", draw))
}

fn email(draw: &mut Draw) -> String {
    let name = open("first_names", draw).to_lowercase();
    let (host, ending) = (open("mail_hosts", draw), listed("mail_endings", draw));
    match draw.below(3) {
        0 => format!("{name}@{host}.{ending}"),
        1 => format!("{name}{}@{host}.{ending}", draw.between(1, 99)),
        _ => format!("{name}.{}@{host}.{ending}", open("last_names", draw).to_lowercase()),
    }
}

fn folder(draw: &mut Draw) -> String {
    let mut folder = String::new();
    for _ in 0..draw.between(1, 2) {
        folder.push('/');
        folder.push_str(&open("folders", draw));
    }
    folder
}

fn path(draw: &mut Draw) -> String {
    let folder = folder(draw);
    format!("{folder}/{}.{}", open("file_stems", draw), listed("file_endings", draw))
}

fn id(draw: &mut Draw) -> String {
    match draw.below(3) {
        0 => format!("{}-{}", letters(2, b'A', draw), digits(4, draw)),
        1 => format!("{}_{}", listed("nouns", draw), digits(3, draw)),
        _ => format!("{}{}{}", letters(1, b'A', draw), digits(3, draw), letters(1, b'A', draw)),
    }
}

fn note(draw: &mut Draw) -> String {
    let words = list("note_words");
    let count = draw.between(2, 5);
    let start = draw.below(words.len() - count);
    let mut words: Vec<String> = words[start..start + count].to_vec();
    if draw.chance(50) {
        let place = draw.below(count);
        words[place] = made_up(draw);
    }
    words.join(" ")
}
