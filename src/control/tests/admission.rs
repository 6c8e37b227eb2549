use super::*;
use crate::identity::CredentialError;

async fn asking(api: &Api, slug: &str) -> (String, String) {
    let body = json!({"name": slug, "slug": slug, "url": format!("https://{slug}.example/")});
    let made = api.public(Method::POST, "/api/agents", None, Some(body)).await;
    assert_eq!((made.status.as_u16(), made.body["state"].clone()), (201, json!("pending")), "{}", made.text);
    assert!(made.body["signing_secret"].is_string() && made.text.contains("waiting for an operator's approval"));
    let text = |member: &str| made.body[member].as_str().expect("text").to_owned();
    (text("id"), text("api_key"))
}

#[tokio::test]
async fn an_agent_that_waits_for_approval_exists_for_itself_and_operators_only() {
    let api = Api::new().await;
    api.control.registry.set_registration(Registration::Approval { max_pending: 9 });
    let (id, key) = asking(&api, "asker").await;
    let (_, other) = api.agent("other").await;
    for stranger in [None, Some(other.as_str())] {
        for path in [format!("/api/agents/{id}"), "/api/agents/asker/agent-card.json".to_owned()] {
            api.public(Method::GET, &path, stranger, None).await.is_problem(404);
        }
        for path in ["/api/agents?q=asker", "/api/agents/find?q=asker", "/api/agents?q=asker&state=pending"] {
            assert_eq!(api.public(Method::GET, path, stranger, None).await.body["total"], 0, "{path}");
        }
    }
    let wish = json!({"target_agent_id": "asker"});
    api.public(Method::POST, "/api/connections", Some(&other), Some(wish)).await.is_problem(404);

    let own = format!("/api/agents/{id}");
    assert_eq!(api.public(Method::GET, &own, Some(&key), None).await.body["state"], "pending");
    let edit = json!({"description": "new"});
    assert_eq!(api.public(Method::PATCH, &own, Some(&key), Some(edit)).await.body["description"], "new");
    for state in ["active", "disabled"] {
        api.public(Method::PATCH, &own, Some(&key), Some(json!({"state": state}))).await.is_problem(403);
    }
    let wish = json!({"target_agent_id": "other"});
    let refused = api.public(Method::POST, "/api/connections", Some(&key), Some(wish.clone())).await;
    refused.is_problem(403);
    assert!(refused.text.contains("waiting for approval"), "{}", refused.text);
    let probe = format!("{own}/probe");
    let refused = api.public(Method::POST, &probe, Some(&key), None).await;
    refused.is_problem(403);
    assert!(refused.text.contains("waiting for approval"), "{}", refused.text);
    assert_eq!(api.admin(Method::POST, &probe, None).await.status, 200, "who decides may look first");
    let refused = api.public(Method::GET, "/api/agents/other/extended-card", Some(&key), None).await;
    refused.is_problem(403);
    assert!(refused.text.contains("waiting"), "{}", refused.text);
    let proof = Request::builder().header("x-api-key", &key).body(()).expect("a request").into_parts().0.headers;
    let now = api.bench.clock.wall();
    let proved = crate::identity::identify(&proof, &api.control.directory.load(), now);
    assert!(matches!(proved, Err(CredentialError::Pending)), "it calls nobody");

    let inbox = api.admin(Method::GET, "/api/agents?state=pending", None).await;
    assert_eq!((&inbox.body["total"], &inbox.body["agents"][0]["id"]), (&json!(1), &json!(id)));
    let probe = api.bench.registry.probe_wanted();
    while futures_util::FutureExt::now_or_never(probe.notified()).is_some() {} // for the other
    let yes = json!({"state": "active", "reason": "known to us"});
    assert_eq!(api.admin(Method::PATCH, &own, Some(yes)).await.body["state"], "active");
    tokio::time::timeout(Duration::from_secs(5), probe.notified()).await.expect("approval has it probed at once");
    assert_eq!(api.public(Method::GET, &own, None, None).await.status, 200);
    assert_eq!(api.public(Method::POST, "/api/connections", Some(&key), Some(wish)).await.status, 201);
    let events = api.bench.events_of(&id).await.expect("reads");
    assert_eq!((events[0].action.as_str(), events[0].reason.as_deref()), ("agent.approve", Some("known to us")));
}

#[tokio::test]
async fn strangers_cannot_fill_the_registry_while_they_wait() {
    let api = Api::new().await;
    api.control.registry.set_registration(Registration::Approval { max_pending: 2 });
    let (first, key) = asking(&api, "first").await;
    asking(&api, "second").await;
    let third = json!({"name": "third"});
    let refused = api.public(Method::POST, "/api/agents", None, Some(third.clone())).await;
    refused.is_problem(503);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(api.admin(Method::POST, "/api/agents", Some(third)).await.body["state"], "active", "operators may");
    let no = json!({"reason": "unknown company"});
    assert_eq!(api.admin(Method::DELETE, &format!("/api/agents/{first}"), Some(no)).await.status, 204);
    let events = api.bench.events_of(&first).await.expect("reads");
    assert_eq!((events[0].action.as_str(), events[0].reason.as_deref()), ("agent.reject", Some("unknown company")));
    api.public(Method::GET, "/api/keys", Some(&key), None).await.is_problem(401);
    asking(&api, "fourth").await;
}

#[tokio::test]
async fn a_card_sent_as_a_form_by_curl_is_a_registration() {
    let api = Api::new().await;
    api.control.registry.set_registration(Registration::Open);
    let card =
        json!({"name": "Flask Agent", "description": "d", "url": "https://f.example/", "version": "1.0", "skills": []});
    let request = Request::post("/api/agents").header("content-type", "application/x-www-form-urlencoded");
    let made = api.raw(request.body(Body::from(card.to_string())).expect("a request")).await;
    assert_eq!((made.status.as_u16(), &made.body["slug"]), (201, &json!("flask-agent")), "{}", made.text);
    assert_eq!(made.body["state"], "active");
    assert!(made.body["api_key"].is_string() && made.body["signing_secret"].is_string());
}

#[tokio::test]
async fn nobody_but_its_owner_and_admins_changes_an_agent() {
    let api = Api::new().await;
    let (id, key) = api.agent("mine").await;
    let (_, other) = api.agent("other").await;
    let make = async |members: Value| {
        let made = api.public(Method::POST, "/api/keys", Some(&key), Some(members)).await;
        made.body["key"].as_str().expect("a key").to_owned()
    };
    let expired = make(json!({"name": "e", "expires_at": "2026-01-01T00:01:00Z"})).await;
    let revoked = api.public(Method::POST, "/api/keys", Some(&key), Some(json!({"name": "r"}))).await.body;
    let path = format!("/api/keys/{}", revoked["id"].as_str().expect("an id"));
    assert_eq!(api.public(Method::DELETE, &path, Some(&key), None).await.status, 204);
    api.bench.clock.advance(Duration::from_secs(60));
    let before = api.bench.events_of(&id).await.expect("reads").len();
    let changes = [
        (Method::PUT, format!("/api/agents/{id}")),
        (Method::PATCH, format!("/api/agents/{id}")),
        (Method::DELETE, format!("/api/agents/{id}")),
        (Method::POST, format!("/api/agents/{id}/signing-secret")),
    ];
    for (method, path) in changes {
        let body = Some(json!({"name": "stolen"}));
        for (who, status) in
            [(None, 401), (Some(expired.as_str()), 401), (revoked["key"].as_str(), 401), (Some(other.as_str()), 403)]
        {
            api.public(method.clone(), &path, who, body.clone()).await.is_problem(status);
        }
        api.operator(method.clone(), &path, Some(&api.auditor), body.clone()).await.is_problem(403);
        api.operator(method, &path, Some(&key), body).await.is_problem(401);
    }
    assert_eq!(api.bench.events_of(&id).await.expect("reads").len(), before, "nothing was changed");
}

#[tokio::test]
async fn a_new_signing_secret_is_shown_once_with_its_time() {
    let api = Api::new().await;
    let (id, key) = api.agent("one").await;
    let path = format!("/api/agents/{id}/signing-secret");
    let made = api.public(Method::POST, &path, Some(&key), Some(json!({"activate_after": "10min"}))).await;
    assert_eq!((made.status.as_u16(), &made.headers["cache-control"]), (200, &"no-store".parse().expect("a value")));
    assert_eq!(made.body["active_from"], "2026-01-01T00:10:00.000000Z");
    let secret = made.body["signing_secret"].as_str().expect("a secret").to_owned();
    let signs = || {
        let tag = |text: &str| {
            aws_lc_rs::hmac::sign(&aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, text.as_bytes()), b"x")
        };
        let directory = api.control.directory.load();
        let agent = directory.agent(id.parse().expect("an id")).expect("there");
        aws_lc_rs::hmac::verify(&agent.signing_key, b"x", tag(&secret).as_ref()).is_ok()
    };
    assert!(!signs());
    api.bench.clock.advance(Duration::from_secs(600));
    api.bench.registry.activate_due_secrets().await.expect("activates");
    let shown = api.public(Method::GET, &format!("/api/agents/{id}"), Some(&key), None).await;
    assert!(signs() && !shown.text.contains(&secret));
    for wrong in ["10", "soon", "31d"] {
        let answer = api.public(Method::POST, &path, Some(&key), Some(json!({"activate_after": wrong}))).await;
        answer.is_problem(400);
        assert_eq!(answer.body["member"], "activate_after");
    }
    assert_eq!(api.admin(Method::POST, &path, None).await.body["active_from"], "2026-01-01T00:10:00.000000Z");
}

#[tokio::test]
async fn the_extended_card_is_for_callers_the_gateway_knows() {
    let api = Api::new().await;
    let (one, one_key) = api.agent("one").await;
    let (_, two_key) = api.agent("two").await;
    let path = "/api/agents/one/extended-card";
    let refused = api.public(Method::GET, path, None, None).await;
    refused.is_problem(401);
    assert_eq!(refused.headers["www-authenticate"], "Bearer realm=\"trust-gateway\", scope=\"extended_agent_card\"");
    let card = api.public(Method::GET, path, Some(&two_key), None).await;
    assert_eq!((card.status.as_u16(), &card.body["name"]), (200, &json!("one")), "{}", card.text);
    let ours = &card.body["x-openagora"];
    assert_eq!((&ours["trust_level"], &ours["connection"]), (&json!("verified"), &Value::Null));
    assert_eq!((&ours["agent_id"], &ours["gateway_url"]), (&json!(one), &json!("https://gw.example/api/proxy/one")));
    let wish = json!({"target_agent_id": "one"});
    let tie = api.public(Method::POST, "/api/connections", Some(&two_key), Some(wish)).await.body;
    let tie = format!("/api/connections/{}", tie["id"].as_str().or(tie["connection"]["id"].as_str()).expect("an id"));
    for (action, status, level) in [("accept", 200, "connected"), ("block", 403, "blocked")] {
        let done = api.public(Method::PUT, &tie, Some(&one_key), Some(json!({"action": action}))).await;
        assert_eq!(done.status, 200, "{}", done.text);
        let answer = api.public(Method::GET, path, Some(&two_key), None).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        let seen =
            if status == 200 { &answer.body["x-openagora"]["trust_level"] } else { &answer.body["your_trust_level"] };
        assert_eq!(seen, level);
    }
    let answer = api.public(Method::GET, path, Some(&two_key), None).await;
    assert!(
        answer.body["error"].is_string() && answer.body["message"].is_string() && answer.body["required"].is_string()
    );
}

#[tokio::test]
async fn pages_follow_one_another_by_their_cursor_although_agents_come_and_go() {
    let api = Api::new().await;
    for n in 0..7 {
        api.agent(&format!("agent-{n}")).await;
        api.bench.clock.advance(Duration::from_secs(1));
    }
    let mut seen = Vec::new();
    let mut path = "/api/agents?limit=3".to_owned();
    loop {
        let page = api.public(Method::GET, &path, None, None).await.body;
        seen.extend(page["agents"].as_array().expect("a list").iter().map(|row| row["slug"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        assert!(seen.len() <= 7, "{seen:?}");
        path = format!("/api/agents?limit=3&next={next}");
        api.agent(&format!("newcomer-{}", seen.len())).await;
    }
    assert_eq!(seen, (0..7).rev().map(|n| json!(format!("agent-{n}"))).collect::<Vec<_>>());
    api.public(Method::GET, "/api/agents?next=nonsense", None, None).await.is_problem(400);
}

#[tokio::test]
async fn words_are_found_wherever_they_stand_and_tags_are_tags() {
    let api = Api::new().await;
    for (name, description, skill, tag) in
        [("Weather", "tells the forecast", "Sunshine", "Meteo"), ("Meteo", "prices of options", "Forecast", "finance")]
    {
        let skills = json!([{"id": skill, "name": skill, "tags": [tag]}]);
        let provider = if name == "Meteo" { "ACME" } else { "Other" };
        let body = json!({"name": name, "description": description, "url": format!("https://{name}.example"),
            "provider": provider, "skills": skills});
        assert_eq!(api.admin(Method::POST, "/api/agents", Some(body)).await.status, 201);
    }
    for (query, total) in [
        ("q=forecast", 2),
        ("q=forecast+weather", 1),
        ("q=WEATHER%20suns%20te", 1),
        ("q=forecast+weather+options", 0),
        ("search=meteo", 2),
        ("tag=METEO", 1),
        ("tag=met", 0),
        ("skill=meteo", 1),
        ("tag=forecast", 0),
        ("provider=acme", 1),
        ("provider=acm", 0),
    ] {
        let found = api.public(Method::GET, &format!("/api/agents?{query}"), None, None).await.body;
        assert_eq!(found["total"], total, "{query}");
    }
}

#[tokio::test]
async fn operators_see_what_a_deleted_agent_was() {
    let api = Api::new().await;
    let (id, key) = api.agent("gone").await;
    assert_eq!(api.public(Method::DELETE, "/api/agents/gone", Some(&key), None).await.status, 204);
    for name in ["gone", &id] {
        let shown = api.admin(Method::GET, &format!("/api/agents/{name}"), None).await;
        assert_eq!((&shown.body["name"], &shown.body["state"]), (&json!("gone"), &json!("deleted")), "{}", shown.text);
        api.public(Method::GET, &format!("/api/agents/{name}"), None, None).await.is_problem(404);
    }
    assert_eq!(api.admin(Method::GET, "/api/agents", None).await.body["total"], 0);
}

#[tokio::test]
async fn the_instructions_for_agents_say_how_it_is_here() {
    let api = Api::new().await;
    for (registration, said) in [
        (Registration::Closed, "closed"),
        (Registration::Approval { max_pending: 1 }, "`pending`"),
        (Registration::Open, "at once"),
    ] {
        api.control.registry.set_registration(registration);
        let text = api.public(Method::GET, "/skill", None, None).await;
        assert_eq!(text.headers["content-type"], "text/markdown; charset=utf-8");
        assert!(text.text.contains(said) && text.text.contains(PUBLIC_URL), "{}", text.text);
    }
}

#[tokio::test]
async fn calls_to_the_operators_door_are_sent_to_the_other() {
    let api = Api::new().await;
    api.agent("one").await;
    for path in ["/api/agents/one/test", "/api/proxy/one", "/relay/one/x"] {
        let answer = api.admin(Method::POST, path, Some(json!({}))).await;
        answer.is_problem(404);
        assert!(answer.text.contains("https://gw.example/api/proxy/"), "{}", answer.text);
    }
    let card = api.public(Method::GET, "/agents/one/agent-card.json", None, None).await;
    assert_eq!((card.status.as_u16(), &card.body["name"]), (200, &json!("one")));
}
