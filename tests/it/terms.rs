//! The terms of a connection on the path of a call: what may be called, and what happens to open calls when the terms end.

use serde_json::{Value, json};
use trust_gateway::clock::{Clock, Timestamp};

use crate::support::agent::{Agent, Conn};
use crate::support::client::Client;
use crate::support::gateway::{Registered, TestGateway};
use crate::support::{rpc, within};

/// An agent whose streams begin and never end by themselves.
async fn endless() -> Agent {
    Agent::start(|mut conn: Conn| async move {
        while let Some(request) = conn.request().await {
            if !request.request_line().starts_with("POST") {
                conn.json("405 Method Not Allowed", &json!({})).await;
                continue;
            }
            conn.begin_events().await;
            conn.chunk("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"begun\":true}}\n\n").await;
            conn.closed().await;
        }
    })
    .await
}

struct Tie {
    target: Registered,
    caller: Registered,
    path: String,
}

async fn tie(gateway: &TestGateway, agent: &Agent, terms: Value) -> Tie {
    let target = gateway.register("target", agent).await;
    let caller = gateway.register_client("caller").await;
    let mut body = json!({"requester_id": caller.id, "target_id": target.id, "status": "connected"});
    body.as_object_mut().expect("an object").extend(terms.as_object().expect("an object").clone());
    let made = gateway.operated("POST", "/api/connections", &body).await;
    let path = format!("/api/connections/{}", made["id"].as_str().expect("an id"));
    Tie { target, caller, path }
}

async fn stream(gateway: &TestGateway, key: &str) -> Client {
    let mut client = gateway.client().await;
    client.call("/api/proxy/target", Some(key), &rpc(1, "SendStreamingMessage")).await;
    assert_eq!(client.head().await.status, 200);
    client.until("begun").await;
    client
}

/// Reads to the end of what the gateway cut off.
async fn cut(client: &mut Client) {
    within("the stream is cut", async { while let Ok(Some(_)) = client.chunk().await {} }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_was_agreed_is_forwarded_and_only_towards_the_one_who_was_asked() {
    let gateway = TestGateway::start().await;
    let agent = Agent::echo().await;
    let Tie { target, caller, .. } = tie(&gateway, &agent, json!({"operations": ["SendMessage"]})).await;
    for (method, status) in [
        ("SendMessage", 200),
        ("message/send", 200),
        ("GetTask", 200),
        ("tasks/cancel", 200),
        ("ListTasks", 403),
        ("SendStreamingMessage", 403),
        ("tasks/send", 403),
    ] {
        let answer = gateway.call("target", Some(&caller.key), &rpc(7, method)).await;
        assert_eq!((answer.status, &answer.json()["id"]), (status, &json!(7)), "{method}: {}", answer.text());
    }
    let refused = gateway.call("target", Some(&caller.key), &rpc(7, "tasks/list")).await;
    let error = &refused.json()["error"];
    let message = error["message"].as_str().expect("text");
    assert!(message.contains("SendMessage") && message.contains("ListTasks"), "{message}");
    assert_eq!(error["data"][0]["reason"], "OPERATION_NOT_AGREED", "{}", refused.text());
    let mut client = gateway.client().await;
    let key = format!("Bearer {}", caller.key);
    let card = "/api/proxy/target/.well-known/agent-card.json";
    client.send("GET", card, &[("authorization", &key)], b"").await;
    assert_eq!(client.answer().await.status, 200, "cards are always read");
    assert_eq!(agent.calls().len(), 4);
    let rows = gateway.rows_of(&target).await;
    let last = rows.iter().rev().find(|row| row["decision"] == "refused").expect("a row");
    assert_eq!(
        (&last["reason"], &last["policy_rule"], &last["units"], &last["trust_level"]),
        (&json!("operation_not_agreed"), &json!("connection.operations"), &json!(0), &json!("connected"))
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_the_other_way_are_not_bound_by_what_the_requester_asked_for() {
    let gateway = TestGateway::start().await;
    let agent = Agent::echo().await;
    let asked = gateway.register("asked", &agent).await;
    let other = Agent::echo().await;
    let asker = gateway.register("asker", &other).await;
    let body =
        json!({"requester_id": asker.id, "target_id": asked.id, "status": "connected", "operations": ["GetTask"]});
    gateway.operated("POST", "/api/connections", &body).await;
    assert_eq!(gateway.call("asker", Some(&asked.key), &rpc(1, "SendMessage")).await.status, 200);
    assert_eq!(gateway.call("asked", Some(&asker.key), &rpc(1, "SendMessage")).await.status, 403);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_what_let_it_in() {
    let gateway = TestGateway::start().await;
    let agent = endless().await;
    let Tie { target, caller, path } = tie(&gateway, &agent, json!({})).await;
    let put = async |body: Value| drop(gateway.operated("PUT", &path, &body).await);
    for (change, back) in [
        (json!({"operations": ["SendMessage"]}), json!({"operations": null})),
        (json!({"action": "pause"}), json!({"action": "resume"})),
        (json!({"action": "end"}), json!({"action": "accept"})),
        (json!({"action": "block"}), json!({"action": "unblock"})),
    ] {
        let mut client = stream(&gateway, &caller.key).await;
        put(change).await;
        cut(&mut client).await;
        put(back).await;
    }
    // What does not concern it leaves it alone.
    let mut client = stream(&gateway, &caller.key).await;
    put(json!({"operations": ["SendStreamingMessage"], "limits": {"daily": 1}, "review_at": "2020-01-01T00:00:00Z"}))
        .await;
    assert_eq!(
        gateway.operated("GET", "/api/calls/active", &Value::Null).await["calls"].as_array().map(Vec::len),
        Some(1)
    );
    put(json!({"action": "pause"})).await;
    cut(&mut client).await;
    let rows = gateway.rows_of(&target).await;
    assert_eq!(rows.len(), 5);
    for row in rows {
        assert_eq!((&row["reason"], &row["decision"]), (&json!("revoked"), &json!("allowed")), "{row}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_when_its_connection_or_its_key_runs_out() {
    let clock = Clock::manual(Timestamp::parse("2026-01-01T00:00:00Z").expect("a time"));
    let gateway = TestGateway::with(clock.clone(), |_| {}).await;
    let agent = endless().await;
    let terms = json!({"ends_at": "2026-01-01T01:00:00Z"});
    let Tie { caller, path, .. } = tie(&gateway, &agent, terms).await;
    let key = json!({"agent_id": caller.id, "expires_at": "2026-01-01T00:30:00Z"});
    let key = gateway.operated("POST", "/api/keys", &key).await["key"].as_str().expect("a key").to_owned();
    let mut by_short_key = stream(&gateway, &key).await;
    let mut by_connection = stream(&gateway, &caller.key).await;
    clock.advance(std::time::Duration::from_secs(1_800));
    cut(&mut by_short_key).await;
    let open = gateway.operated("GET", "/api/calls/active", &Value::Null).await;
    assert_eq!(open["calls"].as_array().map(Vec::len), Some(1), "the other one goes on");
    clock.advance(std::time::Duration::from_secs(1_800));
    cut(&mut by_connection).await;
    let shown = gateway.operated("GET", &path, &Value::Null).await;
    assert_eq!((&shown["status"], &shown["in_force"]), (&json!("connected"), &json!(false)));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_key_hands_over_without_a_gap() {
    let clock = Clock::manual(Timestamp::parse("2026-01-01T00:00:00Z").expect("a time"));
    let gateway = TestGateway::with(clock.clone(), |_| {}).await;
    let agent = Agent::echo().await;
    let Tie { caller, .. } = tie(&gateway, &agent, json!({})).await;
    let call = async |key: &str| gateway.call("target", Some(key), &rpc(1, "SendMessage")).await.status;
    let keys = format!("/api/keys?agent_id={}", caller.id);
    let id = gateway.operated("GET", &keys, &Value::Null).await["keys"][0]["id"].as_str().expect("an id").to_owned();
    let made = gateway.operated("POST", &format!("/api/keys/{id}/rotate"), &json!({"grace": "1min"})).await;
    let new = made["key"].as_str().expect("a key").to_owned();
    assert_eq!((call(&caller.key).await, call(&new).await), (200, 200));
    within("the old key is given its end", async {
        loop {
            let list = gateway.operated("GET", &keys, &Value::Null).await;
            if list["keys"].as_array().expect("a list").iter().any(|key| key["expires_at"].is_string()) {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(call(&caller.key).await, 200);
    clock.advance(std::time::Duration::from_secs(60));
    // The end is in the database a moment before it is in force.
    within("the old key ends", async { while call(&caller.key).await != 401 {} }).await;
    assert_eq!(call(&new).await, 200);
    gateway.stop().await;
}
