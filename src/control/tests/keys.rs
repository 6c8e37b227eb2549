use super::*;

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
