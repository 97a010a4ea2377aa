//! `octet certs`: what it makes works, is private, and is not overwritten.
#![allow(clippy::unwrap_used)]

mod common;

use common::output;
use octet_runtime::CancellationToken;
use octet_runtime::net::{Dial, Exposure, Tls, TlsFiles, bind};
use std::path::Path;

fn octet(arguments: &[&str]) -> (bool, String) {
    let output = output(arguments);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn good(arguments: &[&str]) -> String {
    let (success, text) = octet(arguments);
    assert!(success, "{arguments:?}: {text}");
    text
}

fn bad(arguments: &[&str], part: &str) {
    let (success, text) = octet(arguments);
    assert!(!success && text.contains(part), "{arguments:?}: expected {part:?}, found {text}");
    assert_eq!(text.trim().lines().count(), 1, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_and_its_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("certs");
    let dir = dir.to_str().unwrap();
    let at = |name: &str| Path::new(dir).join(name);
    bad(&["certs", "issue", "--dir", dir, "--name", "learner"], "octet certs init");
    good(&["certs", "init", "--dir", dir]);
    bad(&["certs", "init", "--dir", dir], "holds an authority already");
    bad(&["certs", "issue", "--dir", dir, "--name", "../up"], "--name");
    good(&["certs", "issue", "--dir", dir, "--name", "learner", "--san", "10.0.0.7"]);
    good(&["certs", "issue", "--dir", dir, "--name", "worker"]);
    // Again, as when it has expired.
    good(&["certs", "issue", "--dir", dir, "--name", "worker", "--days", "2"]);
    for private in ["ca-key.pem", "learner/key.pem", "worker/key.pem"] {
        assert_eq!(mode(&at(private)), 0o600, "{private}");
    }
    assert!(!at("worker/ca-key.pem").exists(), "the authority's key goes nowhere");

    let tls = Tls::load(&TlsFiles::in_directory(&at("learner"))).unwrap();
    let listener = bind(([127, 0, 0, 1], 0).into(), Exposure::MutualTls(tls)).await.unwrap();
    let (endpoint, stop) = (listener.endpoint(), CancellationToken::new());
    let function = octet_reward_service::by_name("tool-call").unwrap();
    let settings = octet_reward_service::ServiceSettings::default();
    let serving = octet_reward_service::serve(listener, function, settings, stop.clone());
    let serving = tokio::spawn(serving);
    let worker = at("worker");
    let worker = worker.to_str().unwrap();
    let check = |directory: &str, endpoint: &str| {
        let command = ["certs", "check", endpoint, "--tls-dir", directory].map(str::to_owned);
        tokio::task::spawn_blocking(move || {
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            octet(&command)
        })
    };
    let (success, text) = check(worker, &endpoint).await.unwrap();
    assert!(success && text.contains("answers"), "{text}");

    let other = folder.path().join("other");
    let other = other.to_str().unwrap();
    good(&["certs", "init", "--dir", other]);
    good(&["certs", "issue", "--dir", other, "--name", "spy"]);
    let (success, text) = check(&format!("{other}/spy"), &endpoint).await.unwrap();
    assert!(!success && text.contains("another authority"), "{text}");
    let refused =
        Exposure::Loopback.dial(&endpoint, &octet_proto::transport::ClientOptions::default());
    assert!(refused.is_err());
    stop.cancel();
    serving.await.unwrap().unwrap();
}
