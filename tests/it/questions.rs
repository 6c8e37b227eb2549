//! What an auditor asks of the log while the gateway works: numbers, the log as it grows, and the end of a call that is open.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::agent::{Agent, Conn};
use crate::support::client::Client;
use crate::support::gateway::TestGateway;
use crate::support::person::at_work;
use crate::support::process::Process;
use crate::support::{rpc, within};

/// An agent that begins a stream, sends one event, and waits until it is let go.
async fn endless() -> Agent {
    Agent::start(|mut conn: Conn| async move {
        while let Some(request) = conn.request().await {
            if !request.request_line().starts_with("POST") {
                conn.json("405 Method Not Allowed", &json!({})).await;
                continue;
            }
            conn.begin_events().await;
            conn.chunk("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"n\":0}}\n\n").await;
            conn.closed().await;
            return;
        }
    })
    .await
}

/// A stream of the log, opened with this token.
async fn live(address: std::net::SocketAddr, token: &str, query: &str) -> Client {
    let mut client = Client::connect(address).await;
    let token = format!("Bearer {token}");
    let headers = [("authorization", token.as_str()), ("accept", "text/event-stream")];
    client.send("GET", &format!("/api/calls/live{query}"), &headers, b"").await;
    let head = client.head().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_ends_an_open_stream_the_reader_is_told_and_the_row_says_so() {
    let gateway = TestGateway::start().await;
    let agent = endless().await;
    let target = gateway.register("streamer", &agent).await;
    let caller = gateway.register_client("caller").await;
    gateway.connect(&caller, &target).await;
    let mut log = live(gateway.gateway.admin_address(), &gateway.operator, "?target=streamer").await;
    let mut client = gateway.client().await;
    client.call("/api/proxy/streamer", Some(&caller.key), &rpc(1, "SendStreamingMessage")).await;
    assert_eq!(client.head().await.status, 200);
    client.until("\"n\":0").await;
    let open = gateway.operated("GET", "/api/calls/active?pair=streamer:caller", &Value::Null).await;
    let id = open["calls"][0]["id"].as_str().expect("it is open").to_owned();

    let path = format!("/api/calls/active/{id}/end");
    gateway.operated("POST", &path, &json!({"reason": "it runs away"})).await;
    within("the reader is told", client.until("ENDED_BY_OPERATOR")).await;
    while let Ok(Some(_)) = within("the stream ends", client.chunk()).await {}
    let told = within("the row is heard of", log.until("ended_by_operator")).await;
    assert!(told.contains(&id), "{told}");
    let row = gateway.rows_of(&target).await[0].clone();
    assert_eq!((&row["outcome"], &row["reason"]), (&json!("interrupted"), &json!("ended_by_operator")));
    let events = gateway.operated("GET", &format!("/api/events?subject={id}"), &Value::Null).await;
    assert_eq!(
        (&events["events"][0]["action"], &events["events"][0]["reason"]),
        (&json!("call.end"), &json!("it runs away"))
    );
    let again = gateway.operate("POST", &path, None).await;
    assert_eq!(again.status, 404);
    assert!(again.text().contains("is over: it ended as interrupted"), "{}", again.text());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_has_no_answer_yet_is_ended_with_one() {
    let gateway = TestGateway::start().await;
    let agent = Agent::start(|mut conn: Conn| async move {
        conn.request().await;
        conn.closed().await;
    })
    .await;
    gateway.register("silent", &agent).await;
    let caller = gateway.register_client("caller").await;
    let mut client = gateway.client().await;
    client.call("/api/proxy/silent", Some(&caller.key), &rpc(7, "SendMessage")).await;
    let id = within("the call is open", async {
        loop {
            let open = gateway.operated("GET", "/api/calls/active", &Value::Null).await;
            let asked = !agent.calls().is_empty();
            if let (true, Some(id)) = (asked, open["calls"][0]["id"].as_str()) {
                return id.to_owned();
            }
        }
    })
    .await;
    gateway.operated("POST", &format!("/api/calls/active/{id}/end"), &Value::Null).await;
    let answer = within("an answer", client.answer()).await;
    assert_eq!((answer.status, &answer.json()["id"]), (502, &json!(7)), "{}", answer.text());
    assert_eq!(answer.json()["error"]["data"][0]["reason"], "ENDED_BY_OPERATOR");
    gateway.stop().await;
}

/// How many calls the rows stand for, and how many the sums say there are.
async fn both(gateway: &Process) -> (i64, i64) {
    let stats = gateway.operated("GET", "/api/calls/stats", &Value::Null).await;
    let sum = gateway.rows().await.iter().filter_map(|row| row["calls"].as_i64()).sum();
    (sum, stats["groups"][0]["calls"].as_i64().unwrap_or(0))
}

/// One call, and its answer.
async fn called(gateway: &Process, key: Option<&str>) {
    let mut client = Client::connect(gateway.public).await;
    client.call("/api/proxy/target", key, &rpc(1, "SendMessage")).await;
    client.answer().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_numbers_are_those_of_the_rows_after_a_kill_too() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut gateway = Process::start(dir.path(), &[("AGENTS__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]")]).await;
    let agent = Agent::echo().await;
    let target = gateway.register("target", Some(&agent.url())).await;
    let caller = gateway.register("caller", None).await;
    gateway.connect(&caller, &target).await;
    for round in 1..4 {
        for _ in 0..20 {
            called(&gateway, Some(&caller.key)).await;
        }
        // Strangers soon are refused by the bucket, and folded where many come at once.
        join_all((0..60).map(|_| called(&gateway, None))).await;
        gateway.kill().await;
        gateway = Process::start(dir.path(), &[("AGENTS__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]")]).await;
        assert_eq!(both(&gateway).await, (round * 80, round * 80));
    }
    assert!(gateway.rows().await.iter().any(|row| row["calls"].as_i64() > Some(1)), "some were folded");
    gateway.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_the_log_does_not_keep_the_gateway_from_stopping() {
    let gateway = TestGateway::start().await;
    let agent = Agent::echo().await;
    gateway.register("target", &agent).await;
    let caller = gateway.register_client("caller").await;
    let mut operators = live(gateway.gateway.admin_address(), &gateway.operator, "").await;
    let mut own = live(gateway.gateway.public_address(), &caller.key, "").await;
    gateway.call("target", Some(&caller.key), &rpc(1, "SendMessage")).await;
    for log in [&mut operators, &mut own] {
        within("the call is heard of", log.until("\"operation\":\"SendMessage\"")).await;
    }
    within("the gateway stops", gateway.stop()).await;
    for mut log in [operators, own] {
        while let Ok(Some(_)) = within("the stream ends", log.chunk()).await {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_counts_looks_on_and_ends() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (gateway, person) = at_work(dir.path(), &[]).await;
    let agent = endless().await;
    person.does(&["agents", "register", "weather", "--endpoint", &agent.url()]).await;
    let key = person.does(&["agents", "register", "planner"]).await;
    person.does(&["connections", "request", "planner", "weather", "--accept"]).await;
    person.does(&["connections", "limits", "planner:weather", "--rate", "2", "--period", "1h", "--burst", "2"]).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(gateway.public).await;
        client.call("/api/proxy/weather", Some(key.trim()), &rpc(1, "SendStreamingMessage")).await;
        assert_eq!(client.head().await.status, 200);
        client.until("\"n\":0").await;
        clients.push(client);
    }
    for _ in 0..3 {
        let mut client = Client::connect(gateway.public).await;
        client.call("/api/proxy/weather", Some(key.trim()), &rpc(1, "SendMessage")).await;
        assert_eq!(client.answer().await.status, 429);
    }
    let open = person.reads(&["calls", "active", "--pair", "weather:planner"]).await;
    let id = open["calls"][0]["id"].as_str().expect("it is open").to_owned();
    assert!(person.fails(2, &["calls", "end", &id]).await.contains("--yes"));
    let done = person.does(&["calls", "end", &id, "--reason", "enough", "--yes"]).await;
    assert_eq!(done, format!("Ended the call {id}.\n"));
    assert!(person.fails(3, &["calls", "end", &id, "--yes"]).await.contains("is over"));

    let stats = person.types(&["calls", "stats"]).await;
    let line: Vec<&str> = stats.out.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!((&line[..3], line[4]), (&["planner", "weather", "4"][..], "3"), "{}", stats.out);
    assert!(stats.err.starts_with("4 calls from "), "{}", stats.err);
    assert!(stats.out.lines().all(|line| line.chars().count() <= 80), "{}", stats.out);
    // Of what was refused nothing is told of how long it took.
    let refused = person.does(&["calls", "stats", "--decision", "refused"]).await;
    let line: Vec<&str> = refused.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!((line[2], &line[4..7]), ("3", &["3", "-", "-"][..]), "{refused}");
    let by_hour = person.does(&["calls", "stats", "--bucket", "hour", "--by", "none", "--since", "2h"]).await;
    assert!(by_hour.starts_with("WHEN") && by_hour.contains(":00 "), "{by_hour}");
    let json = person.reads(&["calls", "stats", "--by", "level"]).await;
    assert_eq!(json["groups"][0]["refusals"], json!({"rate_limited": 3}));
    assert!(person.fails(2, &["calls", "stats", "--by", "colour"]).await.contains("caller, agent and level"));

    let top = person.does(&["calls", "top", "--once"]).await;
    assert!(top.contains("planner") && top.contains("weather") && top.contains("calls a minute"), "{top}");
    assert!(!top.contains('\u{1b}') && top.lines().all(|line| line.chars().count() <= 80), "{top}");
    let top = person.reads(&["calls", "top", "--minutes", "7"]).await;
    let at = |name: &str| top[name].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok()).expect("a time");
    // The minute that has begun is in it, and one more may begin meanwhile.
    let minutes = at("until").duration_since(at("since")).as_mins();
    assert!(top["groups"].is_array() && (7..=9).contains(&minutes), "{top}");

    // What is not found by an index has a day to be looked for in, and that is said.
    let listed = person.types(&["calls", "list", "--reason", "ended_by_operator"]).await;
    assert!(listed.out.contains(&id) && listed.err.contains("last 24 hours"), "{}{}", listed.out, listed.err);
    for indexed in [&["calls", "list", "--request", &id][..], &["calls", "list", "--request", &id, "--status", "200"]] {
        let listed = person.types(indexed).await;
        assert!(listed.out.contains(&id) && listed.err.is_empty(), "{}{}", listed.out, listed.err);
    }
}
