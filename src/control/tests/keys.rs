use super::*;
use crate::store::{EventFilter, EventPage};

#[tokio::test]
async fn a_key_is_made_by_its_agent_or_an_admin_and_shown_once() {
    let api = Api::new().await;
    let (id, key) = api.agent("one").await;
    let made = api.public(Method::POST, "/api/keys", Some(&key), Some(json!({"agent_id": id, "name": "ci"}))).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let new = made.body["key"].as_str().expect("a key");
    assert_eq!((made.body["name"].clone(), made.body["warning"].is_string()), (json!("ci"), true));
    let list = api.public(Method::GET, "/api/keys", Some(new), None).await;
    let names: Vec<&Value> = list.body["keys"].as_array().expect("a list").iter().map(|key| &key["name"]).collect();
    assert_eq!(names, ["ci", "default"]);
    assert!(!list.text.contains(new) && !list.text.contains("digest"));
    assert_eq!(api.admin(Method::POST, "/api/keys", Some(json!({"agent_id": "one"}))).await.status, 201);
}

#[tokio::test]
async fn nobody_makes_sees_or_revokes_keys_of_others() {
    let api = Api::new().await;
    let (id, key) = api.agent("one").await;
    let (_, other) = api.agent("two").await;
    let own = api.public(Method::GET, "/api/keys", Some(&key), None).await.body["keys"][0]["id"].clone();
    let own = own.as_str().expect("an id");
    let body = || Some(json!({"agent_id": id}));
    api.public(Method::POST, "/api/keys", None, body()).await.is_problem(401);
    api.public(Method::POST, "/api/keys", Some(&other), body()).await.is_problem(403);
    api.public(Method::GET, &format!("/api/keys?agent_id={id}"), None, None).await.is_problem(401);
    api.public(Method::GET, &format!("/api/keys?agent_id={id}"), Some(&other), None).await.is_problem(403);
    api.public(Method::DELETE, &format!("/api/keys/{own}"), None, None).await.is_problem(401);
    api.public(Method::DELETE, &format!("/api/keys/{own}"), Some(&other), None).await.is_problem(404);
    assert_eq!(api.public(Method::GET, "/api/keys", Some(&key), None).await.status, 200);
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once() {
    let api = Api::new().await;
    let (_, key) = api.agent("one").await;
    let id = api.public(Method::GET, "/api/keys", Some(&key), None).await.body["keys"][0]["id"].clone();
    let path = format!("/api/keys/{}", id.as_str().expect("an id"));
    let before = api.bench.reloads();
    assert_eq!(api.public(Method::DELETE, &path, Some(&key), None).await.status, 204);
    assert_eq!(api.bench.reloads(), before + 1);
    api.public(Method::GET, "/api/keys", Some(&key), None).await.is_problem(401);
    api.admin(Method::DELETE, &path, None).await.is_problem(404);
    api.admin(Method::DELETE, "/api/keys/nonsense", None).await.is_problem(404);
}

#[tokio::test]
async fn a_key_request_that_makes_no_sense_says_why() {
    let api = Api::new().await;
    let (id, key) = api.agent("one").await;
    api.admin(Method::POST, "/api/keys", Some(json!({}))).await.is_problem(400);
    api.admin(Method::POST, "/api/keys", Some(json!({"agent_id": "nobody"}))).await.is_problem(404);
    let past = json!({"agent_id": id, "expires_at": "2025-01-01T00:00:00Z"});
    api.public(Method::POST, "/api/keys", Some(&key), Some(past)).await.is_problem(400);
    let endless = (0..60).map(|_| api.public(Method::POST, "/api/keys", Some(&key), Some(json!({}))));
    let mut refused = 0;
    for request in endless {
        refused += usize::from(request.await.status == 409);
    }
    assert_eq!(refused, 11, "fifty keys at most, one of them the first");
}

#[tokio::test]
async fn the_last_use_of_a_key_is_told_at_once() {
    let api = Api::new().await;
    let (_, key) = api.agent("one").await;
    let used =
        async || api.public(Method::GET, "/api/keys", Some(&key), None).await.body["keys"][0]["last_used_at"].clone();
    assert_eq!(used().await, "2026-01-01T00:00:00.000000Z");
    api.bench.clock.advance(Duration::from_secs(90));
    assert_eq!(used().await, "2026-01-01T00:01:30.000000Z");
}

/// What upkeep does every second.
async fn upkeep(api: &Api) {
    api.rebuild().await;
    let used: Vec<_> = api.control.directory.load().used_successors().collect();
    for (key, at) in used {
        api.bench.registry.finish_rotation(key, at).await.expect("writes");
    }
}

async fn works(api: &Api, key: &str) -> bool {
    api.public(Method::GET, "/api/keys", Some(key), None).await.status == 200
}

async fn id_of(api: &Api, key: &str) -> String {
    let list = api.public(Method::GET, "/api/me", Some(key), None).await;
    list.body["key"]["id"].as_str().expect("an id").to_owned()
}

async fn rotated(api: &Api, key: &str, body: Option<Value>) -> (String, Value) {
    let path = format!("/api/keys/{}/rotate", id_of(api, key).await);
    let made = api.public(Method::POST, &path, Some(key), body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    (made.body["key"].as_str().expect("a key").to_owned(), made.body)
}

#[tokio::test]
async fn a_rotated_key_lives_until_its_successor_has_been_used_and_the_grace_is_over() {
    let api = Api::new().await;
    let (_, old) = api.agent("one").await;
    let (new, made) = rotated(&api, &old, Some(json!({"grace": "10min", "name": "next"}))).await;
    assert_eq!((&made["name"], &made["warning"].is_string()), (&json!("next"), &true));
    // Nobody has picked it up: nothing ends, however long it takes.
    for _ in 0..3 {
        api.bench.clock.advance(Duration::from_secs(86_400));
        upkeep(&api).await;
        assert!(works(&api, &old).await);
    }
    assert!(works(&api, &new).await, "at once");
    upkeep(&api).await;
    api.bench.clock.advance(Duration::from_secs(599));
    assert!(works(&api, &old).await);
    // Later uses do not move the end.
    assert!(works(&api, &new).await);
    upkeep(&api).await;
    api.bench.clock.advance(Duration::from_secs(1));
    assert!(!works(&api, &old).await);
    assert!(works(&api, &new).await);
    let list = api.public(Method::GET, "/api/keys", Some(&new), None).await.body;
    let shown: Vec<_> = list["keys"].as_array().expect("a list").iter().map(|key| key["state"].clone()).collect();
    assert_eq!(shown, [json!("active"), json!("expired")]);
    assert_eq!(list["keys"][0]["replaces"], Value::Null, "that is settled");
}

#[tokio::test]
async fn without_grace_the_first_use_of_the_new_key_ends_the_old_and_all_before_it() {
    let api = Api::new().await;
    let (_, first) = api.agent("one").await;
    let (second, _) = rotated(&api, &first, Some(json!({"grace": "0s"}))).await;
    let path = format!("/api/keys/{}/rotate", {
        let list = api.public(Method::GET, "/api/keys", Some(&first), None).await.body;
        list["keys"][0]["id"].as_str().expect("an id").to_owned()
    });
    // The second was never used when the third takes over from it.
    let third = api.public(Method::POST, &path, Some(&first), Some(json!({"grace": "0s"}))).await;
    let third = third.body["key"].as_str().expect("a key").to_owned();
    assert!(works(&api, &third).await);
    upkeep(&api).await;
    for gone in [&first, &second] {
        assert!(!works(&api, gone).await);
    }
    let kept = api.bench.store.admin_events(&EventFilter::default(), &EventPage::newest(50)).await.expect("reads");
    let ended: Vec<_> = kept.iter().filter(|event| event.action == "key.expire").map(|event| &event.actor).collect();
    assert_eq!(ended, ["gateway", "gateway"]);
}

#[tokio::test]
async fn a_rotation_survives_a_restart() {
    let api = Api::new().await;
    let (_, old) = api.agent("one").await;
    let (new, _) = rotated(&api, &old, Some(json!({"grace": "1min"}))).await;
    assert!(works(&api, &new).await);
    // The use is in the database, and the gateway was gone before it ended the old key.
    let used: Vec<_> = api.control.directory.load().unkept_uses().map(|(key, at)| (key.id, at)).collect();
    api.bench.store.touch_keys(&used).await.expect("writes");
    api.control.directory.store(Arc::default());
    upkeep(&api).await;
    api.bench.clock.advance(Duration::from_secs(60));
    assert!(!works(&api, &old).await);
}

#[tokio::test]
async fn a_rotation_keeps_the_lifetime_and_what_cannot_be_rotated_says_why() {
    let api = Api::new().await;
    let (id, key) = api.agent("one").await;
    let (_, other) = api.agent("two").await;
    let day = json!({"agent_id": id, "expires_at": "2026-01-02T00:00:00Z"});
    let short = api.admin(Method::POST, "/api/keys", Some(day)).await.body["key"].as_str().expect("a key").to_owned();
    api.bench.clock.advance(Duration::from_secs(3_600));
    let (_, made) = rotated(&api, &short, None).await;
    assert_eq!(made["expires_at"], "2026-01-02T01:00:00.000000Z");
    let (_, made) = rotated(&api, &short, Some(json!({"expires_at": null}))).await;
    assert_eq!(made["expires_at"], Value::Null);
    let path = format!("/api/keys/{}/rotate", id_of(&api, &short).await);
    api.public(Method::POST, &path, Some(&other), None).await.is_problem(404);
    api.public(Method::POST, &path, None, None).await.is_problem(401);
    api.public(Method::POST, &path, Some(&key), Some(json!({"grace": "soon"}))).await.is_problem(400);
    api.public(Method::POST, &path, Some(&key), Some(json!({"grace": "31d"}))).await.is_problem(400);
    api.bench.clock.advance(Duration::from_secs(86_400));
    api.public(Method::POST, &path, Some(&key), None).await.is_problem(409);
    api.admin(Method::POST, "/api/keys/nonsense/rotate", None).await.is_problem(404);
}

#[tokio::test]
async fn expired_keys_are_listed_for_a_while_and_take_nobodys_place() {
    let api = Api::new().await;
    let (_, key) = api.agent("one").await;
    for _ in 0..49 {
        let soon = json!({"expires_at": "2026-01-01T00:01:00Z"});
        assert_eq!(api.public(Method::POST, "/api/keys", Some(&key), Some(soon)).await.status, 201);
    }
    api.public(Method::POST, "/api/keys", Some(&key), Some(json!({}))).await.is_problem(409);
    api.bench.clock.advance(Duration::from_secs(60));
    assert_eq!(api.public(Method::POST, "/api/keys", Some(&key), Some(json!({}))).await.status, 201);
    let count = async || {
        api.bench.registry.tidy_keys().await.expect("writes");
        let list = api.public(Method::GET, "/api/keys", Some(&key), None).await.body;
        list["keys"].as_array().expect("a list").len()
    };
    api.bench.clock.advance(Duration::from_secs(30 * 86_400));
    assert_eq!(count().await, 51);
    api.bench.clock.advance(Duration::from_secs(1));
    assert_eq!(count().await, 2);
}

#[tokio::test]
async fn an_admin_takes_over_keys_by_their_digest() {
    let api = Api::new().await;
    let (id, key) = api.agent("one").await;
    let elsewhere = "oag_abandon_ability_able_about_above_absent";
    let digest: String =
        crate::registry::token::digest_of(elsewhere).iter().map(|byte| format!("{byte:02X}")).collect();
    let body = json!({"agent_id": id, "name": "from elsewhere", "sha256": digest});
    api.public(Method::POST, "/api/keys", Some(&key), Some(body.clone())).await.is_problem(403);
    let made = api.admin(Method::POST, "/api/keys", Some(body.clone())).await;
    assert_eq!((made.status.as_u16(), made.body.get("key")), (201, None), "{}", made.text);
    assert!(works(&api, elsewhere).await);
    api.admin(Method::POST, "/api/keys", Some(body)).await.is_problem(409);
    for bad in ["", "12", &"g".repeat(64), &"é".repeat(32)] {
        let body = json!({"agent_id": id, "sha256": bad});
        api.admin(Method::POST, "/api/keys", Some(body)).await.is_problem(400);
    }
}
