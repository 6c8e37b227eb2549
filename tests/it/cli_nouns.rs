//! Each noun of the command line on its happy path: agents, connections, keys, operators, imports, notifications, status.

use serde_json::json;

use crate::support::agent::Agent;
use crate::support::client::Client;
use crate::support::person::{Person, at_work};

fn write(person: &Person<'_>, name: &str, text: &str) {
    std::fs::write(person.home.join(name), text).expect("writable");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_registered_looked_at_changed_and_deleted() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_gateway, person) = at_work(dir.path(), &[]).await;
    let agent = Agent::echo().await;
    person.does(&["agents", "register", "weather", "--endpoint", &agent.url(), "--skill", "Forecast"]).await;
    assert!(person.does(&["agents", "find", "forecast"]).await.contains("weather"));
    assert!(person.does(&["agents", "list", "--skill", "nothing"]).await.starts_with("No agent matches."));
    person.does(&["agents", "update", "weather", "--slug", "sky", "--description", "Tells what comes."]).await;
    let shown = person.does(&["agents", "show", "weather"]).await;
    assert!(shown.starts_with("sky - ") && shown.contains("Tells what comes."), "{shown}");
    assert!(person.fails(2, &["agents", "update", "sky"]).await.contains("nothing to change"));

    write(&person, "credential", "s3cret-of-the-agent\n");
    person.does(&["agents", "credential", "set", "sky", "--from", "credential"]).await;
    let shown = person.does(&["agents", "show", "sky"]).await;
    assert!(shown.contains("credential") && !shown.contains("s3cret"), "{shown}");
    let probed = person.types(&["agents", "probe", "sky"]).await;
    assert!(probed.code == 6 || probed.out.contains("health") && probed.out.contains("calls"), "{}", probed.out);
    person.does(&["agents", "credential", "clear", "sky", "--yes"]).await;
    let secret = person.does(&["agents", "rotate-secret", "sky", "--activate-after", "10m"]).await;
    assert_eq!(secret.trim().len(), 64, "{secret}");
    assert!(person.does(&["agents", "card", "show", "sky"]).await.contains("/api/proxy/sky"));
    assert!(person.fails(3, &["agents", "card", "show", "sky", "--held"]).await.contains("held"));

    person.does(&["agents", "disable", "sky"]).await;
    assert_eq!(person.reads(&["agents", "show", "sky"]).await["state"], "disabled");
    person.does(&["agents", "enable", "sky"]).await;
    person.does(&["agents", "delete", "sky", "--reason", "moved", "--yes"]).await;
    assert_eq!(person.reads(&["agents", "show", "sky"]).await["state"], "deleted");
    assert!(person.does(&["agents", "list"]).await.starts_with("No agents yet"));
    let events = person.does(&["events", "list", "--action", "agent.delete"]).await;
    assert!(events.contains("agent.delete") && events.contains("sky"), "{events}");
    let id = person.reads(&["events", "list", "--action", "agent.delete"]).await["events"][0].clone();
    assert_eq!(id["reason"], "moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_that_wait_are_found_approved_and_rejected() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (gateway, person) = at_work(dir.path(), &[("AGENTS__REGISTRATION", "approval")]).await;
    let public = format!("http://{}", gateway.public);
    for (slug, endpoint) in [("good", "http://127.0.0.1:1/"), ("bad", "http://127.0.0.1:2/")] {
        let said = person.types(&["agents", "register", slug, "--endpoint", endpoint, "--url", &public]).await;
        assert!(said.code == 0 && said.err.contains("must approve"), "{}", said.err);
    }
    let status = person.does(&["status"]).await;
    assert!(status.contains("WARNING: 2 agents wait for approval"), "{status}");
    assert!(status.contains("\nNext: trust-gateway agents list --state pending\n"), "{status}");
    let waiting = person.does(&["agents", "list", "--state", "pending"]).await;
    assert!(waiting.contains("good") && waiting.contains("bad"), "{waiting}");
    person.does(&["agents", "approve", "good"]).await;
    person.does(&["agents", "reject", "bad", "--reason", "spam", "--yes"]).await;
    assert_eq!(person.does(&["agents", "list", "--state", "pending"]).await, "No registration waits for approval.\n");
    assert!(!person.does(&["status"]).await.contains("wait for approval"));
    let history = person.does(&["agents", "history", "good"]).await;
    assert!(history.contains("agent.approve") && history.contains("state=active"), "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_card_that_is_held_is_shown_and_decided_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (gateway, person) = at_work(dir.path(), &[]).await;
    let card = |host: &str| {
        let url = format!("https://{host}/");
        json!({"name": "Weather", "description": "Tells.", "version": "1", "url": url, "protocolVersion": "0.3.0",
            "capabilities": {}, "defaultInputModes": ["text"], "defaultOutputModes": ["text"], "skills": []})
    };
    let served = std::sync::Arc::new(std::sync::Mutex::new(card("first.example")));
    let cards = std::sync::Arc::clone(&served);
    let agent = Agent::start(move |mut conn| {
        let cards = std::sync::Arc::clone(&cards);
        async move {
            while conn.request().await.is_some() {
                let card = cards.lock().expect("no test panics with it").clone();
                if !conn.json("200 OK", &card).await {
                    return;
                }
            }
        }
    })
    .await;
    person.does(&["agents", "register", "weather", "--endpoint", &agent.url()]).await;
    let seen = async |wanted: &str| {
        crate::support::within(wanted, async {
            while person.reads(&["agents", "show", "weather"]).await["card_state"] != wanted {
                let _ = person.types(&["agents", "probe", "weather"]).await;
            }
        })
        .await;
    };
    seen("current").await;
    *served.lock().expect("no test panics with it") = card("second.example");
    seen("held").await;
    let shown = person.does(&["agents", "show", "weather"]).await;
    assert!(shown.contains("trust-gateway agents card show weather --held"), "{shown}");
    let held = person.does(&["agents", "card", "show", "weather", "--held"]).await;
    assert!(held.contains("second.example"), "{held}");
    assert!(person.does(&["status"]).await.contains("WARNING: 1 changed cards are held"));
    person.does(&["agents", "card", "accept", "weather", "--reason", "they moved"]).await;
    assert_eq!(gateway.operated("GET", "/api/agents/weather", &serde_json::Value::Null).await["card_state"], "current");
    let history = person.reads(&["agents", "history", "weather"]).await;
    assert_eq!(history["events"][0]["reason"], "they moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_asked_for_accepted_in_part_limited_and_ended() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (gateway, person) = at_work(dir.path(), &[]).await;
    let agent = Agent::echo().await;
    person.does(&["agents", "register", "weather", "--endpoint", &agent.url()]).await;
    let key = person.does(&["agents", "register", "planner"]).await;
    write(&person, "key", &key);
    let public = format!("http://{}", gateway.public);
    let own = ["--url", public.as_str(), "--token-file", "key"];
    let ask = ["connections", "request", "weather", "--message", "may I?", "--purpose", "forecasts"];
    let ask = [&ask[..], &["--operation", "SendMessage", "--operation", "CancelTask"], &own].concat();
    person.does(&ask).await;
    for inbox in [&["notifications"][..], &["connections", "pending"]] {
        let inbox = person.does(inbox).await;
        assert!(inbox.contains("may I?") && inbox.contains("connections accept planner:weather"), "{inbox}");
    }
    let accepted = ["connections", "accept", "planner:weather", "--operation", "SendMessage", "--reason", "agreed"];
    person.does(&accepted).await;
    person
        .does(&["connections", "limits", "planner:weather", "--rate", "10", "--period", "1m", "--daily", "500"])
        .await;
    person.does(&["connections", "limits", "planner:weather", "--burst", "5", "--review", "3d"]).await;
    let shown = person.does(&["connections", "show", "planner:weather"]).await;
    assert!(shown.starts_with("planner:weather: connected\n"), "{shown}");
    assert!(shown.contains("10 calls each 1min, 5 at once, 500 a day"), "{shown}");
    assert_eq!(person.reads(&["connections", "show", "planner:weather"]).await["operations"], json!(["SendMessage"]));
    assert!(person.does(&["notifications"]).await.contains("planner:weather is to be looked at again in "));
    assert!(person.does(&["connections", "list", "--agent", "weather"]).await.contains("forecasts"));

    let limits =
        ["agents", "limits", "weather", "--level", "verified", "--rate", "5", "--period", "1m", "--in-flight", "2"];
    person.does(&limits).await;
    let told = person.does(&["agents", "limits", "weather", "--cost", "GetTask=2", "--reason", "long lists"]).await;
    assert!(told.contains("GetTask costs 2; verified: 5 calls each 1min, 2 in flight"), "{told}");
    assert!(person.does(&["agents", "show", "weather"]).await.contains("GetTask costs 2; verified: 5 calls each 1min"));
    let history = person.does(&["agents", "history", "weather"]).await;
    assert!(history.contains("long lists") && history.contains("limits: GetTask"), "{history}");
    person.does(&["agents", "limits", "weather", "--clear"]).await;
    assert!(person.does(&["agents", "show", "weather"]).await.contains("limits of the policy"));

    person.does(&["connections", "pause", "planner:weather"]).await;
    person.does(&["connections", "resume", "planner:weather"]).await;
    person.does(&["connections", "block", "planner:weather", "--for", "weather", "--yes"]).await;
    assert!(person.does(&["connections", "show", "planner:weather"]).await.contains("blocked by"));
    person.fails(4, &[&["connections", "unblock", "planner:weather"], &own[..]].concat()).await;
    person.does(&["connections", "unblock", "planner:weather", "--for", "weather"]).await;
    person.does(&["connections", "end", "planner:weather", "--yes"]).await;
    let history = person.does(&["connections", "history", "planner:weather"]).await;
    assert!(history.lines().count() >= 9 && history.contains("agent:planner"), "{history}");
    assert!(history.lines().all(|line| line.chars().count() <= 80), "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_operators_come_are_named_and_go() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (gateway, person) = at_work(dir.path(), &[]).await;
    let first = person.does(&["agents", "register", "planner"]).await;
    write(&person, "key", &first);
    let public = format!("http://{}", gateway.public);
    let own = ["--url", public.as_str(), "--token-file", "key"];
    assert!(person.does(&[&["me"], &own[..]].concat()).await.starts_with("agent planner\n"));
    let second = person.does(&[&["keys", "create", "--name", "laptop", "--expires", "90d"], &own[..]].concat()).await;
    let rotated =
        person.does(&["keys", "rotate", "laptop", "--agent", "planner", "--name", "desk", "--grace", "0s", "-y"]);
    assert_ne!(second, rotated.await);
    let list = person.does(&["keys", "list", "planner"]).await;
    assert!(list.contains("default") && list.contains("desk") && !list.contains(first.trim()), "{list}");
    let id = person.reads(&["keys", "list", "planner"]).await["keys"][0]["id"].as_str().expect("an id").to_owned();
    assert!(list.contains(&id), "an id is never cut: {list}");
    person.does(&["keys", "revoke", "default", "--agent", "planner", "--yes"]).await;
    person.fails(4, &[&["me"], &own[..]].concat()).await;
    let mut client = Client::connect(gateway.public).await;
    client.send("GET", "/api/me", &[("x-api-key", first.trim())], b"").await;
    assert_eq!(client.answer().await.status, 401);

    let token = person.does(&["operators", "create", "eve", "--role", "auditor", "--expires", "30d"]).await;
    let list = person.does(&["operators", "list"]).await;
    assert!(list.contains("eve") && list.contains("auditor") && !list.contains(token.trim()), "{list}");
    person.does(&["operators", "remove", "eve", "--yes"]).await;
    person.fails(5, &["operators", "remove", "admin", "--yes"]).await;
    write(&person, "eve", &token);
    person.fails(4, &["me", "--token-file", "eve"]).await;
    let events = person.does(&["events", "list", "--actor", "operator:admin"]).await;
    assert!(events.contains("operator.create") && events.contains("planner/desk"), "{events}");
    assert!(events.lines().all(|line| line.chars().count() <= 80), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_looked_at_before_it_is_imported() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_gateway, person) = at_work(dir.path(), &[]).await;
    let export = json!({"agents": [
        {"id": "0b9a2c3e-0000-4000-8000-000000000001", "slug": "moved", "name": "Moved", "url": "http://127.0.0.1:1/"},
        {"slug": "nameless", "name": "Nameless"}]});
    write(&person, "export.json", &export.to_string());
    let said = person.types(&["import", "openagora", "export.json"]).await;
    assert!(said.code == 0 && said.err.contains("--apply does it"), "{}{}", said.out, said.err);
    let agents = said.out.lines().find(|line| line.starts_with("agents")).expect("a line of the table");
    assert_eq!(agents.split_whitespace().collect::<Vec<_>>(), ["agents", "1", "0", "1"], "{}", said.out);
    assert!(said.out.contains("WARNING: agents[1] (nameless): id: is missing"), "{}", said.out);
    person.fails(3, &["agents", "show", "moved"]).await;
    assert!(person.does(&["import", "openagora", "export.json", "--apply"]).await.starts_with("Imported:"));
    person.does(&["agents", "show", "moved"]).await;
}
