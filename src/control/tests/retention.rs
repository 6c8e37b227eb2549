//! Erasure on request, legal holds, and how retention goes.

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::{Answer, Api};
use crate::audit::ledger::testing::{NODE, record};

/// The agent that made some of the calls of a log for tests, which nobody has registered.
const CALLER: &str = "00000000-0000-0000-0000-0000000000c9";

async fn ended(api: &Api) -> Answer {
    loop {
        let now = api.operator(Method::GET, "/api/audit/erase", Some(&api.auditor), None).await;
        if !now.body["erasure"]["ended_at"].is_null() {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_callers_addresses_are_erased_for_a_reason_and_told_of() {
    let api = Api::new().await;
    record(&api.bench.store, NODE, 0..40).await;
    let erase = |body| api.admin(Method::POST, "/api/audit/erase", Some(body));
    for bad in
        [json!({}), json!({"caller": CALLER}), json!({"caller": CALLER, "reason": "  "}), json!({"reason": "asked to"})]
    {
        erase(bad).await.is_problem(400);
    }
    erase(json!({"caller": "nobody", "reason": "asked to"})).await.is_problem(404);
    let body = json!({"caller": CALLER, "reason": "asked to"});
    api.operator(Method::POST, "/api/audit/erase", Some(&api.auditor), Some(body.clone())).await.is_problem(403);
    api.public(Method::POST, "/api/audit/erase", Some(&api.agent("one").await.1), Some(body.clone()))
        .await
        .is_problem(404);
    assert!(api.admin(Method::GET, "/api/audit/erase", None).await.body["erasure"].is_null());
    let begun = erase(body).await;
    assert_eq!((begun.status.as_u16(), &begun.body["agent_id"]), (202, &json!(CALLER)), "{}", begun.text);
    let told = ended(&api).await.body["erasure"].clone();
    assert_eq!((&told["rows"], &told["rows_seen"], &told["rows_held"]), (&json!(40), &json!(40), &json!(0)));
    let erased = told["rows_erased"].as_u64().expect("a number");
    assert!(erased > 5);
    let events = api.admin(Method::GET, &format!("/api/events?action=audit&subject={CALLER}"), None).await;
    let events = events.body["events"].as_array().expect("events").clone();
    assert_eq!(events.len(), 2);
    assert_eq!((&events[1]["action"], &events[1]["reason"]), (&json!("audit.erase"), &json!("asked to")));
    assert_eq!(&events[0]["after"]["rows_erased"], &json!(erased));
}

#[tokio::test]
async fn a_hold_is_placed_seen_and_released() {
    let api = Api::new().await;
    record(&api.bench.store, NODE, 0..40).await;
    let place = |body| api.admin(Method::POST, "/api/audit/holds", Some(body));
    for bad in [
        json!({"reason": "case 7"}),
        json!({"agent": CALLER, "all": true, "reason": "case 7"}),
        json!({"all": true}),
        json!({"all": true, "reason": "case 7", "since": "yesterday"}),
        json!({"all": true, "reason": "case 7", "since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}),
    ] {
        place(bad).await.is_problem(400);
    }
    place(json!({"agent": "nobody", "reason": "case 7"})).await.is_problem(404);
    let body = json!({"agent": CALLER, "since": "2020-01-01T00:00:00Z", "reason": "case 7"});
    api.operator(Method::POST, "/api/audit/holds", Some(&api.auditor), Some(body.clone())).await.is_problem(403);
    let placed = place(body).await;
    assert_eq!((placed.status.as_u16(), &placed.body["placed_by"]), (201, &json!("operator:root")), "{}", placed.text);
    let body = json!({"caller": CALLER, "reason": "asked to"});
    assert_eq!(api.admin(Method::POST, "/api/audit/erase", Some(body.clone())).await.status, 202);
    let told = ended(&api).await.body["erasure"].clone();
    assert!(told["rows_erased"] == 0 && told["rows_held"].as_u64().is_some_and(|n| n > 5), "{told}");

    let path = format!("/api/audit/holds/{}", placed.body["id"].as_str().expect("an id"));
    api.operator(Method::DELETE, &path, Some(&api.auditor), None).await.is_problem(403);
    assert_eq!(api.admin(Method::DELETE, &path, Some(json!({"reason": "settled"}))).await.status, 204);
    api.admin(Method::DELETE, &path, None).await.is_problem(404);
    api.admin(Method::DELETE, "/api/audit/holds/x", None).await.is_problem(404);
    let list = api.operator(Method::GET, "/api/audit/holds", Some(&api.auditor), None).await;
    assert!(list.body["holds"][0]["released_at"].is_string(), "{}", list.text);
    assert_eq!(api.admin(Method::POST, "/api/audit/erase", Some(body)).await.status, 202);
    assert_eq!(ended(&api).await.body["erasure"]["rows_held"], 0);
    let events = api.admin(Method::GET, "/api/events?action=hold", None).await;
    let events = events.body["events"].as_array().expect("events").clone();
    assert_eq!((&events[0]["action"], &events[0]["reason"]), (&json!("hold.release"), &json!("settled")));
    assert_eq!((&events[1]["action"], &events[1]["after"]["agent_id"]), (&json!("hold.place"), &json!(CALLER)));
}

#[tokio::test]
async fn how_retention_goes_is_told() {
    let api = Api::new().await;
    record(&api.bench.store, NODE, 0..40).await;
    let told = api.operator(Method::GET, "/api/audit/retention", Some(&api.auditor), None).await;
    assert_eq!(
        (&told.body["rows"], &told.body["rows_removed"], &told.body["keep_seconds"]),
        (&json!(40), &json!(0), &json!(null))
    );
    let status = api.admin(Method::GET, "/api/status", None).await;
    assert_eq!(status.body["retention"], told.body);
    let metrics = api.admin(Method::GET, "/metrics", None).await;
    for line in
        ["trust_gateway_log_rows 40", "trust_gateway_log_rows_removed_total 0", "trust_gateway_log_oldest_seconds "]
    {
        assert!(metrics.text.contains(line), "{line}");
    }
}
