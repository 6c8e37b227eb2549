//! The log in numbers, as the API tells them.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::calls::{id, log, row};
use super::{Answer, Api};
use crate::clock::Timestamp;
use crate::store::rows::CallRow;

const TIME: &str = "since=2026-01-01T00:00:00Z&until=2026-01-03T00:00:00Z";

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("a time")
}

fn refused(row: CallRow, reason: &str, calls: i64) -> CallRow {
    let word = || "refused".to_owned();
    CallRow { decision: word(), outcome: word(), reason: Some(reason.to_owned()), calls, latency_ms: 700_000, ..row }
}

async fn asked(api: &Api, query: &str) -> Value {
    let answer = api.admin(Method::GET, &format!("/api/calls/stats?{query}"), None).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.body
}

#[tokio::test]
async fn calls_refusals_outcomes_bytes_and_latency_are_told_by_who_called_whom_and_when() {
    let api = Api::new().await;
    let (one, _) = api.agent("one").await;
    let (two, _) = api.agent("two").await;
    let call = |n, time: &str, latency_ms| CallRow { called_at: at(time), latency_ms, ..row(n, id(&one), id(&two)) };
    let back = CallRow {
        trust_level: "connected".to_owned(),
        called_at: at("2026-01-02T00:00:00Z"),
        ..row(4, id(&two), id(&one))
    };
    let stranger =
        CallRow { caller_agent_id: None, trust_level: "unverified".to_owned(), ..call(6, "2026-01-01T05:00:00Z", 1) };
    log(
        &api,
        vec![
            call(1, "2026-01-01T00:00:00Z", 3),
            call(2, "2026-01-01T00:59:59.9Z", 60),
            CallRow { outcome: "timeout".to_owned(), ..call(3, "2026-01-01T01:00:00Z", 700_000) },
            back,
            refused(call(5, "2026-01-01T02:30:00Z", 0), "rate_limited", 40),
            refused(stranger, "rate_limited", 2),
            call(7, "2026-01-03T00:00:00Z", 1),
        ],
    )
    .await;

    let body = asked(&api, &format!("{TIME}&by=caller,agent,level")).await;
    assert_eq!(
        (&body["since"], &body["until"]),
        (&json!("2026-01-01T00:00:00.000000Z"), &json!("2026-01-03T00:00:00.000000Z"))
    );
    assert_eq!((body["groups"].as_array().map(Vec::len), &body["truncated"]), (Some(3), &json!(false)));
    let most = &body["groups"][0];
    assert_eq!(
        (&most["caller"]["slug"], &most["target"]["slug"], &most["trust_level"]),
        (&json!("one"), &json!("two"), &json!("verified"))
    );
    assert_eq!(
        (&most["calls"], &most["refused"], &most["refusals"]),
        (&json!(43), &json!(40), &json!({"rate_limited": 40}))
    );
    assert_eq!((&most["outcomes"], &most["request_bytes"]), (&json!({"completed": 2, "timeout": 1}), &json!(4)));
    assert_eq!(most["latency_ms"], json!({"p50": 100, "p90": null, "p99": null}), "of those that were let through");
    let strangers = &body["groups"][1];
    assert_eq!((&strangers["caller_agent_id"], &strangers["calls"]), (&Value::Null, &json!(2)));
    assert_eq!(strangers["latency_ms"], json!({"p50": null, "p90": null, "p99": null}));

    let all = asked(&api, TIME).await;
    assert_eq!((all["groups"].as_array().map(Vec::len), &all["groups"][0]["calls"]), (Some(1), &json!(46)));
    let days = asked(&api, &format!("{TIME}&bucket=day&caller=two")).await;
    assert_eq!(
        (&days["groups"][0]["starts_at"], &days["groups"][0]["calls"]),
        (&json!("2026-01-02T00:00:00.000000Z"), &json!(1))
    );
    let minutes = asked(&api, "since=2026-01-01T00:00:30Z&until=2026-01-01T01:00:30Z&bucket=minute").await;
    let starts = minutes["groups"].as_array().expect("groups").iter().map(|group| group["starts_at"].clone());
    let starts: Vec<Value> = starts.collect();
    assert_eq!(starts, ["00:00", "00:59", "01:00"].map(|time| json!(format!("2026-01-01T{time}:00.000000Z"))));
    for (filter, calls) in
        [("target=one", 1), ("pair=two:one", 44), ("reason=rate_limited", 42), ("decision=allowed", 4)]
    {
        assert_eq!(asked(&api, &format!("{TIME}&{filter}")).await["groups"][0]["calls"], calls, "{filter}");
    }
    assert_eq!(asked(&api, &format!("{TIME}&caller=nobody")).await["groups"], json!([]));
}

#[tokio::test]
async fn an_agent_is_told_no_more_in_sums_than_call_by_call() {
    let api = Api::new().await;
    let (one, key) = api.agent("one").await;
    let (two, _) = api.agent("two").await;
    let other = Uuid::from_u128(99);
    let when = |row: CallRow| CallRow { called_at: at("2026-01-01T00:00:00Z"), ..row };
    let hidden = refused(when(row(3, id(&one), id(&two))), "agent_not_found", 1);
    log(&api, vec![when(row(1, id(&one), id(&two))), when(row(2, other, id(&two))), hidden]).await;
    let own = async |query: &str| -> Answer {
        api.public(Method::GET, &format!("/api/calls/stats?{TIME}{query}"), Some(&key), None).await
    };
    assert_eq!(own("").await.body["groups"][0]["calls"], 2);
    let by = own("&by=agent").await.body;
    let groups = by["groups"].as_array().expect("groups");
    let mut shown: Vec<_> =
        groups.iter().map(|group| (group["target"]["slug"].clone(), group["calls"].clone())).collect();
    shown.sort_by_key(|(slug, _)| slug.to_string());
    assert_eq!(shown, [(json!("two"), json!(1)), (Value::Null, json!(1))]);
    assert_eq!(own("&target=two").await.body["groups"][0]["calls"], 1, "nor is one found by its name");
    own("&agent=two").await.is_problem(403);
    let long = "/api/calls/stats?since=2025-11-30T00:00:00Z&until=2026-01-01T00:00:00Z";
    api.public(Method::GET, long, Some(&key), None).await.is_problem(400);
    assert_eq!(api.admin(Method::GET, long, None).await.status, 200);
    api.public(Method::GET, "/api/calls/stats", None, None).await.is_problem(401);
}

#[tokio::test]
async fn groups_are_told_by_time_then_the_most_calls_first_and_too_many_are_cut_or_refused() {
    let api = Api::new().await;
    let (two, _) = api.agent("two").await;
    // So many callers in each of two hours, the later hour with the more calls; the one in the middle has the fewest.
    let add = async |from: u128, to: u128| {
        let call = |n: u128| CallRow {
            called_at: at(if n.is_multiple_of(2) { "2026-01-01T01:00:00Z" } else { "2026-01-01T00:00:00Z" }),
            ..refused(
                row(n, Uuid::from_u128(1_000 + n), id(&two)),
                "rate_limited",
                if n == 50 { 1 } else { 2 + n as i64 },
            )
        };
        log(&api, (from..=to).map(call).collect()).await;
    };
    let path = format!("{TIME}&by=caller&bucket=hour");
    add(1, 100).await;
    assert_eq!(asked(&api, &path).await["truncated"], false);
    add(101, 101).await;
    let told = asked(&api, &path).await;
    let groups = told["groups"].as_array().expect("groups");
    assert_eq!((groups.len(), &told["truncated"]), (100, &json!(true)));
    let order: Vec<_> =
        groups.iter().map(|group| (group["starts_at"].to_string(), -group["calls"].as_i64().unwrap_or(0))).collect();
    assert!(order.is_sorted() && order.iter().all(|(_, calls)| *calls < -1), "{order:?}");

    add(102, 300).await;
    assert_eq!(asked(&api, &path).await["truncated"], true);
    add(301, 301).await;
    let refused = api.admin(Method::GET, &format!("/api/calls/stats?{path}"), None).await;
    refused.is_problem(400);
    assert_eq!(refused.body["member"], "by");
}

#[tokio::test]
async fn what_cannot_be_told_is_refused_with_what_can() {
    let api = Api::new().await;
    for (query, member) in [
        ("by=method", "by"),
        ("bucket=week", "bucket"),
        ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "since"),
        ("since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:01Z&bucket=minute", "since"),
        ("since=2020-01-01T00:00:00Z&until=2020-01-01T01:00:00Z&bucket=minute", "since"),
        ("since=2026-01-01T00:00:00Z&until=2026-03-01T00:00:00Z&bucket=hour", "since"),
        ("since=2024-01-01T00:00:00Z&until=2026-01-01T00:00:00Z", "since"),
        ("operation=GetTask", "operation"),
        ("status=200", "status"),
        ("task_id=x", "task_id"),
    ] {
        let answer = api.admin(Method::GET, &format!("/api/calls/stats?{query}"), None).await;
        answer.is_problem(400);
        assert_eq!(answer.body["member"], member, "{}", answer.text);
    }
    let day = asked(&api, "").await;
    assert_eq!(day["groups"], json!([]));
    let time = |member: &str| at(day[member].as_str().expect("a time")).0;
    // Whole minutes around the day until now.
    assert!((86_400..=86_460).contains(&((time("until") - time("since")) / 1_000_000)), "{day}");
}
