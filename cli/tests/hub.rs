//! Models by their names on the Hugging Face hub, against a server that speaks as the hub does.
//!
//! The server here gives what the hub gives for a model: the listing of a revision with sizes and digests, small
//! files from the repository, large ones by a redirection, and any range of them.

#![allow(clippy::unwrap_used)]

mod common;

use common::{octet, root};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS: &str = "model.safetensors";

type Files = BTreeMap<String, Vec<u8>>;

/// A hub with some repositories.
struct Hub {
    state: Arc<State>,
    /// Cache and token of the test.
    home: tempfile::TempDir,
}

struct State {
    endpoint: String,
    repositories: BTreeMap<String, Files>,
    /// What is sent for weights instead of what was promised.
    instead: Mutex<Option<Vec<u8>>>,
    /// Bytes after which the next download of weights breaks off; 0 for never.
    cut: AtomicUsize,
    token: Option<String>,
    /// `PATH` and `Range` of all requests for files.
    asked: Mutex<Vec<(String, String)>>,
}

/// The bundled policy as a repository.
fn policy() -> Files {
    let folder = root().join("assets/policy");
    let mut files = Files::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            files.insert(name, std::fs::read(&path).unwrap());
        }
    }
    files.insert("pytorch_model.bin".into(), b"a pickle".to_vec());
    files
}

impl Hub {
    fn new(repositories: &[(&str, Files)], token: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = Arc::new(State {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            repositories: repositories.iter().map(|(id, f)| ((*id).into(), f.clone())).collect(),
            instead: Mutex::default(),
            cut: AtomicUsize::new(0),
            token: token.map(str::to_owned),
            asked: Mutex::default(),
        });
        let served = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = served.clone();
                // A client that goes away is part of what is tested.
                std::thread::spawn(move || drop(state.answer(stream)));
            }
        });
        Self { state, home: tempfile::tempdir().unwrap() }
    }

    fn octet(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = octet(arguments);
        let hugging_face = ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "HF_HUB_CACHE"];
        for name in
            hugging_face.iter().chain(&["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
        {
            command.env_remove(name);
        }
        command.env("HF_HOME", self.home.path()).env("HF_ENDPOINT", &self.state.endpoint);
        command.envs(variables.iter().copied()).output().unwrap()
    }

    fn repository(&self, id: &str) -> PathBuf {
        self.home.path().join("hub").join(format!("models--{}", id.replace('/', "--")))
    }

    /// Paths and ranges of files asked for since the last call, but for the questions about size.
    fn downloads(&self) -> Vec<(String, String)> {
        let mut asked = std::mem::take(&mut *self.state.asked.lock().unwrap());
        asked.retain(|(_, range)| range != "bytes=0-0");
        asked
    }
}

impl State {
    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().unwrap()?;
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut headers = BTreeMap::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let say = |status: &str, headers: &str, body: &[u8]| {
            write!(&stream, "HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n")?;
            (&stream).write_all(body)
        };
        let allowed = match &self.token {
            Some(token) => headers.get("authorization") == Some(&format!("Bearer {token}")),
            None => true,
        };
        if !allowed && !path.starts_with("/cdn/") {
            return say("401 Unauthorized", "Content-Length: 0\r\n", b"");
        }
        if let Some(rest) = path.strip_prefix("/api/models/") {
            let id = rest.split("/revision/").next().unwrap_or_default();
            let known = rest == format!("{id}/revision/main?blobs=true")
                || rest == format!("{id}/revision/{COMMIT}?blobs=true");
            let Some(files) = self.repositories.get(id).filter(|_| known) else {
                return say("404 Not Found", "Content-Length: 0\r\n", b"");
            };
            let body = listing(files).to_string();
            return say("200 OK", &format!("Content-Length: {}\r\n", body.len()), body.as_bytes());
        }
        let range = headers.get("range").cloned().unwrap_or_default();
        let (id, name) = path.trim_start_matches("/cdn").split_once("/resolve/").unwrap();
        let name = name.strip_prefix(&format!("{COMMIT}/")).unwrap();
        let content = &self.repositories[id.trim_start_matches('/')][name];
        if name == WEIGHTS && !path.starts_with("/cdn/") {
            let linked = format!("X-Linked-Etag: \"{}\"\r\n", sha256(content));
            let there = format!("Location: {}/cdn{path}\r\n", self.endpoint);
            let headers =
                format!("{linked}{there}X-Repo-Commit: {COMMIT}\r\nContent-Length: 0\r\n");
            return say("302 Found", &headers, b"");
        }
        self.asked.lock().unwrap().push((name.to_owned(), range.clone()));
        let (from, to) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let from: usize = from.parse().unwrap();
        let last = to.parse().unwrap_or(content.len() - 1);
        let total = content.len();
        let headers = format!(
            "ETag: \"{}\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Range: bytes {from}-{last}/{total}\r\n\
             Content-Length: {}\r\n",
            blob(content),
            (last + 1).saturating_sub(from),
        );
        let instead = self.instead.lock().unwrap().clone().filter(|_| name == WEIGHTS);
        let content = instead.as_ref().unwrap_or(content);
        let mut body = &content[from..=last];
        if name == WEIGHTS && body.len() > 1 {
            let cut = self.cut.swap(0, Ordering::Relaxed);
            if cut > 0 {
                body = &body[..cut];
            }
        }
        say("206 Partial Content", &headers, body)
    }
}

fn sha256(content: &[u8]) -> String {
    digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn blob(content: &[u8]) -> String {
    sha256(content)[..40].to_owned()
}

fn listing(files: &Files) -> Value {
    let file = |(name, content): (&String, &Vec<u8>)| {
        let mut file = json!({"rfilename": name, "size": content.len(), "blobId": blob(content)});
        if name == WEIGHTS {
            file["lfs"] = json!({"sha256": sha256(content), "size": content.len()});
        }
        file
    };
    json!({"sha": COMMIT, "siblings": files.iter().map(file).collect::<Vec<_>>()})
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// Expects success, and returns what went to standard output and error.
fn passed(output: &Output) -> (String, String) {
    let (said, noted) = texts(output);
    assert!(output.status.success(), "{said}\n{noted}");
    (said, noted)
}

/// Expects a refusal of one line.
fn refused(output: &Output) -> String {
    let (said, noted) = texts(output);
    assert!(!output.status.success(), "{said}\n{noted}");
    let errors: Vec<&str> = noted.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{noted}");
    errors[0].to_owned()
}

#[test]
fn a_model_is_downloaded_once_resumed_and_there_offline() {
    let files = policy();
    let size = files[WEIGHTS].len();
    let hub = Hub::new(&[("tiny/policy", files.clone())], None);
    // A process that was killed half-way left this.
    let part = hub
        .repository("tiny/policy")
        .join("blobs")
        .join(format!("{}.part", sha256(&files[WEIGHTS])));
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, &files[WEIGHTS][..size / 4]).unwrap();
    // And the network breaks off once more.
    hub.state.cut.store(size / 4, Ordering::Relaxed);
    let (said, noted) = passed(&hub.octet(&["model", "show", "tiny/policy"], &[]));
    assert!(said.contains("family       qwen2") && said.contains("shows tools"), "{said}");
    assert!(
        noted.contains("downloading tiny/policy at 01234567: ") && noted.contains("are here"),
        "{noted}"
    );
    let downloads = hub.downloads();
    let weights: Vec<String> = downloads
        .iter()
        .filter(|(name, _)| name == WEIGHTS)
        .map(|(_, range)| range.clone())
        .collect();
    let from = |share: usize| format!("bytes={}-", size / 4 * share);
    assert_eq!(weights, [from(1), from(2)], "each try goes on where the last one stopped");
    assert!(downloads.iter().all(|(name, _)| name != "pytorch_model.bin"), "{downloads:?}");
    assert_eq!(downloads.last().unwrap().0, WEIGHTS, "weights come last");

    let snapshot = hub.repository("tiny/policy").join("snapshots").join(COMMIT);
    assert_eq!(std::fs::read(snapshot.join(WEIGHTS)).unwrap(), files[WEIGHTS]);
    let main = std::fs::read_to_string(hub.repository("tiny/policy").join("refs/main")).unwrap();
    assert_eq!(main, COMMIT);

    let (_, noted) = passed(&hub.octet(&["model", "show", "tiny/policy"], &[]));
    assert!(!noted.contains("downloading") && hub.downloads().is_empty(), "{noted}");
    let nowhere = ("HF_ENDPOINT", "http://127.0.0.1:9");
    let (_, noted) =
        passed(&hub.octet(&["model", "show", "tiny/policy"], &[nowhere, ("HF_HUB_OFFLINE", "1")]));
    assert_eq!(noted, "");
    let (_, noted) = passed(&hub.octet(&["model", "show", "tiny/policy"], &[nowhere]));
    assert!(noted.contains("using what the cache has"), "{noted}");
    let commit = format!("tiny/policy@{COMMIT}");
    let (_, noted) = passed(&hub.octet(&["model", "show", &commit], &[nowhere]));
    assert_eq!(noted, "", "a commit never changes: nobody is asked");

    // What takes a model takes it by this name.
    let mut arguments = vec!["eval", "--model", "tiny/policy", "--rows", "1", "--max-tokens", "2"];
    passed(&hub.octet(&arguments, &[]));
    arguments[2] = "tiny/polity";
    let error = refused(&hub.octet(&arguments, &[]));
    assert!(error.contains("tiny/polity") && error.contains("HF_TOKEN"), "{error}");
}

#[test]
fn what_is_not_what_was_promised_is_removed() {
    let files = policy();
    let hub = Hub::new(&[("tiny/policy", files.clone())], None);
    let mut other = files[WEIGHTS].clone();
    let middle = other.len() / 2;
    other[middle] ^= 1;
    *hub.state.instead.lock().unwrap() = Some(other);
    let error = refused(&hub.octet(&["model", "show", "tiny/policy"], &[]));
    assert!(
        error.contains(WEIGHTS) && error.contains("SHA-256") && error.contains("again"),
        "{error}"
    );
    let repository = hub.repository("tiny/policy");
    assert!(!repository.join("refs/main").exists(), "half a model must not have a name");
    assert!(!repository.join("blobs").join(sha256(&files[WEIGHTS])).exists());
    *hub.state.instead.lock().unwrap() = None;
    passed(&hub.octet(&["model", "show", "tiny/policy"], &[]));
}

#[test]
fn a_private_model_needs_the_token() {
    let hub = Hub::new(&[("tiny/policy", policy())], Some("hf_secret"));
    let error = refused(&hub.octet(&["model", "show", "tiny/policy"], &[]));
    assert!(error.contains("set HF_TOKEN"), "{error}");
    let error = refused(&hub.octet(&["model", "show", "tiny/policy"], &[("HF_TOKEN", "hf_wrong")]));
    assert!(error.contains("token"), "{error}");
    std::fs::write(hub.home.path().join("token"), "hf_secret\n").unwrap();
    passed(&hub.octet(&["model", "show", "tiny/policy"], &[]));
}

#[test]
fn what_cannot_be_had_is_one_line_that_says_what_to_do() {
    let mut ggufs = Files::new();
    ggufs.insert("tiny-q4_0.gguf".into(), b"GGUF\x03\0\0\0".to_vec());
    let hub = Hub::new(&[("tiny/ggufs", ggufs)], None);
    let show = |name: &str, variables: &[(&str, &str)]| {
        refused(&hub.octet(&["model", "show", name], variables))
    };
    let error = show("tiny/policy", &[("HF_HUB_OFFLINE", "1")]);
    assert!(error.contains("HF_HUB_OFFLINE") && error.contains("tiny/policy"), "{error}");
    let error = show("tiny/policy", &[("HF_ENDPOINT", "http://127.0.0.1:9")]);
    assert!(error.contains("does not answer") && error.contains("127.0.0.1:9"), "{error}");
    let error = show("tiny/policy", &[]);
    assert!(error.contains("no directory or file") && error.contains("check the name"), "{error}");
    let error = show("tiny/ggufs@v2", &[]);
    assert!(error.contains("revision"), "{error}");
    let error = show("tiny/ggufs", &[]);
    assert!(error.contains("tiny/ggufs/FILE.gguf: tiny-q4_0.gguf"), "{error}");
    let error = show("tiny/ggufs/tiny-q8_0.gguf", &[]);
    assert!(error.contains("tiny-q8_0.gguf") && error.contains("tiny-q4_0.gguf"), "{error}");
    // Downloaded whole, and no model all the same.
    let error = show("tiny/ggufs/tiny-q4_0.gguf", &[]);
    assert!(error.contains("tiny-q4_0.gguf") && error.contains("header"), "{error}");
    let error = show("runs/of/nobody", &[]);
    assert!(error.contains("runs/of/nobody"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_before_its_weights_are_downloaded() {
    let mut huge = policy();
    let config = json!({
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 152064,
        "hidden_size": 65536, "intermediate_size": 131072, "num_hidden_layers": 200,
        "num_attention_heads": 512, "num_key_value_heads": 64, "max_position_embeddings": 32768,
    });
    huge.insert("config.json".into(), config.to_string().into_bytes());
    let hub = Hub::new(&[("tiny/policy", policy()), ("huge/policy", huge)], None);
    let out = hub.home.path().join("run");
    let out = out.to_str().unwrap();
    let error = refused(
        &hub.octet(&["train", "--model", "huge/policy", "--out", out, "--set", "run.steps=1"], &[]),
    );
    assert!(error.contains("memory") && !Path::new(out).exists(), "{error}");
    assert!(hub.downloads().iter().all(|(name, _)| name != WEIGHTS));
    // A plan asks for no more than the configuration.
    let (said, _) = passed(&hub.octet(&["train", "--model", "tiny/policy", "--plan"], &[]));
    assert!(said.contains("tiny/policy") && said.contains("memory"), "{said}");
    let downloads = hub.downloads();
    assert_eq!(
        downloads.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["config.json"]
    );
}
