//! What a caller may do, over real sockets, on a clock that stands still until the test moves it.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use trust_gateway::clock::{Clock, Timestamp};

use crate::support::agent::Agent;
use crate::support::gateway::TestGateway;
use crate::support::rpc;

fn stopped() -> Clock {
    Clock::manual(Timestamp(1_790_000_000_000_000))
}

/// Sends `n` calls at once over as many connections; how many were answered with each status.
async fn at_once(gateway: &TestGateway, agent: &str, key: &str, n: usize) -> std::collections::BTreeMap<u16, usize> {
    let mut calls = JoinSet::new();
    for id in 0..n {
        let mut client = gateway.client().await;
        let (path, key) = (format!("/api/proxy/{agent}"), key.to_owned());
        calls.spawn(async move {
            client.call(&path, Some(&key), &rpc(id, "SendMessage")).await;
            client.answer().await.status
        });
    }
    let mut statuses = std::collections::BTreeMap::new();
    while let Some(status) = calls.join_next().await {
        *statuses.entry(status.expect("no client panics")).or_default() += 1;
    }
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_parallel_calls_of_a_connected_caller_exactly_300_pass() {
    let clock = stopped();
    let gateway = TestGateway::with(clock, |_| {}).await;
    let agent = Agent::echo().await;
    let target = gateway.register("echo", &agent).await;
    let caller = gateway.register_client("caller").await;
    gateway.connect(&caller, &target).await;

    let statuses = at_once(&gateway, "echo", &caller.key, 1000).await;
    assert_eq!(statuses, [(200, 300), (429, 700)].into());
    assert_eq!(agent.calls().len(), 300);
    let rows = gateway.rows_of(&target).await;
    let calls: u64 = rows.iter().filter_map(|row| row["calls"].as_u64()).sum();
    assert_eq!(calls, 1000);
    let refused: u64 =
        rows.iter().filter(|row| row["status_code"] == 429).filter_map(|row| row["calls"].as_u64()).sum();
    assert_eq!(refused, 700);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_300_that_refills_hourly_admits_300_on_real_time() {
    let gateway = TestGateway::start().await;
    let agent = Agent::echo().await;
    let target = gateway.register("echo", &agent).await;
    let caller = gateway.register_client("caller").await;
    let connection = gateway.connect(&caller, &target).await;
    let path = format!("/api/connections/{}", connection["id"].as_str().expect("an id"));
    let limits = json!({"limits": {"rate": 1, "period_ms": 3_600_000, "burst": 300}});
    gateway.operated("PUT", &path, &limits).await;

    let statuses = at_once(&gateway, "echo", &caller.key, 1000).await;
    assert_eq!(statuses, [(200, 300), (429, 700)].into());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_anonymous_caller_has_one_call_then_429_and_one_again_after_300_seconds() {
    let clock = stopped();
    let gateway = TestGateway::with(clock.clone(), |_| {}).await;
    let agent = Agent::echo().await;
    gateway.register("echo", &agent).await;

    assert_eq!(gateway.call("echo", None, &rpc(1, "SendMessage")).await.status, 200);
    let refused = gateway.call("echo", None, &rpc(2, "SendMessage")).await;
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").and_then(|value| value.parse().ok()).expect("seconds");
    assert!((1..=300).contains(&wait), "{wait}");
    assert_eq!(refused.json()["error"]["data"][0]["metadata"]["retry_after"], json!(wait.to_string()));

    clock.advance(Duration::from_secs(wait - 1));
    assert_eq!(gateway.call("echo", None, &rpc(3, "SendMessage")).await.status, 429);
    clock.advance(Duration::from_secs(1));
    assert_eq!(gateway.call("echo", None, &rpc(4, "SendMessage")).await.status, 200);
    assert_eq!(gateway.call("echo", None, &rpc(5, "SendMessage")).await.status, 429);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_hands_out_nothing() {
    let clock = stopped();
    let gateway = TestGateway::with(clock.clone(), |_| {}).await;
    let agent = Agent::echo().await;
    gateway.register("echo", &agent).await;
    let newcomer = gateway.register_client("newcomer").await;
    for key in [None, Some(newcomer.key.as_str())] {
        assert_eq!(gateway.call("echo", key, &rpc(1, "SendMessage")).await.status, 200);
    }
    let gateway = gateway.restart(clock.clone(), |_| {}).await;
    for key in [None, Some(newcomer.key.as_str())] {
        assert_eq!(gateway.call("echo", key, &rpc(2, "SendMessage")).await.status, 429, "{key:?}");
    }
    clock.advance(Duration::from_secs(60));
    assert_eq!(gateway.call("echo", Some(&newcomer.key), &rpc(3, "SendMessage")).await.status, 200);
    assert_eq!(gateway.call("echo", None, &rpc(3, "SendMessage")).await.status, 429);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verified_caller_can_read_the_result_it_has_paid_for() {
    let gateway = TestGateway::with(stopped(), |_| {}).await;
    let agent = Agent::echo().await;
    gateway.register("echo", &agent).await;
    let newcomer = gateway.register_client("newcomer").await;
    assert_eq!(gateway.call("echo", Some(&newcomer.key), &rpc(1, "SendMessage")).await.status, 200);
    assert_eq!(gateway.call("echo", Some(&newcomer.key), &rpc(2, "SendMessage")).await.status, 429);
    for id in 0..20 {
        assert_eq!(gateway.call("echo", Some(&newcomer.key), &rpc(id, "GetTask")).await.status, 200);
    }
    gateway.stop().await;
}
