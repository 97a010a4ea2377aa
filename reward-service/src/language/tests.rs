#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::{
    question::{asks, unnamed},
    refusal::refuses,
    words::{sentences, words},
};

#[test]
fn refusals() {
    for answer in [
        "I can't help with that.",
        "I can’t help with that request.",
        "Sorry, I cannot do that.",
        "Sorry, can't help with that.",
        "I'm sorry, but I can not assist with this request.",
        "I am unable to do that.",
        "Unfortunately, I'm not able to book taxis.",
        "I won't help you hurt anyone.",
        "I will not do that.",
        "I'm not allowed to share passwords.",
        "I must decline this request.",
        "I don't have a tool for that.",
        "I do not have the ability to order food.",
        "There is no tool for this.",
        "Sorry, none of my tools can do that.",
        "I can't do that with the tools I have.",
        "I can't do that, it could cause harm.",
        "That is outside my capabilities.",
        "This is beyond the scope of what I do.",
        "That's not something I can do.",
        "I can't help with that. Is there anything else I can help you with?",
        "I can't find a tool that does this.",
        "I can only help with weather and flights.",
        "I simply cannot provide that.",
        "Hello! I understand, but I can't hack into accounts.",
        "I can't help with that without breaking the law. Can I help you with anything else?",
    ] {
        assert!(refuses(answer), "{answer}");
    }
}

#[test]
fn what_looks_like_a_refusal_and_is_none() {
    for answer in [
        "",
        "Sure, I can help with that!",
        "I can help with that. Which city?",
        "Sorry for the confusion. Which city do you mean?",
        "I'm sorry, which date was that?",
        "I can't tell which city you mean. Which one is it?",
        "I cannot determine the date from your message. What date?",
        "If you can't come, I can cancel the booking.",
        "You won't need a ticket.",
        "The shop is not able to deliver on Sundays.",
        "I can't wait to help you!",
        "I can't book this without a date. What date should I use?",
        "I can't proceed until I know the city. Which city?",
        "I'm unable to continue because the amount is missing. How much is it?",
        "I don't have access to your location. Which city are you in?",
        "I don't have the date. When is it?",
        "They refused to pay.",
        "Can't you see it?",
        "The request was declined by the bank.",
        "No problem, done.",
        "Why can't I see the weather?",
        "Could you tell me more?",
    ] {
        assert!(!refuses(answer), "{answer}");
    }
}

#[test]
fn questions_and_requests_ask_and_offers_do_not() {
    for answer in [
        "Which city?",
        "Please provide the date.",
        "Let me know the city and the date.",
        "I need the departure date to go on.",
        "I'll need your account number.",
        "The city is missing.",
        "どこですか？",
    ] {
        assert!(asks(answer), "{answer}");
    }
    for answer in [
        "",
        "Done.",
        "Is there anything else?",
        "Let me know if you want more.",
        "How can I help you?",
        "What can I help you with today?",
        "I will book the flight.",
    ] {
        assert!(!asks(answer), "{answer}");
    }
}

fn names_all(answer: &str, parameters: &[&str]) -> bool {
    let parameters: Vec<_> = parameters.iter().map(|name| (*name).to_owned()).collect();
    unnamed(answer, &parameters).is_empty()
}

#[test]
fn a_parameter_is_named_by_its_words() {
    for (answer, parameters) in [
        ("Which city?", &["city"][..]),
        ("Which cities?", &["city"]),
        ("Which city?", &["cities"]),
        ("Which addresses?", &["address"]),
        ("What is the departure date?", &["departure_date"]),
        ("What is the departure date?", &["departureDate"]),
        ("What is the departure date?", &["departure-date"]),
        ("On which date is your departure?", &["departure_date"]),
        ("What is your departure_date?", &["departure_date"]),
        ("What is your departureDate?", &["departure_date"]),
        ("What is the zip code?", &["zipcode"]),
        ("What is the zipcode?", &["zip_code"]),
        ("What is the date of birth?", &["date_of_birth"]),
        ("What is the birth date?", &["date_of_birth"]),
        ("What is the address?", &["address1"]),
        ("Which city's weather?", &["city"]),
        ("Please tell me the following:\n- city\n- date", &["city", "date"]),
        ("Could you tell me more? I need city and date.", &["city", "date"]),
        ("Welche Stadt? Straße und Größe bitte.", &["straße", "größe"]),
    ] {
        assert!(names_all(answer, parameters), "{answer} {parameters:?}");
    }
}

#[test]
fn a_parameter_is_not_named_by_less() {
    for (answer, parameters) in [
        ("Could you tell me more?", &["city"][..]),
        ("What is the date?", &["departure_date"]),
        ("Which city?", &["city", "date"]),
        ("Shall I update it?", &["date"]),
        ("I will look at the city. Anything else you know?", &["city"]),
        ("Do you accept the terms of it?", &["of_it_all"]),
        ("Which one?", &["_"]),
        ("Which one?", &["2"]),
    ] {
        assert!(!names_all(answer, parameters), "{answer} {parameters:?}");
    }
}

#[test]
fn words_and_sentences() {
    assert_eq!(
        words("HTTPServer2 getUserName I can not"),
        ["httpserver", "2", "get", "user", "name", "i", "can't"]
    );
    let read = sentences("It costs 3.50. Is that ok? See example.org; bye");
    let asked: Vec<_> =
        read.iter().map(|sentence| (sentence.words.len(), sentence.asked)).collect();
    assert_eq!(asked, [(4, false), (3, true), (3, false), (1, false)]);
}

proptest! {
    #[test]
    fn any_text_is_read(text in any::<String>(), parameter in any::<String>()) {
        refuses(&text);
        asks(&text);
        names_all(&text, &[&parameter]);
    }

    #[test]
    fn a_question_with_the_name_names_it(parameter in "[a-z]{1,8}([_-][a-z]{1,8}){0,3}") {
        let spaced = format!("What is the {}?", parameter.replace(['_', '-'], " "));
        let as_it_is = format!("What is {parameter}?");
        prop_assert!(names_all(&spaced, &[&parameter]));
        prop_assert!(names_all(&as_it_is, &[&parameter]));
    }
}
