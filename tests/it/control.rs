//! The control plane inside the running gateway: what calls and settings change in what it says and allows.

use std::time::Duration;

use serde_json::{Value, json};
use trust_gateway::clock::{Clock, Timestamp};
use trust_gateway::config::{Config, Registration};

use crate::support::agent::Agent;
use crate::support::client::Client;
use crate::support::gateway::{Registered, TestGateway};
use crate::support::rpc;

fn stopped() -> Clock {
    Clock::manual(Timestamp::parse("2026-01-01T00:00:00Z").expect("a time"))
}

async fn last_use(gateway: &TestGateway, of: &Registered) -> Value {
    let keys = gateway.operated("GET", &format!("/api/keys?agent_id={}", of.id), &Value::Null).await;
    keys["keys"][0]["last_used_at"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_a_use_of_its_key_and_a_restart_remembers_it() {
    let clock = stopped();
    let gateway = TestGateway::with(clock.clone(), |_| {}).await;
    let agent = Agent::echo().await;
    gateway.register("echo", &agent).await;
    let caller = gateway.register_client("caller").await;
    assert_eq!(last_use(&gateway, &caller).await, Value::Null);
    clock.advance(Duration::from_secs(7));
    gateway.call("echo", Some(&caller.key), &rpc(1, "SendMessage")).await;
    assert_eq!(last_use(&gateway, &caller).await, "2026-01-01T00:00:07.000000Z");
    // A change of the directory does not forget it, and a refused call counts: the key was good.
    gateway.register_client("another").await;
    assert_eq!(last_use(&gateway, &caller).await, "2026-01-01T00:00:07.000000Z");
    clock.advance(Duration::from_secs(1));
    assert_eq!(gateway.call("echo", Some(&caller.key), &rpc(2, "SendMessage")).await.status, 429);
    clock.advance(Duration::from_secs(100));
    let gateway = gateway.restart(clock, |_| {}).await;
    assert_eq!(last_use(&gateway, &caller).await, "2026-01-01T00:00:08.000000Z");
    gateway.stop().await;
}

/// Registers without a credential on the public listener.
async fn register_as_stranger(gateway: &TestGateway, slug: &str, url: &str) -> u16 {
    let mut client = gateway.client().await;
    let body = json!({"name": slug, "slug": slug, "url": url}).to_string();
    client.send("POST", "/api/agents", &[("content-type", "application/json")], body.as_bytes()).await;
    client.answer().await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allowed_networks_follow_a_reload_for_registering_and_for_calling() {
    let gateway = TestGateway::with(stopped(), |config| config.agents.registration = Registration::Open).await;
    let agent = Agent::echo().await;
    assert_eq!(register_as_stranger(&gateway, "early", &agent.url()).await, 400, "loopback is private");

    let with = |networks: &[&str]| {
        let mut config = Config::default();
        config.agents.registration = Registration::Open;
        config.agents.allow_networks = networks.iter().map(|text| text.parse().expect("a network")).collect();
        config
    };
    gateway.gateway.reload(with(&["127.0.0.0/8"])).await.expect("a good configuration");
    assert_eq!(register_as_stranger(&gateway, "late", &agent.url()).await, 201);
    gateway.operated("PUT", "/api/agents/late", &json!({"state": "active"})).await;
    assert_eq!(gateway.call("late", None, &rpc(1, "GetTask")).await.status, 200);

    gateway.gateway.reload(with(&[])).await.expect("a good configuration");
    assert_eq!(gateway.call("late", None, &rpc(2, "GetTask")).await.status, 503);
    assert_eq!(agent.calls().len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_credentials_draw_on_one_allowance_for_calls_and_api_wherever_a_trusted_proxy_says_they_come_from() {
    let trusted = |config: &mut Config| config.server.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    let gateway = TestGateway::with(stopped(), trusted).await;
    let agent = Agent::echo().await;
    gateway.register("echo", &agent).await;
    let mut client = gateway.client().await;
    let mut status = Vec::new();
    for n in 0..21 {
        let path = if n % 2 == 0 { "/api/agents" } else { "/api/proxy/echo" };
        let headers = [("authorization", "Bearer oag_guess"), ("x-forwarded-for", "192.0.2.7")];
        client.send(if n % 2 == 0 { "GET" } else { "POST" }, path, &headers, b"").await;
        status.push(client.answer().await.status);
    }
    assert_eq!((&status[..20], status[20]), (&[401; 20][..], 429));
    client.send("GET", "/api/agents", &[("x-api-key", "oag_guess"), ("x-forwarded-for", "192.0.2.8")], b"").await;
    assert_eq!(client.answer().await.status, 401, "a neighbour behind the same proxy");
    let mut operator = Client::connect(gateway.gateway.admin_address()).await;
    operator.send("GET", "/api/agents", &[("x-api-key", "tgo_guess"), ("x-forwarded-for", "192.0.2.7")], b"").await;
    assert_eq!(operator.answer().await.status, 429);
    gateway.stop().await;
}
