//! Rewards swapped over gRPC: who may, what is refused, and what status and journal say of it.
#![allow(clippy::unwrap_used)]

mod support;

use octet_coordinator::JOURNAL_FILE;
use octet_coordinator::journal::read_revisions;
use octet_coordinator::{Coordinator, Reward};
use octet_proto::StepIndex;
use octet_proto::admin::{
    AdminClient, GetRewardsRequest, RollbackRewardRequest, SwapRewardRequest, admin_client,
};
use octet_proto::auth::JOIN_TOKEN;
use octet_proto::coordinator::{
    GetStatusRequest, LeaseRequest, ReportProgressRequest, RewardBinding, RewardState,
};
use octet_proto::error::error_kind;
use octet_proto::transport::{ClientOptions, channel};
use proptest::prelude::*;
use support::*;
use tonic::metadata::BinaryMetadataValue;
use tonic::{Code, Request, Status};

fn admin(running: &Running) -> AdminClient {
    let address = format!("http://{}", running.address);
    admin_client(channel(&address, &ClientOptions::default()).unwrap())
}

fn shown<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = BinaryMetadataValue::from_bytes(token.as_bytes());
    request.metadata_mut().insert_bin(JOIN_TOKEN, value);
    request
}

fn to(name: &str, newest_known: u64) -> SwapRewardRequest {
    SwapRewardRequest {
        name: name.into(),
        digest: format!("digest-{name}"),
        endpoints: vec!["http://127.0.0.1:10".into(), "http://127.0.0.1:11".into()],
        newest_known,
    }
}

fn kind(status: &Status) -> (Code, &str) {
    (status.code(), error_kind(status).unwrap_or("none"))
}

fn states(bindings: &[RewardBinding]) -> Vec<(u64, u64, RewardState)> {
    bindings.iter().map(|b| (b.from_step, b.until_step, b.state())).collect()
}

#[tokio::test]
async fn a_swap_is_bound_drains_the_old_and_is_in_status_and_journal() {
    let (_folder, path) = folder();
    let running = Running::start(config(&path, 4, 1, 0), None).await;
    let (mut client, mut admin) = (running.client(), admin(&running));
    let disk = Shared::default();
    let learner = client.register_learner(learner_registration(&disk)).await.unwrap().into_inner();
    let worker = client.register_worker(registration("w1", 1)).await.unwrap().into_inner();
    let lease = LeaseRequest { worker_id: worker.worker_id, want: 1, wait_ms: 0 };
    client.lease(lease).await.unwrap();

    let told = admin.get_rewards(shown(TOKEN, GetRewardsRequest { rows: 3 })).await.unwrap();
    let told = told.into_inner();
    assert_eq!((told.run_id.as_str(), told.total_steps, told.rows.len()), ("run", 4, 3));
    assert_eq!(states(&told.rewards), [(0, 4, RewardState::Active)]);
    let all = admin.get_rewards(shown(TOKEN, GetRewardsRequest { rows: 1 << 20 })).await.unwrap();
    assert_eq!(all.into_inner().rows.len(), ROWS);

    let bound = admin.swap_reward(shown(TOKEN, to("strict", 1))).await.unwrap().into_inner();
    assert_eq!((bound.from_step, bound.revision.unwrap().number), (1, 2));
    let stale = admin.swap_reward(shown(TOKEN, to("late", 1))).await.unwrap_err();
    assert_eq!(kind(&stale), (Code::Aborted, "reward-moved"));

    let mut status = async || {
        let status = client.get_status(GetStatusRequest {}).await.unwrap().into_inner();
        states(&status.reward_bindings)
    };
    assert_eq!(status().await, [(0, 1, RewardState::Draining), (1, 4, RewardState::Scheduled)]);
    let report = |committed_steps| ReportProgressRequest {
        learner_id: learner.learner_id,
        committed_steps,
        ..ReportProgressRequest::default()
    };
    running.client().report_progress(report(1)).await.unwrap();
    let second = running.client().lease(lease).await.unwrap().into_inner().leases.remove(0);
    assert_eq!(second.reward.unwrap().name, "strict");
    assert_eq!(status().await, [(0, 1, RewardState::Idle), (1, 4, RewardState::Active)]);

    let back = RollbackRewardRequest { to_revision: 0, newest_known: 0 };
    let bound = admin.rollback_reward(shown(TOKEN, back)).await.unwrap().into_inner();
    let revision = bound.revision.unwrap();
    assert_eq!((bound.from_step, revision.number, revision.digest.as_str()), (2, 3, "reward-a"));
    let (journaled, settled) = read_revisions(&path.join(JOURNAL_FILE)).unwrap();
    let journaled: Vec<_> =
        journaled.iter().map(|(r, from)| (r.digest.as_str(), from.get())).collect();
    assert_eq!(journaled, [("reward-a", 0), ("digest-strict", 1), ("reward-a", 2)]);
    assert_eq!(settled, StepIndex(2));
    running.stop().await;
}

#[tokio::test]
async fn a_scheduled_reward_takes_over_at_its_step_and_a_swap_by_hand_overrules_it() {
    let (_folder, path) = folder();
    let reward = |digest: &str| Reward {
        name: "scheduled".into(),
        digest: digest.into(),
        endpoints: vec!["http://127.0.0.1:12".into()],
    };
    let planned = [(StepIndex(2), reward("b")), (StepIndex(3), reward("c"))];
    let open = |schedule: &[(StepIndex, Reward)]| {
        Coordinator::open(config(&path, 4, 1, 0), rows()).unwrap().with_schedule(schedule)
    };
    for outside in [0, 4] {
        let refused = open(&[(StepIndex(outside), reward("b"))]).unwrap_err();
        assert!(refused.to_string().contains("rising steps from 1 to 3"), "{refused}");
    }
    let running = Running::serve(open(&planned).unwrap(), None).await;
    let mut admin = admin(&running);
    let bound = admin.swap_reward(shown(TOKEN, to("strict", 3))).await.unwrap().into_inner();
    assert_eq!((bound.from_step, bound.superseded), (0, vec![2, 3]));
    running.stop().await;
    // Taken up again, with the schedule that it was begun with and no other.
    let again = Running::serve(open(&planned).unwrap(), None).await;
    let status = again.client().get_status(GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.reward_bindings.last().unwrap().revision.as_ref().unwrap().name, "strict");
    again.stop().await;
}

#[tokio::test]
async fn nobody_without_the_token_and_nothing_malformed_gets_through() {
    let (_folder, path) = folder();
    let running = Running::start(config(&path, 4, 1, 0), None).await;
    let mut admin = admin(&running);
    let none = admin.swap_reward(to("strict", 0)).await.unwrap_err();
    assert_eq!(kind(&none), (Code::Unauthenticated, "no-token"));
    let wrong = admin.get_rewards(shown("open sesam", GetRewardsRequest { rows: 1 })).await;
    assert_eq!(kind(&wrong.unwrap_err()), (Code::PermissionDenied, "wrong-token"));
    let back = RollbackRewardRequest { to_revision: 9, newest_known: 0 };
    let unknown = admin.rollback_reward(shown(TOKEN, back)).await.unwrap_err();
    assert_eq!(kind(&unknown), (Code::InvalidArgument, "bad-field"));
    for (endpoints, expected) in [
        (Vec::new(), "bad-field"),
        (vec!["reward:50051".to_owned()], "bad-address"),
        (vec!["http://127.0.0.1:1".to_owned(); 65], "bad-field"),
    ] {
        let refused =
            admin.swap_reward(shown(TOKEN, SwapRewardRequest { endpoints, ..to("x", 0) }));
        assert_eq!(kind(&refused.await.unwrap_err()).1, expected);
    }
    let unbound = running.handle.status().await.unwrap();
    assert_eq!(unbound.rewards.len(), 1, "what was refused has changed nothing");
    running.stop().await;
}

#[test]
fn whatever_a_stranger_sends_is_refused_and_whatever_the_owner_sends_is_answered() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_folder, path) = folder();
    let running = runtime.block_on(Running::start(config(&path, 4, 1, 0), None));
    let admin = runtime.block_on(async { admin(&running) });
    let texts = || prop_oneof!["\\PC{0,20}", "http://[a-z.:0-9]{0,20}", "x{600}"];
    let swaps = (texts(), texts(), prop::collection::vec(texts(), 0..5), 0u64..3);
    proptest!(ProptestConfig::with_cases(64), |(swap in swaps, token: Vec<u8>)| {
        let (name, digest, endpoints, newest_known) = swap;
        let request = SwapRewardRequest { name, digest, endpoints, newest_known };
        let mut admin = admin.clone();
        let mut strange = Request::new(request.clone());
        strange.metadata_mut().insert_bin(JOIN_TOKEN, BinaryMetadataValue::from_bytes(&token));
        let code = runtime.block_on(admin.swap_reward(strange)).unwrap_err().code();
        prop_assert!([Code::Unauthenticated, Code::PermissionDenied].contains(&code));
        if let Err(refused) = runtime.block_on(admin.swap_reward(shown(TOKEN, request))) {
            prop_assert!(error_kind(&refused).is_some(), "{:?}", refused);
        }
    });
    runtime.block_on(running.stop());
}
