//! Secrets stay where they belong: each is planted, everything is done with it that people do and get wrong, and then it is
//! looked for in every answer, in the log at its most talkative, in every file, and at the agent.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::client::Client;
use crate::support::process::Process;
use crate::support::rpc;

/// Everything that was answered, but for what is shown once.
#[derive(Default)]
struct Heard(Vec<(String, String)>);

impl Heard {
    async fn operator(&mut self, gateway: &Process, method: &str, path: &str, body: &Value) -> Value {
        let answer = gateway.operate(method, path, body).await;
        self.0.push((format!("{method} {path}"), format!("{}\n{}", answer.head, answer.text())));
        serde_json::from_str(&answer.text()).unwrap_or_default()
    }

    async fn public(&mut self, gateway: &Process, method: &str, path: &str, headers: &[(&str, &str)], body: &str) {
        let mut client = Client::connect(gateway.public).await;
        client.send(method, path, headers, body.as_bytes()).await;
        let answer = client.answer().await;
        self.0.push((format!("{method} {path}"), format!("{}\n{}", answer.head, answer.text())));
    }
}

fn files(dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).expect("a file")));
        }
    }
}

fn holds(text: &[u8], secret: &str) -> bool {
    text.windows(secret.len()).any(|window| window == secret.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_found_anywhere_but_where_it_belongs() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let gateway = Process::start(dir.path(), &[("LOG__LEVEL", "trace"), ("AGENTS__REGISTRATION", "open")]).await;
    let agent = Agent::echo().await;
    let mut heard = Heard::default();
    let heard = &mut heard;

    let upstream = "canary-upstream-credential-8c1f";
    let own = "canary-agent-authorization-51aa";
    let wrong = "oag_canary-wrong-key-77f0";
    let target = json!({"name": "Target", "slug": "target", "url": agent.url(), "pass_authorization": false,
        "upstream_credential": {"header": "X-Agent-Key", "value": upstream}});
    let target = gateway.operated("POST", "/api/agents", &target).await;
    let caller = gateway.operated("POST", "/api/agents", &json!({"name": "Caller", "slug": "caller"})).await;
    let rotated = gateway.operated("POST", "/api/keys", &json!({"agent_id": "caller", "name": "second"})).await;
    let operator = gateway.operated("POST", "/api/operators", &json!({"name": "kim", "role": "auditor"})).await;
    let admin = std::fs::read_to_string(dir.path().join("data/admin-token")).expect("written at the first start");
    let text = |row: &Value, member: &str| row[member].as_str().expect("shown once").to_owned();
    let (key, second) = (text(&caller, "api_key"), text(&rotated, "key"));
    let tie = json!({"requester_id": "caller", "target_id": "target", "status": "connected"});
    heard.operator(&gateway, "POST", "/api/connections", &tie).await;

    // Calls, good and bad.
    let call = rpc(1, "SendMessage").to_string();
    let bearer = format!("Bearer {key}");
    for headers in [
        &[("authorization", bearer.as_str()), ("x-agent-authorization", own)][..],
        &[("x-api-key", second.as_str()), ("x-agent-authorization", own)],
        &[("x-api-key", wrong)],
        &[("authorization", bearer.as_str()), ("x-api-key", key.as_str())],
        &[("authorization", key.as_str())],
        &[("authorization", "Basic canary-wrong-key-77f0")],
    ] {
        heard.public(&gateway, "POST", "/api/proxy/target", headers, &call).await;
        heard.public(&gateway, "POST", "/api/proxy/nobody", headers, &call).await;
        heard.public(&gateway, "GET", "/api/agents/target", headers, "").await;
    }
    // People put secrets where they do not belong.
    for path in [
        format!("/api/proxy/{key}"),
        format!("/api/proxy/target?key={key}"),
        format!("/api/agents?q={key}&api_key={second}"),
        format!("/api/keys/{key}"),
        format!("/api/calls?caller={key}"),
    ] {
        heard.public(&gateway, "GET", &path, &[("x-api-key", &key)], "").await;
    }
    for body in [format!("{{\"key\": \"{key}\""), format!("\"{key}\""), format!("{{\"agent_id\": \"{key}\"}}")] {
        heard.public(&gateway, "POST", "/api/keys", &[("x-api-key", &key)], &body).await;
        heard.public(&gateway, "POST", "/api/proxy/target", &[("x-api-key", &key)], &body).await;
    }
    for credential in [
        json!({"header": "X Bad", "value": upstream}),
        json!({"header": "Host", "value": upstream}),
        json!({"header": "X-Agent-Key", "value": format!("{upstream}\n")}),
        json!({"bearer": upstream}),
        json!(upstream),
    ] {
        let body = json!({"upstream_credential": credential});
        heard.operator(&gateway, "PATCH", "/api/agents/target", &body).await;
    }
    heard.public(&gateway, "POST", "/api/proxy/target", &[("x-api-key", &key)], &call).await;

    // Everything there is to read.
    for path in [
        "/api/agents",
        "/api/agents/target",
        "/api/agents/find",
        "/api/keys?agent_id=caller",
        "/api/connections",
        "/api/operators",
        "/api/events?limit=200",
        "/api/calls?limit=200",
        "/api/calls/active",
        "/api/status",
        "/metrics",
        "/openapi.json",
        "/readyz",
        "/api/agents/target/history",
        "/api/agents/target/agent-card.json",
    ] {
        heard.operator(&gateway, "GET", path, &Value::Null).await;
    }
    for path in ["/api/me?target=target", "/api/notifications", "/api/keys", "/api/calls", "/api/agents/caller"] {
        heard.public(&gateway, "GET", path, &[("x-api-key", &key)], "").await;
    }

    gateway.signal("TERM").await;
    assert!(gateway.ended().await.success());
    let mut kept = Vec::new();
    files(dir.path(), &mut kept);
    assert!(kept.iter().any(|(name, text)| name.ends_with("/log") && holds(text, "TRACE")), "the log was listened to");

    let (signing, token) = (text(&target, "signing_secret"), text(&operator, "token"));
    let seen_by_agent: String = agent.calls().iter().map(|call| format!("{}{:?}", call.head, call.body)).collect();
    for (name, secret) in [
        ("a key", key.as_str()),
        ("a second key", &second),
        ("a wrong key", &wrong[4..]),
        ("an upstream credential", upstream),
        ("a caller's credential for the agent", own),
        ("a signing secret", &signing),
        ("an operator's token", &token),
        ("the first operator's token", admin.trim()),
    ] {
        for (what, answer) in &heard.0 {
            // What somebody asks for is theirs to see again in the refusal of it; nothing else is.
            let asked = what.contains(secret);
            assert!(asked || !holds(answer.as_bytes(), secret), "{name} in the answer to {what}: {answer}");
        }
        for (file, bytes) in kept.iter().filter(|(file, _)| !file.ends_with("/admin-token")) {
            assert!(!holds(bytes, secret), "{name} in {file}");
        }
        let belongs = secret == upstream;
        assert_eq!(seen_by_agent.contains(secret), belongs, "{name} at the agent");
    }
}
