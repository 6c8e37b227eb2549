//! Registering, approving and keeping secrets, with the real program and over real sockets.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use tokio::process::Command;
use trust_gateway::clock::{Clock, Timestamp};

use crate::support::agent::{Agent, Received};
use crate::support::client::{Answer, Client};
use crate::support::gateway::TestGateway;
use crate::support::process::Process;
use crate::support::{rpc, within};

/// Whether OpenAgora's signature of a call was made with this secret.
fn signed_with(call: &Received, secret: &str) -> bool {
    let said = |name: &str| call.header(name).unwrap_or_default().to_owned();
    let text = [said("x-openagora-request-id"), said("x-openagora-timestamp"), said("x-openagora-caller-id")].join(".");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    said("x-openagora-signature") == hex
}

async fn post(gateway: &Process, path: &str, kind: &str, key: Option<&str>, body: &Value) -> Answer {
    let mut client = Client::connect(gateway.public).await;
    let mut headers = vec![("content-type", kind)];
    headers.extend(key.map(|key| ("x-api-key", key)));
    client.send("POST", path, &headers, body.to_string().as_bytes()).await;
    client.answer().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_that_curl_posts_waits_for_approval_and_is_callable_once_it_is_given() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let settings = [("AGENTS__REGISTRATION", "approval"), ("AGENTS__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]")];
    let gateway = Process::start(dir.path(), &settings).await;
    let agent = Agent::echo().await;
    let card = json!({"name": "Asker", "description": "d", "url": agent.url(), "version": "1.0", "skills": []});
    let made = post(&gateway, "/api/agents", "application/x-www-form-urlencoded", None, &card).await;
    assert_eq!((made.status, &made.json()["state"]), (201, &json!("pending")), "{}", made.text());
    let made = made.json();
    let text = |member: &str| made[member].as_str().expect("shown once").to_owned();
    let (key, secret) = (text("api_key"), text("signing_secret"));

    let caller = gateway.register("caller", None).await;
    let call = rpc(1, "SendMessage");
    for path in ["/api/proxy/asker", "/relay/asker", "/api/agents/asker/test"] {
        let refused = post(&gateway, path, "application/json", Some(&caller.key), &call).await;
        assert_eq!(refused.status, 404, "{path}: {}", refused.text());
    }
    for path in ["/api/proxy/asker/.well-known/agent-card.json", "/agents/asker/agent-card.json"] {
        let mut client = Client::connect(gateway.public).await;
        client.send("GET", path, &[("x-api-key", &caller.key)], b"").await;
        assert_eq!(client.answer().await.status, 404, "{path}");
    }
    let other = gateway.register("other", Some(&format!("{}/other", agent.url()))).await;
    let refused = post(&gateway, "/api/proxy/other", "application/json", Some(&key), &call).await;
    assert!([401, 403].contains(&refused.status), "who waits cannot call: {}", refused.text());
    assert!(agent.calls().is_empty(), "nothing reached it");

    gateway.operated("PATCH", "/api/agents/asker", &json!({"state": "active"})).await;
    let answer = post(&gateway, "/api/proxy/asker", "application/json", Some(&caller.key), &call).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = post(&gateway, "/api/proxy/other", "application/json", Some(&key), &call).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!other.id.is_empty());
    let calls = agent.calls();
    let posts: Vec<_> = calls.iter().filter(|call| call.request_line().starts_with("POST")).collect();
    assert!(signed_with(posts[0], &secret), "{}", posts[0].head);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_by_the_test_path_has_its_row_its_level_and_its_limit_like_any_other() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let gateway = Process::start(dir.path(), &[]).await;
    let agent = Agent::echo().await;
    let target = gateway.register("target", Some(&agent.url())).await;
    let caller = gateway.register("caller", None).await;
    let call = rpc(1, "SendMessage");
    let path = "/api/agents/target/test";
    let first = post(&gateway, path, "application/json", Some(&caller.key), &call).await;
    assert_eq!(first.status, 200, "{}", first.text());
    // One of work a minute for who is not connected, whichever way it comes.
    for path in [path, "/api/proxy/target"] {
        let second = post(&gateway, path, "application/json", Some(&caller.key), &call).await;
        assert_eq!(second.status, 429, "{path}: {}", second.text());
    }
    gateway.connect(&caller, &target).await;
    assert_eq!(post(&gateway, path, "application/json", Some(&caller.key), &call).await.status, 200);
    let rows = gateway.rows().await;
    let mut seen: Vec<_> = rows.iter().map(|row| (row["trust_level"].as_str(), row["status_code"].as_i64())).collect();
    seen.sort_unstable();
    let (verified, connected) = (Some("verified"), Some("connected"));
    assert_eq!(seen.first(), Some(&(connected, Some(200))), "{rows:?}");
    assert_eq!(seen.iter().filter(|row| **row == (verified, Some(200))).count(), 1, "{rows:?}");
    assert!(seen.contains(&(verified, Some(429))), "{rows:?}");
    for row in &rows {
        assert_eq!((&row["caller"]["slug"], &row["target"]["slug"]), (&json!("caller"), &json!("target")));
    }
}

async fn rotate_key(dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trust-gateway"));
    command.arg("rotate-secrets-key").current_dir(dir).env("TRUST_GATEWAY__DATA_DIR", dir.join("data"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    within("the key is changed", command.output()).await.expect("the program starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_the_secrets_is_changed_while_no_gateway_runs_and_signatures_stay_the_same() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let gateway = Process::start(dir.path(), &[]).await;
    let agent = Agent::echo().await;
    let made = json!({"name": "Target", "slug": "target", "url": agent.url(),
        "upstream_credential": {"header": "X-Agent-Key", "value": "canary"}});
    let made = gateway.operated("POST", "/api/agents", &made).await;
    let secret = made["signing_secret"].as_str().expect("shown once").to_owned();

    let refused = rotate_key(dir.path()).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "a gateway is running");
    assert!(said.starts_with("error: ") && said.contains("stop"), "{said}");
    let keys = |suffix: &str| {
        let names = std::fs::read_dir(dir.path().join("data/keys")).expect("a directory");
        let names = names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("secrets") && name.ends_with(suffix)).count()
    };
    assert_eq!((keys(".key"), keys(".retired")), (1, 0), "nothing was touched");

    gateway.signal("TERM").await;
    assert!(gateway.ended().await.success());
    let done = rotate_key(dir.path()).await;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(said.starts_with("2 secrets are sealed"), "{said}");
    assert_eq!((keys(".key"), keys(".retired")), (1, 1));

    let gateway = Process::start(dir.path(), &[]).await;
    let answer = post(&gateway, "/api/proxy/target", "application/json", None, &rpc(1, "SendMessage")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let calls = agent.calls();
    let call = calls.iter().rfind(|call| call.request_line().starts_with("POST")).expect("the call");
    assert!(signed_with(call, &secret) && call.header("x-agent-key") == Some("canary"), "{}", call.head);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_gateway_signs_with_the_next_secret_from_its_time_on() {
    let clock = Clock::manual(Timestamp::parse("2026-01-01T00:00:00Z").expect("a time"));
    let gateway = TestGateway::with(clock.clone(), |_| {}).await;
    let agent = Agent::echo().await;
    let body = json!({"name": "Target", "slug": "target", "url": agent.url()});
    let made = gateway.operated("POST", "/api/agents", &body).await;
    let caller = gateway.register_client("caller").await;
    let tie = json!({"requester_id": caller.id, "target_id": "target", "status": "connected"});
    gateway.operated("POST", "/api/connections", &tie).await;
    let wish = json!({"activate_after": "10min"});
    let next = gateway.operated("POST", "/api/agents/target/signing-secret", &wish).await;
    assert_eq!(next["active_from"], "2026-01-01T00:10:00.000000Z");
    let text = |row: &Value| row["signing_secret"].as_str().expect("shown once").to_owned();
    let (old, new) = (text(&made), text(&next));
    let signed_by_new = async || {
        assert_eq!(gateway.call("target", Some(&caller.key), &rpc(1, "GetTask")).await.status, 200);
        let calls = agent.calls();
        let call = calls.iter().rfind(|call| call.request_line().starts_with("POST")).expect("the call");
        let (old, new) = (signed_with(call, &old), signed_with(call, &new));
        assert!(old != new, "signed with one of the two");
        new
    };
    assert!(!signed_by_new().await);
    clock.advance(Duration::from_micros(599_999_999));
    assert!(!signed_by_new().await, "not before its time");
    clock.advance(Duration::from_micros(1));
    within("the next secret signs", async { while !signed_by_new().await {} }).await;
    gateway.stop().await;
}
