//! Prints some generated rows and drills, to be read by a person.
//!
//! `cargo run -p octet-dataset --example dump -- train|held-out|invented|drills [COUNT [SEED [DIFFICULTY]]]`

use std::io::{self, Write};

use octet_dataset::{
    ColdStart, ColdStartSpec, Spec, Split, Statistics, generate, python_json, reference_answer,
};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rows = arguments.get(1).and_then(|n| n.parse().ok()).unwrap_or(20);
    let seed = arguments.get(2).and_then(|n| n.parse().ok()).unwrap_or(0);
    let difficulty = arguments.get(3).and_then(|n| n.parse().ok()).unwrap_or(1.0);
    let mut out = io::stdout().lock();
    match arguments.first().map(String::as_str) {
        None | Some("train") => dump_rows(&Spec { seed, rows, split: Split::Train }, &mut out),
        Some("held-out") => dump_rows(&Spec { seed, rows, split: Split::HeldOut }, &mut out),
        Some("invented") => dump_rows(&Spec { seed, rows, split: Split::Invented }, &mut out),
        Some(_) => {
            let spec = ColdStartSpec { seed, difficulty, ..ColdStartSpec::default() };
            dump_drills(spec, rows as u64, &mut out)
        }
    }
}

fn dump_rows(spec: &Spec, out: &mut impl Write) -> io::Result<()> {
    let examples = generate(spec);
    writeln!(out, "{}", Statistics::of(&examples))?;
    for example in &examples {
        writeln!(out, "--- {}", python_json(&example.extra_info.clone().into()))?;
        for tool in &example.tools {
            writeln!(out, "    {}", python_json(tool))?;
        }
        writeln!(out, "user: {}", example.request())?;
        writeln!(out, "=> {}", reference_answer(example, spec.seed))?;
    }
    Ok(())
}

fn dump_drills(spec: ColdStartSpec, count: u64, out: &mut impl Write) -> io::Result<()> {
    let corpus = ColdStart::new(spec);
    for drill in (0..count).map(|index| corpus.drill(index)) {
        writeln!(out, "--- {:?}", drill.kind)?;
        for tool in &drill.tools {
            writeln!(out, "    {}", python_json(tool))?;
        }
        for message in &drill.messages {
            let text = message.content.as_deref().unwrap_or_default();
            writeln!(out, "{}: {text}", message.role.name())?;
        }
        writeln!(out, "=> {}", drill.answer)?;
    }
    Ok(())
}
