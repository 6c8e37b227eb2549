//! Limits of an agent's own: sent, checked, shown, and in force.

use super::*;

fn rule(body: &Value, name: &str) -> String {
    let limits = body["limits"].as_array().expect("a list");
    let limit = limits.iter().find(|limit| limit["name"] == name).expect("such a limit");
    format!("{}: {}", limit["rule"].as_str().expect("a rule"), limit["limit"])
}

#[tokio::test]
async fn an_operators_limits_for_an_agents_callers_are_kept_shown_and_in_force() {
    let api = Api::new().await;
    let [(_, key), (_, own_key)] = [api.agent("caller").await, api.agent("target").await];
    let change =
        async |limits: Value| api.admin(Method::PATCH, "/api/agents/target", Some(json!({"limits": limits}))).await;
    let limits = json!({"costs": {"SendMessage": 5}, "connected": {"daily": 9},
        "verified": {"rate": 60, "period": "1h", "burst": 6, "in_flight": 2},
        "unverified": {"rate": 1, "period": "1h", "burst": 5}});
    let shown = change(limits).await;
    assert_eq!(shown.status, 200, "{}", shown.text);
    assert_eq!(shown.body["limits"]["costs"], json!({"SendMessage": 5}));
    assert_eq!(
        shown.body["limits"]["verified"],
        json!({"rate": 60, "period_ms": 3_600_000, "burst": 6, "daily": null, "streams": null, "in_flight": 2})
    );
    let me = async || api.public(Method::GET, "/api/me?target=target", Some(&key), None).await.body;
    assert_eq!(rule(&me().await, "work"), "agent.verified.rate: 6");
    assert_eq!(rule(&me().await, "in_flight"), "agent.verified.in_flight: 2");
    assert_eq!(rule(&me().await, "daily"), "tier.verified.daily: 1000");

    // What is not sent stays; null is the policy's again.
    let shown = change(json!({"costs": null, "verified": {"streams": 1}})).await;
    assert_eq!((&shown.body["limits"]["costs"], &shown.body["limits"]["connected"]["daily"]), (&json!({}), &json!(9)));
    assert_eq!(rule(&me().await, "work"), "tier.verified.rate: 1");
    assert_eq!(rule(&me().await, "streams"), "agent.verified.streams: 1");
    change(Value::Null).await;
    assert_eq!(rule(&me().await, "streams"), "tier.verified.streams: 4");

    // The agent sees its limits and does not set them; strangers do not see them.
    let own = api.public(Method::GET, "/api/agents/target", Some(&own_key), None).await.body;
    assert!(own["limits"].is_object());
    assert!(api.public(Method::GET, "/api/agents/target", Some(&key), None).await.body.get("limits").is_none());
    let wish = json!({"limits": {"verified": {"daily": 1_000_000}}});
    api.public(Method::PATCH, "/api/agents/target", Some(&own_key), Some(wish)).await.is_problem(403);
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused_with_what_to_do() {
    let api = Api::new().await;
    api.agent("target").await;
    for (limits, hint) in [
        (json!({"costs": {"SendMessage": 2}}), "larger burst"),
        (json!({"costs": {"message/send": 1}}), "such as SendMessage"),
        (json!({"costs": {"GetAgentCard": 1}}), "such as SendMessage"),
        (json!({"costs": {"SendMessage": -1}}), "whole number"),
        (json!({"verified": {"rate": 5}}), "belong together"),
        (json!({"verified": {"rate": 0, "period_ms": 1}}), "at least 1"),
        (json!({"verified": {"rate": 1, "period": "40d"}}), "31 days"),
        (json!({"unverified": {"in_flight": 0}}), "at least 1"),
        (json!({"verified": 7}), "must be an object"),
    ] {
        let refused = api.admin(Method::PATCH, "/api/agents/target", Some(json!({"limits": limits}))).await;
        refused.is_problem(400);
        assert!(refused.text.contains(hint), "{limits}: {}", refused.text);
    }
    let kept = api.admin(Method::GET, "/api/agents/target", None).await.body;
    assert_eq!(kept["limits"]["costs"], json!({}));
}

#[tokio::test]
async fn strangers_ask_the_api_so_often_and_agents_with_keys_go_on() {
    let api = Api::new().await;
    let (_, key) = api.agent("one").await;
    for _ in 0..120 {
        assert_eq!(api.public(Method::GET, "/api/agents", None, None).await.status, 200);
    }
    let refused = api.public(Method::GET, "/api/agents/one", None, None).await;
    refused.is_problem(429);
    assert_eq!(
        (&refused.headers["retry-after"], &refused.headers["ratelimit"]),
        (&"1".parse().expect("a value"), &"\"requests\";r=0;t=60".parse().expect("a value"))
    );
    assert_eq!(api.public(Method::GET, "/api/agents", Some(&key), None).await.status, 200);
    assert_eq!(api.public(Method::GET, "/livez", None, None).await.status, 200);
    api.bench.clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(api.public(Method::GET, "/api/agents", None, None).await.status, 200);
}
