//! `/metrics`: for operators, with bounded labels.

use http::Method;
use uuid::Uuid;

use super::Api;
use crate::a2a::Operation;
use crate::audit::record::{Decision, Ending};
use crate::meter::Ended;

fn call(target: Option<Uuid>, ending: Ending, reason: Option<&'static str>) -> Ended {
    Ended {
        target,
        operation: Operation::SendMessage,
        decision: if reason.is_some() { Decision::Refused } else { Decision::Allowed },
        ending,
        reason,
        latency_ms: 30,
        ttfb_ms: Some(20),
        request_bytes: 10,
        response_bytes: 100,
    }
}

#[tokio::test]
async fn calls_are_told_by_agent_operation_decision_and_outcome_added_up_over_workers() {
    let api = Api::new().await;
    let (id, _) = api.agent("weather").await;
    let weather = Some(Uuid::parse_str(&id).expect("an id"));
    for meter in &api.control.meters {
        meter.ended(&call(weather, Ending::Completed, None));
        meter.ended(&call(None, Ending::Refused, Some("agent_not_found")));
        // An agent that is registered nowhere any more.
        meter.ended(&call(Some(Uuid::from_u128(7)), Ending::Completed, None));
    }
    let page = api.operator(Method::GET, "/metrics", Some(&api.auditor), None).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(page.headers["content-type"].to_str().is_ok_and(|text| text.starts_with("application/openmetrics-text")));
    for line in [
        r#"trust_gateway_calls_total{agent="weather",operation="SendMessage",decision="allowed",outcome="completed"} 2.0"#,
        r#"trust_gateway_calls_total{agent="none",operation="SendMessage",decision="refused",outcome="refused"} 2.0"#,
        r#"trust_gateway_call_reasons_total{reason="agent_not_found"} 2.0"#,
        r#"trust_gateway_call_duration_seconds_bucket{le="0.025",class="work"} 0"#,
        r#"trust_gateway_call_duration_seconds_bucket{le="0.05",class="work"} 6"#,
        r#"trust_gateway_call_duration_seconds_bucket{le="+Inf",class="work"} 6"#,
        r#"trust_gateway_call_duration_seconds_count{class="work"} 6"#,
        r#"trust_gateway_first_byte_seconds_sum{class="work"} 0.12"#,
        r#"trust_gateway_bodies_bytes_total{body="response"} 600.0"#,
        r#"trust_gateway_agents{state="active"} 1"#,
        "trust_gateway_recording 1",
        "# EOF",
        "trust_gateway_database_readable 1",
    ] {
        assert!(page.text.lines().any(|found| found == line), "{line}\n{}", page.text);
    }
    let gone = r#"{agent="none",operation="SendMessage",decision="allowed""#;
    assert!(!page.text.contains(gone), "calls to an agent that is gone are nobody else's: {}", page.text);
}

#[tokio::test]
async fn without_the_database_the_rest_is_told() {
    let api = Api::new().await;
    assert_eq!(api.admin(Method::GET, "/metrics", None).await.status, 200);
    // The token is in the database, too: only what comes after it can be missing.
    api.bench.database.by_hand("ALTER TABLE connections RENAME TO hidden").await;
    let page = api.admin(Method::GET, "/metrics", None).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(page.text.contains("trust_gateway_database_readable 0\n"), "{}", page.text);
    assert!(page.text.contains("trust_gateway_recording 1\n") && !page.text.contains("trust_gateway_agents{"));
}

#[tokio::test]
async fn only_operators_read_the_numbers() {
    let api = Api::new().await;
    let (_, key) = api.agent("one").await;
    api.public(Method::GET, "/metrics", Some(&key), None).await.is_problem(404);
    api.operator(Method::GET, "/metrics", None, None).await.is_problem(401);
    api.operator(Method::GET, "/metrics", Some(&key), None).await.is_problem(401);
}

#[tokio::test]
async fn an_open_breaker_shows() {
    let api = Api::new().await;
    let (id, _) = api.agent("weather").await;
    let text = async || api.admin(Method::GET, "/metrics", None).await.text;
    assert!(!text().await.contains("trust_gateway_breaker{"), "closed ones go without saying");
    let directory = api.control.directory.load();
    let agent = directory.agent(Uuid::parse_str(&id).expect("an id")).expect("there");
    for _ in 0..agent.vitals.breaker.settings().failures {
        let passage = agent.vitals.breaker.enter(&api.bench.clock).expect("closed");
        passage.tell(crate::vitals::Sign::Fails, &api.bench.clock);
    }
    assert!(agent.vitals.breaker.enter(&api.bench.clock).is_err());
    let page = text().await;
    for line in [
        r#"trust_gateway_breaker{agent="weather",state="open"} 1"#,
        r#"trust_gateway_breaker_opened_total{agent="weather"} 1.0"#,
        r#"trust_gateway_breaker_refused_total{agent="weather"} 1.0"#,
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
}
