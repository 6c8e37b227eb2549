//! What an agent is told about itself: its standing, what is left, what waits for it, what was changed.

use super::*;
use crate::a2a::Operation;
use crate::limit::{Ask, Subject};

async fn connected(api: &Api, terms: Value) -> [(String, String); 3] {
    let pair = [api.agent("asker").await, api.agent("asked").await];
    let mut wish = json!({"requester_id": pair[0].0, "target_id": pair[1].0, "accept": true});
    wish.as_object_mut().expect("an object").extend(terms.as_object().expect("an object").clone());
    let made = api.admin(Method::POST, "/api/connections", Some(wish)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let [one, two] = pair;
    [one, two, (made.body["id"].as_str().expect("an id").to_owned(), String::new())]
}

fn limit<'a>(body: &'a Value, name: &str) -> &'a Value {
    let limits = body["limits"].as_array().expect("a list");
    limits.iter().find(|limit| limit["name"] == name).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn an_agent_learns_who_it_is_also_while_it_waits_for_approval() {
    let api = Api::new().await;
    let (id, key) = api.agent("one").await;
    let shown = api.public(Method::GET, "/api/me", Some(&key), None).await;
    assert_eq!((shown.status.as_u16(), &shown.body["agent"]["id"]), (200, &json!(id)), "{}", shown.text);
    assert!(shown.body["key"]["hint"].is_string() && !shown.text.contains(&key));
    let row = api.bench.store.agent(id.parse().expect("an id")).await.expect("reads").expect("there");
    let pending = |row: &mut crate::store::rows::AgentRow| {
        row.state = crate::store::rows::AdminState::Pending;
        Ok::<_, crate::store::StoreError>(crate::store::rows::AdminEvent {
            id: uuid::Uuid::now_v7(),
            at: api.bench.clock.wall(),
            actor: "gateway".to_owned(),
            action: "agent.update".to_owned(),
            subject: row.id.to_string(),
            before: None,
            after: None,
            reason: None,
        })
    };
    api.bench.store.change_agent(row.id, pending).await.expect("writes");
    let shown = api.public(Method::GET, "/api/me", Some(&key), None).await;
    assert_eq!((shown.status.as_u16(), &shown.body["agent"]["state"]), (200, &json!("pending")));
    api.public(Method::GET, "/api/me", None, None).await.is_problem(401);
    let operator = api.admin(Method::GET, "/api/me", None).await.body;
    assert_eq!(operator["operator"], json!({"name": "root", "role": "admin"}));
}

#[tokio::test]
async fn a_look_at_what_is_left_takes_none_of_it_and_tells_what_calls_took() {
    let api = Api::new().await;
    let limits =
        json!({"limits": {"rate": 10, "period": "1min", "daily": 7, "streams": 2}, "operations": ["SendMessage"]});
    let [(asker, key), (asked, asked_key), _] = connected(&api, limits).await;
    let look = async || api.public(Method::GET, "/api/me?target=asked", Some(&key), None).await.body;
    let before = look().await;
    assert_eq!((&before["trust_level"], &before["target"]["id"]), (&json!("connected"), &json!(asked)));
    assert_eq!(before["operations"], json!(["SendMessage", "GetTask", "CancelTask", "SubscribeToTask"]));
    assert_eq!(before["connection"]["requester_id"], json!(asker));
    assert_eq!(
        limit(&before, "work"),
        &json!({"name": "work", "rule": "connection.rate", "limit": 10, "remaining": 10, "reset_seconds": 0})
    );
    assert_eq!(look().await["limits"], before["limits"]);

    let directory = api.control.directory.load_full();
    let target = directory.find("asked").expect("there");
    let tie = directory.connection(asker.parse().expect("an id"), target.id).expect("there");
    let ask = Ask {
        subject: Subject::Connected(tie.towards(target.id)),
        operation: Operation::SendStreamingMessage,
        agent: &target.gate,
    };
    let permit = api.control.limits.admit(&ask).expect("there is room");
    let after = look().await;
    assert_eq!(
        limit(&after, "work"),
        &json!({"name": "work", "rule": "connection.rate", "limit": 10, "remaining": 9, "reset_seconds": 6})
    );
    assert_eq!(limit(&after, "daily")["remaining"], 6);
    assert_eq!(
        limit(&after, "streams"),
        &json!({"name": "streams", "rule": "connection.streams", "limit": 2, "remaining": 1, "reset_seconds": null})
    );
    drop(permit);
    assert_eq!(limit(&look().await, "streams")["remaining"], 2);
    // The other way nothing was agreed about operations.
    let back = api.public(Method::GET, "/api/me?target=asker", Some(&asked_key), None).await.body;
    assert_eq!((&back["operations"], &back["trust_level"]), (&Value::Null, &json!("connected")));
}

#[tokio::test]
async fn a_target_that_is_hidden_looks_like_none() {
    let api = Api::new().await;
    let (_, key) = api.agent("one").await;
    let (_, hidden_key) = api.agent("hidden").await;
    api.public(Method::PUT, "/api/agents/hidden", Some(&hidden_key), Some(json!({"listed": false}))).await;
    let (hidden, nobody) = (
        api.public(Method::GET, "/api/me?target=hidden", Some(&key), None).await,
        api.public(Method::GET, "/api/me?target=nobody", Some(&key), None).await,
    );
    hidden.is_problem(404);
    assert_eq!(hidden.text, nobody.text);
    api.agent("open").await;
    let open = api.public(Method::GET, "/api/me?target=open", Some(&key), None).await.body;
    assert_eq!((&open["trust_level"], &open["connection"]), (&json!("verified"), &Value::Null));
    assert_eq!(limit(&open, "work")["limit"], 1);
}

#[tokio::test]
async fn requests_wait_with_the_answers_ready_to_send_and_dates_are_told_in_time() {
    let api = Api::new().await;
    let [(_, asker_key), (asked, asked_key)] = [api.agent("asker").await, api.agent("asked").await];
    let wish = json!({"target_id": asked, "message": "hello", "purpose": "sums", "operations": ["SendMessage"]});
    let made = api.public(Method::POST, "/api/connections", Some(&asker_key), Some(wish)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let list = async |key: &String| api.public(Method::GET, "/api/notifications", Some(key), None).await.body;
    let told = list(&asked_key).await;
    let one = &told["notifications"][0];
    assert_eq!(
        (&one["type"], &one["purpose"], &told["pending"]),
        (&json!("connection_request"), &json!("sums"), &json!(1))
    );
    assert_eq!(one["connection"]["operations"], json!(["SendMessage"]));
    assert_eq!(list(&asker_key).await["notifications"], json!([]), "not for the one who asked");
    let accept = &one["actions"]["accept"];
    let method = accept["method"].as_str().expect("a method").parse().expect("a method");
    let url = accept["url"].as_str().expect("a path").to_owned();
    let mut body = accept["body"].clone();
    body["review_at"] = json!("2026-02-01T00:00:00Z");
    let done = api.public(method, &url, Some(&asked_key), Some(body)).await;
    assert_eq!((done.status.as_u16(), &done.body["status"]), (200, &json!("connected")), "{}", done.text);
    assert_eq!(list(&asked_key).await["notifications"], json!([]));

    let due = async || {
        let list = api.public(Method::GET, "/api/connections?review_due=true", Some(&asked_key), None).await.body;
        list["connections"].as_array().expect("a list").len()
    };
    assert_eq!(due().await, 0);
    api.bench.clock.advance(Duration::from_secs(25 * 86_400));
    let expires = json!({"expires_at": "2026-01-28T00:00:00Z", "name": "short"});
    api.public(Method::POST, "/api/keys", Some(&asked_key), Some(expires)).await;
    let kinds: Vec<Value> = list(&asked_key).await["notifications"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|told| told["type"].clone())
        .collect();
    assert_eq!(kinds, [json!("connection_review"), json!("key_expires")]);
    api.bench.clock.advance(Duration::from_secs(7 * 86_400));
    assert_eq!(due().await, 1);
    let other = api.public(Method::GET, "/api/notifications?agent_id=asked", Some(&asker_key), None).await;
    other.is_problem(403);
    assert_eq!(api.admin(Method::GET, "/api/notifications", None).await.status, 200);
}

#[tokio::test]
async fn history_keeps_every_change_with_its_reason_and_hides_operators_names_from_agents() {
    let api = Api::new().await;
    let [(_, asker_key), (_, asked_key), (tie, _)] = connected(&api, json!({"reason": "as agreed by mail"})).await;
    let (_, stranger_key) = api.agent("stranger").await;
    let path = format!("/api/connections/{tie}");
    let put = async |key: &String, body: Value| api.public(Method::PUT, &path, Some(key), Some(body)).await;
    assert_eq!(put(&asked_key, json!({"action": "block", "reason": "too loud"})).await.status, 200);
    assert_eq!(put(&asked_key, json!({"action": "unblock"})).await.status, 200);
    put(&asked_key, json!({"action": "block", "reason": "x".repeat(501)})).await.is_problem(400);
    let ended = api.public(Method::DELETE, &format!("{path}?reason=done"), Some(&asker_key), None).await;
    assert_eq!(ended.status, 204);

    let history = format!("{path}/history");
    let all = api.public(Method::GET, &history, Some(&asker_key), None).await.body;
    let told: Vec<(Value, Value, Value)> = all["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|event| (event["actor"].clone(), event["action"].clone(), event["reason"].clone()))
        .collect();
    let event = |actor: &str, action: &str, reason: Value| (json!(actor), json!(action), reason);
    assert_eq!(
        told,
        [
            event("requester", "connection.end", json!("done")),
            event("target", "connection.unblock", Value::Null),
            event("target", "connection.block", json!("too loud")),
            event("operator", "connection.accept", json!("as agreed by mail")),
        ]
    );
    assert_eq!(all["events"][0]["after"]["status"], "ended");
    assert_eq!(all["events"][0]["before"], all["events"][1]["after"]);
    let seen = api.admin(Method::GET, &history, None).await.body;
    assert_eq!(seen["events"][3]["actor"], "operator:root");
    api.public(Method::GET, &history, Some(&stranger_key), None).await.is_problem(404);

    // Page by page it is the same.
    let (mut paged, mut next) = (Vec::new(), String::new());
    loop {
        let page = api.public(Method::GET, &format!("{history}?limit=1{next}"), Some(&asker_key), None).await.body;
        paged.extend(page["events"].as_array().expect("a list").clone());
        match page["next"].as_str() {
            Some(cursor) => next = format!("&next={cursor}"),
            None => break,
        }
    }
    assert_eq!(json!(paged), all["events"]);

    let own = api.public(Method::GET, "/api/agents/asker/history", Some(&asker_key), None).await.body;
    assert_eq!((&own["events"][0]["action"], &own["events"][0]["actor"]), (&json!("agent.create"), &json!("operator")));
    assert!(!own.to_string().contains("root"));
    api.public(Method::GET, "/api/agents/asker/history", Some(&asked_key), None).await.is_problem(403);
    api.public(Method::GET, "/api/agents/asker/history", None, None).await.is_problem(401);
}
