//! Cards: found where clients look, full of the gateway's addresses, there while the agent is away.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use trust_gateway::clock::{Clock, Timestamp};
use trust_gateway::config::Config;

use crate::support::agent::Agent;
use crate::support::client::Answer;
use crate::support::gateway::{Registered, TestGateway};
use crate::support::{rpc, within};

type Card = Arc<Mutex<Value>>;

/// An agent that has a card, below its own path, and answers calls.
async fn agent_with(card: &Card) -> Agent {
    let card = Arc::clone(card);
    Agent::start(move |mut conn| {
        let card = Arc::clone(&card);
        async move {
            while let Some(request) = conn.request().await {
                if request.request_line().starts_with("GET /a2a/.well-known/agent-card.json ") {
                    let card = card.lock().expect("no test panics with it").clone();
                    conn.json("200 OK", &card).await;
                } else if request.request_line().starts_with("POST") {
                    conn.json("200 OK", &json!({"jsonrpc": "2.0", "id": 1, "result": {}})).await;
                } else {
                    conn.json("404 Not Found", &json!({})).await;
                }
            }
        }
    })
    .await
}

/// A card with addresses of the agent's own wherever a card may have some.
fn card(name: &str, own: &str) -> Value {
    json!({
        "name": name, "description": "Adds numbers", "version": "3.1.4", "protocolVersion": "0.3.0",
        "url": format!("{own}/a2a"), "preferredTransport": "JSONRPC",
        "additionalInterfaces": [{"url": format!("{own}/a2a/v1"), "transport": "HTTP+JSON"},
            {"url": format!("{own}/grpc"), "transport": "GRPC"}],
        "supportedInterfaces": [{"url": format!("{own}/a2a"), "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
        "documentationUrl": format!("{own}/docs"), "iconUrl": format!("{own}/icon.png"),
        "provider": {"organization": "Sums", "url": format!("{own}/")},
        "capabilities": {"streaming": true, "pushNotifications": true,
            "extensions": [{"uri": "urn:x:1", "params": {"at": format!("{own}/x")}}]},
        "securitySchemes": {"own": {"type": "openIdConnect", "openIdConnectUrl": format!("{own}/oidc")}},
        "security": [{"own": []}],
        "skills": [{"id": "sum", "name": "Sum", "description": "Adds", "tags": ["math"]}],
        "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"],
        "signatures": [{"protected": "x", "signature": "y"}],
        "x-home": format!("{own}/home"),
    })
}

fn short_interval(config: &mut Config) {
    config.health.interval = Duration::from_secs(1);
    config.health.timeout = Duration::from_secs(1);
}

/// Waits until the card served for `agent` satisfies `wanted`, asking the operators' API, which costs no allowance.
async fn served(gateway: &TestGateway, agent: &Registered, wanted: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/api/agents/{}/agent-card.json", agent.id);
    within("the card", async {
        loop {
            let card = gateway.operate("GET", &path, None).await.json();
            if wanted(&card) {
                break card;
            }
        }
    })
    .await
}

async fn get(gateway: &TestGateway, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut client = gateway.client().await;
    client.send("GET", path, headers, b"").await;
    client.answer_to("GET").await
}

/// A gateway with a registered agent whose card it has.
async fn scene(adjust: impl FnOnce(&mut Config)) -> (TestGateway, Agent, Registered, Card) {
    let gateway = TestGateway::with(Clock::system(), adjust).await;
    let cell = Card::default();
    let agent = agent_with(&cell).await;
    *cell.lock().expect("just made") = card("Adder", &format!("http://{}", agent.address));
    let target = gateway.register("adder", &agent).await;
    served(&gateway, &target, |card| card["name"] == "Adder").await;
    (gateway, agent, target, cell)
}

fn addresses(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if text.contains("://") => found.push(text.clone()),
        Value::Array(list) => list.iter().for_each(|item| addresses(item, found)),
        Value::Object(members) => members.values().for_each(|item| addresses(item, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_card_is_at_both_names_and_on_the_rpc_url_by_id_by_slug_and_by_relay() {
    let (gateway, _agent, target, _) = scene(|_| {}).await;
    let by_id = format!("/api/proxy/{}", target.id);
    let first = get(&gateway, "/api/proxy/adder", &[]).await;
    assert_eq!((first.status, first.header("content-type")), (200, Some("application/json")));
    assert_eq!((&first.json()["name"], &first.json()["version"]), (&json!("Adder"), &json!("3.1.4")));
    let mut asked = 1;
    for base in ["/api/proxy/adder", by_id.as_str(), "/relay/adder"] {
        for rest in ["", "/", "/.well-known/agent-card.json", "/.well-known/agent.json"] {
            let mut client = gateway.client().await;
            for method in ["GET", "HEAD"] {
                client.send(method, &format!("{base}{rest}"), &[], b"").await;
                let answer = client.answer_to(method).await;
                asked += 1;
                assert_eq!(answer.status, 200, "{method} {base}{rest}");
                for name in ["etag", "last-modified", "content-length", "content-type"] {
                    assert_eq!(answer.header(name), first.header(name), "{name} of {method} {base}{rest}");
                }
                if method == "GET" {
                    assert_eq!(answer.text(), first.text(), "{base}{rest}");
                }
            }
        }
    }
    let rows = gateway.rows_of(&target).await;
    assert_eq!(rows.len(), asked, "every one of them is a call");
    for row in &rows {
        for (column, expected) in [
            ("operation", json!("GetAgentCard")),
            ("units", json!(0)),
            ("decision", json!("allowed")),
            ("outcome", json!("completed")),
            ("status_code", json!(200)),
            ("binding", json!("http")),
            ("trust_level", json!("unverified")),
        ] {
            assert_eq!(row[column], expected, "{column} in {row}");
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_address_in_a_card_is_the_gateways_whatever_the_caller_calls_it() {
    let (gateway, agent, _, _) = scene(|config| {
        config.server.public_url = Some("https://agents.example.org".parse().expect("a URL"));
    })
    .await;
    let own = agent.address.port().to_string();
    let mut first = None;
    for host in ["evil.example", "agents.example.org", "[::1]:1"] {
        let mut client = gateway.client().await;
        client.call_it(host);
        let lies = [("x-forwarded-host", "evil.example"), ("x-forwarded-proto", "gopher"), ("forwarded", "host=evil")];
        client.send("GET", "/api/proxy/adder/.well-known/agent-card.json", &lies, b"").await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200);
        let mut found = Vec::new();
        addresses(&answer.json(), &mut found);
        assert!(found.len() >= 3, "both generations name their addresses: {found:?}");
        for address in found {
            assert!(address.starts_with("https://agents.example.org/api/proxy/adder"), "{address}");
        }
        for leak in [own.as_str(), "evil", "127.0.0.1", "oidc", "signatures", "GRPC"] {
            assert!(!answer.text().contains(leak), "{leak:?} in {}", answer.text());
        }
        assert_eq!(answer.json()["capabilities"]["pushNotifications"], json!(false));
        assert_eq!(answer.json()["capabilities"]["streaming"], json!(true));
        assert_eq!(*first.get_or_insert(answer.text()), answer.text());
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_the_card_is_told_that_it_is_unchanged() {
    let (gateway, _agent, target, _) = scene(|_| {}).await;
    let path = "/api/proxy/adder/.well-known/agent-card.json";
    let card = get(&gateway, path, &[]).await;
    let etag = card.header("etag").expect("a validator").to_owned();
    let date = card.header("last-modified").expect("a date").to_owned();
    assert!(etag.starts_with('"') && date.ends_with(" GMT"), "{etag} {date}");
    let weak = format!("W/{etag}");
    let list = format!("\"other\", {etag},\"third\"");
    let weak_list = format!("W/\"other\", W/{etag}");
    for (name, value) in [
        ("if-none-match", etag.as_str()),
        ("if-none-match", weak.as_str()),
        ("if-none-match", list.as_str()),
        ("if-none-match", weak_list.as_str()),
        ("if-none-match", "*"),
        ("if-modified-since", date.as_str()),
    ] {
        let answer = get(&gateway, path, &[(name, value)]).await;
        assert_eq!(answer.status, 304, "{name}: {value}");
        assert_eq!((answer.header("etag"), answer.header("content-type")), (Some(etag.as_str()), None));
    }
    let since = ("if-modified-since", date.as_str());
    for headers in [
        [("if-none-match", "\"other\""), since].as_slice(),
        &[("if-none-match", etag.trim_matches('"'))],
        &[("if-modified-since", "Tue, 14 Nov 2023 22:13:20 GMT")],
        &[("if-modified-since", "yesterday")],
    ] {
        let answer = get(&gateway, path, headers).await;
        assert_eq!((answer.status, answer.text()), (200, card.text()), "{headers:?}");
    }
    let unchanged = gateway.rows_of(&target).await.iter().filter(|row| row["status_code"] == 304).count();
    assert_eq!(unchanged, 6);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_good_card_is_served_while_the_agent_is_away() {
    let (gateway, agent, target, cell) = scene(short_interval).await;
    let before = get(&gateway, "/api/proxy/adder", &[]).await;
    // First it talks nonsense, then it is gone.
    *cell.lock().expect("no test panics with it") = json!("no card");
    drop(agent);
    within("a probe that finds nobody", async {
        let path = format!("/api/agents/{}", target.id);
        while gateway.operated("GET", &path, &Value::Null).await["health_status"] != "offline" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let after = get(&gateway, "/api/proxy/adder", &[]).await;
    assert_eq!((after.status, after.text()), (200, before.text()));
    assert_eq!(after.header("etag"), before.header("etag"));
    assert_eq!(after.header("last-modified"), before.header("last-modified"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_that_changes_at_the_agent_is_served_after_the_next_probe() {
    let (gateway, agent, target, cell) = scene(short_interval).await;
    let before = get(&gateway, "/api/proxy/adder", &[]).await;
    let etag = before.header("etag").expect("a validator").to_owned();
    *cell.lock().expect("no test panics with it") = card("Subtracter", &format!("http://{}", agent.address));
    served(&gateway, &target, |card| card["name"] == "Subtracter").await;
    let after = get(&gateway, "/api/proxy/adder", &[("if-none-match", etag.as_str())]).await;
    assert_eq!((after.status, &after.json()["name"]), (200, &json!("Subtracter")));
    assert_ne!(after.header("etag"), Some(etag.as_str()));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_a_card_is_given_one_and_a_client_has_none() {
    let gateway = TestGateway::start().await;
    let agent = Agent::echo().await;
    let body = json!({"name": "Plain", "slug": "plain", "url": agent.url(), "description": "says it again",
        "skills": [{"id": "echo", "name": "Echo", "tags": ["talk"]}]});
    gateway.register_as(body).await;
    gateway.register_client("caller").await;
    let card = get(&gateway, "/api/proxy/plain/.well-known/agent-card.json", &[]).await.json();
    let url = format!("{}/api/proxy/plain/", gateway.gateway.public_url());
    for (member, expected) in [
        ("name", json!("Plain")),
        ("description", json!("says it again")),
        ("url", json!(url)),
        ("preferredTransport", json!("JSONRPC")),
    ] {
        assert_eq!(card[member], expected, "{member} in {card}");
    }
    assert_eq!(card["skills"][0]["id"], "echo");
    for member in ["version", "protocolVersion", "securitySchemes", "capabilities"] {
        assert!(!card[member].is_null(), "the SDKs demand {member}: {card}");
    }
    assert_eq!(get(&gateway, "/api/proxy/caller/.well-known/agent-card.json", &[]).await.status, 404);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_url_without_its_slash_is_answered_with_what_to_do() {
    let gateway = TestGateway::start().await;
    for path in ["/api/proxy/.well-known/agent-card.json", "/relay/.well-known/agent.json"] {
        let answer = get(&gateway, path, &[]).await;
        assert_eq!(answer.status, 404);
        assert!(answer.text().contains("add a trailing slash to the base URL"), "{}", answer.text());
        assert_eq!(answer.json()["error"], "Agent not found");
    }
    let rows = gateway.rows().await;
    assert!(rows.len() == 2 && rows.iter().all(|row| row["reason"] == "base_url_without_slash"), "{rows:?}");
    let wrong = get(&gateway, "/api/proxy/.well-known/agent-card.json", &[("x-api-key", "oag_wrong")]).await;
    assert_eq!(wrong.status, 401);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cards_cost_no_unit_but_not_without_end() {
    let clock = Clock::manual(Timestamp(1_790_000_000_000_000));
    let gateway = TestGateway::with(clock.clone(), |_| {}).await;
    let agent = Agent::echo().await;
    let target = gateway.register("plain", &agent).await;
    let mut client = gateway.client().await;
    for n in 0..60 {
        client.send("GET", "/api/proxy/plain", &[], b"").await;
        assert_eq!(client.answer().await.status, 200, "{n}");
    }
    client.send("GET", "/api/proxy/plain", &[], b"").await;
    let refused = client.answer().await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    let sent = gateway.call("plain", None, &rpc(1, "SendMessage")).await;
    assert_eq!(sent.status, 200, "the one call in five minutes is still there: {}", sent.text());
    clock.advance(Duration::from_secs(1));
    client.send("GET", "/api/proxy/plain", &[], b"").await;
    assert_eq!(client.answer().await.status, 200);
    let rows = gateway.rows_of(&target).await;
    let calls = |status: u16| -> u64 {
        let of_status = rows.iter().filter(|row| row["operation"] == "GetAgentCard" && row["status_code"] == status);
        of_status.filter_map(|row| row["calls"].as_u64()).sum()
    };
    assert_eq!((calls(200), calls(429)), (61, 1));
    gateway.stop().await;
}
