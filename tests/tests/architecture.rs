//! The shape of the house: which crate may know which, what is where, and what no file may hold.
//!
//! Invariant: each rule of `ARCHITECTURE.md` that can be checked by reading is checked here, and a
//! failure names the file and what to do.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, PackageId};
use octet_tests::{TextFile, metadata, sources, text_files, top_level_folders};

/// What the four roles may know; never each other.
const ROLE: &[&str] =
    &["octet-proto", "octet-runtime", "octet-dataset", "octet-policy", "octet-broadcast"];

/// What the reward may know: it reads calls, as serving does.
const REWARDING: &[&str] = &[
    "octet-calls",
    "octet-proto",
    "octet-runtime",
    "octet-dataset",
    "octet-policy",
    "octet-broadcast",
];

/// The crates, each with its folder and the crates of the workspace that it may know. `None` is all.
const CRATES: [(&str, &str, Option<&[&str]>); 14] = [
    ("octet-calls", "calls", Some(&[])),
    ("octet-proto", "proto", Some(&[])),
    ("octet-dataset", "dataset", Some(&[])),
    ("octet-policy", "policy", Some(&[])),
    ("octet-broadcast", "broadcast", Some(&["octet-proto"])),
    ("octet-runtime", "runtime", Some(&["octet-proto", "octet-broadcast"])),
    ("octet-serving", "serving", Some(&["octet-calls", "octet-policy", "octet-runtime"])),
    ("octet-tracking", "tracking", Some(&["octet-runtime"])),
    ("octet-reward-service", "reward-service", Some(REWARDING)),
    ("octet-rollout-worker", "rollout-worker", Some(ROLE)),
    ("octet-learner", "learner", Some(ROLE)),
    ("octet-coordinator", "coordinator", Some(ROLE)),
    ("octet", "cli", None),
    ("octet-tests", "tests", None),
];

/// Folders of the root that are no crates.
const OTHER_FOLDERS: [&str; 7] =
    [".cargo", ".ci", "assets", "benches", "deploy", "docs", "recipes"];

/// The most lines that a source file may have.
const MOST_LINES: usize = 500;

/// A word that sources below `folder` may not use, all but those below `except`.
struct Absence {
    folder: &'static str,
    except: &'static str,
    words: &'static [&'static str],
    why: &'static str,
}

const ABSENCES: [Absence; 9] = [
    Absence {
        folder: "calls/src",
        except: "",
        words: &["std::net", "tokio", "tonic", "Instant::now", "SystemTime"],
        why: "what a text calls is a pure function of it",
    },
    Absence {
        folder: "policy/src",
        except: "",
        words: &["std::net", "tokio", "tonic", "Instant::now", "SystemTime"],
        why: "the policy knows no network and no clock",
    },
    Absence {
        folder: "dataset/src",
        except: "",
        words: &["std::net", "tokio", "tonic", "Instant::now", "SystemTime"],
        why: "the dataset knows no network and no clock",
    },
    Absence {
        folder: "coordinator/src/machine",
        except: "",
        words: &["std::fs", "std::net", "tokio", "tonic", "rusqlite", "Instant", "SystemTime"],
        why: "the state machine is given the time and does no I/O",
    },
    Absence {
        folder: "tracking/src/outbox",
        except: "",
        words: &["std::fs", "std::net", "ureq", "rusqlite", "Instant", "SystemTime"],
        why: "what is sent next is decided without clock, disk and network",
    },
    Absence {
        folder: "broadcast/src",
        except: "broadcast/src/nccl",
        words: &["std::net", "tokio", "tonic", "Instant", "SystemTime", "cudarc"],
        why: "the protocol is given the time, and knows of CUDA what its transport says",
    },
    Absence {
        folder: "reward-service/src",
        except: "reward-service/src/service",
        words: &["std::net", "tokio", "tonic", "Instant::now", "SystemTime"],
        why: "a reward is a pure function; the service is the only shell around it",
    },
    Absence {
        folder: "",
        except: "proto/src/transport",
        words: &["Endpoint::", "Server::builder"],
        why: "every channel and server has the limits and deadlines of proto's transport",
    },
    Absence {
        folder: "",
        except: "",
        words: &["candle_core::pickle", "unbounded_channel"],
        why: "no pickle is loaded, and every mailbox is bounded",
    },
];

fn dependencies(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let packages = metadata.workspace_packages();
    let named = packages.iter().map(|package| {
        let names = package.dependencies.iter().map(|dependency| dependency.name.clone());
        (package.name.to_string(), names.collect())
    });
    named.collect()
}

/// Everything that a package is linked with, tests and build scripts left out.
fn linked(metadata: &Metadata, package: &PackageId) -> BTreeSet<String> {
    let nodes = &metadata.resolve.as_ref().unwrap().nodes;
    let node = |id: &PackageId| nodes.iter().find(|node| node.id == *id).unwrap();
    let (mut open, mut seen) = (vec![package.clone()], BTreeSet::new());
    while let Some(id) = open.pop() {
        for dependency in &node(&id).deps {
            let normal = |kind: &cargo_metadata::DepKindInfo| kind.kind == DependencyKind::Normal;
            if dependency.dep_kinds.iter().any(normal) && seen.insert(dependency.pkg.clone()) {
                open.push(dependency.pkg.clone());
            }
        }
    }
    seen.iter().map(|id| metadata[id].name.to_string()).collect()
}

#[test]
fn dependencies_point_one_way() {
    let known = dependencies(&metadata().unwrap());
    let members: BTreeSet<&str> = known.keys().map(String::as_str).collect();
    let listed: BTreeSet<&str> = CRATES.iter().map(|(name, ..)| *name).collect();
    assert_eq!(members, listed, "a crate is missing from CRATES, or from the workspace");
    for (name, _, may) in CRATES {
        let Some(may) = may else { continue };
        for other in known[name].iter().filter(|other| members.contains(other.as_str())) {
            assert!(
                may.contains(&other.as_str()),
                "{name} depends on {other}, and may know {may:?}; move what both need down, or \
                 hand it over in the crate that knows both"
            );
        }
    }
}

#[test]
fn policy_and_dataset_are_linked_with_no_network() {
    let metadata = metadata().unwrap();
    for name in ["octet-policy", "octet-dataset"] {
        let package = metadata.packages.iter().find(|package| package.name == name).unwrap();
        let linked = linked(&metadata, &package.id);
        assert!(linked.contains("serde_json"), "{name}: the walk found only {linked:?}");
        for network in ["tokio", "tonic", "hyper", "mio", "socket2"] {
            assert!(!linked.contains(network), "{name} is linked with {network}");
        }
    }
}

#[test]
fn folders_are_those_of_the_design() {
    let found: BTreeSet<String> = top_level_folders().unwrap().into_iter().collect();
    for wanted in CRATES.iter().map(|(_, folder, _)| folder).chain(&OTHER_FOLDERS) {
        assert!(found.contains(*wanted), "expected files in the folder {wanted}, found none");
    }
    for file in sources().unwrap() {
        let at_home = CRATES.iter().any(|(_, folder, _)| file.is_below(folder));
        assert!(at_home, "{} lies in no crate of the design", file.path);
    }
}

#[test]
fn sources_are_small_and_say_what_they_are_for() {
    for file in sources().unwrap() {
        let lines = file.text.lines().count();
        let path = &file.path;
        assert!(lines <= MOST_LINES, "{path}: {lines} lines, at most {MOST_LINES}; cut it in two");
        // `thing/tests.rs` is told by `thing.rs`.
        let headed = file.text.starts_with("//!") || path.ends_with("/tests.rs");
        assert!(headed, "{path}: expected a first line that begins with //!");
    }
}

#[test]
fn nothing_is_left_unfinished() {
    // Put together here, or this file would be the first to hold them.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("unimple", "mented!")];
    let marks = marks.iter().chain(&[concat!("to", "do!")]);
    for file in sources().unwrap() {
        for (number, line) in file.lines() {
            for mark in marks.clone() {
                assert!(!line.contains(mark), "{}:{number}: {mark}; finish it", file.path);
            }
        }
    }
}

#[test]
fn no_file_names_a_machine() {
    let words = [concat!("/wo", "rk/"), concat!("/tmp/", "target"), concat!("/ro", "ot/")];
    let files = text_files().unwrap();
    // Generated rows hold paths that nobody has.
    for file in files.iter().filter(|file| !file.is_below("assets/data")) {
        for (number, line) in file.lines() {
            for word in words {
                assert!(!line.contains(word), "{}:{number} names {word}", file.path);
            }
        }
    }
}

#[test]
fn what_may_not_be_there_is_not_there() {
    let sources = sources().unwrap();
    for Absence { folder, except, words, why } in ABSENCES {
        let mut read = 0;
        // Tests may look at the clock and open sockets of their own.
        let shipped = |file: &&TextFile| {
            let path = &file.path;
            path.contains("/src/") && !path.ends_with("/tests.rs") && !path.contains("/tests/")
        };
        for file in sources.iter().filter(shipped) {
            let inside = folder.is_empty() || file.is_below(folder);
            let excepted = !except.is_empty() && file.path.starts_with(except);
            if !inside || excepted {
                continue;
            }
            read += 1;
            for (number, line) in file.lines().filter(|(_, l)| !l.trim_start().starts_with("//")) {
                for word in words {
                    assert!(!line.contains(word), "{}:{number} uses {word}: {why}", file.path);
                }
            }
        }
        assert!(read > 0, "{folder}: no sources there; correct ABSENCES");
    }
}

#[test]
fn the_readmes_test_command_is_what_ci_runs() {
    let files = text_files().unwrap();
    let text = |path: &str| match files.iter().find(|file| file.path == path) {
        Some(file) => file.text.as_str(),
        None => panic!("expected {path}, found no such file"),
    };
    let (readme, ci) = (text("README.md"), text(".ci/run"));
    let commands: Vec<&str> =
        readme.lines().map(str::trim).filter(|line| line.starts_with("cargo test")).collect();
    assert!(!commands.is_empty(), "README.md names no line that begins with cargo test");
    for command in commands {
        let command = command.split('#').next().unwrap_or_default().trim();
        assert!(ci.contains(command), ".ci/run does not run the README's {command:?}");
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let files = text_files().unwrap();
    let page = files.iter().find(|file| file.path == "ARCHITECTURE.md").unwrap();
    let reasoned: BTreeSet<&str> = page
        .text
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|cell| cell.split(','))
        .map(|name| name.trim().trim_matches('`'))
        .collect();
    let known = dependencies(&metadata().unwrap());
    for (name, dependencies) in &known {
        for dependency in dependencies.iter().filter(|other| !known.contains_key(*other)) {
            assert!(
                reasoned.contains(dependency.as_str()),
                "{name} depends on {dependency}; add it to the table of dependencies in \
                 ARCHITECTURE.md with its reason"
            );
        }
    }
}
