//! Taking over an OpenAgora registry.

use http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, Api};
use crate::registry::token::digest_of;

const APPLY: &str = "/api/import/openagora?dry_run=false";
const PLAN: &str = "/api/import/openagora";

fn id(n: u128) -> String {
    Uuid::from_u128(n).to_string()
}

fn agent(n: u128, slug: &str) -> Value {
    json!({
        "id": id(n), "slug": slug, "name": slug.to_uppercase(), "url": format!("https://{slug}.example/a2a"),
        "description": null, "provider": "Example", "capabilities": ["streaming"], "avatar_url": "not a link",
        "agent_skills": [{"name": "sum", "description": "adds", "tags": ["math"]}],
        "created_at": "2026-04-01 12:00:00.123456+00", "health_status": "offline", "is_verified": true,
    })
}

fn hash(key: &str) -> String {
    digest_of(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tie(n: u128, requester: u128, target: u128, status: &str) -> Value {
    json!({"id": id(n), "requester_id": id(requester), "target_id": id(target), "status": status, "message": "hi",
        "created_at": "2026-04-02T00:00:00+00:00"})
}

fn counts(new: usize, unchanged: usize, left_out: usize) -> Value {
    json!({"new": new, "unchanged": unchanged, "left_out": left_out})
}

async fn sent(api: &Api, path: &str, export: &Value) -> Answer {
    api.admin(Method::POST, path, Some(export.clone())).await
}

#[tokio::test]
async fn agents_keys_and_connections_come_over_and_keys_go_on_working() {
    let api = Api::new().await;
    let key = "oag_apple_banana_cherry_date_elder_fig";
    let export = json!({
        "agents": [agent(1, "one"), agent(2, "two")],
        "api_keys": [{"id": id(11), "agent_id": id(1), "key_hash": hash(key), "name": "main", "last_used_at": null}],
        "connections": [tie(21, 1, 2, "connected")],
    });

    let planned = sent(&api, PLAN, &export).await;
    assert_eq!((planned.status.as_u16(), &planned.body["dry_run"]), (200, &json!(true)), "{}", planned.text);
    assert_eq!(api.admin(Method::GET, "/api/agents", None).await.body["total"], 0, "a plan changes nothing");
    api.public(Method::GET, "/api/keys", Some(key), None).await.is_problem(401);

    let done = sent(&api, APPLY, &export).await;
    assert_eq!(done.body["agents"], counts(2, 0, 0), "{}", done.text);
    for kind in ["agents", "keys", "connections", "problems"] {
        assert_eq!(done.body[kind], planned.body[kind], "what was planned is what was done");
    }
    let own = api.public(Method::GET, &format!("/api/agents/{}", id(1)), Some(key), None).await;
    assert_eq!(own.body["endpoint_url"], "https://one.example/a2a", "the key proves its agent: {}", own.text);
    assert_eq!(own.body["created_at"], "2026-04-01T12:00:00.123456Z");
    assert_eq!(own.body["skills"][0]["name"], "sum");
    assert_eq!((&own.body["avatar_url"], &own.body["registered_by_operator"]), (&Value::Null, &json!(false)));
    let ties = api.admin(Method::GET, "/api/connections", None).await;
    assert_eq!(
        (&ties.body["connections"][0]["id"], &ties.body["connections"][0]["status"]),
        (&json!(id(21)), &json!("connected"))
    );

    let again = sent(&api, APPLY, &export).await;
    for (kind, count) in [("agents", 2), ("keys", 1), ("connections", 1)] {
        assert_eq!(again.body[kind], counts(0, count, 0), "{kind}");
    }
}

#[tokio::test]
async fn what_cannot_come_over_is_named_and_the_rest_does() {
    let api = Api::new().await;
    api.agent("taken").await;
    let with = |mut row: Value, member: &str, value: Value| {
        row[member] = value;
        row
    };
    let export = json!({
        "agents": [
            agent(1, "good"),
            agent(2, "taken"),
            with(agent(3, "inside"), "url", json!("http://169.254.169.254/latest")),
            with(agent(4, "home"), "url", json!("http://127.0.0.1:9000/")),
            with(agent(5, "twin"), "url", json!("https://good.example/a2a/")),
            with(agent(6, "nameless"), "name", Value::Null),
            with(agent(7, "x"), "id", json!("seven")),
            with(agent(8, "BAD SLUG"), "url", json!("https://eight.example/")),
        ],
        "api_keys": [
            {"agent_id": id(1), "key_hash": "abc"},
            {"agent_id": id(2), "key_hash": hash("a")},
            {"agent_id": id(1), "key_hash": hash("b")},
        ],
        "connections": [tie(31, 1, 3, "connected"), tie(32, 1, 1, "pending"), tie(33, 1, 9, "odd")],
    });
    let done = sent(&api, APPLY, &export).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let expected = [("agents", counts(1, 0, 7)), ("keys", counts(1, 0, 2)), ("connections", counts(0, 0, 3))];
    for (kind, counts) in expected {
        assert_eq!(done.body[kind], counts, "{}", done.text);
    }
    let problems = done.body["problems"].as_array().expect("a list");
    let of = |row: &str| {
        let found = problems.iter().find(|problem| problem["row"].as_str().is_some_and(|name| name.starts_with(row)));
        found.unwrap_or_else(|| panic!("{row}: {}", done.text))["problem"].as_str().unwrap_or_default()
    };
    for (row, text) in [
        ("agents[1]", "taken"),
        ("agents[2]", "url"),
        ("agents[3]", "url"),
        ("agents[4]", "registered for \"good\""),
        ("agents[5]", "name"),
        ("agents[6]", "id: is not a UUID"),
        ("agents[7]", "slug"),
        ("api_keys[0]", "key_hash"),
        ("api_keys[1]", "neither here nor imported"),
        ("connections[0]", "neither here nor imported"),
        ("connections[1]", "itself"),
        ("connections[2]", "status"),
    ] {
        assert!(of(row).contains(text), "{row}: {}", of(row));
    }
    assert_eq!(problems.len(), 12, "{}", done.text);
}

#[tokio::test]
async fn two_rows_of_one_pair_become_one_connection_and_a_block_stays() {
    let api = Api::new().await;
    let agents: Vec<Value> = (1..=6).map(|n| agent(n, &format!("agent-{n}"))).collect();
    let export = json!({"agents": agents, "connections": [
        tie(21, 1, 2, "pending"), tie(22, 2, 1, "connected"),
        tie(23, 3, 4, "connected"), tie(24, 4, 3, "blocked"),
        tie(25, 5, 6, "blocked"),
    ]});
    let done = sent(&api, APPLY, &export).await;
    assert_eq!(done.body["connections"], counts(3, 0, 0), "{}", done.text);
    let tie = async |n: u128| api.admin(Method::GET, &format!("/api/connections/{}", id(n)), None).await.body;
    assert_eq!(tie(22).await["status"], "connected");
    for (n, target) in [(23, false), (25, true)] {
        let row = tie(n).await;
        let marks = (&row["blocked_by_requester"], &row["blocked_by_target"]);
        assert_eq!((&row["status"], marks), (&json!("blocked"), (&json!(!target), &json!(target))), "{row}");
    }
}

#[tokio::test]
async fn only_admins_import_and_only_at_their_own_door() {
    let api = Api::new().await;
    let (_, key) = api.agent("one").await;
    let export = json!({"agents": [agent(1, "new")]});
    api.public(Method::POST, APPLY, Some(&key), Some(export.clone())).await.is_problem(404);
    api.operator(Method::POST, APPLY, Some(&api.auditor), Some(export)).await.is_problem(403);
    for (bad, text) in [(json!({}), "nothing in it"), (json!({"agents": {}}), "agents: must be a list")] {
        let answer = sent(&api, APPLY, &bad).await;
        answer.is_problem(400);
        assert!(answer.text.contains(text), "{}", answer.text);
    }
    sent(&api, "/api/import/openagora?dry_run=maybe", &json!({"agents": [agent(1, "new")]})).await.is_problem(400);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, ..ProptestConfig::default() })]

    #[test]
    fn whatever_an_export_holds_a_plan_or_a_reason_comes_back(rows in prop::collection::vec(
        (prop::sample::select(vec!["id", "name", "slug", "url", "agent_id", "key_hash", "requester_id", "status", "created_at"]),
         prop::sample::select(vec![json!(null), json!(1), json!("x"), json!("00000000-0000-0000-0000-000000000001"),
            json!("https://a.example"), json!(["a"]), json!({"b": 1}), json!("2026-01-01"), json!("é+01")])),
        0..12,
    )) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let api = Api::new().await;
            let mut row = agent(1, "one");
            for (member, value) in rows {
                row[member] = value;
            }
            let export = json!({"agents": [row], "api_keys": [row], "connections": [row]});
            let planned = sent(&api, PLAN, &export).await;
            prop_assert_eq!(planned.status, 200, "{}", planned.text);
            let done = sent(&api, APPLY, &export).await;
            prop_assert_eq!(&done.body["problems"], &planned.body["problems"]);
            Ok(())
        })?;
    }
}
