#![allow(clippy::unwrap_used)]

use std::fs;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use octet_dataset::Example;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::function::score;

fn example() -> Example {
    Example::from_value(json!({
        "data_source": "weather",
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather?"}],
        "reward_model": {"ground_truth": {"tool_call": {"name": "weather", "parameters": {"city": "Lyon"}}}},
        "extra_info": {"index": 7},
    }))
    .unwrap()
}

struct Bench {
    folder: TempDir,
    settings: PythonSettings,
    printed: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    /// None where there is no Python, and says so.
    fn new() -> Option<Self> {
        if std::process::Command::new("python3").arg("--version").output().is_err() {
            eprintln!("SKIPPED: reward functions in Python were not run: there is no python3");
            return None;
        }
        let printed: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&printed);
        let settings = PythonSettings {
            workers: NonZeroUsize::MIN,
            call_limit: Duration::from_secs(20),
            show: Arc::new(move |line| sink.lock().unwrap().push(line.to_owned())),
            ..PythonSettings::default()
        };
        Some(Self { folder: tempfile::tempdir().unwrap(), settings, printed })
    }

    fn write(&self, name: &str, code: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, code).unwrap();
        path
    }

    fn source(&self, code: &str) -> PythonSource {
        PythonSource { file: self.write("mine.py", code), function: None, shape: None }
    }

    fn open(&self, code: &str) -> PythonReward {
        PythonReward::open(&self.source(code), self.settings.clone()).unwrap()
    }

    fn refused(&self, code: &str) -> String {
        PythonReward::open(&self.source(code), self.settings.clone()).err().unwrap().to_string()
    }
}

fn reward(function: &PythonReward, completion: &str) -> f64 {
    score(function, &example(), completion).unwrap().reward
}

fn failure(function: &PythonReward, completion: &str) -> ScoreError {
    score(function, &example(), completion).unwrap_err()
}

#[test]
fn the_papers_shape_gets_text_and_ground_truth() {
    let Some(bench) = Bench::new() else { return };
    let function = bench.open(
        "import json\n\
         def helper(a): return a\n\
         def reward_function(response, ground_truth):\n    \
             wanted = ground_truth['tool_call']\n    \
             return 1.0 if json.loads(response) == wanted else 0.5\n",
    );
    assert_eq!((function.shape(), function.name()), (Shape::Aws, "mine:reward_function"));
    let right = r#"{"name": "weather", "parameters": {"city": "Lyon"}}"#;
    assert_eq!((reward(&function, right), reward(&function, "{}")), (1.0, 0.5));
}

#[test]
fn verls_shape_gets_its_four_and_may_give_an_object() {
    let Some(bench) = Bench::new() else { return };
    let function = bench.open(
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n    \
             assert data_source == 'weather' and extra_info['index'] == 7\n    \
             return {'score': len(solution_str) / 10, 'acc': ground_truth['tool_call']['name'] in solution_str}\n",
    );
    assert_eq!(function.shape(), Shape::Verl);
    let verdict = score(&function, &example(), "weather").unwrap();
    assert_eq!((verdict.reward, verdict.detail.as_str()), (0.7, "acc True"));
    let short =
        bench.open("async def compute_score(solution_str, ground_truth):\n    return True\n");
    assert_eq!(reward(&short, ""), 1.0);
}

#[test]
fn trls_shape_gets_lists_of_one_with_the_rows_columns() {
    let Some(bench) = Bench::new() else { return };
    let function = bench.open(
        "def polite(prompts, completions, data_source, reward_model, **kwargs):\n    \
             assert prompts[0][-1] == {'role': 'user', 'content': 'Weather?'}\n    \
             assert data_source == ['weather'] and 'ground_truth' in reward_model[0]\n    \
             assert 'prompt' not in kwargs and kwargs['ground_truth'][0]['tool_call']\n    \
             return [float('please' in c[0]['content']) for c in completions]\n",
    );
    assert_eq!(function.shape(), Shape::Trl);
    assert_eq!((reward(&function, "please"), reward(&function, "now")), (1.0, 0.0));
    let plain = bench.open(
        "def brief(completions: list[str], prompts: list[str]) -> list[float]:\n    \
             assert prompts == ['Weather?']\n    \
             return [1.0 / len(c) for c in completions]\n",
    );
    assert_eq!((plain.shape(), reward(&plain, "abcd")), (Shape::TrlText, 0.25));
    let none = bench.open("def r(completions, **kw):\n    return [None]\n");
    assert_eq!(failure(&none, "").kind(), "not-a-number");
    let three = bench.open("def r(completions, **kw):\n    return [1, 2, 3]\n");
    let error = failure(&three, "");
    assert_eq!(error.kind(), "bad-return");
    assert!(error.to_string().contains("a list of 3"), "{error}");
    let refused = bench.refused("def r(completions, trainer_state):\n    return [1]\n");
    assert!(refused.contains("trainer_state") && refused.contains("swap the reward"), "{refused}");
}

#[test]
fn a_lambda_gets_samples_and_answers_in_any_of_its_ways() {
    let Some(bench) = Bench::new() else { return };
    let graded = "def grade(sample):\n    \
                      said, truth = sample['messages'][-1], sample['reference_answer']\n    \
                      assert said['role'] == 'assistant' and sample['metadata']['reference_answer'] == truth\n    \
                      hit = float(truth['tool_call']['name'] in said['content'])\n    \
                      return {'id': sample['id'], 'aggregate_reward_score': hit,\n            \
                              'metrics_list': [{'name': 'hit', 'value': hit, 'type': 'Reward'}]}\n";
    let bare = "def lambda_handler(event, context):\n    \
                    assert context.get_remaining_time_in_millis() > 0\n    \
                    return [grade(s) for s in event]\n";
    let wrapped = "import json\n\
                   def lambda_handler(event, context):\n    \
                       return {'statusCode': 200, 'body': json.dumps([grade(s) for s in event])}\n";
    for handler in [bare, wrapped] {
        let function = bench.open(&format!("{graded}{handler}"));
        assert_eq!(function.shape(), Shape::Lambda);
        let verdict = score(&function, &example(), "weather").unwrap();
        assert_eq!((verdict.reward, verdict.detail.as_str()), (1.0, "hit 1.0"));
        assert_eq!(reward(&function, "no"), 0.0);
    }
    let batch =
        "def lambda_handler(event, context):\n    return [grade(s) for s in event['batch']]\n";
    let source = PythonSource {
        shape: Some(Shape::LambdaBatch),
        ..bench.source(&format!("{graded}{batch}"))
    };
    let function = PythonReward::open(&source, bench.settings.clone()).unwrap();
    assert_eq!(reward(&function, "weather"), 1.0);
    let failing = bench.open(
        "def lambda_handler(event, context):\n    return {'statusCode': 400, 'body': '{\"error\": \"no\"}'}\n",
    );
    assert!(failure(&failing, "").to_string().contains("400"));
}

#[test]
fn what_is_no_reward_is_refused_by_name() {
    let Some(bench) = Bench::new() else { return };
    let function = bench.open(
        "def reward_function(response, ground_truth):\n    \
             print('asked', response)\n    \
             return eval(response)\n",
    );
    for (told, kind) in [
        ("float('nan')", "not-finite"),
        ("float('inf')", "not-finite"),
        ("3.7", "out-of-range"),
        ("-0.1", "out-of-range"),
        ("'0.5'", "not-a-number"),
        ("None", "not-a-number"),
        ("object()", "not-a-number"),
        ("{'points': 1}", "bad-return"),
        ("1 / 0", "threw"),
        ("exit(3)", "threw"),
        ("__import__('os')._exit(3)", "crashed"),
    ] {
        let error = failure(&function, told);
        assert_eq!(error.kind(), kind, "{told}: {error}");
        assert!(error.to_string().contains("expected"), "{error}");
    }
    let error = failure(&function, "1 / 0").to_string();
    assert!(error.contains("ZeroDivisionError: division by zero"), "{error}");
    assert!(error.contains("mine.py") && error.contains("line 3"), "a traceback: {error}");
    assert_eq!(reward(&function, "1"), 1.0, "the process that ended was started again");
    assert!(bench.printed.lock().unwrap().contains(&"asked 1".to_owned()));
}

#[test]
fn a_function_that_hangs_is_killed_and_the_next_call_served() {
    let Some(mut bench) = Bench::new() else { return };
    bench.settings.call_limit = Duration::from_millis(1500);
    let function = bench.open(
        "import time\n\
         def reward_function(response, ground_truth):\n    \
             while response == 'hang': time.sleep(0.01)\n    \
             return 1\n",
    );
    let begin = Instant::now();
    let error = failure(&function, "hang");
    assert!(error.kind() == "timed-out" && error.retryable(), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!(reward(&function, ""), 1.0);
}

#[test]
fn a_function_that_eats_memory_stays_within_its_limit() {
    let Some(mut bench) = Bench::new() else { return };
    bench.settings.memory_mib = NonZeroU64::new(512);
    let function = bench.open(
        "def reward_function(response, ground_truth):\n    \
             return len(bytearray(int(response) << 20)) > 0\n",
    );
    let error = failure(&function, "2048");
    assert_eq!(error.kind(), "out-of-memory", "{error}");
    assert!(error.to_string().contains("512 MiB"), "{error}");
    assert_eq!(reward(&function, "16"), 1.0);
}

#[test]
fn a_changed_function_is_another_revision_and_a_moved_one_is_not() {
    let (Some(here), Some(there)) = (Bench::new(), Bench::new()) else { return };
    let code =
        "import rules\ndef reward_function(response, ground_truth):\n    return rules.worth()\n";
    for bench in [&here, &there] {
        bench.write("rules.py", "def worth(): return 0.25\n");
    }
    let first = here.open(code);
    assert_eq!(first.digest(), there.open(code).digest(), "a function that lies elsewhere");
    assert_ne!(first.digest(), here.open(&format!("{code}\n")).digest(), "the file changed");
    let wide = RewardRange { min: -1.0, max: 1.0 };
    let ranged = PythonSettings { range: wide, ..here.settings.clone() };
    let ranged = PythonReward::open(&here.source(code), ranged).unwrap();
    assert_ne!(first.digest(), ranged.digest(), "what is out of range changed");
    there.write("rules.py", "def worth(): return 0.75\n");
    assert_ne!(first.digest(), there.open(code).digest(), "what it imports changed");
    // The file is the one that was read; what changes beside it is found when a process starts.
    here.write("mine.py", "def reward_function(response, ground_truth):\n    return 1\n");
    assert_eq!(reward(&first, ""), 0.25);
    here.write("rules.py", "def worth(): return 0.5\n");
    let two = PythonSettings { workers: NonZeroUsize::new(2).unwrap(), ..here.settings.clone() };
    let second = PythonReward::open(&here.source(code), two).unwrap();
    here.write("rules.py", "def worth(): return 1.0\n");
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let calls: Vec<_> =
            (0..8).map(|_| scope.spawn(|| score(&second, &example(), ""))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    for outcome in outcomes {
        match outcome {
            Ok(verdict) => assert_eq!(verdict.reward, 0.5),
            Err(error) => assert!(error.to_string().contains("new revision"), "{error}"),
        }
    }
}

#[test]
fn what_holds_no_function_is_refused_with_what_it_holds() {
    let Some(bench) = Bench::new() else { return };
    let two = "def a(response, ground_truth): return 1\ndef b(response, ground_truth): return 1\n";
    let text = bench.refused(two);
    assert!(text.contains("a(response, ground_truth), b(response, ground_truth)"), "{text}");
    let named = PythonSource { function: Some("b".into()), ..bench.source(two) };
    assert_eq!(PythonReward::open(&named, bench.settings.clone()).unwrap().name(), "mine:b");
    assert!(bench.refused("x = 1\n").contains("no function"));
    assert!(bench.refused("def f(x, y, z): return 1\n").contains("--shape"));
    let text = bench.refused("def f(:\n");
    assert!(text.contains("SyntaxError") && text.contains("line 1"), "{text}");
    assert!(bench.refused("import nothing_of_this_name\n").contains("ModuleNotFoundError"));
    let missing = PythonSource { file: "missing.py".into(), function: None, shape: None };
    let error = PythonReward::open(&missing, bench.settings.clone()).err().unwrap();
    assert!(matches!(error, PythonError::Unreadable { .. }), "{error}");
    let no_python =
        PythonSettings { interpreter: "no-such-python".into(), ..bench.settings.clone() };
    let error = PythonReward::open(&bench.source("x = 1\n"), no_python).err().unwrap();
    assert!(error.to_string().contains("no-such-python"), "{error}");
}

#[test]
fn a_function_that_draws_gives_the_same_request_the_same_reward() {
    let Some(bench) = Bench::new() else { return };
    let code = "import random\ndef reward_function(response, ground_truth):\n    \
                return random.random() * len({'a', 'b', response}) / 3\n";
    let (first, second) = (bench.open(code), bench.open(code));
    let rewards: Vec<f64> = ["x", "y", "x"].map(|text| reward(&first, text)).into();
    assert_eq!((rewards[0], rewards[1]), (rewards[2], reward(&second, "y")));
    assert_ne!(rewards[0], rewards[1]);
}

#[test]
fn whatever_user_code_prints_is_shown() {
    let Some(bench) = Bench::new() else { return };
    let function = bench.open(
        "import os, sys\n\
         print('loading')\n\
         def reward_function(response, ground_truth):\n    \
             os.system('echo from a shell')\n    \
             print('to the errors', file=sys.stderr, flush=True)\n    \
             return 1\n",
    );
    assert_eq!(reward(&function, ""), 1.0);
    let begin = Instant::now();
    let all = ["loading", "from a shell", "to the errors"];
    while begin.elapsed() < Duration::from_secs(10) {
        let printed = bench.printed.lock().unwrap().clone();
        if all.iter().all(|line| printed.iter().any(|printed| printed == line)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("expected {all:?}, found {:?}", bench.printed.lock().unwrap());
}

#[test]
fn sources_are_files_with_or_without_a_function() {
    let parsed: PythonSource = "dir/a.py:f".parse().unwrap();
    assert_eq!((parsed.file, parsed.function.as_deref()), ("dir/a.py".into(), Some("f")));
    assert_eq!("a.py".parse::<PythonSource>().unwrap().function, None);
    for bad in ["", ".py", "a", "a.py:", "a.py:f g", "dir/a.txt"] {
        assert!(bad.parse::<PythonSource>().is_err(), "{bad}");
    }
    for shape in Shape::ALL {
        assert_eq!(shape.name().parse::<Shape>().unwrap(), shape);
    }
}

#[test]
fn no_frame_of_a_child_makes_its_reader_panic() {
    use proptest::prelude::*;
    proptest!(|(bytes: Vec<u8>)| {
        // Whatever it is, it is read or refused, and a length alone makes nobody allocate.
        drop(process::read_frame(&mut bytes.as_slice()));
        let told: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        drop(Loaded::read(&told));
    });
    let huge = [0xff, 0xff, 0xff, 0xff, b'{'];
    assert!(process::read_frame(&mut huge.as_slice()).is_err());
}
