//! HTTP/1.1: many calls on a connection, bodies in every framing and at every pace, and whose address counts.

use std::time::Duration;

use serde_json::{Value, json};
use trust_gateway::clock::{Clock, Timestamp};
use trust_gateway::config::{Config, Size};

use crate::support::agent::Agent;
use crate::support::gateway::{Registered, TestGateway};
use crate::support::{rpc, within};

const MIB: usize = 1 << 20;

async fn connected(gateway: &TestGateway, agent: &Agent) -> (Registered, Registered) {
    let target = gateway.register("agent", agent).await;
    let caller = gateway.register_client("caller").await;
    gateway.connect(&caller, &target).await;
    (target, caller)
}

async fn scene(adjust: impl FnOnce(&mut Config)) -> (TestGateway, Agent, Registered, Registered) {
    let gateway = TestGateway::with(Clock::system(), adjust).await;
    let agent = Agent::echo().await;
    let (target, caller) = connected(&gateway, &agent).await;
    (gateway, agent, target, caller)
}

/// An agent that never answers a call.
async fn silent() -> Agent {
    Agent::start(|mut conn| async move {
        while let Some(request) = conn.request().await {
            if request.request_line().starts_with("POST") {
                conn.closed().await;
                return;
            }
            conn.json("405 Method Not Allowed", &json!({})).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_follow_each_other_on_one_connection_waited_for_or_not() {
    let (gateway, agent, target, caller) = scene(|_| {}).await;
    let mut client = gateway.client().await;
    for id in 0..20 {
        client.call("/api/proxy/agent", Some(&caller.key), &rpc(id, "SendMessage")).await;
        assert_eq!(client.answer().await.json()["id"], json!(id));
    }
    for id in 20..40 {
        // Every third one is answered by the gateway itself.
        let path = if id % 3 == 0 { "/api/proxy/nobody" } else { "/api/proxy/agent" };
        client.call(path, Some(&caller.key), &rpc(id, "SendMessage")).await;
    }
    for id in 20..40 {
        let answer = client.answer().await;
        let status = if id % 3 == 0 { 404 } else { 200 };
        assert_eq!((answer.status, &answer.json()["id"]), (status, &json!(id)));
    }
    assert_eq!(agent.calls().len(), 33);
    assert_eq!(gateway.rows_of(&target).await.len(), 33);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_go_to_the_worker_with_the_fewest_open_calls() {
    let gateway = TestGateway::start().await;
    let agent = silent().await;
    let (_, caller) = connected(&gateway, &agent).await;
    let mut clients = Vec::new();
    for n in 0..20 {
        let mut client = gateway.client().await;
        client.call("/api/proxy/agent", Some(&caller.key), &rpc(n, "SendMessage")).await;
        within("the agent has the call", async {
            while agent.calls().len() <= n {
                tokio::task::yield_now().await;
            }
        })
        .await;
        clients.push(client);
    }
    // Each worker has a journal of its own.
    let dir = gateway.gateway.data_dir().join("journal").join(gateway.gateway.journal().instance().to_string());
    for worker in 0..2 {
        let written = std::fs::read(dir.join(format!("w{worker}-1.tgj"))).expect("the first segment");
        let calls = written.windows(11).filter(|window| window == b"SendMessage").count();
        assert_eq!(calls, 20, "ten calls, each with its method and its operation, on worker {worker}");
    }
    drop(clients);
    gateway.stop().await;
}

// Bodies.

/// `rpc` with a text so long that the whole is `size` bytes.
fn sized(size: usize) -> Vec<u8> {
    let body = |text: &str| {
        json!({"jsonrpc": "2.0", "id": "big", "method": "SendMessage", "params": {"message": {"text": text}}})
            .to_string()
    };
    let empty = body("").len();
    body(&"x".repeat(size - empty)).into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_ten_mib_passes_and_one_byte_more_is_413_however_it_is_framed() {
    let (gateway, agent, target, caller) = scene(|_| {}).await;
    let key = caller.key.as_str();
    let headers = [("x-api-key", key), ("content-type", "application/json")];
    let body = sized(10 * MIB);
    let mut client = gateway.client().await;
    client.send("POST", "/api/proxy/agent", &headers, &body).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, &answer.json()["id"]), (200, &json!("big")), "{}", answer.text());
    assert!(agent.calls()[0].body == body, "byte for byte");

    // Clients send all of it before they read the answer.
    let body = sized(10 * MIB + 1);
    for chunked in [false, true] {
        let mut client = gateway.client().await;
        if chunked {
            let head = format!(
                "POST /api/proxy/agent HTTP/1.1\r\nhost: g\r\nx-api-key: {key}\r\ntransfer-encoding: chunked\r\n\r\n"
            );
            client.write(head).await;
            for piece in body.chunks(MIB) {
                client.write(format!("{:x}\r\n", piece.len())).await;
                client.write([piece, b"\r\n"].concat()).await;
            }
            client.write("0\r\n\r\n").await;
        } else {
            client.send("POST", "/api/proxy/agent", &headers, &body).await;
        }
        let answer = client.answer().await;
        assert_eq!(answer.status, 413, "chunked: {chunked}; {} {}", answer.head, answer.text());
        assert_eq!(answer.json()["error"]["data"][0]["reason"], "REQUEST_TOO_LARGE");
    }
    assert_eq!(agent.calls().len(), 1);
    let reasons: Vec<Value> = gateway.rows_of(&target).await.iter().map(|row| row["reason"].clone()).collect();
    assert_eq!(reasons, [Value::Null, json!("too_large"), json!("too_large")]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunked_body_is_whole_at_the_agent() {
    let (gateway, agent, target, caller) = scene(|_| {}).await;
    let body = rpc("c", "SendMessage").to_string();
    let mut client = gateway.client().await;
    let key = &caller.key;
    for pieces in [body.len(), 7, 1] {
        client
            .write(format!(
                "POST /api/proxy/agent HTTP/1.1\r\nhost: g\r\nx-api-key: {key}\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n"
            ))
            .await;
        for piece in body.as_bytes().chunks(pieces) {
            let piece = String::from_utf8_lossy(piece);
            client.write(format!("{:X};ext=\"1\"\r\n{piece}\r\n", piece.len())).await;
        }
        client.write("0\r\nx-t: end\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, &answer.json()["id"]), (200, &json!("c")), "{}", answer.text());
    }
    for call in agent.calls() {
        assert_eq!(String::from_utf8_lossy(&call.body), body);
        assert_eq!(call.header("content-length"), Some(body.len().to_string().as_str()));
        assert_eq!((call.header("transfer-encoding"), call.header("x-t")), (None, None));
    }
    assert!(gateway.rows_of(&target).await.iter().all(|row| row["request_bytes"] == json!(body.len())));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_before_sending_is_told_to_go_on_or_why_not() {
    let (gateway, agent, _, caller) = scene(|_| {}).await;
    let ask = |path: &str, key: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: g\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n\
             expect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let body = rpc("e", "SendMessage").to_string();
    let mut client = gateway.client().await;
    client.write(ask("/api/proxy/agent", &caller.key, body.len())).await;
    assert_eq!(client.head().await.status, 100);
    client.write(&body).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, &answer.json()["id"]), (200, &json!("e")));
    assert_eq!(agent.calls()[0].header("expect"), None);

    for (path, key, length, status) in [
        ("/api/proxy/agent", caller.key.as_str(), 10 * MIB + 1, 413),
        ("/api/proxy/agent", "oag_wrong", body.len(), 401),
        ("/api/proxy/nobody", caller.key.as_str(), body.len(), 404),
    ] {
        let mut client = gateway.client().await;
        client.write(ask(path, key, length)).await;
        // Nothing of the body was sent, and nothing of it is waited for.
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(client.ended().await.is_empty(), "what would follow could be taken for a body");
    }
    gateway.stop().await;
}

// Time.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_comes_byte_by_byte_after_a_call_is_not_waited_for_either() {
    let (gateway, _agent, _, caller) = scene(|config| config.server.header_timeout = Duration::from_millis(300)).await;
    let mut client = gateway.client().await;
    client.call("/api/proxy/agent", Some(&caller.key), &rpc(1, "SendMessage")).await;
    assert_eq!(client.answer().await.status, 200);
    client.write("POST /api/proxy/agent HT").await;
    client.ended().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_slower_than_the_floor_is_408_and_a_row_and_one_above_it_passes() {
    let (gateway, agent, target, caller) = scene(|config| {
        config.server.body_grace = Duration::from_millis(300);
        config.server.body_min_rate = Size(20);
    })
    .await;
    let key = &caller.key;
    let head = |length: usize| {
        format!(
            "POST /api/proxy/agent HTTP/1.1\r\nhost: g\r\nx-api-key: {key}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let mut client = gateway.client().await;
    client.write(head(100) + "{\"jsonrpc\"").await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 408, "{}", answer.text());
    assert_eq!(answer.json()["error"]["data"][0]["reason"], "REQUEST_TIMEOUT");
    assert!(agent.calls().is_empty());
    assert_eq!(gateway.rows_of(&target).await[0]["reason"], "slow_body");

    // Many times the grace in all, but never below the floor: 20 bytes earn a second.
    let body = rpc("steady", "SendMessage").to_string();
    let mut client = gateway.client().await;
    client.write(head(body.len())).await;
    for piece in body.as_bytes().chunks(10) {
        client.write(piece).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(client.answer().await.status, 200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_floor_a_body_may_take_its_time() {
    let (gateway, _agent, _, caller) = scene(|config| {
        config.server.body_grace = Duration::ZERO;
        config.server.body_min_rate = Size(0);
    })
    .await;
    let body = rpc("late", "SendMessage").to_string();
    let mut client = gateway.client().await;
    let key = &caller.key;
    client
        .write(format!(
            "POST /api/proxy/agent HTTP/1.1\r\nhost: g\r\nx-api-key: {key}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        ))
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.write(&body).await;
    assert_eq!(client.answer().await.status, 200);
    gateway.stop().await;
}

/// Two bodies of one caller that do not fit into the memory that `adjust` leaves for them: one of them is refused with this
/// status, `Retry-After` and reason, the other and those of other callers are not disturbed.
async fn two_bodies(adjust: fn(&mut Config), status: u16, wait: Option<&str>, reason: &str) {
    let gateway = TestGateway::with(Clock::system(), |config| {
        config.server.max_body = Size(1 << 20);
        adjust(config);
    })
    .await;
    let agent = Agent::echo().await;
    let target = gateway.register("agent", &agent).await;
    let caller = gateway.register_client("caller").await;
    gateway.connect(&caller, &target).await;
    // Two bodies that do not fit together, each but for its last byte: one of them must go.
    let body =
        json!({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"pad": "x".repeat(700 << 10)}}).to_string();
    let (most, last) = body.split_at(body.len() - 1);
    let head = format!(
        "POST /api/proxy/agent HTTP/1.1\r\nhost: g\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n",
        caller.key,
        body.len()
    );
    let mut tries = 0;
    let undisturbed = loop {
        let (mut one, mut other) = (gateway.client().await, gateway.client().await);
        for client in [&mut one, &mut other] {
            client.write(&head).await;
        }
        // Either may be refused while it is still sending.
        let _ = tokio::join!(one.try_write(most), other.try_write(most));
        let (refused, kept) = tokio::select! {
            answer = one.answer() => (answer, &mut other),
            answer = other.answer() => (answer, &mut one),
        };
        assert_eq!((refused.status, refused.header("retry-after")), (status, wait), "{}", refused.text());
        assert_eq!(refused.json()["error"]["data"][0]["reason"], reason);
        if wait.is_none() {
            let stranger = gateway.call("agent", None, &serde_json::from_str(&body).expect("JSON")).await;
            assert_eq!(stranger.status, 200, "{}", stranger.text());
        }
        let _ = kept.try_write(last).await;
        let answer = kept.answer().await;
        tries += 1;
        // Both may have asked for more than there is before one of them gave back what it had.
        if answer.status != status || tries == 5 {
            break answer;
        }
    };
    assert_eq!(undisturbed.status, 200, "the other one is not disturbed");
    let mut again = gateway.client().await;
    again.write(format!("{head}{body}")).await;
    assert_eq!(again.answer().await.status, 200, "the memory has been given back");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_beyond_the_memory_for_them_are_told_to_come_back() {
    two_bodies(|config| config.server.body_memory = Size(1 << 20), 503, Some("1"), "GATEWAY_BUSY").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_caller_does_not_take_the_memory_of_all() {
    two_bodies(|config| config.server.body_memory_per_caller = Size(1 << 20), 429, None, "TOO_MUCH_IN_HAND").await;
}

// Addresses.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_listed_proxy_says_on_whose_behalf_an_anonymous_call_comes() {
    let clock = || Clock::manual(Timestamp(1_790_000_000_000_000));
    for (trusted, expected) in [(None, [200, 429, 429, 429]), (Some("127.0.0.0/8"), [200, 429, 200, 200])] {
        let gateway = TestGateway::with(clock(), |config| {
            config.server.trusted_proxies = trusted.iter().map(|net| net.parse().expect("a network")).collect();
        })
        .await;
        let agent = Agent::echo().await;
        let target = gateway.register("agent", &agent).await;
        let mut statuses = Vec::new();
        for forwarded in ["198.51.100.7", "203.0.113.9, 198.51.100.7", "198.51.100.8", "198.51.100.7, 2001:db8::1"] {
            let mut client = gateway.client().await;
            let headers = [("x-forwarded-for", forwarded), ("content-type", "application/json")];
            client.send("POST", "/api/proxy/agent", &headers, rpc(1, "SendMessage").to_string().as_bytes()).await;
            statuses.push(client.answer().await.status);
        }
        assert_eq!(statuses, expected, "{trusted:?}");
        let rows = gateway.rows_of(&target).await;
        let first = if trusted.is_some() { "198.51.100.0/24" } else { "127.0.0.0/24" };
        assert_eq!(rows[0]["client_ip"], first);
        let told = agent.calls()[0].header("x-forwarded-for").map(str::to_owned);
        assert_eq!(told.as_deref(), Some(if trusted.is_some() { "198.51.100.7" } else { "127.0.0.1" }));
        gateway.stop().await;
    }
}
