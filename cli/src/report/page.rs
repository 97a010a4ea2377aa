//! From what the page says to the page: one HTML file that needs nothing else.
//!
//! Invariants: every text goes through the template's escaping; marked safe are our own style and script alone. The
//! page's policy lets a browser run that script and no other, and ask nobody for anything.

use super::view::View;
use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minijinja::{Environment, UndefinedBehavior, Value, context};

const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

/// The templates, by the names that they include each other with.
const TEMPLATES: [(&str, &str); 6] = [
    ("page.html", include_str!("page/page.html")),
    ("chart.html", include_str!("page/chart.html")),
    ("compare.html", include_str!("page/compare.html")),
    ("held-out.html", include_str!("page/held-out.html")),
    ("groups.html", include_str!("page/groups.html")),
    ("numbers.html", include_str!("page/numbers.html")),
];

/// The page.
///
/// # Errors
/// A template that does not fit what it is given: a fault of this program.
pub fn render(view: &View) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    for (name, text) in TEMPLATES {
        environment.add_template(name, text).context("reading the report's templates")?;
    }
    let page = environment.get_template("page.html").context("reading the report's templates")?;
    let values = context! {
        csp => policy(),
        style => Value::from_safe_string(STYLE.to_owned()),
        script => Value::from_safe_string(SCRIPT.to_owned()),
        ..Value::from_serialize(view)
    };
    page.render(values).context("writing the report")
}

/// The page's content security policy: this style and this script, by their digests, and nothing from anywhere.
fn policy() -> String {
    let digest = |text: &str| {
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        BASE64_STANDARD.encode(digest)
    };
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        digest(STYLE),
        digest(SCRIPT)
    )
}
