use super::*;
use crate::store::rows::AdminEvent;
use crate::store::{EventFilter, EventPage};

const GOOD: &str = r#"{"name":"a","url":"https://adder.example/secret-path","version":"1"}"#;
const MOVED: &str = r#"{"name":"a","url":"https://evil.example/","version":"2"}"#;

/// An agent whose card was taken over and then changed to one that is held.
async fn scene() -> (Api, String, String) {
    let api = Api::new().await;
    let (id, key) = api.agent("adder").await;
    for card in [GOOD, MOVED] {
        *api.card.lock().expect("lock") = card.to_owned();
        assert_eq!(api.public(Method::POST, &format!("/api/agents/{id}/probe"), Some(&key), None).await.status, 200);
        api.bench.clock.advance(Duration::from_secs(5));
    }
    (api, id, key)
}

/// The newest changes of an agent.
async fn events(api: &Api, id: &str, limit: u32) -> Vec<AdminEvent> {
    let filter = EventFilter { subject: Some(id.to_owned()), ..EventFilter::default() };
    api.bench.store.admin_events(&filter, &EventPage::newest(limit)).await.expect("reads")
}

#[tokio::test]
async fn a_probe_on_demand_says_what_it_found() {
    let api = Api::new().await;
    let (id, key) = api.agent("adder").await;
    *api.card.lock().expect("lock") = GOOD.to_owned();
    let answer = api.public(Method::POST, "/api/agents/adder/probe", Some(&key), None).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["health"], "online");
    assert_eq!(answer.body["credential"], "none");
    assert_eq!(answer.body["card"]["state"], "current");
    assert_eq!(answer.body["card"]["url"], "https://adder.example/secret-path/.well-known/agent-card.json");
    assert_eq!(answer.body["checked_at"], "2026-01-01T00:00:00.000000Z");
    let row = api.admin(Method::GET, &format!("/api/agents/{id}"), None).await.body;
    assert_eq!((&row["health"], &row["card_state"]), (&json!("online"), &json!("current")));
}

#[tokio::test]
async fn a_credential_counts_as_accepted_only_if_the_agent_asks_for_it() {
    let api = Api::new().await;
    let (_, key) = api.agent("adder").await;
    for (header, state) in [("x-secret", "accepted"), ("x-other", "refused")] {
        let change = json!({"upstream_credential": {"header": header, "value": "canary"}});
        assert_eq!(api.public(Method::PATCH, "/api/agents/adder", Some(&key), Some(change)).await.status, 200);
        let answer = api.public(Method::POST, "/api/agents/adder/probe", Some(&key), None).await;
        assert_eq!(answer.body["credential"], state);
        assert!(!answer.text.contains("canary"));
        assert_eq!(answer.body["reason"], if state == "refused" { "auth_failed" } else { "post_only" });
        api.bench.clock.advance(Duration::from_secs(5));
    }
}

#[tokio::test]
async fn only_the_owner_and_admins_have_an_agent_probed_and_not_all_the_time() {
    let api = Api::new().await;
    let (_, key) = api.agent("adder").await;
    let (_, other) = api.agent("other").await;
    let probe = |key| api.public(Method::POST, "/api/agents/adder/probe", key, None);
    assert_eq!(probe(None).await.status, 401);
    assert_eq!(probe(Some(other.as_str())).await.status, 403);
    assert_eq!(api.operator(Method::POST, "/api/agents/adder/probe", Some(&api.auditor), None).await.status, 403);
    assert_eq!(probe(Some(key.as_str())).await.status, 200);
    let again = api.admin(Method::POST, "/api/agents/adder/probe", None).await;
    assert_eq!((again.status.as_u16(), &again.headers["retry-after"]), (429, &"5".parse().expect("a value")));
    api.bench.clock.advance(Duration::from_secs(5));
    assert_eq!(probe(Some(key.as_str())).await.status, 200);
}

#[tokio::test]
async fn a_held_card_is_shown_with_the_difference_and_served_once_an_admin_accepts_it() {
    let (api, id, key) = scene().await;
    let row = api.admin(Method::GET, &format!("/api/agents/{id}"), None).await.body;
    assert_eq!(row["card_state"], "held");
    let held = api.public(Method::GET, "/api/agents/adder/card/held", Some(&key), None).await;
    assert_eq!(held.status, 200);
    assert_eq!((&held.body["current"]["version"], &held.body["held"]["version"]), (&json!("1"), &json!("2")));
    assert!(held.body["changes"]["held_for"][0].as_str().expect("a text").contains("evil.example"));
    assert_eq!(held.body["changes"]["other"], json!(["version is now \"2\""]));
    let (_, stranger) = api.agent("other").await;
    for (key, status) in [(None, 401), (Some(stranger.as_str()), 403)] {
        assert_eq!(api.public(Method::GET, "/api/agents/adder/card/held", key, None).await.status, status);
    }
    let served = api.public(Method::GET, "/api/agents/adder/agent-card.json", Some(&key), None).await;
    assert_eq!(served.body["version"], "1");

    // Its owner cannot, and nobody accepts what they have not seen.
    let accept = "/api/agents/adder/card/accept";
    assert_eq!(api.public(Method::POST, accept, Some(&key), None).await.status, 403);
    assert_eq!(api.admin(Method::POST, accept, Some(json!({"hash": "00"}))).await.status, 409);
    let body = json!({"hash": held.body["hash"], "reason": "they moved"});
    let done = api.admin(Method::POST, accept, Some(body)).await;
    assert_eq!((done.status.as_u16(), &done.body["card_state"]), (200, &json!("current")));
    let served = api.public(Method::GET, "/api/agents/adder/agent-card.json", Some(&key), None).await;
    assert_eq!(served.body["version"], "2");
    assert!(!served.text.contains("evil.example"));
    assert_eq!(api.admin(Method::POST, accept, None).await.status, 404);
    let events = events(&api, &id, 9).await;
    let actions: Vec<_> = events.iter().map(|event| (event.action.as_str(), event.reason.as_deref())).collect();
    assert_eq!(actions, [("agent.card_accept", Some("they moved")), ("agent.card_held", None), ("agent.create", None)]);
}

#[tokio::test]
async fn a_rejected_card_is_not_held_again_until_it_changes() {
    let (api, id, _) = scene().await;
    let done = api.admin(Method::POST, "/api/agents/adder/card/reject", None).await;
    assert_eq!((done.status.as_u16(), &done.body["card_state"]), (200, &json!("current")));
    for (card, state) in
        [(MOVED.to_owned(), "current"), (MOVED.replace("\"2\"", "\"3\""), "held"), (GOOD.to_owned(), "current")]
    {
        *api.card.lock().expect("lock") = card;
        let answer = api.admin(Method::POST, &format!("/api/agents/{id}/probe"), None).await;
        assert_eq!(answer.body["card"]["state"], state);
        api.bench.clock.advance(Duration::from_secs(5));
    }
    let row = api.bench.store.agent(id.parse().expect("an id")).await.expect("reads").expect("there");
    assert_eq!(row.card_json.as_deref(), Some(GOOD.as_bytes()));
    let last = events(&api, &id, 1).await;
    assert_eq!(last[0].action, "agent.card_withdrawn");
}

#[tokio::test]
async fn an_interval_of_its_own_is_set_by_the_owner_or_an_admin_between_ten_seconds_and_a_week() {
    let api = Api::new().await;
    let (id, key) = api.agent("adder").await;
    let (_, other) = api.agent("other").await;
    let path = format!("/api/agents/{id}");
    for said in [json!(10), json!(604_800), json!(null)] {
        let change = json!({"health_interval_s": said});
        let row = api.public(Method::PATCH, &path, Some(&key), Some(change)).await;
        assert_eq!((row.status.as_u16(), &row.body["health_interval_s"]), (200, &said), "{}", row.text);
    }
    let change = json!({"health_interval_s": 60});
    assert_eq!(api.admin(Method::PATCH, &path, Some(change.clone())).await.body["health_interval_s"], 60);
    for bad in [json!(0), json!(9), json!(604_801), json!("60"), json!(-60)] {
        let change = json!({"health_interval_s": bad});
        let refused = api.public(Method::PATCH, &path, Some(&key), Some(change)).await;
        refused.is_problem(400);
        assert!(refused.text.contains("health_interval_s"), "{}", refused.text);
    }
    api.public(Method::PATCH, &path, Some(&other), Some(change)).await.is_problem(403);
    let edit = json!({"description": "new"});
    let row = api.public(Method::PATCH, &path, Some(&key), Some(edit)).await;
    assert_eq!(row.body["health_interval_s"], 60, "what is not said stays");
    let body = json!({"name": "slow", "url": "https://slow.example/", "health_interval_s": 3_600});
    assert_eq!(api.admin(Method::POST, "/api/agents", Some(body)).await.body["health_interval_s"], 3_600);
}
