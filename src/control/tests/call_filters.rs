//! What the log is asked for: what each filter leaves out, what takes a range, and what nobody learns from a name.

use http::Method;
use serde_json::json;
use uuid::Uuid;

use super::Api;
use super::calls::{id, log, numbers, row};
use crate::clock::Timestamp;
use crate::store::rows::CallRow;

#[tokio::test]
async fn every_filter_leaves_out_what_it_does_not_name() {
    let api = Api::new().await;
    let (one, _) = api.agent("one").await;
    let (two, _) = api.agent("two").await;
    let other = Uuid::from_u128(99);
    let time = |text: &str| Timestamp::parse(text).expect("a time");
    type Change = fn(&mut CallRow);
    // Each filter, and a change that takes a row out of it.
    let cases: [(String, Change); 14] = [
        ("caller=one".to_owned(), |row| row.caller_agent_id = Some(Uuid::from_u128(99))),
        (format!("target={two}"), |row| row.target_agent_id = Some(Uuid::from_u128(99))),
        ("trust_level=verified".to_owned(), |row| row.trust_level = "connected".to_owned()),
        ("outcome=completed".to_owned(), |row| row.outcome = "timeout".to_owned()),
        ("decision=allowed".to_owned(), |row| row.decision = "refused".to_owned()),
        ("operation=SendMessage".to_owned(), |row| row.operation = "GetTask".to_owned()),
        ("reason=draining".to_owned(), |row| row.reason = None),
        ("status=200".to_owned(), |row| row.status_code = 429),
        ("since=2026-01-01T00:00:00Z".to_owned(), |row| row.called_at = row.called_at.plus_micros(-1)),
        ("until=2026-01-01T01:00:00.000001%2B01:00".to_owned(), |row| row.called_at = row.called_at.plus_micros(1)),
        ("task_id=t".to_owned(), |row| row.task_id = None),
        ("context_id=c".to_owned(), |row| row.context_id = None),
        ("trace_id=w".to_owned(), |row| row.trace_id = None),
        ("pair=two:one".to_owned(), |row| row.target_agent_id = row.caller_agent_id),
    ];
    let base = |n: u128| CallRow {
        task_id: Some("t".to_owned()),
        reason: Some("draining".to_owned()),
        context_id: Some("c".to_owned()),
        trace_id: Some("w".to_owned()),
        called_at: time("2026-01-01T00:00:00Z"),
        ..row(n, id(&one), id(&two))
    };
    let mut rows = vec![base(1)];
    for (n, (_, change)) in (2..).zip(&cases) {
        rows.push(base(n));
        change(rows.last_mut().expect("just pushed"));
    }
    rows.push(row(50, other, other));
    log(&api, rows).await;
    for (n, (filter, _)) in (2..).zip(&cases) {
        // What no index answers is looked for in a range, which must be one.
        let range = if filter.starts_with("since") { "" } else { "&since=2025-12-31T23:00:00Z" };
        let path = format!("/api/calls?limit=200&agent=one&{filter}{range}");
        let left = numbers(&api.admin(Method::GET, &path, None).await);
        assert!(left.contains(&1) && !left.contains(&n) && !left.contains(&50), "{filter}: {left:?}");
    }
    let all: Vec<&str> = cases.iter().map(|(filter, _)| filter.as_str()).collect();
    let left = numbers(&api.admin(Method::GET, &format!("/api/calls?{}", all.join("&")), None).await);
    assert_eq!(left, [1]);
    let by_id = format!("/api/calls?id={}&since=2025-12-31T23:00:00Z", Uuid::from_u128(3));
    assert_eq!(numbers(&api.admin(Method::GET, &by_id, None).await), [3]);
    for bad in ["status=x", "since=yesterday", "next=%25", "limit=0", "id=7", "pair=one", "pair=:"] {
        api.admin(Method::GET, &format!("/api/calls?{bad}"), None).await.is_problem(400);
    }
    for nobody in ["caller=nobody", "pair=one:nobody"] {
        let none = api.admin(Method::GET, &format!("/api/calls?{nobody}"), None).await;
        assert_eq!(none.body, json!({"calls": [], "next": null}));
    }
}

#[tokio::test]
async fn what_no_index_answers_is_looked_for_in_a_range_and_whoever_leaves_it_out_is_told_how() {
    let api = Api::new().await;
    let (_, key) = api.agent("one").await;
    for scanned in [
        "trust_level=x",
        "operation=x",
        "decision=x",
        "reason=x",
        "outcome=x",
        "status=200",
        "task_id=x",
        "context_id=x",
        "trace_id=x",
        // An id that tells no time.
        "request_id=00000000-0000-4000-8000-000000000007",
    ] {
        let path = format!("/api/calls?caller=one&{scanned}");
        let name = scanned.split('=').next().unwrap_or_default();
        for refused in
            [api.admin(Method::GET, &path, None).await, api.public(Method::GET, &path, Some(&key), None).await]
        {
            refused.is_problem(400);
            assert_eq!(refused.body["member"], name);
            let told = refused.body["detail"].as_str().expect("text");
            let since = told.split("since=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an example");
            let since = since.trim_end_matches(';');
            let path = format!("{path}&since={since}");
            assert_eq!(numbers(&api.admin(Method::GET, &path, None).await), [0; 0], "{told}");
        }
        if name != "request_id" {
            let by_id = format!("/api/calls?{scanned}&request_id={}", Uuid::now_v7());
            assert_eq!(numbers(&api.admin(Method::GET, &by_id, None).await), [0; 0]);
        }
        let far = api.admin(Method::GET, &format!("{path}&since=2020-01-01T00:00:00Z"), None).await;
        far.is_problem(400);
        assert_eq!(far.body["member"], "since");
        let ended = format!("{path}&since=2020-01-01T00:00:00Z&until=2020-01-31T00:00:00Z");
        assert_eq!(api.admin(Method::GET, &ended, None).await.status, 200);
    }
}

#[tokio::test]
async fn a_caller_does_not_find_a_call_by_the_name_of_whom_it_could_not_see() {
    let api = Api::new().await;
    let (one, key) = api.agent("one").await;
    let (two, _) = api.agent("two").await;
    let hidden = CallRow { reason: Some("agent_not_found".to_owned()), ..row(1, id(&one), id(&two)) };
    log(&api, vec![hidden, row(2, id(&one), id(&one))]).await;
    assert_eq!(numbers(&api.public(Method::GET, "/api/calls", Some(&key), None).await), [2, 1], "each once");
    for by_name in ["target=two", "pair=one:two"] {
        let path = format!("/api/calls?{by_name}");
        assert_eq!(numbers(&api.public(Method::GET, &path, Some(&key), None).await), [0; 0]);
        assert_eq!(numbers(&api.admin(Method::GET, &path, None).await), [1]);
    }
}

#[tokio::test]
async fn a_caller_does_not_learn_whether_a_name_is_anybodys() {
    let api = Api::new().await;
    let (one, key) = api.agent("one").await;
    let (two, _) = api.agent("two").await;
    let hidden = CallRow { reason: Some("agent_not_found".to_owned()), ..row(1, id(&one), id(&two)) };
    log(&api, vec![hidden, row(2, id(&two), id(&two))]).await;
    for path in [
        "calls?target=NAME",
        "calls?pair=one:NAME",
        "calls?agent=NAME",
        "calls?target=NAME&reason=agent_not_found",
        "calls?order=recorded&target=NAME",
        "calls/stats?target=NAME&since=1970-01-01T00:00:00Z&until=1970-01-01T01:00:00Z",
        "calls/active?target=NAME",
        "calls/active?agent=NAME",
    ] {
        let ask = async |name: &str| {
            let answer =
                api.public(Method::GET, &format!("/api/{}", path.replace("NAME", name)), Some(&key), None).await;
            (answer.status, answer.text)
        };
        assert_eq!(ask("two").await, ask("nobody").await, "{path}");
    }
}
