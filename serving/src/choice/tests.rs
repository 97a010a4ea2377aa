#![allow(clippy::unwrap_used)]

use super::*;
use crate::loaded::tests::bundled;
use proptest::prelude::*;
use serde_json::json;

/// What a client puts together of pieces of `step` tokens.
fn told(text: &str, reading: &Reading, step: usize, stops: &[&str]) -> (String, Vec<ParsedCall>) {
    let loaded = bundled();
    let ids = loaded.tokenizer().encode(text).unwrap();
    let stops = stops.iter().map(|stop| (*stop).to_owned()).collect();
    let mut choice = Choice::new(stops, reading.clone(), false);
    let (mut content, mut calls) = (String::new(), Vec::new());
    let mut take = |news: News| {
        for delta in news.deltas {
            match delta {
                Delta::Content(text) => {
                    assert!(!text.is_empty(), "a piece without anything");
                    content.push_str(&text);
                }
                Delta::Call(call) => calls.push(call),
            }
        }
    };
    let mut rest = &ids[..];
    loop {
        let (some, others) = rest.split_at(step.min(rest.len()));
        let ended = others.is_empty().then_some(Finish::Length);
        let news = choice.push(&loaded, some, &[], ended).unwrap();
        let finished = news.finish.is_some();
        assert!(finished || ended.is_none());
        take(news);
        if finished {
            // Also earlier, by a stop string: nothing is asked for after that.
            return (content, calls);
        }
        rest = others;
    }
}

fn calls(forced: &str) -> Reading {
    Reading::Calls { forced: forced.to_owned(), parallel: true }
}

const TWO: &str = "One moment. <tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\
    <tool_call>{\"name\": \"time\", \"arguments\": {}}</tool_call> Done.";

#[test]
fn calls_and_the_text_around_them_are_told_apart() {
    let (content, calls) = told(TWO, &calls(""), 3, &[]);
    assert_eq!(content, "One moment.  Done.");
    let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(names, ["weather", "time"]);
    assert_eq!(serde_json::Value::Object(calls[0].arguments.clone()), json!({"city": "Paris"}));
}

#[test]
fn a_call_is_told_when_its_block_ends_and_not_when_all_does() {
    let loaded = bundled();
    let ids = loaded.tokenizer().encode(TWO).unwrap();
    let mut choice = Choice::new(Vec::new(), calls(""), false);
    let mut seen = Vec::new();
    for (at, id) in ids.iter().enumerate() {
        for delta in choice.push(&loaded, &[*id], &[], None).unwrap().deltas {
            seen.push((at, delta));
        }
    }
    let begin = seen.iter().position(|(_, delta)| matches!(delta, Delta::Call(_))).unwrap();
    let text: String =
        loaded.tokenizer().decode(&ids[..=seen[begin].0], SpecialTokens::Keep).unwrap();
    assert!(text.ends_with(CLOSE) && text.matches(CLOSE).count() == 1, "{text}");
    let before = seen[..begin].iter().map(|(_, delta)| match delta {
        Delta::Content(text) => text.as_str(),
        Delta::Call(call) => &call.name,
    });
    assert_eq!(before.collect::<String>(), "One moment.", "text comes before the call does");
}

#[test]
fn one_call_is_enough_where_calls_may_not_be_parallel() {
    let reading = Reading::Calls { forced: String::new(), parallel: false };
    for step in [1, 1000] {
        let (content, calls) = told(TWO, &reading, step, &[]);
        assert_eq!((content.as_str(), calls.len()), ("One moment.  Done.", 1));
    }
}

#[test]
fn a_forced_beginning_is_part_of_the_call() {
    let forced = "<tool_call>\n{\"name\": \"time\", \"arguments\":";
    let (content, calls) = told(" {\"zone\": 1}}\n</tool_call>", &calls(forced), 1, &[]);
    assert_eq!((content.as_str(), calls.len()), ("", 1));
    assert_eq!((calls[0].name.as_str(), &calls[0].arguments["zone"]), ("time", &json!(1)));
}

#[test]
fn a_broken_call_is_content() {
    let broken = "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": ";
    for step in [1, 5, 1000] {
        let (content, calls) = told(&format!("Well, {broken}"), &calls(""), step, &[]);
        assert!(calls.is_empty());
        assert_eq!(content, format!("Well,\n{}", broken.trim()));
    }
}

#[test]
fn without_tools_all_is_content() {
    for step in [1, 7, 1000] {
        let (content, calls) = told(TWO, &Reading::Plain, step, &[]);
        assert_eq!((content.as_str(), calls.len()), (TWO, 0));
    }
    assert_eq!(told(TWO, &Reading::Plain, 2, &["\n{"]).0, "One moment. <tool_call>");
}

#[test]
fn the_stop_token_is_counted_and_not_told() {
    let loaded = bundled();
    let mut ids = loaded.tokenizer().encode("Hello there").unwrap();
    ids.push(loaded.stops()[0]);
    let mut choice = Choice::new(Vec::new(), Reading::Plain, true);
    let note = TokenNote { logprob: -1.0, likeliest: Vec::new() };
    let notes = vec![note; ids.len()];
    let news = choice.push(&loaded, &ids, &notes, Some(Finish::Stop)).unwrap();
    assert_eq!(news.deltas, [Delta::Content("Hello there".into())]);
    assert_eq!((choice.tokens(), news.tokens.len()), (ids.len(), ids.len() - 1));
    assert_eq!(news.finish, Some(FinishReason::Stop));
}

/// Texts made of what matters to the parser.
fn text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "<tool_call>",
        "</tool_call>",
        "<think>",
        "</think>",
        "{\"name\": \"a\", \"arguments\": {}}",
        "{\"name\": \"b\", \"arguments\": {\"x\": \"</tool_call>\"}}",
        "[{\"name\": \"c\"}]",
        "{\"name\": ",
        "```json\n",
        "```python\n",
        "```",
        "`",
        "{",
        "]",
        "\"",
        "Hello",
        " the answer ",
        "\n",
        "<",
        "<tool",
        "é",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn streamed_or_not_the_answer_is_the_same(text in text(), step in 1usize..9) {
        let whole = told(&text, &calls(""), 1_000_000, &[]);
        prop_assert_eq!(&told(&text, &calls(""), step, &[]), &whole);
        prop_assert_eq!(&whole.1, &parse(&text).calls, "as rewards read it");
        prop_assert_eq!(told(&text, &Reading::Plain, step, &[]).0, text);
    }

    #[test]
    fn a_stop_string_cuts_before_anything_is_read(text in text(), step in 1usize..9) {
        for stop in ["</tool_call>", "the", "\n"] {
            let cut = text.find(stop).map_or(&*text, |at| &text[..at]);
            let expected = told(cut, &calls(""), 1_000_000, &[]);
            prop_assert_eq!(told(&text, &calls(""), step, &[stop]), expected);
        }
    }
}
