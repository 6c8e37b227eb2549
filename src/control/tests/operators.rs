//! Operators, what they changed and what they read.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{Answer, Api};

async fn made(api: &Api, name: &str, role: &str) -> Answer {
    api.admin(Method::POST, "/api/operators", Some(json!({"name": name, "role": role}))).await
}

fn token(answer: &Answer) -> String {
    answer.body["token"].as_str().unwrap_or_else(|| panic!("no token: {}", answer.text)).to_owned()
}

#[tokio::test]
async fn an_operator_is_made_listed_and_removed_by_its_name() {
    let api = Api::new().await;
    let kim = made(&api, "kim", "auditor").await;
    assert_eq!((kim.status.as_u16(), &kim.headers["cache-control"]), (201, &"no-store".parse().expect("a value")));
    let token = token(&kim);
    assert_eq!(api.operator(Method::GET, "/api/agents", Some(&token), None).await.status, 200);
    let list = api.operator(Method::GET, "/api/operators", Some(&token), None).await;
    let row = list.body["operators"].as_array().and_then(|rows| rows.iter().find(|row| row["name"] == "kim"));
    let row = row.unwrap_or_else(|| panic!("not listed: {}", list.text));
    assert_eq!((&row["role"], &row["id"]), (&json!("auditor"), &kim.body["id"]));
    assert!(!list.text.contains(&token) && token.starts_with(row["hint"].as_str().unwrap_or("?")));

    made(&api, "kim", "admin").await.is_problem(409);
    assert_eq!(api.admin(Method::DELETE, "/api/operators/kim", None).await.status, 204);
    api.operator(Method::GET, "/api/agents", Some(&token), None).await.is_problem(401);
    api.admin(Method::DELETE, "/api/operators/kim", None).await.is_problem(404);
    api.admin(Method::DELETE, "/api/operators/root", None).await.is_problem(409);
}

#[tokio::test]
async fn a_rotated_token_replaces_the_old_one_at_once() {
    let api = Api::new().await;
    let old = token(&made(&api, "kim", "admin").await);
    // Its own, as anybody's.
    let rotated = api.operator(Method::POST, "/api/operators/kim/rotate", Some(&old), None).await;
    assert_eq!(rotated.status, 200, "{}", rotated.text);
    api.operator(Method::GET, "/api/agents", Some(&old), None).await.is_problem(401);
    assert_eq!(api.operator(Method::GET, "/api/agents", Some(&token(&rotated)), None).await.status, 200);
    api.operator(Method::POST, "/api/operators/kim/rotate", Some(&api.auditor), None).await.is_problem(403);
}

#[tokio::test]
async fn an_operators_token_ends_when_it_was_told_to() {
    let api = Api::new().await;
    let end = api.bench.clock.wall().plus_micros(3_600_000_000);
    let body = json!({"name": "temp", "role": "admin", "expires_at": end.to_string()});
    let token = token(&api.admin(Method::POST, "/api/operators", Some(body)).await);
    assert_eq!(api.operator(Method::GET, "/api/agents", Some(&token), None).await.status, 200);
    api.bench.clock.advance(Duration::from_secs(3_600));
    api.operator(Method::GET, "/api/agents", Some(&token), None).await.is_problem(401);
}

#[tokio::test]
async fn what_an_operator_is_called_is_checked() {
    let api = Api::new().await;
    let past = "2020-01-01T00:00:00Z";
    for bad in [
        json!({"role": "admin"}),
        json!({"name": "", "role": "admin"}),
        json!({"name": "kim"}),
        json!({"name": "kim", "role": "king"}),
        json!({"name": "kim", "role": "admin", "expires_at": past}),
        json!({"name": "00000000-0000-0000-0000-000000000001", "role": "admin"}),
    ] {
        api.admin(Method::POST, "/api/operators", Some(bad)).await.is_problem(400);
    }
}

#[tokio::test]
async fn operators_and_events_are_no_business_of_agents() {
    let api = Api::new().await;
    let (_, key) = api.agent("one").await;
    for path in ["/api/operators", "/api/events"] {
        api.public(Method::GET, path, Some(&key), None).await.is_problem(404);
        api.public(Method::GET, path, None, None).await.is_problem(404);
        api.operator(Method::GET, path, None, None).await.is_problem(401);
        assert_eq!(api.operator(Method::GET, path, Some(&api.auditor), None).await.status, 200);
    }
}

#[tokio::test]
async fn every_change_is_an_event_and_pages_show_each_once() {
    let api = Api::new().await;
    let (id, _) = api.agent("one").await;
    for n in 0..5 {
        api.bench.clock.advance(Duration::from_secs(1));
        let body = json!({"description": format!("the {n}th")});
        assert_eq!(api.admin(Method::PATCH, "/api/agents/one", Some(body)).await.status, 200);
    }
    let mut seen = Vec::new();
    let mut path = "/api/events?subject=one&limit=2".to_owned();
    loop {
        let page = api.admin(Method::GET, &path, None).await;
        seen.extend(page.body["events"].as_array().cloned().unwrap_or_default());
        match page.body["next"].as_str() {
            Some(next) => path = format!("/api/events?subject=one&limit=2&next={next}"),
            None => break,
        }
    }
    let actions: Vec<&str> = seen.iter().filter_map(|event| event["action"].as_str()).collect();
    assert_eq!(
        actions,
        ["agent.update", "agent.update", "agent.update", "agent.update", "agent.update", "agent.create"]
    );
    assert_eq!((&seen[0]["subject"], &seen[0]["actor"]), (&json!(id), &json!("operator:root")));
    assert_eq!(
        (&seen[0]["before"]["description"], &seen[0]["after"]["description"]),
        (&json!("the 3th"), &json!("the 4th"))
    );

    let total = async |query: &str| {
        let page = api.admin(Method::GET, &format!("/api/events?limit=200&{query}"), None).await;
        page.body["events"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(total("action=agent.update").await, 5);
    assert_eq!(total("action=agent").await, 6);
    assert_eq!(total("action=age").await, 0);
    assert_eq!(total("actor=operator:eve").await, 0);
    let third = seen[2]["at"].as_str().unwrap_or_default();
    assert_eq!(total(&format!("subject={id}&since={third}")).await, 3);
    assert_eq!(total(&format!("subject={id}&until={third}")).await, 3);
    api.admin(Method::GET, "/api/events?next=nonsense", None).await.is_problem(400);
}

#[tokio::test]
async fn operators_do_not_read_the_log_unseen_and_paging_is_one_reading() {
    let api = Api::new().await;
    let (_, key) = api.agent("one").await;
    let readings = async || {
        let page = api.admin(Method::GET, "/api/events?action=calls.read", None).await;
        page.body["events"].as_array().cloned().unwrap_or_default()
    };
    let read =
        async |path: &str| assert_eq!(api.operator(Method::GET, path, Some(&api.auditor), None).await.status, 200);
    read("/api/calls?caller=one&limit=5").await;
    read("/api/calls?caller=one&limit=10").await;
    let events = readings().await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(
        (&events[0]["actor"], &events[0]["after"]),
        (&json!("operator:eve"), &json!({"query": "caller=one", "rows": 0}))
    );
    read("/api/calls").await;
    assert_eq!(readings().await.len(), 2, "another query");
    api.bench.clock.advance(Duration::from_secs(60));
    read("/api/calls").await;
    assert_eq!(readings().await.len(), 3, "a minute later");
    read("/api/calls/stats?by=caller").await;
    read("/api/calls/stats?by=caller").await;
    assert_eq!(readings().await.len(), 4, "numbers are a reading, too");
    read("/api/calls?order=recorded").await;
    assert_eq!(readings().await.len(), 5, "and so is the record");
    for path in ["/api/calls", "/api/calls/stats"] {
        assert_eq!(api.public(Method::GET, path, Some(&key), None).await.status, 200);
    }
    assert_eq!(readings().await.len(), 5, "agents read what is theirs");
}

#[tokio::test]
async fn when_a_token_was_last_used_is_told() {
    let api = Api::new().await;
    let last = async || {
        let list = api.admin(Method::GET, "/api/operators", None).await;
        let rows = list.body["operators"].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["name"] == "eve").map_or(Value::Null, |row| row["last_used_at"].clone())
    };
    assert_eq!(last().await, Value::Null);
    let now = api.bench.clock.wall();
    assert_eq!(api.operator(Method::GET, "/api/agents", Some(&api.auditor), None).await.status, 200);
    // Noted beside the request.
    while last().await == Value::Null {
        tokio::task::yield_now().await;
    }
    assert_eq!(last().await, json!(now.to_string()));
}
