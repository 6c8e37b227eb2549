//! What is taken back takes effect at once, wherever a call stands.

use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::gateway::TestGateway;
use crate::support::{rpc, within};

/// The head and the first half of a call whose second half is sent by the test.
fn halves(key: &str, body: &Value) -> (String, String) {
    let body = body.to_string();
    let (first, second) = body.split_at(body.len() / 2);
    let head = format!(
        "POST /api/proxy/target HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{first}",
        body.len()
    );
    (head, second.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_holds_for_a_call_whose_body_is_still_on_its_way() {
    let gateway = TestGateway::start().await;
    let agent = Agent::echo().await;
    let target = gateway.register("target", &agent).await;
    let caller = gateway.register_client("caller").await;
    let connection = gateway.connect(&caller, &target).await;
    let mut client = gateway.client().await;
    let (first, second) = halves(&caller.key, &rpc(7, "SendMessage"));
    client.write(first).await;
    // Most likely the gateway has the first half by now; if not, the block holds all the more.
    assert_eq!(gateway.call("target", Some(&caller.key), &rpc(6, "SendMessage")).await.status, 200);
    let path = format!("/api/connections/{}", connection["id"].as_str().expect("an id"));
    gateway.operated("PUT", &path, &json!({"action": "block"})).await;
    client.write(second).await;
    let answer = within("an answer", client.answer()).await;
    assert_eq!((answer.status, &answer.json()["id"]), (403, &json!(7)), "{}", answer.text());
    assert_eq!(agent.calls().len(), 1, "the blocked call never reached the agent");
    let rows = gateway.rows_of(&target).await;
    assert_eq!(
        rows.last().map(|row| (&row["trust_level"], &row["decision"])),
        Some((&json!("blocked"), &json!("refused")))
    );
    gateway.stop().await;
}
