//! The roles as processes of their own: the same weights as in one process.

#![allow(clippy::unwrap_used)]

mod common;

use common::cluster::{Cluster, in_one_process, short_keys};

#[test]
fn five_processes_make_the_weights_of_one() {
    let home = tempfile::tempdir().unwrap();
    let keys = short_keys(&[]);
    let expected = in_one_process(home.path(), &keys);
    let mut cluster = Cluster::start(home.path(), &keys, 2);
    cluster.learner.succeeds();
    let printed = cluster.learner.story();
    assert!(printed.contains(&expected), "the digest is printed: {printed}");
    assert_eq!(cluster.finish(), expected);
}
