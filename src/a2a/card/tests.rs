use proptest::prelude::*;

use super::*;

fn facts() -> CardFacts {
    CardFacts {
        base_url: "https://gate.example/api/proxy/echo/".into(),
        name: "Registered".into(),
        description: "As registered".into(),
        provider: None,
        skills_json: r#"[{"name":"Registered skill"}]"#.into(),
        endpoint: Some(Url::parse("http://agent.internal:9000/a2a").expect("a URL")),
        streaming: false,
        push_pass: false,
        extended_card: false,
        anonymous_allowed: false,
    }
}

fn built(own: &Value) -> (Value, Vec<String>) {
    let card = build(Some(own.to_string().as_bytes()), &facts());
    (serde_json::from_slice(&card.json).expect("JSON"), card.warnings)
}

fn versions(card: &Value) -> Vec<(&str, &str, &str)> {
    let text = |v: &'static str, i| -> &str { Value::as_str(&card["supportedInterfaces"][i][v]).expect(v) };
    let count = card["supportedInterfaces"].as_array().map_or(0, Vec::len);
    (0..count).map(|i| (text("protocolBinding", i), text("protocolVersion", i), text("url", i))).collect()
}

const RPC: &str = "https://gate.example/api/proxy/echo/";
const REST: &str = "https://gate.example/api/proxy/echo";

#[test]
fn an_agent_without_a_card_gets_one_from_its_registration() {
    let card: Value = serde_json::from_slice(&build(None, &facts()).json).expect("JSON");
    assert_eq!(card["name"], "Registered");
    assert_eq!(card["description"], "As registered");
    assert_eq!(card["url"], RPC);
    assert_eq!(card["protocolVersion"], "0.3.0");
    assert_eq!(card["capabilities"], json!({"streaming": false, "pushNotifications": false}));
    assert_eq!(
        card["skills"],
        json!([{"id": "Registered skill", "name": "Registered skill", "description": "Registered skill", "tags": []}])
    );
    assert!(card.get("supportedInterfaces").is_none());
}

#[test]
fn a_minimal_card_is_completed_and_claims_only_the_old_version() {
    let (card, _) = built(&json!({"name": "F", "url": "http://agent.internal:9000/a2a", "skills": ["translate"]}));
    assert_eq!((&card["name"], &card["url"], &card["protocolVersion"]), (&json!("F"), &json!(RPC), &json!("0.3.0")));
    assert_eq!(card["skills"][0]["id"], "translate");
    assert!(card.get("supportedInterfaces").is_none());
}

#[test]
fn both_families_point_at_the_gateway_and_claim_what_the_agent_claims() {
    let (card, warnings) = built(&json!({
        "name": "H", "url": "http://agent.internal:9000/a2a/", "protocolVersion": "0.3.0", "preferredTransport": "JSONRPC",
        "additionalInterfaces": [{"url": "http://agent.internal:9000/a2a", "transport": "HTTP+JSON"}],
        "supportedInterfaces": [
            {"url": "http://agent.internal:9000/a2a", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
            {"url": "http://agent.internal:9000/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0", "tenant": "t"},
            {"url": "agent.internal:9001", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
        ],
    }));
    assert_eq!(
        versions(&card),
        [("HTTP+JSON", "1.0", REST), ("JSONRPC", "1.0", RPC), ("JSONRPC", "0.3.0", RPC), ("HTTP+JSON", "0.3.0", REST)]
    );
    assert_eq!(card["supportedInterfaces"][1]["tenant"], "t");
    assert_eq!((&card["url"], &card["protocolVersion"]), (&json!(RPC), &json!("0.3.0")));
    assert_eq!(
        card["additionalInterfaces"],
        json!([{"url": RPC, "transport": "JSONRPC"}, {"url": REST, "transport": "HTTP+JSON"}])
    );
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn an_agent_of_the_new_version_alone_is_not_said_to_speak_the_old_one() {
    let (card, _) = built(&json!({"name": "N", "supportedInterfaces": [
        {"url": "http://agent.internal:9000/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]}));
    assert_eq!(versions(&card), [("JSONRPC", "1.0", RPC)]);
    assert_eq!((&card["url"], &card["protocolVersion"]), (&json!(RPC), &json!("1.0")));
}

#[test]
fn the_old_members_do_not_add_an_interface_without_the_tenant() {
    let (card, _) = built(&json!({"name": "N", "url": "http://agent.internal:9000/a2a", "protocolVersion": "1.0",
        "supportedInterfaces": [{"url": "http://agent.internal:9000/a2a", "protocolBinding": "JSONRPC",
            "protocolVersion": "1.0", "tenant": "t"}]}));
    assert_eq!(versions(&card).len(), 1, "{card}");
}

#[test]
fn an_interface_on_another_host_is_dropped_and_reported() {
    let (card, warnings) = built(&json!({"name": "N", "supportedInterfaces": [
        {"url": "http://elsewhere.example/a2a", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
        {"url": "http://agent.internal:9000/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]}));
    assert_eq!(versions(&card), [("JSONRPC", "1.0", RPC)]);
    assert!(warnings.iter().any(|w| w.contains("elsewhere.example")), "{warnings:?}");
}

#[test]
fn a_rest_interface_beside_the_endpoint_cannot_be_reached_and_is_dropped() {
    let (card, warnings) = built(&json!({"name": "N", "supportedInterfaces": [
        {"url": "http://agent.internal:9000/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
        {"url": "http://agent.internal:9000/rest", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"}]}));
    assert_eq!(versions(&card), [("JSONRPC", "1.0", RPC)]);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn a_server_that_does_not_know_its_own_address_keeps_its_versions() {
    for url in ["http://0.0.0.0:8000", "http://localhost:9000/a2a", "https://public.example/x"] {
        let (card, warnings) = built(&json!({"name": "N", "supportedInterfaces": [
            {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]}));
        assert_eq!(versions(&card), [("JSONRPC", "1.0", RPC)], "{url}");
        assert!(!card.to_string().contains("8000") && !card.to_string().contains("public.example"));
        assert_eq!(warnings.is_empty(), url.ends_with("9000/a2a"), "{url} {warnings:?}");
    }
}

#[test]
fn only_the_gateways_credential_is_declared_and_anonymity_comes_after_it() {
    let own = json!({"name": "N", "securitySchemes": {"key": {"type": "apiKey"}}, "security": [{"key": []}],
        "security_requirements": [{"schemes": {"key": {}}}], "skills": [{"name": "s", "security": [{"key": []}]}]});
    let (card, _) = built(&own);
    assert_eq!(card["security"], json!([{"bearer": []}]));
    assert_eq!(card["securityRequirements"], json!([{"schemes": {"bearer": {"list": []}}}]));
    assert!(!card.to_string().contains("\"key\""), "{card}");
    let open = build(Some(own.to_string().as_bytes()), &CardFacts { anonymous_allowed: true, ..facts() });
    let open: Value = serde_json::from_slice(&open.json).expect("JSON");
    assert_eq!(open["security"], json!([{"bearer": []}, {}]));
    assert_eq!(open["securityRequirements"][1], json!({"schemes": {}}));
}

#[test]
fn capabilities_are_only_ever_lowered() {
    let own =
        json!({"name": "N", "capabilities": {"streaming": true, "pushNotifications": true, "extendedAgentCard": true}});
    let (card, _) = built(&own);
    assert_eq!(card["capabilities"], json!({"streaming": true, "pushNotifications": false}));
    let all = CardFacts { push_pass: true, extended_card: true, streaming: true, ..facts() };
    let passed: Value = serde_json::from_slice(&build(Some(own.to_string().as_bytes()), &all).json).expect("JSON");
    assert_eq!(
        passed["capabilities"],
        json!({"streaming": true, "pushNotifications": true, "extendedAgentCard": true})
    );
    let none: Value = serde_json::from_slice(&build(Some(br#"{"capabilities":{}}"#), &all).json).expect("JSON");
    assert_eq!(none["capabilities"], json!({"streaming": false, "pushNotifications": false}));
}

#[test]
fn unknown_members_stay_unless_they_hold_an_address() {
    let (card, warnings) =
        built(&json!({"name": "N", "x-note": {"a": [1, "two"]}, "metadata": {"hook": ["wss://x.example"]},
        "grpc": "agent.internal:50051", "agent.internal": 1, "signatures": [{"protected": "x"}],
        "Supported_Interfaces": [], "capabilities": {"extensions": [
            {"uri": "https://ext.example/v1", "required": true, "params": {"roles": ["a"]}},
            {"uri": "https://ext.example/v2", "params": {"cb": "http://agent.internal/"}}, {"no": "uri"}]}}));
    assert_eq!(card["x-note"], json!({"a": [1, "two"]}));
    for gone in ["metadata", "grpc", "agent.internal", "signatures", "Supported_Interfaces"] {
        assert!(card.get(gone).is_none(), "{gone}");
    }
    assert_eq!(
        card["capabilities"]["extensions"],
        json!([{"uri": "https://ext.example/v1", "required": true, "params": {"roles": ["a"]}}, {"uri": "https://ext.example/v2"}])
    );
    assert_eq!(warnings.len(), 5, "{warnings:?}");
}

#[test]
fn links_that_give_the_agent_away_are_left_out() {
    let with = |url: &str| {
        built(&json!({"name": "N", "documentationUrl": url, "iconUrl": url, "provider": {"organization": "O", "url": url}})).0
    };
    let shown = with("https://docs.example/x");
    assert_eq!(
        (&shown["documentationUrl"], &shown["provider"]["organization"]),
        (&json!("https://docs.example/x"), &json!("O"))
    );
    for url in [
        "http://agent.internal:9000/docs",
        "http://10.1.2.3/",
        "http://[::1]/",
        "http://printer/",
        "http://db.internal/",
        "javascript:alert(1)",
        "https://user:pw@docs.example/",
        "docs",
    ] {
        let card = with(url);
        assert!(card.get("documentationUrl").is_none() && card.get("iconUrl").is_none(), "{url}");
        assert!(card.get("provider").is_none(), "{url}");
    }
}

#[test]
fn an_unsound_card_is_treated_as_absent() {
    let huge = json!({"name": "x".repeat(MAX_CARD)}).to_string();
    for own in [r#"{"name":"a","name":"b"}"#, r#"{"name":"a","x":[{"y":1,"y":2}]}"#, "[]", "{", huge.as_str()] {
        let card = build(Some(own.as_bytes()), &facts());
        assert_eq!(card.json, build(None, &facts()).json);
        assert_eq!(card.warnings.len(), 1);
    }
}

#[test]
fn the_tag_changes_with_the_card_and_only_with_it() {
    let (one, two) = (build(None, &facts()), build(None, &CardFacts { name: "Other".into(), ..facts() }));
    assert_eq!(one.etag, build(None, &facts()).etag);
    assert_ne!(one.etag, two.etag);
    assert_eq!((one.etag.len(), one.etag.starts_with('"'), one.etag.ends_with('"')), (34, true, true));
}

#[test]
fn a_bare_card_is_enough_to_register() {
    let facts = facts_of(
        json!({"name": "N", "description": "D", "url": "http://a.example/", "version": "2", "skills": [{"name": "s"}],
            "capabilities": {"streaming": true, "pushNotifications": false}, "provider": {"organization": "O"}})
        .to_string()
        .as_bytes(),
    )
    .expect("a card");
    assert_eq!(
        (facts.name.as_str(), facts.url.as_deref(), facts.provider.as_deref()),
        ("N", Some("http://a.example/"), Some("O"))
    );
    assert_eq!(facts.capabilities, ["streaming"]);
    assert_eq!(facts.skills_json, r#"[{"description":"s","id":"s","name":"s","tags":[]}]"#);
    assert_eq!(facts_of(b"{}"), Err(CardError::NoName));
    assert_eq!(facts_of(b"[]"), Err(CardError::NotAnObject));
    assert_eq!(facts_of(&vec![b' '; MAX_CARD + 1]), Err(CardError::TooLarge));
    let modern = json!({"name": "N", "supportedInterfaces": [
        {"url": "http://r", "protocolBinding": "HTTP+JSON"}, {"url": "http://j", "protocolBinding": "JSONRPC"}]});
    assert_eq!(facts_of(modern.to_string().as_bytes()).expect("a card").url.as_deref(), Some("http://j"));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z ]{0,6}".prop_map(Value::from),
        prop::sample::select(vec![
            "http://agent.internal:9000/a2a",
            "https://foreign.example/x",
            "JSONRPC",
            "HTTP+JSON",
            "GRPC",
            "0.3.0",
            "1.0",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let keys = prop::sample::select(vec![
            "url",
            "transport",
            "protocolBinding",
            "protocolVersion",
            "protocol_version",
            "tenant",
            "name",
            "id",
            "tags",
            "streaming",
            "extensions",
            "uri",
            "params",
            "organization",
            "x",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..5)
                .prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

fn any_card() -> impl Strategy<Value = Value> {
    let keys: Vec<&str> = BUILT.into_iter().chain(["supported_interfaces", "x-unknown", "metadata"]).collect();
    prop::collection::vec((prop::sample::select(keys), value()), 0..12)
        .prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()))
}

/// What the SDKs of both generations demand.
fn is_acceptable(card: &Value) -> bool {
    let text = |v: &Value| v.as_str().is_some_and(|s| !s.is_empty());
    let texts = |v: &Value| v.as_array().is_some_and(|a| a.iter().all(Value::is_string));
    ["name", "description", "version", "url", "preferredTransport", "protocolVersion"].iter().all(|k| text(&card[*k]))
        && ["defaultInputModes", "defaultOutputModes"].iter().all(|k| texts(&card[*k]))
        && card["capabilities"].is_object()
        && card["skills"].as_array().is_some_and(|skills| {
            skills.iter().all(|s| text(&s["id"]) && text(&s["name"]) && text(&s["description"]) && texts(&s["tags"]))
        })
        && card.get("provider").is_none_or(|p| text(&p["url"]) && text(&p["organization"]))
        && card.get("supportedInterfaces").is_none_or(|all| {
            all.as_array().is_some_and(|all| {
                !all.is_empty()
                    && all.iter().all(|i| text(&i["url"]) && text(&i["protocolBinding"]) && text(&i["protocolVersion"]))
            })
        })
}

/// Every string below `value`, but for the members that are text or links for people.
fn addresses(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(s) => found.push(s.clone()),
        Value::Array(items) => items.iter().for_each(|i| addresses(i, found)),
        Value::Object(members) => {
            let human = [
                "name",
                "description",
                "version",
                "id",
                "uri",
                "tags",
                "examples",
                "documentationUrl",
                "iconUrl",
                "provider",
                "defaultInputModes",
                "defaultOutputModes",
                "inputModes",
                "outputModes",
            ];
            members.iter().filter(|(k, _)| !human.contains(&k.as_str())).for_each(|(_, v)| addresses(v, found));
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn whatever_the_agent_says_the_served_card_is_acceptable_and_points_only_at_the_gateway(own in any_card()) {
        let (card, _) = built(&own);
        prop_assert!(is_acceptable(&card), "{card}");
        let mut found = Vec::new();
        addresses(&card, &mut found);
        for text in found {
            let ours = text == RPC || text == REST;
            prop_assert!(ours || !(text.contains("://") || text.contains("agent.internal")), "{text} in {card}");
        }
    }

    #[test]
    fn building_from_a_built_card_changes_nothing(own in any_card()) {
        let once = build(Some(own.to_string().as_bytes()), &facts());
        // As another gateway in front of this one would see it; links are compared with its endpoint's host.
        let outer = CardFacts { endpoint: Some(Url::parse(RPC).expect("a URL")), ..facts() };
        let twice = build(Some(&once.json), &outer);
        prop_assert_eq!(String::from_utf8_lossy(&twice.json), String::from_utf8_lossy(&once.json));
        prop_assert_eq!(twice.etag, once.etag);
        prop_assert!(facts_of(&once.json).is_ok());
    }

    #[test]
    fn no_bytes_whatever_upset_it(own: Vec<u8>) {
        let card = build(Some(&own), &facts());
        prop_assert!(is_acceptable(&serde_json::from_slice(&card.json).expect("JSON")));
    }
}
