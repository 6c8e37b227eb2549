//! Who is told something by the gateway itself: in status and metrics, and a test of a webhook.

use super::*;
use crate::conditions::Condition;
use crate::config;
use crate::outlets::{Hook, Post, PostAnswer};

/// Two webhooks: `pager` takes everything, `broken` nothing.
pub(super) fn webhooks(bench: &Bench, conditions: &Conditions) -> Arc<Webhooks> {
    let secret = bench.dir.path().join("webhook.secret");
    std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("written");
    let file = bench.dir.path().join("webhooks.toml");
    let table =
        |name: &str| format!("[[webhooks]]\nname = {name:?}\nurl = \"https://{name}\"\nsecret_file = {secret:?}\n");
    std::fs::write(&file, table("pager") + &table("broken")).expect("written");
    let config = config::Config::load(config::LoadSource::file(file)).expect("a good file");
    let post: Post = Arc::new(|request| {
        let status = if request.url.starts_with("https://pager") { 204 } else { 500 };
        Box::pin(async move { Ok(PostAnswer { status, retry_after: None }) })
    });
    let hooks = config.webhooks.iter().map(Hook::of).collect();
    let (store, clock) = (bench.store.clone(), bench.clock.clone());
    Webhooks::new(hooks, uuid::Uuid::from_u128(5), store, conditions.clone(), post, clock)
}

#[tokio::test]
async fn an_admin_sends_a_test_and_is_told_whether_it_was_taken() {
    let api = Api::new().await;
    let taken = api.admin(Method::POST, "/api/webhooks/pager/test", None).await;
    assert_eq!((taken.status.as_u16(), &taken.body), (200, &json!({"webhook": "pager", "taken": true})));
    let failed = api.admin(Method::POST, "/api/webhooks/broken/test", None).await;
    failed.is_problem(502);
    assert!(failed.text.contains("the receiver answered 500"), "{}", failed.text);
    api.admin(Method::POST, "/api/webhooks/none/test", None).await.is_problem(404);
    api.operator(Method::POST, "/api/webhooks/pager/test", Some(&api.auditor), None).await.is_problem(403);
    api.public(Method::POST, "/api/webhooks/pager/test", None, None).await.is_problem(404);
}

#[tokio::test]
async fn status_and_metrics_tell_of_webhooks_that_fail_and_of_what_is_wrong() {
    let api = Api::new().await;
    api.control.conditions.set(Condition::Unwitnessed, Some("no checkpoint has left".to_owned()));
    let hooks = api.control.webhooks.told().await.expect("read");
    assert_eq!(hooks.iter().map(|hook| (&*hook.name, hook.waiting)).collect::<Vec<_>>(), [("pager", 0), ("broken", 0)]);
    api.control.webhooks.settle().await;
    let seen = api.admin(Method::GET, "/api/status", None).await;
    assert_eq!(seen.body["conditions"][0]["name"], "audit.unwitnessed", "{}", seen.text);
    assert_eq!(seen.body["webhooks"][0]["waiting"], 0, "{}", seen.text);
    assert_eq!(seen.body["webhooks"][1]["failing"], 1, "{}", seen.text);
    let warning = "the webhook broken does not take what it is sent, 1 wait: the receiver answered 500";
    assert_eq!(seen.body["warnings"], json!([warning]));
    let metrics = api.admin(Method::GET, "/metrics", None).await;
    assert!(metrics.text.contains("trust_gateway_webhook_failing{webhook=\"broken\"} 1\n"), "{}", metrics.text);
}
