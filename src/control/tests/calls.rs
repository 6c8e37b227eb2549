use uuid::Uuid;

use super::*;
use crate::a2a::{Binding, Operation};
use crate::audit::record::{AuthMethod, Decision};
use crate::clock::Timestamp;
use crate::trust::TrustLevel;

fn row(n: u128, caller: Uuid, target: Uuid) -> CallRow {
    CallRow {
        id: Uuid::from_u128(n),
        node_id: Uuid::nil(),
        seq: 1,
        target_agent_id: Some(target),
        caller_agent_id: Some(caller),
        credential_id: Some(Uuid::from_u128(77)),
        auth_method: "api_key".to_owned(),
        client_ip: Some("203.0.113.0/24".to_owned()),
        personal_salt: Some([9; 16]),
        client_ip_commitment: None,
        trust_level: "verified".to_owned(),
        connection_id: None,
        binding: "jsonrpc".to_owned(),
        protocol_version: None,
        method: Some("SendMessage".to_owned()),
        operation: "SendMessage".to_owned(),
        rpc_id: None,
        task_id: None,
        context_id: None,
        message_id: None,
        decision: "allowed".to_owned(),
        reason: None,
        policy_rule: None,
        policy_digest: None,
        units: 1,
        outcome: "completed".to_owned(),
        status_code: 200,
        upstream_status: Some(200),
        rpc_error_code: None,
        task_state: None,
        request_bytes: 1,
        response_bytes: 1,
        stream_events: None,
        ttfb_ms: None,
        latency_ms: 5,
        calls: 1,
        trace_id: None,
        called_at: Timestamp(i64::try_from(n).expect("small")),
        leaf_hash: [1; 32],
    }
}

fn open(caller: Uuid, target: Uuid) -> Intent {
    Intent {
        request_id: Uuid::now_v7(),
        called_at: Timestamp(1),
        target_agent_id: Some(target),
        caller_agent_id: Some(caller),
        credential_id: Some(Uuid::from_u128(77)),
        auth_method: AuthMethod::ApiKey,
        trust_level: TrustLevel::Verified,
        connection_id: None,
        client_ip: Some("203.0.113.7".parse().expect("an address")),
        binding: Binding::JsonRpc,
        protocol_version: None,
        method: None,
        operation: Operation::SendMessage,
        rpc_id: None,
        task_id: None,
        context_id: None,
        message_id: None,
        decision: Decision::Allowed,
        reason: None,
        policy_rule: None,
        policy_digest: None,
        units: 1,
        trace_id: None,
        charge: None,
    }
}

fn id(text: &str) -> Uuid {
    Uuid::parse_str(text).expect("an id")
}

#[tokio::test]
async fn operators_filter_and_agents_are_held_to_their_own_calls() {
    let api = Api::new().await;
    let (one, key) = api.agent("one").await;
    let (two, _) = api.agent("two").await;
    let path = format!(
        "/api/calls?agent=one&target={two}&trust_level=verified&outcome=completed&decision=allowed&operation=SendMessage\
         &status=200&since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00%2B01:00&task_id=t&context_id=c&limit=7"
    );
    assert_eq!(api.admin(Method::GET, &path, None).await.status, 200);
    let asked = api.asked_calls.lock().expect("lock").pop().expect("asked");
    let time = |text: &str| Some(Timestamp::parse(text).expect("a time"));
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        asked,
        CallQuery {
            agent: Some(id(&one)),
            target: Some(id(&two)),
            caller: None,
            trust_level: text("verified"),
            outcome: text("completed"),
            decision: text("allowed"),
            operation: text("SendMessage"),
            status: Some(200),
            since: time("2026-01-01T00:00:00Z"),
            until: time("2026-01-01T23:00:00Z"),
            id: None,
            task_id: text("t"),
            context_id: text("c"),
            after: None,
            limit: 8,
        }
    );
    assert_eq!(api.public(Method::GET, "/api/calls?target=two", Some(&key), None).await.status, 200);
    let asked = api.asked_calls.lock().expect("lock").pop().expect("asked");
    assert_eq!((asked.agent, asked.target), (Some(id(&one)), Some(id(&two))));
    api.public(Method::GET, "/api/calls?agent=two", Some(&key), None).await.is_problem(403);
    api.public(Method::GET, "/api/calls", None, None).await.is_problem(401);
    for bad in ["status=x", "since=yesterday", "next=%25", "limit=0", "id=7"] {
        api.admin(Method::GET, &format!("/api/calls?{bad}"), None).await.is_problem(400);
    }
    let none = api.admin(Method::GET, "/api/calls?caller=nobody", None).await;
    assert_eq!(none.body, json!({"calls": [], "next": null}));
}

#[tokio::test]
async fn pages_follow_each_other_without_gap() {
    let api = Api::new().await;
    let rows: Vec<CallRow> = (1..=3).rev().map(|n| row(n, Uuid::nil(), Uuid::nil())).collect();
    *api.call_rows.lock().expect("lock") = rows.clone();
    let page = api.admin(Method::GET, "/api/calls?limit=2", None).await.body;
    assert_eq!(page["calls"].as_array().expect("a list").len(), 2);
    let next = page["next"].as_str().expect("more");
    *api.call_rows.lock().expect("lock") = rows[2..].to_vec();
    let page = api.admin(Method::GET, &format!("/api/calls?limit=2&next={next}"), None).await.body;
    assert_eq!(page["next"], Value::Null);
    let asked = api.asked_calls.lock().expect("lock").pop().expect("asked");
    assert_eq!(asked.after, Some((rows[1].called_at, rows[1].id)));
}

#[tokio::test]
async fn a_target_does_not_learn_the_callers_address_or_key() {
    let api = Api::new().await;
    let (one, one_key) = api.agent("one").await;
    let (two, two_key) = api.agent("two").await;
    *api.call_rows.lock().expect("lock") = vec![row(1, id(&one), id(&two))];
    *api.open_calls.lock().expect("lock") = vec![open(id(&one), id(&two))];
    for (path, key, knows) in [("/api/calls", &one_key, true), ("/api/calls", &two_key, false)] {
        let call = api.public(Method::GET, path, Some(key), None).await.body["calls"][0].clone();
        assert_eq!((call["client_ip"].is_string(), call["credential_id"].is_string()), (knows, knows), "{call}");
        assert_eq!(call["leaf_hash"].as_str().expect("hex").len(), 64);
        assert!(call.get("personal_salt").is_none());
        let call = api.public(Method::GET, "/api/calls/active", Some(key), None).await.body["calls"][0].clone();
        assert_eq!(call["credential_id"].is_string(), knows);
    }
}

#[tokio::test]
async fn open_calls_are_shown_to_their_two_sides() {
    let api = Api::new().await;
    let (one, one_key) = api.agent("one").await;
    let (two, two_key) = api.agent("two").await;
    let (_, three_key) = api.agent("three").await;
    *api.open_calls.lock().expect("lock") = vec![open(id(&one), id(&two))];
    for (key, count) in [(&one_key, 1), (&two_key, 1), (&three_key, 0)] {
        let seen = api.public(Method::GET, "/api/calls/active", Some(key), None).await.body;
        assert_eq!(seen["calls"].as_array().expect("a list").len(), count);
    }
    let seen = api.admin(Method::GET, &format!("/api/calls/active?caller={two}"), None).await.body;
    assert_eq!(seen["calls"], json!([]));
    api.public(Method::GET, "/api/calls/active", None, None).await.is_problem(401);
}
