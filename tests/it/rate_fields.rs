//! What answers tell of what is left: on every answer of a known caller, and true enough to go by.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use trust_gateway::clock::{Clock, Timestamp};

use crate::support::agent::Agent;
use crate::support::client::Answer;
use crate::support::gateway::{Registered, TestGateway};
use crate::support::rpc;

fn stopped() -> Clock {
    Clock::manual(Timestamp::parse("2026-01-01T12:00:00Z").expect("a time"))
}

async fn request(gateway: &TestGateway, key: &str, method: &str, path: &str, body: &str, kind: &str) -> Answer {
    let token = format!("Bearer {key}");
    let headers = [("authorization", token.as_str()), ("content-type", kind)];
    let mut client = gateway.client().await;
    client.send(method, path, &headers, body.as_bytes()).await;
    client.answer_to(method).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_a_known_caller_tells_what_is_left() {
    let gateway =
        TestGateway::with(stopped(), |config| config.server.max_body = trust_gateway::config::Size(1 << 20)).await;
    let (agent, other) = (Agent::echo().await, Agent::echo().await);
    let target = gateway.register("echo", &agent).await;
    gateway.register("hidden", &other).await;
    gateway.operated("PATCH", "/api/agents/hidden", &json!({"listed": false})).await;
    let gone = gateway.register_as(json!({"name": "gone", "slug": "gone", "url": "http://127.0.0.1:1/"})).await;
    let caller = gateway.register_client("caller").await;
    let wish = json!({"requester_id": caller.id, "target_id": target.id, "status": "connected", "operations": ["SendMessage"]});
    gateway.operated("POST", "/api/connections", &wish).await;
    gateway.connect(&caller, &gone).await;
    let (send, read) = (rpc(1, "SendMessage").to_string(), rpc(1, "GetTask").to_string());
    let large = format!("\"{}\"", "x".repeat(2 << 20));
    let json = "application/json";
    for (method, path, body, kind, status, names) in [
        ("POST", "echo", send.as_str(), json, 200, "calls day"),
        ("POST", "echo", read.as_str(), json, 200, "reads"),
        ("GET", "echo/.well-known/agent-card.json", "", json, 200, "requests"),
        ("HEAD", "echo/.well-known/agent-card.json", "", json, 200, "requests"),
        ("POST", "echo", "{", json, 200, "requests"),
        ("POST", "echo", &rpc(1, "ListTasks").to_string(), json, 403, "reads"),
        ("POST", "echo", &rpc(1, "tasks/pushNotificationConfig/set").to_string(), json, 403, "calls day"),
        ("POST", "echo", send.as_str(), "text/plain", 415, "requests"),
        ("POST", "echo", large.as_str(), json, 413, "calls day"),
        ("GET", "echo/nothing", "", json, 404, "requests"),
        ("DELETE", "echo", "", json, 405, "requests"),
        ("POST", "gone", send.as_str(), json, 503, "calls day"),
        // What is told about an agent that is hidden is what is told about none.
        ("POST", "hidden", send.as_str(), json, 404, "requests"),
        ("POST", "nobody", send.as_str(), json, 404, "requests"),
    ] {
        let answer = request(&gateway, &caller.key, method, &format!("/api/proxy/{path}"), body, kind).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        for field in ["ratelimit", "ratelimit-policy"] {
            let told = answer.header(field).unwrap_or_default();
            let told: Vec<_> =
                told.split(", ").map(|item| item.split(';').next().unwrap_or_default().trim_matches('"')).collect();
            assert_eq!(told, names.split(' ').collect::<Vec<_>>(), "{method} {path}: {}", answer.head);
        }
        assert!(answer.header("x-ratelimit-limit").is_none(), "not asked for");
    }
    gateway.operated("PATCH", "/api/agents/echo", &json!({"state": "disabled"})).await;
    let answer = gateway.call("echo", Some(&caller.key), &rpc(1, "SendMessage")).await;
    assert_eq!((answer.status, answer.header("ratelimit").is_some()), (503, true), "{}", answer.head);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_tells_what_is_left_in_units_and_the_older_fields_are_there_for_the_asking() {
    // From now on: where a call is in the log is told by the time in its id.
    let clock = Clock::manual(Clock::system().wall());
    let gateway = TestGateway::with(clock, |config| config.server.x_ratelimit = true).await;
    let agent = Agent::echo().await;
    gateway.register("echo", &agent).await;
    let limits = json!({"limits": {"costs": {"SendMessage": 3}, "unverified": {"burst": 3},
        "verified": {"rate": 6, "period": "1min", "burst": 5}}});
    gateway.operated("PATCH", "/api/agents/echo", &limits).await;
    let caller = gateway.register_client("caller").await;
    let answer = gateway.call("echo", Some(&caller.key), &rpc(1, "SendMessage")).await;
    let older = |answer: &Answer| {
        ["limit", "remaining", "reset"]
            .map(|name| answer.header(&format!("x-ratelimit-{name}")).unwrap_or_default().to_owned())
    };
    assert_eq!((answer.status, older(&answer)), (200, ["1", "0", "30"].map(str::to_owned)), "{}", answer.head);
    let refused = gateway.call("echo", Some(&caller.key), &rpc(2, "SendMessage")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("10")));
    assert_eq!(older(&refused), ["1", "0", "30"].map(str::to_owned), "{}", refused.head);
    let told = &refused.json()["error"]["data"][0]["metadata"];
    assert_eq!(
        (&told["limit"], &told["remaining"], &told["cost"]),
        (&json!("agent.verified.rate"), &json!("2"), &json!("3"))
    );
    let id = refused.header("x-openagora-request-id").expect("an id").to_owned();
    let story = gateway.operated("GET", &format!("/api/calls/{id}"), &Value::Null).await;
    assert_eq!(story["explanation"]["rule"], "agent.verified.rate");
    assert_eq!(story["explanation"]["limit"], json!({"name": "agent.verified.rate", "left": 2}));
    gateway.stop().await;
}

/// A client that knows of limits what answers told it, and waits when one of them says that nothing is left.
struct Obedient<'a> {
    gateway: &'a TestGateway,
    clock: Clock,
    caller: &'a Registered,
    /// By agent and name: calls left, and when it is whole again.
    told: HashMap<(String, String), (u64, Timestamp)>,
    waits: u32,
}

impl Obedient<'_> {
    async fn call(&mut self, agent: &str, operation: &str) -> Answer {
        let names: &[&str] = if operation == "GetTask" { &["reads"] } else { &["calls", "day"] };
        for name in names {
            if let Some((0, whole)) = self.told.get(&(agent.to_owned(), (*name).to_owned())).copied() {
                let wait = u64::try_from(whole.0 - self.clock.wall().0).unwrap_or(0);
                self.clock.advance(Duration::from_micros(wait));
                self.waits += u32::from(wait > 0);
            }
        }
        let answer = self.gateway.call(agent, Some(&self.caller.key), &rpc(1, operation)).await;
        for item in answer.header("ratelimit").expect("it is told what is left").split(", ") {
            let mut parts = item.split(';');
            let name = parts.next().expect("a name").trim_matches('"').to_owned();
            let number = |part: Option<&str>, key: &str| -> u64 {
                part.and_then(|part| part.strip_prefix(key)).and_then(|n| n.parse().ok()).expect("a number")
            };
            let (left, seconds) = (number(parts.next(), "r="), number(parts.next(), "t="));
            let whole = self.clock.wall().plus_micros(i64::try_from(seconds * 1_000_000).expect("a while"));
            self.told.insert((agent.to_owned(), name), (left, whole));
        }
        answer
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_obeys_the_fields_is_never_refused() {
    let clock = stopped();
    let gateway = TestGateway::with(clock.clone(), |_| {}).await;
    let agents = [Agent::echo().await, Agent::echo().await];
    let mut targets = Vec::new();
    for (slug, agent) in ["one", "two"].into_iter().zip(&agents) {
        targets.push(gateway.register(slug, agent).await);
    }
    let limits = json!({"limits": {"costs": {"SendMessage": 3, "GetTask": 12}, "unverified": {"burst": 3},
        "verified": {"rate": 7, "period": "10s", "burst": 8, "daily": 60}}});
    gateway.operated("PATCH", "/api/agents/one", &limits).await;
    let caller = gateway.register_client("caller").await;
    let connection = gateway.connect(&caller, &targets[1]).await;
    let path = format!("/api/connections/{}", connection["id"].as_str().expect("an id"));
    let limits = json!({"limits": {"rate": 3, "period": "1s", "burst": 4, "daily": 100}});
    gateway.operated("PUT", &path, &limits).await;

    let mut client =
        Obedient { gateway: &gateway, clock: clock.clone(), caller: &caller, told: HashMap::new(), waits: 0 };
    let mut dice = 7u32;
    for n in 0..400 {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let agent = if dice >> 16 & 1 == 0 { "one" } else { "two" };
        let operation = if dice >> 17 & 3 == 0 { "GetTask" } else { "SendMessage" };
        if dice >> 19 & 7 == 0 {
            clock.advance(Duration::from_micros(u64::from(dice >> 8)));
        }
        let answer = client.call(agent, operation).await;
        assert_eq!(answer.status, 200, "call {n}, {operation} at {agent}: {}\n{}", answer.head, answer.text());
    }
    assert!(client.waits > 50, "the limits are small enough to matter: {}", client.waits);
    // Who does not obey is refused.
    while client.told[&("two".to_owned(), "calls".to_owned())].0 > 0 {
        client.call("two", "SendMessage").await;
    }
    assert_eq!(gateway.call("two", Some(&caller.key), &rpc(1, "SendMessage")).await.status, 429);
    gateway.stop().await;
}
