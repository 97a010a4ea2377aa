//! `octet serve` as a process, through HTTP: what clients are answered, and what happens when too many ask, when it
//! shall end, and when a better checkpoint comes.

#![allow(clippy::unwrap_used)]

mod common;

use common::cluster::PATIENCE;
use common::http::{ask, complete, receive, send};
use common::serving::{FORECAST, OFFERED, of, put_together, question, serve, tools, with};
use common::{octet, short, train};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpStream;
use std::time::Instant;

#[test]
fn a_client_is_answered_as_openai_would() {
    let home = tempfile::tempdir().unwrap();
    let (_node, at) = serve(home.path(), &["assets/policy"]);

    let models = ask(&at, "GET", "/v1/models", "").json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("policy")));
    let weights = models["data"][0]["weights"].as_str().unwrap().to_owned();
    assert_eq!(ask(&at, "GET", "/v1/models/policy", "").json()["weights"], weights);
    assert_eq!(ask(&at, "GET", "/v1/models/gpt-4", "").status, 404);

    let body = with(
        question(FORECAST),
        json!({"model": "policy", "tools": tools(), "seed": 7, "temperature": 0, "max_tokens": 64}),
    );
    let answer = complete(&at, &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!(
        (&answer["object"], &answer["model"]),
        (&json!("chat.completion"), &json!("policy"))
    );
    assert!(
        weights.starts_with(
            answer["system_fingerprint"].as_str().unwrap().trim_start_matches("octet-")
        )
    );
    let choice = &answer["choices"][0];
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
    assert_eq!(call["function"]["name"], "get_forecast");
    let arguments: Value =
        serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"city": "Paris", "days": 3}));
    let usage = &answer["usage"];
    let sum =
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"].as_u64(), Some(sum));

    // SageMaker's path, with and without a name.
    let invoked = ask(&at, "POST", "/invocations", &body.to_string()).json();
    assert_eq!(of(&invoked["choices"][0]), of(choice));
    let ping = ask(&at, "GET", "/ping", "");
    assert_eq!(ping.status, 200);

    // The same in pieces.
    let stream = with(body, json!({"stream": true, "stream_options": {"include_usage": true}}));
    let streamed = complete(&at, &stream);
    assert!(streamed.head.contains("content-type: text/event-stream"), "{}", streamed.head);
    let (events, done) = streamed.events();
    assert!(done, "{}", streamed.body);
    assert_eq!(put_together(&events, 0), of(choice));
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let (last, before) = events.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), usage));
    assert!(before.iter().all(|e| e["usage"].is_null() && e["object"] == "chat.completion.chunk"));
    let ids: BTreeSet<&str> = events.iter().map(|e| e["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[test]
fn the_same_seed_gives_the_same_completion_whatever_else_is_served() {
    let home = tempfile::tempdir().unwrap();
    let (_node, at) = serve(home.path(), &["assets/policy", "--rows", "24"]);
    let body = |seed: u64| {
        with(
            // Nothing that the policy would be sure of.
            question(&"{".repeat(20)),
            json!({"tools": tools(), "seed": seed, "temperature": 2.0, "n": 3, "max_tokens": 48, "logprobs": true}),
        )
    };
    let told = |answer: Value| {
        let choices = answer["choices"].as_array().unwrap().clone();
        choices.iter().map(|c| json!([of(c), c["logprobs"]])).collect::<Vec<_>>()
    };
    let alone = told(complete(&at, &body(1)).json());
    assert_ne!(alone[0], alone[1], "choices differ among each other");
    assert_ne!(told(complete(&at, &body(2)).json()), alone, "and between seeds");
    // Company of other lengths and settings, that comes and goes meanwhile.
    std::thread::scope(|scope| {
        for company in 0..4u64 {
            let at = &at;
            scope.spawn(move || {
                for round in 0..4 {
                    let text = "Hello there. ".repeat(1 + (company * 7 + round) as usize);
                    let others = json!({"seed": round, "n": 1 + company, "max_tokens": 10 + 9 * round, "top_p": 0.9});
                    assert_eq!(complete(at, &with(question(&text), others)).status, 200);
                }
            });
        }
        for _ in 0..4 {
            let (at, alone, told, body) = (&at, &alone, &told, &body);
            scope.spawn(move || assert_eq!(&told(complete(at, &body(1)).json()), alone));
        }
    });
    // Streamed too, log-probabilities included.
    let (events, done) = complete(&at, &with(body(1), json!({"stream": true}))).events();
    assert!(done);
    for (index, expected) in alone.iter().enumerate() {
        assert_eq!(put_together(&events, index as u64), expected[0]);
        let pieces = events.iter().filter(|e| e["choices"][0]["index"] == index);
        let tokens: Vec<Value> = pieces
            .flat_map(|e| {
                e["choices"][0]["logprobs"]["content"].as_array().cloned().unwrap_or_default()
            })
            .collect();
        assert_eq!(&Value::from(tokens), &expected[1]["content"]);
    }
    // Without a seed each is another.
    let mut unkeyed = body(1);
    unkeyed.as_object_mut().unwrap().remove("seed");
    assert_ne!(told(complete(&at, &unkeyed).json()), told(complete(&at, &unkeyed).json()));
}

#[test]
fn tools_are_called_when_they_must_be_and_not_when_they_may_not() {
    let home = tempfile::tempdir().unwrap();
    let (_node, at) = serve(home.path(), &["assets/policy"]);
    let asked = |text: &str, choice: Value| {
        let more =
            json!({"tools": tools(), "tool_choice": choice, "temperature": 0, "max_tokens": 80});
        complete(&at, &with(question(text), more)).json()["choices"][0].clone()
    };
    let name = |choice: &Value| choice["message"]["tool_calls"][0]["function"]["name"].clone();
    // It would not call anything for this by itself.
    assert!(name(&asked("Write a poem about cats.", json!("auto"))).is_null());
    let required = asked("Write a poem about cats.", json!("required"));
    assert!(OFFERED.iter().any(|tool| name(&required) == *tool), "{required}");
    // And it would for this.
    assert_eq!(name(&asked(FORECAST, json!("auto"))), OFFERED[0]);
    assert!(name(&asked(FORECAST, json!("none"))).is_null());
    for tool in OFFERED {
        let named = json!({"type": "function", "function": {"name": tool}});
        let choice = asked(FORECAST, named);
        assert_eq!(name(&choice), tool, "{choice}");
    }
}

#[test]
fn stop_strings_and_log_probabilities_are_openais() {
    let home = tempfile::tempdir().unwrap();
    let (_node, at) = serve(home.path(), &["assets/policy"]);
    let plain = json!({"temperature": 0, "max_tokens": 32, "logprobs": true, "top_logprobs": 3});
    let body = with(with(question("Write a poem about cats."), plain), json!({"tools": tools()}));
    let answer = complete(&at, &body).json();
    let whole = answer["choices"][0].clone();
    let text = whole["message"]["content"].as_str().unwrap();
    assert!(text.len() > 8, "{whole}");
    let tokens = whole["logprobs"]["content"].as_array().unwrap();
    let joined: Vec<u8> = tokens
        .iter()
        .flat_map(|token| token["bytes"].as_array().unwrap())
        .map(|byte| byte.as_u64().unwrap() as u8)
        .collect();
    assert_eq!(String::from_utf8(joined).unwrap(), text, "the bytes of the tokens are the text");
    for token in tokens {
        let likeliest = token["top_logprobs"].as_array().unwrap();
        assert_eq!(likeliest.len(), 3);
        // With temperature 0 the likeliest is taken.
        assert_eq!(
            (&likeliest[0]["token"], &likeliest[0]["logprob"]),
            (&token["token"], &token["logprob"])
        );
        let falling: Vec<f64> = likeliest.iter().map(|t| t["logprob"].as_f64().unwrap()).collect();
        assert!(falling.is_sorted_by(|a, b| a >= b) && falling[0] <= 0.0, "{falling:?}");
    }
    // A stop in the middle of a token's text.
    let stop: String = text.chars().skip(3).take(3).collect();
    let before = &text[..text.find(&stop).unwrap()];
    for stream in [false, true] {
        let body = with(body.clone(), json!({"stop": [stop, "never"], "stream": stream}));
        let answer = complete(&at, &body);
        let found = if stream {
            put_together(&answer.events().0, 0)
        } else {
            of(&answer.json()["choices"][0])
        };
        assert_eq!(found, json!({"content": before, "calls": [], "finish": "stop"}));
    }
    // A limit is told as such, and counted.
    let short = complete(&at, &with(body, json!({"max_tokens": 2}))).json();
    assert_eq!(short["choices"][0]["finish_reason"], "length");
    assert_eq!(short["usage"]["completion_tokens"], 2);
}

#[test]
fn what_cannot_be_answered_is_refused_in_openais_shape() {
    let home = tempfile::tempdir().unwrap();
    let more = ["assets/policy", "--max-body", "20000", "--api-key", "secret", "--name", "tiny"];
    let (_node, at) = serve(home.path(), &more);
    let key = "authorization: Bearer secret\r\n";
    let refused = |answer: common::http::Answer, status: u16, code: Value, words: &str| {
        assert_eq!(answer.status, status, "{answer:?}");
        let error = answer.json()["error"].clone();
        assert_eq!(error["code"], code, "{error}");
        assert!(error["type"].is_string() && error.get("param").is_some(), "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words), "expected {words:?} in {message:?}");
    };
    let post = |body: &str| receive(send(&at, "POST", "/v1/chat/completions", key, body));
    let hello = question("Hello").to_string();
    for wrong in ["", "authorization: Bearer other\r\n", "authorization: Basic secret\r\n"] {
        let answer = receive(send(&at, "POST", "/v1/chat/completions", wrong, &hello));
        refused(answer, 401, json!("invalid_api_key"), "Bearer KEY");
    }
    refused(post("{\"messages\":"), 400, Value::Null, "expected a JSON object");
    refused(
        post(&with(question("x"), json!({"n": 99})).to_string()),
        400,
        Value::Null,
        "`n`: expected a whole number from 1 to 16",
    );
    refused(
        post(&with(question("x"), json!({"model": "gpt"})).to_string()),
        404,
        json!("model_not_found"),
        "\"tiny\"",
    );
    let long = question(&"word ".repeat(3000)).to_string();
    refused(
        post(&long),
        400,
        json!("context_length_exceeded"),
        "expected at most 1023 (the model's context is 1024)",
    );
    let huge = question(&"word ".repeat(5000)).to_string();
    refused(post(&huge), 413, Value::Null, "more than 20000 bytes");
    let template = json!({"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function", "function":
        {"name": "f", "parameters": {"properties": 3}}}]});
    refused(post(&template.to_string()), 400, Value::Null, "template");
    refused(ask(&at, "GET", "/v1/chat/completions", ""), 405, Value::Null, "does not take GET");
    refused(ask(&at, "GET", "/v1/completions", ""), 404, Value::Null, "/v1/chat/completions");
    // And it goes on.
    assert_eq!(post(&hello).status, 200);
    // An answer may be here a moment before its place is free again.
    let begin = Instant::now();
    let metrics = loop {
        let metrics = ask(&at, "GET", "/metrics", "").body;
        if metrics.contains("octet_serve_running 0.0") || begin.elapsed() > PATIENCE {
            break metrics;
        }
    };
    for line in [
        "octet_serve_answers_total{status=\"200\"} 1.0",
        "octet_serve_answers_total{status=\"401\"} 3.0",
        "octet_serve_answers_total{status=\"413\"} 1.0",
        "octet_serve_running 0.0",
        "octet_serve_waiting 0.0",
        "octet_serve_request_seconds_count 1",
        "octet_serve_model_info{model=\"tiny\"",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "expected {line:?} in\n{metrics}");
    }
}

#[test]
fn too_many_are_turned_away_and_told_when_to_come_again() {
    let home = tempfile::tempdir().unwrap();
    let (_node, at) = serve(home.path(), &["assets/policy", "--rows", "1", "--queue", "2"]);
    let body = with(question("Hello"), json!({"max_tokens": 200, "temperature": 2}));
    let answers: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..12).map(|_| scope.spawn(|| complete(&at, &body))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let of = |status| answers.iter().filter(|a| a.status == status).collect::<Vec<_>>();
    let (served, busy) = (of(200), of(429));
    assert_eq!(served.len() + busy.len(), 12);
    assert!(served.len() >= 3, "one in the batch and two in the queue");
    assert!(!busy.is_empty(), "twelve at once are too many");
    for answer in busy {
        assert!(answer.head.contains("retry-after: "), "{}", answer.head);
        assert_eq!(answer.json()["error"]["code"], "rate_limit_exceeded");
    }
    assert_eq!(complete(&at, &body).status, 200, "later there is room");
}

#[test]
fn a_client_that_leaves_makes_room() {
    let home = tempfile::tempdir().unwrap();
    let (_node, at) = serve(home.path(), &["assets/policy", "--rows", "1"]);
    let long =
        with(question("Hello"), json!({"max_tokens": 900, "temperature": 2, "stream": true}));
    let left = || {
        let page = ask(&at, "GET", "/metrics", "").body;
        page.contains("octet_serve_answers_total{status=\"499\"}")
    };
    let begin = Instant::now();
    for seed in 0.. {
        let body = with(long.clone(), json!({"seed": seed})).to_string();
        let mut stream = send(&at, "POST", "/v1/chat/completions", "", &body);
        stream.read_exact(&mut [0; 64]).unwrap();
        drop(stream);
        let short = with(question("Hello"), json!({"max_tokens": 2}));
        assert_eq!(complete(&at, &short).status, 200, "there is one row, and it is free");
        // A completion may happen to end before its client has left.
        if left() {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "twenty clients left and none was noticed");
    }
}

/// Gives a server of eight rows long answers to write: one as a stream that has begun, whose first bytes are beside
/// it, and `more` that wait, one after the other, since each takes all rows.
fn busy(at: &str, more: usize) -> (TcpStream, [u8; 64], Vec<TcpStream>) {
    // Of eight such answers one is long.
    let long = with(question("Hello"), json!({"max_tokens": 900, "temperature": 2, "n": 8}));
    let post = |body: Value| send(at, "POST", "/v1/chat/completions", "", &body.to_string());
    let mut stream = post(with(long.clone(), json!({"stream": true})));
    let mut first = [0; 64];
    stream.read_exact(&mut first).unwrap();
    (stream, first, (0..more).map(|_| post(long.clone())).collect())
}

/// Returns when so many requests have come that the server has not begun with.
fn until_wait(at: &str, requests: f64) {
    let begin = Instant::now();
    loop {
        let page = ask(at, "GET", "/metrics", "").body;
        let line = page.lines().find(|line| line.starts_with("octet_serve_waiting ")).unwrap();
        if line.split(' ').nth(1).unwrap().parse::<f64>().unwrap() >= requests {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{line}");
    }
}

#[test]
fn a_signal_lets_what_is_under_way_finish_and_nothing_new_in() {
    let home = tempfile::tempdir().unwrap();
    let (mut node, at) = serve(home.path(), &["assets/policy", "--rows", "8", "--drain", "120"]);
    let (mut stream, first, waiting) = busy(&at, 8);
    until_wait(&at, 4.0);
    node.terminate();
    let begin = Instant::now();
    // Its health tells when the signal has arrived; a completion asked for before would be one of those under way.
    while ask(&at, "GET", "/ping", "").status == 200 {
        assert!(begin.elapsed() < PATIENCE);
    }
    let refused = complete(&at, &question("Hello"));
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.head.contains("retry-after"), "{}", refused.head);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    let all = String::from_utf8([&first[..], &rest].concat()).unwrap();
    assert!(all.contains("data: [DONE]"), "{}", &all[all.len().saturating_sub(400)..]);
    // Those that waited were under way as well; another may have come with the signal.
    let answers = waiting.into_iter().map(receive).filter(|answer| answer.status == 200);
    assert!(answers.count() >= 4, "{}", node.story());
    node.succeeds();
}

#[test]
fn the_drain_has_an_end() {
    let home = tempfile::tempdir().unwrap();
    let (mut node, at) = serve(home.path(), &["assets/policy", "--rows", "8", "--drain", "0"]);
    // More than can be done in a moment.
    let (mut stream, _first, waiting) = busy(&at, 20);
    until_wait(&at, 12.0);
    node.terminate();
    let status = node.end(PATIENCE);
    assert!(!status.success(), "requests were cut off");
    assert!(node.story().contains("requests were not finished"), "{}", node.story());
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    let rest = String::from_utf8(rest).unwrap();
    let (cut, done) = (rest.contains("\"code\":\"stopping\""), rest.contains("[DONE]"));
    assert!(cut != done, "a stream ends with an error or as one does: {rest}");
    let answers: Vec<_> = waiting.into_iter().map(receive).collect();
    assert!(answers.iter().all(|answer| [200, 503].contains(&answer.status)));
    let last = answers.last().unwrap();
    assert_eq!((last.status, &last.json()["error"]["code"]), (503, &json!("stopping")));
}

#[test]
fn a_port_of_the_network_is_not_opened_by_accident() {
    let refused = octet(&["serve", "assets/policy", "--listen", "0.0.0.0:0"]).output().unwrap();
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && error.contains("--insecure-network"), "{error}");
    let missing = octet(&["serve", "nowhere", "--listen", "127.0.0.1:0"]).output().unwrap();
    let error = String::from_utf8(missing.stderr).unwrap();
    assert!(!missing.status.success() && error.contains("nowhere"), "{error}");
}

#[test]
fn a_better_checkpoint_takes_over_and_no_answer_mixes_two() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    train(
        &short(
            &run,
            &["--set", "learner.keep_checkpoints=9", "--set", "learner.learning_rate=1e-3"],
        ),
        &run,
    );
    // A run at the pace of this test: what it has written appears step by step.
    let paced = home.path().join("paced");
    std::fs::create_dir_all(paced.join("checkpoints")).unwrap();
    for file in ["run.json", "config.toml", "metrics.jsonl"] {
        std::fs::copy(run.join(file), paced.join(file)).unwrap();
    }
    let commit = |step: u32| {
        let name = format!("checkpoints/step-{step:06}");
        std::fs::rename(run.join(&name), paced.join(&name)).unwrap();
    };
    let follow = paced.to_str().unwrap();
    let (node, at) =
        serve(home.path(), &["--follow", follow, "--follow-by", "newest", "--follow-every", "1"]);
    let body = |step: u64| {
        with(question(FORECAST), json!({"seed": step, "temperature": 1, "max_tokens": 40}))
    };
    // By version, what it says to each seed.
    let versions = |at: &str| {
        let answer = complete(at, &body(0)).json();
        answer["system_fingerprint"].as_str().unwrap().to_owned()
    };
    let mut seen = vec![versions(&at)];
    let bundled = ask(&at, "GET", "/v1/models", "").json()["data"][0]["id"].clone();
    assert_eq!(bundled, "paced", "the model is called as the run is");
    let mut answers: Vec<(String, u64, Value)> = Vec::new();
    for step in [1, 2, 4] {
        commit(step);
        let begin = Instant::now();
        while seen.last() == Some(&versions(&at)) {
            assert!(begin.elapsed() < PATIENCE, "{}", node.story());
            let seed = answers.len() as u64 % 5;
            let answer = complete(&at, &body(seed)).json();
            let fingerprint = answer["system_fingerprint"].as_str().unwrap().to_owned();
            answers.push((fingerprint, seed, of(&answer["choices"][0])));
        }
        seen.push(versions(&at));
        for seed in 0..5 {
            let answer = complete(&at, &body(seed)).json();
            let fingerprint = answer["system_fingerprint"].as_str().unwrap().to_owned();
            assert_eq!(Some(&fingerprint), seen.last());
            answers.push((fingerprint, seed, of(&answer["choices"][0])));
        }
    }
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 4, "four versions: {seen:?}");
    for (fingerprint, seed, said) in &answers {
        for (_, _, other) in answers.iter().filter(|(f, s, _)| (f, s) == (fingerprint, seed)) {
            assert_eq!(said, other, "one version says the same to the same seed");
        }
    }
    let committed = std::fs::read(paced.join("checkpoints/step-000004/octet/state.json")).unwrap();
    let committed: Value = serde_json::from_slice(&committed).unwrap();
    let digest = committed["weights_digest"].as_str().unwrap();
    assert_eq!(ask(&at, "GET", "/v1/models", "").json()["data"][0]["weights"], digest);
    let metrics = ask(&at, "GET", "/metrics", "").body;
    assert!(metrics.contains("octet_serve_swaps_total 3.0"), "{metrics}");
}
