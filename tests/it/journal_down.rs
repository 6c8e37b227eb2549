//! No call without its record: while the journal cannot be written nothing is let through, and nobody has to restart it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use trust_gateway::clock::Clock;
use trust_gateway::config::Size;

use crate::support::agent::Agent;
use crate::support::client::{Answer, Client};
use crate::support::gateway::{Registered, TestGateway};
use crate::support::{rpc, within};

/// The journal's directory, which can be taken away and put back.
struct Place {
    dir: PathBuf,
    aside: PathBuf,
}

impl Place {
    fn of(gateway: &TestGateway) -> Self {
        let data: &Path = gateway.gateway.data_dir();
        Self { dir: data.join("journal"), aside: data.join("journal.aside") }
    }

    /// Leaves a file where the directory was: nothing can be made in it any more, whoever tries.
    fn break_it(&self) {
        std::fs::rename(&self.dir, &self.aside).expect("the directory is there");
        std::fs::write(&self.dir, b"in the way").expect("a file");
    }

    fn repair(&self) {
        std::fs::remove_file(&self.dir).expect("the file is there");
        std::fs::rename(&self.aside, &self.dir).expect("the directory is aside");
    }
}

async fn scene() -> (TestGateway, Agent, Registered, Registered) {
    let gateway = TestGateway::with(Clock::system(), |config| {
        config.audit.segment = Size(64 << 10);
        config.server.workers = 1;
    })
    .await;
    let agent = Agent::echo().await;
    let target = gateway.register("echo", &agent).await;
    let caller = gateway.register_client("caller").await;
    let connection = gateway.connect(&caller, &target).await;
    let path = format!("/api/connections/{}", connection["id"].as_str().expect("an id"));
    let limits = json!({"limits": {"rate": 1_000_000, "period_ms": 1000, "burst": 1_000_000, "daily": 100_000_000}});
    gateway.operated("PUT", &path, &limits).await;
    (gateway, agent, target, caller)
}

async fn call(client: &mut Client, key: &str) -> Answer {
    client.call("/api/proxy/echo", Some(key), &rpc("j", "SendMessage")).await;
    client.answer().await
}

/// Calls until one is refused: the segment being written has room for some. The ids of those answered, and the refusal.
async fn call_until_refused(gateway: &TestGateway, key: &str) -> (Vec<String>, Answer) {
    let mut client = gateway.client().await;
    let mut answered = Vec::new();
    within("the journal is full", async {
        loop {
            let answer = call(&mut client, key).await;
            if answer.status != 200 {
                return (answered, answer);
            }
            answered.push(answer.header("x-openagora-request-id").expect("every answer has one").to_owned());
        }
    })
    .await
}

async fn ready(gateway: &TestGateway) -> (u16, u16, String) {
    let mut client = gateway.client().await;
    client.send("GET", "/readyz", &[], b"").await;
    let public = client.answer().await;
    let operators = gateway.operate("GET", "/readyz", None).await;
    (public.status, operators.status, operators.text())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_cannot_be_recorded_are_refused_and_nothing_of_them_is_forwarded() {
    let (gateway, agent, target, caller) = scene().await;
    let place = Place::of(&gateway);
    assert_eq!(call(&mut gateway.client().await, &caller.key).await.status, 200);
    assert_eq!(ready(&gateway).await.0, 200);

    place.break_it();
    let (mut answered, refused) = call_until_refused(&gateway, &caller.key).await;
    assert_eq!((refused.status, &refused.json()["id"]), (503, &json!("j")), "{}", refused.text());
    assert_eq!(refused.json()["error"]["data"][0]["reason"], "AUDIT_UNAVAILABLE");
    let forwarded = agent.calls().len();
    assert_eq!(forwarded, answered.len() + 1, "the refused one was not let through");

    // Whatever else is answered from here on has its row too, and soon nothing is: no refusal, no card.
    let mut client = gateway.client().await;
    for (method, path, key) in [
        ("GET", "/api/proxy/echo", caller.key.as_str()),
        ("POST", "/api/proxy/echo", "oag_wrong"),
        ("POST", "/api/proxy/nobody", caller.key.as_str()),
        ("GET", "/api/proxy/echo/tasks/1", caller.key.as_str()),
    ] {
        let body = if method == "POST" { rpc(1, "SendMessage").to_string() } else { String::new() };
        let headers = [("x-api-key", key), ("content-type", "application/json")];
        within("no room is left", async {
            loop {
                client.send(method, path, &headers, body.as_bytes()).await;
                let answer = client.answer().await;
                if answer.status == 503 {
                    assert!(answer.text().contains("AUDIT_UNAVAILABLE"), "{}", answer.text());
                    break;
                }
                answered.push(answer.header("x-openagora-request-id").expect("every answer has one").to_owned());
            }
        })
        .await;
    }
    assert_eq!(agent.calls().len(), forwarded);
    let (public, operators, why) = ready(&gateway).await;
    assert_eq!((public, operators), (503, 503));
    assert!(why.contains("calls cannot be recorded since") && why.contains("journal"), "{why}");

    place.repair();
    // Asking is enough: whoever balances load sends no calls to a gateway that is not ready.
    within("the gateway is ready again", async {
        while ready(&gateway).await.0 != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let again = call(&mut gateway.client().await, &caller.key).await;
    assert_eq!(again.status, 200, "{}", again.text());
    answered.push(again.header("x-openagora-request-id").expect("every answer has one").to_owned());

    let rows = gateway.rows().await;
    let kept: BTreeSet<&str> = rows.iter().filter_map(|row| row["id"].as_str()).collect();
    assert_eq!(kept.len(), rows.len(), "no row is there twice");
    for id in &answered {
        assert!(kept.contains(id.as_str()), "{id} was answered and has no row");
    }
    let rows = gateway.rows_of(&target).await;
    let let_through = rows.iter().filter(|row| row["operation"] == "SendMessage" && row["decision"] == "allowed");
    assert!(let_through.clone().all(|row| row["outcome"] == "completed"), "{rows:?}");
    assert_eq!(let_through.count(), agent.calls().len());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_open_when_the_journal_failed_ends_with_its_record() {
    let (gateway, _echo, _, caller) = scene().await;
    let place = Place::of(&gateway);
    let agent = Agent::start(|mut conn| async move {
        while let Some(request) = conn.request().await {
            if !request.request_line().starts_with("POST") {
                conn.json("405 Method Not Allowed", &json!({})).await;
                continue;
            }
            conn.begin_events().await;
            conn.chunk("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n").await;
            // The rest when the test says so, by a call of another connection.
            conn.closed().await;
        }
    })
    .await;
    let target = gateway.register("streamer", &agent).await;
    gateway.connect(&caller, &target).await;
    let mut stream = gateway.client().await;
    stream.call("/api/proxy/streamer", Some(&caller.key), &rpc(1, "SendStreamingMessage")).await;
    stream.head().await;
    stream.until("\n\n").await;

    place.break_it();
    let (_, refused) = call_until_refused(&gateway, &caller.key).await;
    assert_eq!(refused.status, 503);
    // Room for its outcome was taken when it began.
    drop(stream);
    within("the stream is over", async {
        while !gateway.operated("GET", "/api/calls/active", &Value::Null).await["calls"]
            .as_array()
            .is_some_and(Vec::is_empty)
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    place.repair();
    let rows = within("its row", async {
        loop {
            let rows = gateway.rows_of(&target).await;
            if !rows.is_empty() {
                break rows;
            }
        }
    })
    .await;
    assert_eq!((rows.len(), &rows[0]["outcome"]), (1, &json!("client_gone")), "{rows:?}");
    gateway.stop().await;
}
