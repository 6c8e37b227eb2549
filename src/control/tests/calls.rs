use std::sync::atomic::AtomicU64;

use uuid::Uuid;

use super::*;
use crate::a2a::{Binding, Operation};
use crate::audit::gap::{Cause, Gap};
use crate::audit::record::{AuthMethod, Decision};
use crate::clock::Timestamp;
use crate::store::calls::DrainBatch;
use crate::store::rows::CallRow;
use crate::trust::TrustLevel;

pub(super) fn row(n: u128, caller: Uuid, target: Uuid) -> CallRow {
    CallRow {
        id: Uuid::from_u128(n),
        node_id: Uuid::nil(),
        seq: i64::try_from(n).expect("small"),
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
        limit_name: None,
        limit_left: None,
        called_at: Timestamp(i64::try_from(n).expect("small")),
        leaf_hash: [1; 32],
        erased_at: None,
    }
}

pub(super) fn open(caller: Uuid, target: Uuid) -> Intent {
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
        limit: None,
        trace_id: None,
        charge: None,
    }
}

pub(super) fn id(text: &str) -> Uuid {
    Uuid::parse_str(text).expect("an id")
}

pub(super) async fn log(api: &Api, rows: Vec<CallRow>) {
    let batch = DrainBatch { rows, ..DrainBatch::default() };
    api.bench.store.commit_drained(&batch).await.expect("written");
}

/// The numbers of the rows that were answered, newest first.
pub(super) fn numbers(answer: &Answer) -> Vec<u128> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let calls = answer.body["calls"].as_array().expect("a list");
    calls.iter().map(|call| id(call["id"].as_str().expect("an id")).as_u128()).collect()
}

#[tokio::test]
async fn what_was_over_before_the_question_is_in_the_answer() {
    let mut api = Api::new().await;
    // Each time that is waited for, one more call gets into the log.
    let (store, over) = (api.bench.store.clone(), AtomicU64::new(0));
    let flush = move || -> BoxFuture<'static, ()> {
        let n = u128::from(over.fetch_add(1, Ordering::SeqCst)) + 1;
        let batch = DrainBatch { rows: vec![row(n, Uuid::nil(), Uuid::nil())], ..DrainBatch::default() };
        let store = store.clone();
        Box::pin(async move { store.commit_drained(&batch).await.expect("written") })
    };
    Arc::get_mut(&mut api.control).expect("nobody else has it").drain_flush = Some(Arc::new(flush));
    assert_eq!(numbers(&api.admin(Method::GET, "/api/calls", None).await), [1]);
    assert_eq!(numbers(&api.admin(Method::GET, "/api/calls?order=recorded", None).await), [1, 2]);
    let path = "/api/calls/stats?since=1970-01-01T00:00:00Z&until=1970-01-01T00:01:00Z";
    assert_eq!(api.admin(Method::GET, path, None).await.body["groups"][0]["calls"], 3);
    let path = format!("/api/calls/{}", Uuid::from_u128(4));
    assert_eq!(api.admin(Method::GET, &path, None).await.status, 200);
    let path = format!("/api/calls/active/{}/end", Uuid::from_u128(5));
    assert!(api.admin(Method::POST, &path, None).await.text.contains("is over"));
}

#[tokio::test]
async fn whoever_follows_begins_behind_what_was_not_asked_for() {
    let api = Api::new().await;
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let other = |n| CallRow { node_id: Uuid::from_u128(6), ..row(n, two, two) };
    log(&api, vec![row(1, one, two), row(2, two, two), other(1)]).await;
    let first = api.admin(Method::GET, &format!("/api/calls?order=recorded&caller={one}&limit=1"), None).await;
    assert_eq!(numbers(&first), [1]);
    let next = first.body["next"].as_str().expect("a next");
    log(&api, vec![row(3, two, two), CallRow { id: Uuid::from_u128(20), ..other(2) }]).await;
    let then = api.admin(Method::GET, &format!("/api/calls?order=recorded&next={next}"), None).await;
    let mut seen = numbers(&then);
    seen.sort_unstable();
    assert_eq!(seen, [3, 20]);
}

#[tokio::test]
async fn agents_are_held_to_their_own_calls() {
    let api = Api::new().await;
    let (one, key) = api.agent("one").await;
    let (two, _) = api.agent("two").await;
    let other = Uuid::from_u128(99);
    log(&api, vec![row(1, id(&one), id(&two)), row(2, other, id(&two)), row(3, other, id(&one))]).await;
    assert_eq!(numbers(&api.public(Method::GET, "/api/calls", Some(&key), None).await), [3, 1]);
    assert_eq!(numbers(&api.public(Method::GET, "/api/calls?target=two", Some(&key), None).await), [1]);
    api.public(Method::GET, "/api/calls?agent=two", Some(&key), None).await.is_problem(403);
    api.public(Method::GET, "/api/calls", None, None).await.is_problem(401);
}

#[tokio::test]
async fn pages_follow_each_other_without_gap() {
    let api = Api::new().await;
    log(&api, (1..=5).map(|n| row(n, Uuid::nil(), Uuid::nil())).collect()).await;
    let mut path = "/api/calls?limit=2".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = api.admin(Method::GET, &path, None).await;
        seen.push(numbers(&page));
        let Some(next) = page.body["next"].as_str() else { break };
        path = format!("/api/calls?limit=2&next={next}");
    }
    assert_eq!(seen, [vec![5, 4], vec![3, 2], vec![1]]);
}

#[tokio::test]
async fn a_target_does_not_learn_the_callers_address_or_key() {
    let api = Api::new().await;
    let (one, one_key) = api.agent("one").await;
    let (two, two_key) = api.agent("two").await;
    log(&api, vec![row(1, id(&one), id(&two))]).await;
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
    for (query, count) in [
        ("caller=one", 1),
        ("caller=two", 0),
        ("target=two", 1),
        ("target=one", 0),
        ("pair=two:one", 1),
        ("pair=one:two", 1),
        ("pair=two:three", 0),
    ] {
        let seen = api.admin(Method::GET, &format!("/api/calls/active?{query}"), None).await.body;
        assert_eq!(seen["calls"].as_array().expect("a list").len(), count, "{query}");
    }
    let later = Intent { called_at: Timestamp(2), ..open(id(&one), id(&two)) };
    let latest = Intent { called_at: Timestamp(3), ..open(id(&one), id(&two)) };
    api.open_calls.lock().expect("lock").extend([latest, later]);
    let seen = api.admin(Method::GET, "/api/calls/active", None).await.body;
    let times: Vec<_> =
        seen["calls"].as_array().expect("a list").iter().map(|call| call["called_at"].as_str()).collect();
    assert!(times.len() == 3 && times.is_sorted_by(|one, other| one > other), "newest first: {times:?}");
    api.public(Method::GET, "/api/calls/active", None, None).await.is_problem(401);
}

#[tokio::test]
async fn the_story_of_a_call_names_the_rule_and_what_was_left_and_is_told_to_its_sides_only() {
    let api = Api::new().await;
    let (one, key_one) = api.agent("one").await;
    let (two, key_two) = api.agent("two").await;
    let (_, key_three) = api.agent("three").await;
    let refused = CallRow {
        decision: "refused".to_owned(),
        outcome: "refused".to_owned(),
        reason: Some("rate_limited".to_owned()),
        policy_rule: Some("tier.verified.rate".to_owned()),
        limit_name: Some("tier.verified.rate".to_owned()),
        limit_left: Some(0),
        calls: 3,
        ..row(1, id(&one), id(&two))
    };
    log(&api, vec![refused]).await;
    let path = format!("/api/calls/{}", Uuid::from_u128(1));
    for key in [&key_one, &key_two] {
        let seen = api.public(Method::GET, &path, Some(key), None).await;
        assert_eq!(seen.status, 200, "{}", seen.text);
        assert_eq!(seen.body["call"]["limit_left"], 0);
        let story = &seen.body["explanation"];
        assert_eq!(story["limit"], json!({"name": "tier.verified.rate", "left": 0}));
        assert_eq!((&story["rule"], &story["decision"]), (&json!("tier.verified.rate"), &json!("refused")));
        assert_eq!(story["caller"], json!({"id": one, "slug": "one", "name": "one"}));
        assert_eq!(story["target"]["slug"], "two");
        let text = story["text"].as_str().expect("a text");
        for part in ["tier.verified.rate", "0 left", "must wait", "3 refusals"] {
            assert!(text.contains(part), "{text}");
        }
    }
    api.public(Method::GET, &path, Some(&key_three), None).await.is_problem(404);
    api.public(Method::GET, &path, None, None).await.is_problem(401);
    api.public(Method::GET, "/api/calls/nonsense", Some(&key_one), None).await.is_problem(400);

    let call = open(id(&one), id(&two));
    let path = format!("/api/calls/{}", call.request_id);
    api.open_calls.lock().expect("lock").push(call);
    let seen = api.admin(Method::GET, &path, None).await;
    assert_eq!(seen.body["call"]["outcome"], Value::Null);
    assert!(seen.text.contains("still open"), "{}", seen.text);
    api.public(Method::GET, &path, Some(&key_three), None).await.is_problem(404);
}

#[tokio::test]
async fn a_caller_does_not_learn_from_the_story_whom_it_could_not_see() {
    let api = Api::new().await;
    let (one, key_one) = api.agent("one").await;
    let (two, key_two) = api.agent("two").await;
    let hidden = CallRow {
        decision: "refused".to_owned(),
        reason: Some("agent_not_found".to_owned()),
        ..row(1, id(&one), id(&two))
    };
    log(&api, vec![hidden]).await;
    let path = format!("/api/calls/{}", Uuid::from_u128(1));
    let seen = api.public(Method::GET, &path, Some(&key_one), None).await;
    assert_eq!(seen.body["explanation"]["target"], Value::Null, "{}", seen.text);
    let seen = api.public(Method::GET, &path, Some(&key_two), None).await;
    assert_eq!(seen.body["explanation"]["target"]["slug"], "two");
}

#[tokio::test]
async fn whoever_follows_the_log_gets_each_row_once_and_always_a_next() {
    let api = Api::new().await;
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let first = api.admin(Method::GET, "/api/calls?order=recorded", None).await;
    assert_eq!(numbers(&first), Vec::<u128>::new());
    log(&api, (1..=5).map(|n| row(n, one, two)).collect()).await;
    let next = |answer: &Answer| answer.body["next"].as_str().expect("a next").to_owned();
    let path = |next: String| format!("/api/calls?order=recorded&limit=2&next={next}");
    let newest = api.admin(Method::GET, "/api/calls?order=recorded&limit=2", None).await;
    assert_eq!(numbers(&newest), [4, 5], "whoever begins wants what is new");
    let all = api.admin(Method::GET, &path(next(&first)), None).await;
    assert_eq!(numbers(&all), [1, 2], "whoever began before the first row misses none");
    log(&api, (6..=8).map(|n| row(n, one, two)).collect()).await;
    let then = api.admin(Method::GET, &path(next(&newest)), None).await;
    assert_eq!(numbers(&then), [6, 7]);
    let last = api.admin(Method::GET, &path(next(&then)), None).await;
    assert_eq!(numbers(&last), [8]);
    let nothing = api.admin(Method::GET, &path(next(&last)), None).await;
    assert_eq!((numbers(&nothing), next(&nothing)), (vec![], next(&last)));
    api.admin(Method::GET, "/api/calls?order=sideways", None).await.is_problem(400);
}

#[tokio::test]
async fn rows_name_both_sides_also_when_they_are_gone() {
    let api = Api::new().await;
    let (one, key_one) = api.agent("one").await;
    let (two, _) = api.agent("two").await;
    let nobody = Uuid::from_u128(99);
    let hidden = CallRow { reason: Some("agent_not_found".to_owned()), ..row(3, id(&one), id(&two)) };
    log(&api, vec![row(1, id(&one), id(&two)), row(2, nobody, id(&two)), hidden]).await;
    *api.open_calls.lock().expect("lock") = vec![open(id(&one), id(&two))];

    assert_eq!(api.admin(Method::DELETE, "/api/agents/two", None).await.status, 204);
    // Somebody else is called that by now.
    let heir = json!({"name": "Heir", "slug": "two", "url": "https://heir.example/"});
    assert_eq!(api.admin(Method::POST, "/api/agents", Some(heir)).await.status, 201);

    let first = json!({"id": one, "slug": "one", "name": "one"});
    let second = json!({"id": two, "slug": "two", "name": "two"});
    for path in ["/api/calls", "/api/calls?order=recorded"] {
        let seen = api.admin(Method::GET, path, None).await.body;
        let mut calls = seen["calls"].as_array().expect("a list").clone();
        calls.sort_by_key(|call| call["seq"].as_i64());
        assert_eq!((&calls[0]["caller"], &calls[0]["target"]), (&first, &second), "{path}");
        assert_eq!((&calls[1]["caller"], &calls[1]["target"]), (&Value::Null, &second), "{path}");
        assert_eq!((&calls[2]["caller"], &calls[2]["target"]), (&first, &second), "{path}");
    }
    let seen = api.public(Method::GET, "/api/calls", Some(&key_one), None).await.body;
    assert_eq!((&seen["calls"][0]["caller"], &seen["calls"][0]["target"]), (&first, &Value::Null));
    assert_eq!(seen["calls"][1]["target"], second);
    let seen = api.public(Method::GET, "/api/calls/active", Some(&key_one), None).await.body;
    assert_eq!((&seen["calls"][0]["caller"], &seen["calls"][0]["target"]), (&first, &second));
    let story = api.admin(Method::GET, &format!("/api/calls/{}", Uuid::from_u128(1)), None).await.body;
    assert_eq!((&story["explanation"]["target"], &story["call"]["target"]), (&second, &second));
}

#[tokio::test]
async fn a_gap_is_told_as_one_to_operators_and_to_nobody_else() {
    let api = Api::new().await;
    let (_, key) = api.agent("one").await;
    let gap = Gap { cause: Cause::SegmentDamaged, place: "w0-3.tgj from byte 7".to_owned(), calls: Some(12) };
    let id = Uuid::from_u128(5);
    let gap = CallRow { seq: 1, id, ..gap.row(Uuid::nil(), Timestamp(5)) };
    log(&api, vec![gap]).await;
    let listed = api
        .admin(Method::GET, "/api/calls?decision=gap&since=1970-01-01T00:00:00Z&until=1970-01-02T00:00:00Z", None)
        .await
        .body;
    let words = ["decision", "outcome", "operation", "reason", "method"].map(|name| listed["calls"][0][name].clone());
    assert_eq!(json!(words), json!(["gap", "gap", "Gap", "segment_damaged", "w0-3.tgj from byte 7"]));
    let story = api.admin(Method::GET, &format!("/api/calls/{id}"), None).await.body;
    let told = story["explanation"]["text"].as_str().expect("a text");
    assert!(told.starts_with("No call, but a gap in the log: a file of the journal was not"), "{told}");
    assert!(told.ends_with("12 calls are missing."), "{told}");
    let seen = api.public(Method::GET, "/api/calls", Some(&key), None).await;
    assert_eq!(numbers(&seen), [0_u128; 0], "{}", seen.text);
}
