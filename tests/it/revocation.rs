//! What is taken back takes effect at once, wherever a call stands.

use serde_json::json;
use trust_gateway::clock::{Clock, Timestamp};

use crate::support::agent::Agent;
use crate::support::gateway::TestGateway;
use crate::support::{rpc, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_holds_for_a_call_whose_body_is_still_on_its_way() {
    let gateway = TestGateway::start().await;
    let agent = Agent::echo().await;
    let target = gateway.register("target", &agent).await;
    let caller = gateway.register_client("caller").await;
    let connection = gateway.connect(&caller, &target).await;
    let mut client = gateway.client().await;
    let body = rpc(7, "SendMessage").to_string();
    let head = format!(
        "POST /api/proxy/target HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {}\r\nexpect: 100-continue\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        caller.key,
        body.len()
    );
    client.write(head).await;
    assert_eq!(client.head().await.status, 100, "it knows who calls, and waits for the body");
    let path = format!("/api/connections/{}", connection["id"].as_str().expect("an id"));
    gateway.operated("PUT", &path, &json!({"action": "block"})).await;
    client.write(body).await;
    let answer = within("an answer", client.answer()).await;
    assert_eq!((answer.status, &answer.json()["id"]), (403, &json!(7)), "{}", answer.text());
    assert_eq!(agent.calls().len(), 0, "the blocked call never reached the agent");
    let rows = gateway.rows_of(&target).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((&rows[0]["trust_level"], &rows[0]["decision"]), (&json!("blocked"), &json!("refused")));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_disabled_calls_nobody() {
    let gateway = TestGateway::start().await;
    let agent = Agent::echo().await;
    gateway.register("target", &agent).await;
    let caller = gateway.register_client("caller").await;
    assert_eq!(gateway.call("target", Some(&caller.key), &rpc(1, "SendMessage")).await.status, 200);
    gateway.operated("PUT", &format!("/api/agents/{}", caller.id), &json!({"state": "disabled"})).await;
    assert_eq!(gateway.call("target", Some(&caller.key), &rpc(2, "SendMessage")).await.status, 401);
    assert_eq!(agent.calls().len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unlisted_agent_that_blocks_looks_like_nobody_even_to_a_caller_who_asks_too_often() {
    let gateway = TestGateway::with(Clock::manual(Timestamp(1_700_000_000_000_000)), |_| {}).await;
    let agent = Agent::echo().await;
    let hidden = json!({"name": "hidden", "slug": "hidden", "url": agent.url(), "listed": false});
    let hidden = gateway.register_as(hidden).await;
    let caller = gateway.register_client("caller").await;
    let connection = gateway.connect(&caller, &hidden).await;
    let path = format!("/api/connections/{}", connection["id"].as_str().expect("an id"));
    gateway.operated("PUT", &path, &json!({"action": "block"})).await;
    let mut statuses = Vec::new();
    // On a stopped clock the limit of the source is reached for good.
    while statuses.last() != Some(&429) {
        for slug in ["hidden", "nobody"] {
            let answer = gateway.call(slug, Some(&caller.key), &rpc(1, "SendMessage")).await;
            assert!(
                !answer.head.contains("trust-level") && !answer.text().contains("trust_level"),
                "{}",
                answer.text()
            );
            statuses.push(answer.status);
        }
    }
    assert_eq!(statuses[0], 404);
    gateway.stop().await;
}
