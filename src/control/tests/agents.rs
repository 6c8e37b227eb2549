use super::*;

#[tokio::test]
async fn a_registration_answers_with_row_key_and_secret_and_works_at_once() {
    let api = Api::new().await;
    let before = api.bench.reloads();
    let body = json!({
        "name": "Calc", "slug": "calc", "url": "https://calc.example/a2a", "description": "adds", "provider": "ACME",
        "capabilities": ["streaming"], "skills": [{"name": "Sum", "description": "adds", "tags": ["math"]}],
        "payment_schemes": ["x402"], "payment_address": "0x1", "unknown": {"member": 1},
    });
    let made = api.admin(Method::POST, "/api/agents", Some(body)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(api.bench.reloads(), before + 1);
    assert_eq!(made.headers["cache-control"], "no-store");
    let key = made.body["api_key"].as_str().expect("a key");
    assert!(key.starts_with("oag_") && key.len() == 61, "{key}");
    assert_eq!(made.body["signing_secret"].as_str().expect("a secret").len(), 64);
    assert!(made.body["warning"].is_string());
    for (member, value) in [
        ("slug", json!("calc")),
        ("url", json!("https://gw.example/api/proxy/calc")),
        ("relay_url", json!("https://gw.example/relay/calc")),
        ("endpoint_url", json!("https://calc.example/a2a")),
        ("health_status", json!("unknown")),
        ("skills", json!([{"name": "Sum", "description": "adds", "tags": ["math"]}])),
        ("agent_skills", json!([{"name": "Sum", "description": "adds", "tags": ["math"]}])),
        ("payment_schemes", json!(["x402"])),
        ("capabilities", json!(["streaming"])),
        ("provider", json!("ACME")),
    ] {
        assert_eq!(made.body[member], value, "{member}");
    }
    let own = api.public(Method::GET, "/api/agents/calc", Some(key), None).await;
    assert_eq!(own.body["endpoint_url"], "https://calc.example/a2a");
    assert!(!own.text.contains(key) && own.body.get("signing_secret").is_none());
}

#[tokio::test]
async fn a_bare_card_is_a_registration_with_a_slug_of_its_name() {
    let api = Api::new().await;
    api.control.registry.set_registration(Registration::Open);
    let old = json!({
        "name": "Weather Agent", "description": "d", "url": "https://w.example/", "version": "1.0.0",
        "provider": {"organization": "ACME", "url": "https://acme.example"},
        "capabilities": {"streaming": true, "pushNotifications": false},
        "skills": [{"id": "s", "name": "Forecast", "description": "d", "tags": ["weather"]}], "iconUrl": "nonsense",
    });
    let made = api.public(Method::POST, "/api/agents", None, Some(old)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.body["slug"], "weather-agent");
    assert_eq!(made.body["endpoint_url"], "https://w.example/");
    assert_eq!(made.body["provider"], "ACME");
    assert_eq!(made.body["capabilities"], json!(["streaming"]));

    let new = json!({
        "name": "Weather Agent", "supportedInterfaces": [
            {"url": "https://v.example/grpc", "protocolBinding": "GRPC"},
            {"url": "https://v.example/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
        ],
    });
    let made = api.public(Method::POST, "/api/agents", None, Some(new)).await;
    assert_eq!(
        (made.body["slug"].clone(), made.body["endpoint_url"].clone()),
        (json!("weather-agent-2"), json!("https://v.example/rpc"))
    );
}

#[tokio::test]
async fn closed_registration_is_for_operators() {
    let api = Api::new().await;
    let (_, key) = api.agent("one").await;
    let body = json!({"name": "x", "url": "https://x.example"});
    api.public(Method::POST, "/api/agents", None, Some(body.clone())).await.is_problem(403);
    api.public(Method::POST, "/api/agents", Some(&key), Some(body.clone())).await.is_problem(403);
    assert_eq!(api.admin(Method::POST, "/api/agents", Some(body)).await.status, 201);
}

#[tokio::test]
async fn private_addresses_are_for_operators_to_register() {
    let api = Api::new().await;
    api.control.registry.set_registration(Registration::Open);
    let body = json!({"name": "x", "url": "http://127.0.0.1:9"});
    let refused = api.public(Method::POST, "/api/agents", None, Some(body.clone())).await;
    refused.is_problem(400);
    assert_eq!(refused.body["member"], "url");
    assert_eq!(api.admin(Method::POST, "/api/agents", Some(body)).await.status, 201);
    let metadata = json!({"name": "y", "url": "http://169.254.169.254/"});
    api.admin(Method::POST, "/api/agents", Some(metadata)).await.is_problem(400);
}

#[tokio::test]
async fn an_owner_cannot_move_an_operators_agent_into_the_private_network_or_take_its_credential_along() {
    let api = Api::new().await;
    let body =
        json!({"name": "x", "slug": "xxx", "url": "http://10.0.0.1/a", "upstream_credential": {"bearer": "canary"}});
    let made = api.admin(Method::POST, "/api/agents", Some(body)).await;
    let key = made.body["api_key"].as_str().expect("a key");
    assert!(!made.text.contains("canary"));
    let put = |body: Value| api.public(Method::PUT, "/api/agents/xxx", Some(key), Some(body));
    put(json!({"url": "http://10.0.0.2/"})).await.is_problem(400);
    put(json!({"card_url": "http://10.0.0.2/card"})).await.is_problem(400);
    // A name may lead into the private network that was opened for the endpoint.
    put(json!({"card_url": "https://inside.example/card"})).await.is_problem(400);
    let same = put(json!({"endpoint_url": "http://10.0.0.1/a", "description": "new"})).await;
    assert_eq!(
        (same.status.as_u16(), same.body["has_upstream_credential"].clone()),
        (200, json!(true)),
        "{}",
        same.text
    );
    let moved = put(json!({"url": "https://evil.example/"})).await;
    assert_eq!(moved.status, 200, "{}", moved.text);
    assert_eq!(moved.body["has_upstream_credential"], false);
    assert_eq!(moved.body["registered_by_operator"], false);
    put(json!({"url": "http://10.0.0.1/a"})).await.is_problem(400);
}

#[tokio::test]
async fn a_refused_registration_names_the_member() {
    let api = Api::new().await;
    for (body, member) in [
        (json!({"url": "https://x.example"}), "name"),
        (json!({"name": 7}), "name"),
        (json!({"name": "a\u{1b}[2J"}), "name"),
        (json!({"name": "x", "slug": "X"}), "slug"),
        (json!({"name": "x", "slug": "0197c0de-0000-7000-8000-000000000000"}), "slug"),
        (json!({"name": "x", "url": "ftp://x.example"}), "url"),
        (json!({"name": "x", "url": "https://u:p@x.example"}), "url"),
        (json!({"name": "x", "url": "https://gw.example/api/proxy/y"}), "url"),
        (json!({"name": "x", "url": 5}), "url"),
        (json!({"name": "x", "skills": "sum"}), "skills"),
        (json!({"name": "x", "skills": [{}]}), "skills[0].name"),
        (json!({"name": "x", "listed": "yes"}), "listed"),
        (json!({"name": "x", "push": "maybe"}), "push"),
        (json!({"name": "x", "subpaths": ["/../y"]}), "subpaths"),
        (json!({"name": "x", "max_in_flight": -1}), "max_in_flight"),
        (json!({"name": "x", "timeouts": {"idle_ms": "1s"}}), "idle_ms"),
        (json!({"name": "x", "timeouts": {"idle_ms": 0}}), "timeouts"),
        (json!({"name": "x", "upstream_credential": {"header": "Host", "value": "y"}}), "upstream_credential"),
        (
            json!({"name": "x", "upstream_credential": {"header": "x-openagora-caller-id", "value": "y"}}),
            "upstream_credential",
        ),
        (json!({"name": "x", "upstream_credential": {"header": "a", "value": "y\r\nb: c"}}), "upstream_credential"),
    ] {
        let answer = api.admin(Method::POST, "/api/agents", Some(body.clone())).await;
        answer.is_problem(400);
        assert_eq!(answer.body["member"], member, "{body}");
    }
}

#[tokio::test]
async fn a_taken_slug_or_address_is_409() {
    let api = Api::new().await;
    api.agent("one").await;
    let slug = json!({"name": "x", "slug": "one", "url": "https://x.example"});
    api.admin(Method::POST, "/api/agents", Some(slug)).await.is_problem(409);
    let url = json!({"name": "x", "url": "https://one.example/secret-path/"});
    api.admin(Method::POST, "/api/agents", Some(url)).await.is_problem(409);
}

#[tokio::test]
async fn an_agent_without_address_is_a_client() {
    let api = Api::new().await;
    let made = api.admin(Method::POST, "/api/agents", Some(json!({"name": "Caller"}))).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!((made.body["client"].clone(), made.body["url"].clone()), (json!(true), Value::Null));
    assert_eq!(
        api.public(Method::GET, "/api/agents", None, None).await.body["total"],
        0,
        "clients are not for calling"
    );
}

#[tokio::test]
async fn nothing_private_reaches_strangers() {
    let api = Api::new().await;
    let (id, _) = api.agent("one").await;
    let (_, other) = api.agent("two").await;
    for key in [None, Some(other.as_str())] {
        for path in ["/api/agents", "/api/agents/find", "/api/agents/one", &format!("/api/agents/{id}")] {
            let answer = api.public(Method::GET, path, key, None).await;
            assert_eq!(answer.status, 200);
            for private in ["secret-path", "endpoint_url", "upstream", "signing", "api_key"] {
                // An agent sees what is its own.
                let own = key.is_some() && answer.text.contains("two.example");
                assert!(own || !answer.text.contains(private), "{path} {private}: {}", answer.text);
            }
        }
    }
    assert!(!api.public(Method::GET, "/api/agents/one", Some(&other), None).await.text.contains("secret-path"));
}

#[tokio::test]
async fn lists_filter_before_they_page() {
    let api = Api::new().await;
    for n in 0..25 {
        let skills = if n % 5 == 0 { json!([{"name": "Sum", "tags": ["Maths"]}]) } else { json!([]) };
        let body = json!({"name": format!("Agent {n}"), "url": format!("https://a{n}.example"), "skills": skills});
        assert_eq!(api.admin(Method::POST, "/api/agents", Some(body)).await.status, 201);
    }
    let page = api.public(Method::GET, "/api/agents", None, None).await.body;
    assert_eq!((page["total"].clone(), page["page"].clone(), page["limit"].clone()), (json!(25), json!(1), json!(20)));
    assert_eq!(page["agents"].as_array().expect("a list").len(), 20);
    let page = api.public(Method::GET, "/api/agents?skill=maths&limit=2&page=3", None, None).await.body;
    assert_eq!((page["total"].clone(), page["agents"].as_array().expect("a list").len()), (json!(5), 1));
    for query in ["q=agent+24", "search=AGENT%2024"] {
        assert_eq!(
            api.public(Method::GET, &format!("/api/agents?{query}"), None, None).await.body["total"],
            1,
            "{query}"
        );
    }
    assert_eq!(api.public(Method::GET, "/api/agents?limit=500", None, None).await.body["limit"], 50);
    assert_eq!(api.public(Method::GET, "/api/agents?status=unknown&q=", None, None).await.body["total"], 25);
    for bad in ["limit=x", "page=0", "status=asleep"] {
        api.public(Method::GET, &format!("/api/agents?{bad}"), None, None).await.is_problem(400);
    }
    let found = api.public(Method::GET, "/api/agents/find?skill=Sum", None, None).await.body;
    assert_eq!((found["total"].clone(), found["agents"][0]["health"].clone()), (json!(5), json!("unknown")));
    assert_eq!(found["agents"][0]["relay_url"], "https://gw.example/relay/agent-20");
}

#[tokio::test]
async fn agents_that_are_not_listed_exist_for_those_they_deal_with_only() {
    let api = Api::new().await;
    let (hidden, hidden_key) = api.agent("hidden").await;
    let (friend, friend_key) = api.agent("friend").await;
    let (_, stranger_key) = api.agent("stranger").await;
    let unlist = json!({"listed": false});
    assert_eq!(api.public(Method::PUT, "/api/agents/hidden", Some(&hidden_key), Some(unlist)).await.status, 200);
    let wish = json!({"target_agent_id": friend});
    assert_eq!(api.public(Method::POST, "/api/connections", Some(&hidden_key), Some(wish)).await.status, 201);
    let ask = |key: Option<String>| {
        let (api, path) = (&api, format!("/api/agents/{hidden}"));
        async move { api.public(Method::GET, &path, key.as_deref(), None).await }
    };
    assert_eq!(ask(Some(hidden_key.clone())).await.status, 200);
    assert_eq!(ask(Some(friend_key.clone())).await.status, 200);
    let list = api.public(Method::GET, "/api/connections", Some(&hidden_key), None).await.body;
    let path = format!("/api/connections/{}", list["connections"][0]["id"].as_str().expect("an id"));
    for (action, status) in [("block", 404), ("unblock", 404), ("accept", 200)] {
        // To block whom one has asked is to take the request back: what is between them is over until the friend is asked again.
        if action == "accept" {
            let wish = json!({"target_agent_id": friend});
            assert_eq!(api.public(Method::POST, "/api/connections", Some(&hidden_key), Some(wish)).await.status, 201);
        }
        let key = if action == "accept" { &friend_key } else { &hidden_key };
        let done = api.public(Method::PUT, &path, Some(key), Some(json!({"action": action}))).await;
        assert_eq!(done.status, 200, "{}", done.text);
        assert_eq!(ask(Some(friend_key.clone())).await.status, status, "after {action}");
    }
    let block = json!({"action": "block"});
    assert_eq!(api.public(Method::PUT, &path, Some(&hidden_key), Some(block)).await.body["agreement"], "connected");
    ask(Some(friend_key)).await.is_problem(404);
    let unknown = api.public(Method::GET, "/api/agents/no-such-agent", None, None).await;
    for key in [None, Some(stranger_key.clone())] {
        let refused = ask(key).await;
        refused.is_problem(404);
        assert_eq!(refused.text, unknown.text, "unknown and hidden look the same");
    }
    let wish = json!({"target_agent_id": "hidden"});
    api.public(Method::POST, "/api/connections", Some(&stranger_key), Some(wish)).await.is_problem(404);
    assert_eq!(api.public(Method::GET, "/api/agents", None, None).await.body["total"], 2);
    assert_eq!(api.admin(Method::GET, "/api/agents", None).await.body["total"], 3);
}

#[tokio::test]
async fn an_agent_changes_itself_and_nobody_else() {
    let api = Api::new().await;
    let (id, key) = api.agent("one").await;
    let (_, other) = api.agent("two").await;
    let path = format!("/api/agents/{id}");
    let shown = api.public(Method::GET, &path, Some(&key), None).await.body;
    let mut echo = shown.clone();
    echo["description"] = json!("new");
    echo["skills"] = json!([{"name": "Sum"}]);
    echo.as_object_mut().expect("a row").remove("slug");
    let done = api.public(Method::PUT, &path, Some(&key), Some(echo)).await;
    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(done.body["endpoint_url"], shown["endpoint_url"], "the gateway's own address as url says nothing");
    assert_eq!(
        (done.body["description"].clone(), done.body["skills"].clone()),
        (json!("new"), json!([{"name": "Sum"}]))
    );
    let relay = json!({"url": "https://gw.example/relay/one"});
    let done = api.public(Method::PUT, &path, Some(&key), Some(relay)).await;
    assert_eq!((done.status.as_u16(), &done.body["endpoint_url"]), (200, &shown["endpoint_url"]), "{}", done.text);
    api.public(Method::PUT, &path, Some(&other), Some(json!({"name": "x"}))).await.is_problem(403);
    api.public(Method::PUT, &path, None, Some(json!({"name": "x"}))).await.is_problem(401);
    api.public(Method::PUT, &path, Some(&key), Some(json!({"slug": "two"}))).await.is_problem(409);
    let renamed = api.public(Method::PUT, &path, Some(&key), Some(json!({"slug": "uno"}))).await;
    assert_eq!(renamed.body["url"], "https://gw.example/api/proxy/uno");
    assert_eq!(
        api.public(Method::GET, "/api/agents/one", None, None).await.body["slug"],
        "uno",
        "the old slug leads on"
    );
}

#[tokio::test]
async fn what_an_owner_switched_off_or_deleted_stays_so() {
    let api = Api::new().await;
    let (id, key) = api.agent("one").await;
    let path = format!("/api/agents/{id}");
    let off = api.public(Method::PUT, &path, Some(&key), Some(json!({"state": "disabled"}))).await;
    assert_eq!(off.body["state"], "disabled");
    api.public(Method::PUT, &path, Some(&key), Some(json!({"state": "active"}))).await.is_problem(403);
    api.public(Method::GET, &path, None, None).await.is_problem(404);
    assert_eq!(api.admin(Method::PUT, &path, Some(json!({"state": "active"}))).await.body["state"], "active");
    assert_eq!(api.admin(Method::PUT, &path, Some(json!({"state": "pending"}))).await.body["state"], "pending");
    api.public(Method::PUT, &path, Some(&key), Some(json!({"state": "active"}))).await.is_problem(403);
    let (_, other) = api.agent("two").await;
    assert_eq!(api.admin(Method::PUT, &path, Some(json!({"state": "active"}))).await.body["state"], "active");
    api.public(Method::DELETE, &path, Some(&other), None).await.is_problem(403);
    assert_eq!(api.public(Method::DELETE, &path, Some(&key), None).await.status, 204);
    api.public(Method::GET, &path, None, None).await.is_problem(404);
    api.public(Method::GET, "/api/keys", Some(&key), None).await.is_problem(401);
    api.admin(Method::DELETE, &path, None).await.is_problem(404);
}

#[tokio::test]
async fn a_card_is_served_with_its_validator() {
    let api = Api::new().await;
    let (id, _) = api.agent("one").await;
    for name in ["one", &id] {
        let path = format!("/api/agents/{name}/agent-card.json");
        let card = api.public(Method::GET, &path, None, None).await;
        assert_eq!((card.status.as_u16(), card.body["name"].clone()), (200, json!("one")));
        assert_eq!(card.headers["content-type"], "application/json");
        assert_eq!(card.body["url"], format!("{PUBLIC_URL}/api/proxy/one/"));
        let etag = card.headers["etag"].to_str().expect("text");
        let again = Request::get(&path).header("if-none-match", format!("W/\"v0\", {etag}")).body(Body::empty());
        let again = api.raw(again.expect("a request")).await;
        assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));
    }
    api.public(Method::GET, "/api/agents/nobody/agent-card.json", None, None).await.is_problem(404);
}

#[tokio::test]
async fn every_change_is_noted_with_its_author_and_without_secrets() {
    let api = Api::new().await;
    let credential = json!({"upstream_credential": {"bearer": "canary-token"}});
    let (id, key) = api.agent("one").await;
    api.public(Method::PUT, "/api/agents/one", Some(&key), Some(credential)).await;
    let events = api.bench.events_of(&id).await.expect("reads");
    let seen: Vec<(&str, &str)> = events.iter().map(|event| (event.action.as_str(), event.actor.as_str())).collect();
    assert_eq!(seen, [("agent.update", format!("agent:{id}").as_str()), ("agent.create", "operator:root")]);
    let text = format!("{events:?}");
    assert!(text.contains("***") && !text.contains("canary-token") && !text.contains(&key));
}

#[tokio::test]
async fn a_search_too_long_for_the_database_is_refused_and_every_other_is_answered() {
    let api = Api::new().await;
    let words = |word: &str, count| vec![word; count].join("+");
    for name in ["q", "search", "skill", "tag", "provider"] {
        for text in [words("a", 4_000), words("abc", 4_000), "x".repeat(60_000)] {
            for path in ["/api/agents", "/api/agents/find"] {
                api.public(Method::GET, &format!("{path}?{name}={text}"), None, None).await.is_problem(400);
            }
        }
        for text in [words("a", 250), words("abc", 125), "x".repeat(500)] {
            let found = api.public(Method::GET, &format!("/api/agents?{name}={text}"), None, None).await;
            assert_eq!(found.body["total"], 0, "{}", found.text);
        }
    }
}
