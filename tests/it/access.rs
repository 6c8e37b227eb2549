//! The access log of the real program: one line for each call, and no secret in anything it ever writes.

use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::client::Client;
use crate::support::process::Process;
use crate::support::rpc;

/// What must never be seen again.
const CANARY: &str = "oag_canaryCANARYcanary0123456789";

/// Access lines of a log in JSON, by request id.
fn lines(log: &str) -> Vec<Value> {
    let objects = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("each line is an object"));
    objects.filter(|line| line["target"] == "access").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_has_one_line_that_agrees_with_its_row() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let gateway = Process::start(dir.path(), &[("LOG__FORMAT", "json")]).await;
    let agent = Agent::echo().await;
    let target = gateway.register("target", Some(&agent.url())).await;
    let caller = gateway.register("caller", None).await;
    let hostile = json!({"jsonrpc": "2.0", "id": "\u{1b}[31m\n", "method": "x\ny\u{2028}\u{1b}[2J", "params": {}});
    let mut ids = Vec::new();
    let mut client = Client::connect(gateway.public).await;
    for (key, body) in [
        (Some(caller.key.as_str()), rpc(1, "SendMessage")),
        (Some(caller.key.as_str()), rpc(2, "SendMessage")),
        (None, hostile),
        (Some(CANARY), rpc(3, "GetTask")),
    ] {
        client.call("/api/proxy/target", key, &body).await;
        let answer = client.answer().await;
        ids.push(answer.header("x-openagora-request-id").expect("every answer has one").to_owned());
    }
    client.send("GET", "/api/proxy/target/.well-known/agent-card.json", &[], b"").await;
    ids.push(client.answer().await.header("x-openagora-request-id").expect("cards too").to_owned());
    client.send("GET", "/api/proxy/nobody%0a/x", &[], b"").await;
    ids.push(client.answer().await.header("x-openagora-request-id").expect("refusals too").to_owned());

    let rows = gateway.rows().await;
    // Lines are written by a thread of their own, soon after.
    gateway.logs_times("\"target\":\"access\"", ids.len()).await;
    let told = lines(&gateway.log());
    assert_eq!(told.len(), ids.len(), "{told:?}");
    for id in &ids {
        let row = rows.iter().find(|row| row["id"] == id.as_str()).expect("a row");
        let line = told.iter().find(|line| line["request_id"] == id.as_str()).expect("a line");
        for field in [
            "caller_agent_id",
            "target_agent_id",
            "trust_level",
            "operation",
            "status_code",
            "outcome",
            "reason",
            "latency_ms",
            "response_bytes",
            "trace_id",
        ] {
            assert_eq!(line[field], row[field], "{field}: {line} {row}");
        }
        assert_eq!((&line["level"], &line["message"]), (&json!("INFO"), &json!("call")));
    }
    assert!(rows.iter().any(|row| row["caller_agent_id"] == caller.id.as_str() && row["status_code"] == 200));
    assert!(rows.iter().any(|row| row["target_agent_id"] == target.id.as_str() && row["status_code"] == 429));
    gateway.kill().await;
}

/// Shows `gateway` the canary and its other secrets wherever a credential, or somebody's mistake, could be.
async fn leak(gateway: &Process, agent: &Agent) -> Vec<String> {
    let target = json!({"name": "target", "slug": "target", "url": agent.url(),
        "upstream_credential": {"bearer": "upstream-canary-secret"}});
    let made = gateway.operated("POST", "/api/agents", &target).await;
    let secret = |row: &Value, name: &str| row[name].as_str().expect("a secret").to_owned();
    let caller = gateway.register("caller", None).await;
    let mut client = Client::connect(gateway.public).await;
    let bearer = format!("Bearer {CANARY}");
    let good = format!("Bearer {}", caller.key);
    let body =
        json!({"jsonrpc": "2.0", "id": CANARY, "method": "SendMessage", "params": {"metadata": {"key": CANARY}}});
    let body = body.to_string();
    for headers in [
        vec![("authorization", bearer.as_str())],
        vec![("x-api-key", CANARY)],
        vec![("authorization", good.as_str())],
        vec![("authorization", good.as_str()), ("x-agent-authorization", CANARY), ("cookie", CANARY)],
        vec![("authorization", good.as_str()), ("x-api-key", CANARY)],
        vec![("authorization", CANARY)],
    ] {
        for path in ["/api/proxy/target".to_owned(), format!("/api/proxy/target?key={CANARY}"), "/api/keys".to_owned()]
        {
            client.send("POST", &path, &headers, body.as_bytes()).await;
            client.answer().await;
        }
    }
    // A broken agent, and an operator's mistake.
    let broken = json!({"name": "broken", "slug": "broken", "url": "http://127.0.0.1:9/"});
    gateway.operated("POST", "/api/agents", &broken).await;
    client.call("/api/proxy/broken", Some(&caller.key), &rpc(1, "SendMessage")).await;
    client.answer().await;
    let mut operator = Client::connect(gateway.admin).await;
    operator.send("GET", "/api/agents", &[("authorization", bearer.as_str())], b"").await;
    operator.answer().await;
    vec![
        CANARY.to_owned(),
        "upstream-canary-secret".to_owned(),
        caller.key,
        secret(&made, "api_key"),
        secret(&made, "signing_secret"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_anything_the_program_writes_to_its_log() {
    for format in ["text", "json"] {
        for level in ["info", "trace"] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let gateway = Process::start(dir.path(), &[("LOG__FORMAT", format), ("LOG__LEVEL", level)]).await;
            let agent = Agent::echo().await;
            let mut secrets = leak(&gateway, &agent).await;
            let file = dir.path().join("data/admin-token");
            secrets.push(std::fs::read_to_string(file).expect("written").trim().to_owned());
            gateway.signal("TERM").await;
            let log = {
                let status = gateway.ended().await;
                assert!(status.success(), "{status}");
                std::fs::read_to_string(dir.path().join("log")).expect("a log")
            };
            assert!(log.contains("access"), "{log}");
            for secret in secrets {
                let found = log.lines().find(|line| line.contains(&secret));
                assert_eq!(found, None, "{format} {level}: {secret}");
            }
        }
    }
}
