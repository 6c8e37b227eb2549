//! Killed at any moment: what was answered has its row, what reached an agent has its row, no row is there twice.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::agent::{Agent, Conn};
use crate::support::client::Client;
use crate::support::postgres::Postgres;
use crate::support::process::Process;
use crate::support::rpc;

type Seen = Arc<Mutex<BTreeSet<String>>>;

/// Answers unary calls and short streams; remembers the request ids it saw.
async fn agent(seen: Seen) -> Agent {
    Agent::start(move |mut conn: Conn| {
        let seen = Arc::clone(&seen);
        async move {
            while let Some(request) = conn.request().await {
                if !request.request_line().starts_with("POST") {
                    conn.json("405 Method Not Allowed", &json!({})).await;
                    continue;
                }
                let id = request.header("x-openagora-request-id").expect("the gateway names every call").to_owned();
                seen.lock().expect("never poisoned").insert(id);
                if request.json()["method"] == "SendStreamingMessage" {
                    conn.begin_events().await;
                    for n in 0..3 {
                        conn.chunk(format!("data: {{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{\"n\":{n}}}}}\n\n"))
                            .await;
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    conn.end_chunks().await;
                } else {
                    conn.json("200 OK", &json!({"jsonrpc": "2.0", "id": 1, "result": {}})).await;
                }
            }
        }
    })
    .await
}

/// Calls until the gateway is gone; remembers the ids of the answers it read whole.
async fn caller(public: SocketAddr, key: Option<String>, streams: bool, answered: Seen) {
    let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(2), tokio::net::TcpStream::connect(public)).await else {
        return;
    };
    let mut client = Client::connect(public).await;
    let method = if streams { "SendStreamingMessage" } else { "SendMessage" };
    loop {
        if !client.try_call("/api/proxy/target", key.as_deref(), &rpc(1, method)).await {
            return;
        }
        let answer = client.answer().await;
        if answer.cut || answer.status == 0 {
            return;
        }
        let id = answer.header("x-openagora-request-id").expect("every answer has one").to_owned();
        answered.lock().expect("never poisoned").insert(id);
    }
}

async fn rounds(durability: &str, store: &str, rounds: u64) {
    let settings = [("AUDIT__DURABILITY", durability), ("STORE__URL", store)];
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (seen, answered): (Seen, Seen) = (Arc::default(), Arc::default());
    let agent = agent(Arc::clone(&seen)).await;
    let mut gateway = Process::start(dir.path(), &settings).await;
    let target = json!({"name": "target", "slug": "target", "url": agent.url()});
    let target = gateway.operated("POST", "/api/agents", &target).await;
    let planner = gateway.operated("POST", "/api/agents", &json!({"name": "planner", "slug": "planner"})).await;
    let connection = json!({"requester_id": planner["id"], "target_id": target["id"], "status": "connected",
        "limits": {"rate": 1_000_000, "period_ms": 1000, "burst": 1_000_000, "daily": 100_000_000, "streams": 1000}});
    gateway.operated("POST", "/api/connections", &connection).await;
    let key = planner["api_key"].as_str().expect("a key").to_owned();

    for round in 0..rounds {
        let mut callers = JoinSet::new();
        for n in 0..16 {
            // Mostly calls that pass, streams among them, and some that are refused.
            let key = (n % 4 != 3).then(|| key.clone());
            callers.spawn(caller(gateway.public, key, n % 4 == 1, Arc::clone(&answered)));
        }
        // Any moment will do, but not always the same one.
        tokio::time::sleep(Duration::from_millis(40 + (round * 37) % 190)).await;
        gateway.kill().await;
        while callers.join_next().await.is_some() {}
        gateway = Process::start(dir.path(), &settings).await;
    }

    let ids = gateway.ids().await;
    let rows: BTreeSet<String> = ids.iter().cloned().collect();
    assert_eq!(ids.len(), rows.len(), "no row is there twice");
    let answered = answered.lock().expect("never poisoned").clone();
    let seen = seen.lock().expect("never poisoned").clone();
    assert!(answered.len() > 20 && seen.len() > 20, "{} answered, {} seen: no load", answered.len(), seen.len());
    let missing: Vec<_> = answered.difference(&rows).collect();
    assert!(missing.is_empty(), "{} of {} answered calls have no row: {missing:?}", missing.len(), answered.len());
    let missing: Vec<_> = seen.difference(&rows).collect();
    assert!(missing.is_empty(), "{} of {} calls at the agent have no row: {missing:?}", missing.len(), seen.len());
    sealed(&gateway, ids.len()).await;
    gateway.kill().await;
}

/// The tree has every row, and what was signed before each kill was the beginning of it.
async fn sealed(gateway: &Process, rows: usize) {
    for _ in 0..500 {
        let ledger = gateway.operated("GET", "/api/status", &json!(null)).await["ledger"].clone();
        assert_eq!(ledger["rows"], rows, "{ledger}");
        if ledger["sealed_rows"] == rows {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not signed for: {}", gateway.operated("GET", "/api/status", &json!(null)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_lose_no_answered_call_and_double_none() {
    rounds("process", "sqlite", 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_when_records_wait_for_the_disk_either() {
    rounds("disk", "sqlite", 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_lose_and_double_nothing_on_postgresql_either() {
    let postgres = Postgres::start();
    rounds("process", &postgres.url(), 10).await;
}
