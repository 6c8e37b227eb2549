//! The real program from its start to its end: what stops a start, what a reload changes, how it stops.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use crate::support::agent::Agent;
use crate::support::client::Client;
use crate::support::process::Process;
use crate::support::{rpc, within};

/// An agent that begins a stream at once, and answers a unary call when told to.
async fn slow(go: std::sync::Arc<Notify>, streams: mpsc::UnboundedSender<()>) -> Agent {
    Agent::start(move |mut conn| {
        let (go, streams) = (std::sync::Arc::clone(&go), streams.clone());
        async move {
            while let Some(request) = conn.request().await {
                if !request.request_line().starts_with("POST") {
                    conn.json("405 Method Not Allowed", &json!({})).await;
                } else if request.json()["method"] == "SendStreamingMessage" {
                    conn.begin_events().await;
                    conn.chunk("data: {\"jsonrpc\":\"2.0\",\"id\":\"s\",\"result\":{\"task\":{\"id\":\"t\"}}}\n\n")
                        .await;
                    conn.closed().await;
                    let _ = streams.send(());
                } else {
                    go.notified().await;
                    let id = request.json()["id"].clone();
                    conn.json("200 OK", &json!({"jsonrpc": "2.0", "id": id, "result": {}})).await;
                }
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_it_lets_calls_end_says_goodbye_to_streams_and_keeps_every_row() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let gateway = Process::start(dir.path(), &[("SERVER__DRAIN_TIMEOUT", "5s")]).await;
    let go = std::sync::Arc::new(Notify::new());
    let (tell, mut closed) = mpsc::unbounded_channel();
    let agent = slow(std::sync::Arc::clone(&go), tell).await;
    let target = gateway.register("slow", Some(&agent.url())).await;
    let caller = gateway.register("caller", None).await;
    gateway.connect(&caller, &target).await;

    let mut idle = Client::connect(gateway.public).await;
    idle.send("GET", "/livez", &[], b"").await;
    assert_eq!(idle.answer().await.status, 200);
    let mut stream = Client::connect(gateway.public).await;
    stream.call("/api/proxy/slow", Some(&caller.key), &rpc("s", "SendStreamingMessage")).await;
    assert_eq!(stream.head().await.status, 200);
    stream.until("\n\n").await;
    let mut unary = Client::connect(gateway.public).await;
    unary.call("/api/proxy/slow", Some(&caller.key), &rpc("u", "SendMessage")).await;
    within("both calls are at the agent", async {
        while agent.calls().len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    gateway.signal("TERM").await;
    gateway.logs("stopping").await;
    // Stopping takes as long as the calls do, no longer than it may, and nothing new begins.
    assert!(idle.ended().await.is_empty(), "a connection without a call is closed");
    within("no new connection is accepted", async {
        while tokio::net::TcpStream::connect(gateway.public).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    go.notify_one();
    let answer = unary.answer().await;
    assert_eq!((answer.status, &answer.json()["id"]), (200, &json!("u")), "the unary call ended well");
    let farewell = stream.until("\n\n").await;
    assert!(farewell.contains("GATEWAY_DRAINING") && farewell.contains("\"id\":\"s\""), "{farewell}");
    assert_eq!(stream.chunk().await, Err(()), "then the cut");
    within("the agent's stream is closed", closed.recv()).await.expect("the agent saw it");
    let status = gateway.ended().await;
    assert_eq!(status.code(), Some(0));

    let again = Process::start(dir.path(), &[]).await;
    let rows = again.rows().await;
    let of = |operation: &str| {
        let mut rows = rows.iter().filter(|row| row["operation"] == operation);
        let row = rows.next().unwrap_or_else(|| panic!("a row of {operation} in {rows:?}"));
        (row["outcome"].clone(), row["reason"].clone(), rows.next().is_none())
    };
    assert_eq!(of("SendMessage"), (json!("completed"), Value::Null, true));
    assert_eq!(of("SendStreamingMessage"), (json!("interrupted"), json!("draining"), true));
    go.notify_one();
    let mut client = Client::connect(again.public).await;
    client.call("/api/proxy/slow", Some(&caller.key), &rpc("v", "SendMessage")).await;
    assert_eq!(client.answer().await.status, 200, "agents, keys and connections are still there");
    again.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_nothing_open_it_stops_at_once_whatever_the_drain_may_take() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let gateway = Process::start(dir.path(), &[("SERVER__DRAIN_TIMEOUT", "7d")]).await;
    let _silent = Client::connect(gateway.public).await;
    let mut half = Client::connect(gateway.public).await;
    half.write("GET /livez HTTP/1.1\r\nhost: g\r\n\r\n").await;
    assert_eq!(half.answer().await.status, 200);
    gateway.signal("INT").await;
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_does_not_end_is_ended_when_the_drain_is_over() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let gateway = Process::start(dir.path(), &[("SERVER__DRAIN_TIMEOUT", "1ms")]).await;
    let (tell, _closed) = mpsc::unbounded_channel();
    let agent = slow(std::sync::Arc::default(), tell).await;
    let target = gateway.register("slow", Some(&agent.url())).await;
    let caller = gateway.register("caller", None).await;
    gateway.connect(&caller, &target).await;
    let mut waiting = Client::connect(gateway.public).await;
    waiting.call("/api/proxy/slow", Some(&caller.key), &rpc("w", "SendMessage")).await;
    let mut sending = Client::connect(gateway.public).await;
    let asking = "POST /api/proxy/slow HTTP/1.1\r\nhost: g\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n";
    sending.write(asking).await;
    assert_eq!(sending.head().await.status, 100, "its head has arrived and its body is waited for");
    within("the call is at the agent", async {
        while agent.calls().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gateway.signal("TERM").await;
    let answer = waiting.answer().await;
    assert_eq!((answer.status, &answer.json()["id"]), (503, &json!("w")), "{}", answer.text());
    assert!(answer.text().contains("GATEWAY_DRAINING"), "{}", answer.text());
    assert_eq!(gateway.ended().await.code(), Some(0));
    let again = Process::start(dir.path(), &[]).await;
    let rows = again.rows().await;
    let outcomes: Vec<_> = rows.iter().map(|row| (row["rpc_id"].clone(), row["outcome"].clone())).collect();
    assert!(outcomes.contains(&(json!("\"w\""), json!("interrupted"))), "{outcomes:?}");
    assert_eq!(outcomes.len(), 2, "the call that was still being sent has its row: {outcomes:?}");
    again.kill().await;
}

fn write(path: &Path, text: &str) {
    // In one step, as editors do it: never half a file.
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text).expect("write");
    std::fs::rename(&draft, path).expect("rename");
}

/// `policies/default.toml` with another rate for callers that are not connected.
fn policy(verified: &str) -> String {
    let own = format!("[tiers.verified]\nwork = {{ {verified} }}");
    let text = include_str!("../../policies/default.toml");
    let changed = text.replace("[tiers.verified]\nwork = { rate = \"1/min\", burst = 1 }", &own);
    assert_ne!(changed, text, "the default policy has another form now");
    changed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_takes_over_all_that_it_can_or_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("trust-gateway.toml");
    write(&file, "[log]\nlevel = \"warn\"\naccess = false\n");
    let gateway = Process::start(dir.path(), &[]).await;
    let agent = Agent::echo().await;
    gateway.register("echo", Some(&agent.url())).await;
    let caller = gateway.register("caller", None).await;
    let status = async || {
        let mut client = Client::connect(gateway.public).await;
        client.call("/api/proxy/echo", Some(&caller.key), &rpc(1, "SendMessage")).await;
        client.answer().await.status
    };
    assert_eq!([status().await, status().await], [200, 429]);
    assert!(!gateway.log().contains("INFO"), "{}", gateway.log());

    // By the file alone, without a signal: the level, the policy and a limit of agents.
    let rules = dir.path().join("rules.toml");
    write(&rules, &policy("rate = \"1000/s\", burst = 1000"));
    write(&file, "[log]\nlevel = \"info\"\n[policy]\nfile = \"rules.toml\"\n[upstream]\nmax_in_flight = 7\n");
    gateway.logs("configuration reloaded").await;
    let log = gateway.log();
    for name in ["log.level", "log.access", "policy.file", "upstream.max_in_flight"] {
        assert!(log.contains(name), "{name} in {log}");
    }
    assert_eq!([status().await, status().await, status().await], [200; 3]);
    gateway.logs_times("INFO access: call", 3).await;

    // Half of this could be taken over; none of it is.
    write(&file, "[log]\naccess = false\n[policy]\nfile = \"absent.toml\"\n");
    gateway.signal("HUP").await;
    gateway.logs("the configuration was not reloaded, the running one stays").await;
    assert!(gateway.log().contains("absent.toml"), "{}", gateway.log());
    write(&file, "[log]\nlevel = \"error\"\nlevle = 1\n");
    gateway.logs("levle").await;
    assert_eq!([status().await, status().await, status().await], [200; 3]);
    gateway.logs_times("INFO access: call", 6).await;

    // What the rules say changes, not where they are; and it says what waits for the next start.
    write(&rules, &policy("rate = \"1/day\", burst = 1"));
    write(
        &file,
        "[log]\nlevel = \"info\"\n[policy]\nfile = \"rules.toml\"\n[upstream]\nmax_in_flight = 7\n\
         [server]\nmax_body = \"1MiB\"\nmax_headers = 50\n",
    );
    gateway.logs("these take effect at the next start").await;
    assert!(gateway.log().contains("server.max_headers"), "{}", gateway.log());
    within("the stricter rules are in force", async { while status().await != 429 {} }).await;
    write(&rules, &policy("rate = \"1000/s\", burst = 1000"));
    within("the rules alone have changed", async { while status().await != 200 {} }).await;
    gateway.logs("changed=\"policy.file\"").await;

    // Without access lines; what is logged later comes later, so that none is still on its way.
    let quiet = |level: &str| format!("[log]\naccess = false\nlevel = \"{level}\"\n[policy]\nfile = \"rules.toml\"\n");
    write(&file, &quiet("info"));
    gateway.logs_times("log.access\"", 2).await;
    let before = gateway.log().matches("INFO access: call").count();
    assert_eq!([status().await, status().await], [200; 2]);
    write(&file, &quiet("debug"));
    gateway.logs("changed=\"log.level\"").await;
    assert_eq!(gateway.log().matches("INFO access: call").count(), before);
    gateway.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_gateway_on_the_same_data_is_told_why_it_may_not_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = Process::start(dir.path(), &[]).await;
    let (status, said) = Process::start_in_vain(dir.path(), &[]).await;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("another gateway") && said.contains("data_dir"), "{said}");
    assert!(said.contains("set another data_dir"), "it says what to do: {said}");
    first.operated("GET", "/api/agents", &Value::Null).await;
    first.kill().await;
    Process::start(dir.path(), &[]).await.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_ends_the_start_with_1_and_names_the_setting() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    for setting in ["SERVER__LISTEN", "ADMIN__LISTEN"] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (status, said) = Process::start_in_vain(dir.path(), &[(setting, &address)]).await;
        assert_eq!(status.code(), Some(1), "{said}");
        let name = setting.to_ascii_lowercase().replace("__", ".");
        let expected = format!("{name} = \"{address}\": another program listens there already");
        assert!(said.contains(&expected) && said.contains("set another address"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_configuration_ends_the_start_with_2_and_touches_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    write(&dir.path().join("trust-gateway.toml"), "[server]\nlisten = \"here\"\nworkerz = 3\n");
    let settings = [("UPSTREAM__CONNECT", "soon")];
    let (status, said) = Process::start_in_vain(dir.path(), &settings).await;
    assert_eq!(status.code(), Some(2), "{said}");
    for part in ["trust-gateway.toml:3", "workerz", "TRUST_GATEWAY__UPSTREAM__CONNECT"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!dir.path().join("data").exists(), "nothing was started");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_it_answers_what_an_operator_has_begun() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut gateway = Process::start(dir.path(), &[]).await;
    let body = json!({"name": "late", "slug": "late"}).to_string();
    let (first, rest) = body.split_at(5);
    let token = std::fs::read_to_string(dir.path().join("data/admin-token")).expect("written at the first start");
    let mut operator = Client::connect(gateway.admin).await;
    let head = format!(
        "POST /api/agents HTTP/1.1\r\nhost: gw\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{first}",
        token.trim(),
        body.len()
    );
    operator.write(head).await;
    let mut idle = Client::connect(gateway.admin).await;
    idle.send("GET", "/livez", &[], b"").await;
    assert_eq!(idle.answer().await.status, 200);

    gateway.signal("TERM").await;
    assert!(idle.ended().await.is_empty(), "a connection without a request is closed");
    within("no new connection is accepted", async {
        while tokio::net::TcpStream::connect(gateway.admin).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!gateway.ends_within(Duration::from_millis(300)).await, "a request is still open");
    operator.write(rest).await;
    assert_eq!(operator.answer().await.status, 201);
    assert!(gateway.ended().await.success());
    let gateway = Process::start(dir.path(), &[]).await;
    assert_eq!(gateway.operated("GET", "/api/agents/late", &Value::Null).await["slug"], "late");
}
