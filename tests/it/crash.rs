//! Killed at any moment: what was answered has its row, what reached an agent has its row, no row is there twice.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::support::agent::{Agent, Conn};
use crate::support::client::{Answer, Client};
use crate::support::{rpc, within};

/// The real program, as a process that can be killed.
struct Process {
    child: Child,
    public: SocketAddr,
    admin: SocketAddr,
    token: String,
}

impl Process {
    async fn start(data_dir: &Path, durability: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_trust-gateway"))
            .arg("serve")
            .current_dir(data_dir)
            .env("TRUST_GATEWAY__DATA_DIR", data_dir.join("data"))
            .env("TRUST_GATEWAY__SERVER__LISTEN", "127.0.0.1:0")
            .env("TRUST_GATEWAY__ADMIN__LISTEN", "127.0.0.1:0")
            .env("TRUST_GATEWAY__SERVER__WORKERS", "2")
            .env("TRUST_GATEWAY__AUDIT__DURABILITY", durability)
            .env("TRUST_GATEWAY__AUDIT__SEGMENT", "1MiB")
            .env("TRUST_GATEWAY__LOG__LEVEL", "warn")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (mut public, mut admin) = (None, None);
        while public.is_none() || admin.is_none() {
            let line = within("the program says where it listens", lines.next_line()).await;
            let line = line.expect("readable").expect("the program does not end");
            let address = |url: &str| url.trim_start_matches("http://").parse().ok();
            match line.split_once(' ') {
                Some(("public", url)) => public = address(url),
                Some(("admin", url)) => admin = address(url),
                _ => {}
            }
        }
        let token = std::fs::read_to_string(data_dir.join("data/admin-token")).expect("the first start writes it");
        let (public, admin) = (public.expect("just set"), admin.expect("just set"));
        Self { child, public, admin, token: token.trim().to_owned() }
    }

    async fn operate(&self, method: &str, path: &str, body: &Value) -> Answer {
        let mut client = Client::connect(self.admin).await;
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        client.send(method, path, &headers, body.as_bytes()).await;
        client.answer().await
    }

    async fn operated(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.operate(method, path, body).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
        answer.json()
    }

    async fn kill(mut self) {
        self.child.kill().await.expect("it runs");
    }

    /// The ids of all rows.
    async fn ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        let mut path = "/api/calls?limit=200".to_owned();
        loop {
            let page = self.operated("GET", &path, &Value::Null).await;
            let calls = page["calls"].as_array().cloned().unwrap_or_default();
            ids.extend(calls.iter().filter_map(|row| row["id"].as_str().map(str::to_owned)));
            match page["next"].as_str() {
                Some(next) => path = format!("/api/calls?limit=200&next={next}"),
                None => return ids,
            }
        }
    }
}

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

async fn rounds(durability: &str, rounds: u64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (seen, answered): (Seen, Seen) = (Arc::default(), Arc::default());
    let agent = agent(Arc::clone(&seen)).await;
    let mut gateway = Process::start(dir.path(), durability).await;
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
        gateway = Process::start(dir.path(), durability).await;
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
    gateway.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_lose_no_answered_call_and_double_none() {
    rounds("process", 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_when_records_wait_for_the_disk_either() {
    rounds("disk", 4).await;
}
