//! Streams: nothing held back, nothing made up, nothing left open.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::{Mutex, mpsc};

use crate::support::agent::{Agent, Conn};
use crate::support::gateway::{Registered, TestGateway};
use crate::support::{rpc, within};

/// An agent whose events are told to it one by one.
async fn prompted(told: mpsc::UnboundedReceiver<Prompt>) -> Agent {
    let told = Arc::new(Mutex::new(told));
    Agent::start(move |mut conn: Conn| {
        let told = Arc::clone(&told);
        async move {
            while let Some(request) = conn.request().await {
                if !request.request_line().starts_with("POST") {
                    conn.json("405 Method Not Allowed", &json!({})).await;
                    continue;
                }
                conn.begin_events().await;
                let mut told = told.lock().await;
                loop {
                    match told.recv().await {
                        Some(Prompt::Chunk(data)) => {
                            conn.chunk(data).await;
                        }
                        Some(Prompt::End) => {
                            conn.end_chunks().await;
                            break;
                        }
                        Some(Prompt::Die) | None => return,
                        Some(Prompt::AwaitClose(done)) => {
                            conn.closed().await;
                            let _ = done.send(());
                            return;
                        }
                    }
                }
            }
        }
    })
    .await
}

enum Prompt {
    Chunk(Vec<u8>),
    End,
    Die,
    AwaitClose(tokio::sync::oneshot::Sender<()>),
}

fn event(n: u32) -> Vec<u8> {
    format!("data: {{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{\"statusUpdate\":{{\"taskId\":\"t\",\"contextId\":\"c\",\"status\":{{\"state\":\"TASK_STATE_WORKING\"}}}},\"n\":{n}}}}}\n\n").into_bytes()
}

async fn connected(gateway: &TestGateway, agent: &Agent) -> (Registered, Registered) {
    let target = gateway.register("streamer", agent).await;
    let caller = gateway.register_client("caller").await;
    gateway.connect(&caller, &target).await;
    (target, caller)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_reaches_the_client_before_the_next_one_is_sent() {
    let gateway = TestGateway::start().await;
    let (tell, told) = mpsc::unbounded_channel();
    let agent = prompted(told).await;
    let (target, caller) = connected(&gateway, &agent).await;
    let mut client = gateway.client().await;
    client.call("/api/proxy/streamer", Some(&caller.key), &rpc(1, "SendStreamingMessage")).await;
    let head = client.head().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    for n in 0..20 {
        let _ = tell.send(Prompt::Chunk(event(n)));
        // The next prompt is given only once this event has arrived: if it were held back, this would wait in vain.
        let seen = client.until(&format!("\"n\":{n}}}")).await;
        assert_eq!(seen.as_bytes(), event(n), "byte for byte");
    }
    let _ = tell.send(Prompt::End);
    assert_eq!(client.chunk().await, Ok(None));
    let rows = gateway.rows_of(&target).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["outcome"], "completed");
    assert_eq!(rows[0]["stream_events"], 20);
    assert_eq!(rows[0]["task_id"], "t");
    assert_eq!(rows[0]["task_state"], "TASK_STATE_WORKING");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_in_a_stream_is_passed_on_as_a_cut() {
    let gateway = TestGateway::start().await;
    let (tell, told) = mpsc::unbounded_channel();
    let agent = prompted(told).await;
    let (target, caller) = connected(&gateway, &agent).await;
    let mut client = gateway.client().await;
    client.call("/api/proxy/streamer", Some(&caller.key), &rpc(1, "SendStreamingMessage")).await;
    client.head().await;
    let _ = tell.send(Prompt::Chunk(event(1)));
    client.until("\"n\":1}").await;
    let _ = tell.send(Prompt::Die);
    assert_eq!(client.chunk().await, Err(()), "no clean end");
    let rows = gateway.rows_of(&target).await;
    assert_eq!((&rows[0]["outcome"], &rows[0]["stream_events"]), (&json!("agent_gone"), &json!(1)));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_ends_the_agents_connection() {
    let gateway = TestGateway::start().await;
    let (tell, told) = mpsc::unbounded_channel();
    let agent = prompted(told).await;
    let (target, caller) = connected(&gateway, &agent).await;
    let mut client = gateway.client().await;
    client.call("/api/proxy/streamer", Some(&caller.key), &rpc(1, "SendStreamingMessage")).await;
    client.head().await;
    let _ = tell.send(Prompt::Chunk(event(1)));
    client.until("\"n\":1}").await;
    let (done, closed) = tokio::sync::oneshot::channel();
    let _ = tell.send(Prompt::AwaitClose(done));
    drop(client);
    within("the agent's connection closes", closed).await.expect("the agent saw it");
    let rows = within("its row", async {
        loop {
            let rows = gateway.rows_of(&target).await;
            if !rows.is_empty() {
                break rows;
            }
        }
    })
    .await;
    assert_eq!(rows[0]["outcome"], "client_gone");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_cuts_an_open_stream_with_an_event_that_says_so() {
    let gateway = TestGateway::start().await;
    let (tell, told) = mpsc::unbounded_channel();
    let agent = prompted(told).await;
    let target = gateway.register("streamer", &agent).await;
    let caller = gateway.register_client("caller").await;
    let connection = gateway.connect(&caller, &target).await;
    let mut client = gateway.client().await;
    client.call("/api/proxy/streamer", Some(&caller.key), &rpc("s", "SendStreamingMessage")).await;
    client.head().await;
    let _ = tell.send(Prompt::Chunk(event(1)));
    client.until("\"n\":1}").await;
    let (done, closed) = tokio::sync::oneshot::channel();
    let _ = tell.send(Prompt::AwaitClose(done));
    let path = format!("/api/connections/{}", connection["id"].as_str().expect("an id"));
    gateway.operated("PUT", &path, &json!({"action": "block"})).await;
    within("the agent's connection closes", closed).await.expect("the agent saw it");
    let farewell = client.until("\n\n").await;
    assert!(farewell.contains("\"id\":\"s\"") && farewell.contains("error"), "{farewell}");
    assert_eq!(client.chunk().await, Err(()), "then the cut");
    let rows = gateway.rows_of(&target).await;
    assert_eq!((&rows[0]["outcome"], &rows[0]["reason"]), (&json!("interrupted"), &json!("revoked")));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_pass_whatever_their_framing() {
    let gateway = TestGateway::start().await;
    let odd: &[u8] = b": ping - 1\r\n\r\nevent: Task\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\nid: 7\rdata: x\r\rdata: \xff\xfe\n\nnot even an event";
    let agent = Agent::start(move |mut conn| async move {
        while conn.request().await.is_some() {
            conn.begin_events().await;
            for byte in odd {
                conn.chunk([*byte]).await;
            }
            conn.end_chunks().await;
        }
    })
    .await;
    let (target, caller) = connected(&gateway, &agent).await;
    let answer = gateway.call("streamer", Some(&caller.key), &rpc(1, "message/stream")).await;
    assert!(!answer.cut);
    assert_eq!(answer.body, odd);
    let rows = gateway.rows_of(&target).await;
    assert_eq!((&rows[0]["outcome"], &rows[0]["stream_events"]), (&json!("completed"), &json!(3)));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_stops_reading_does_not_hold_the_agent_for_ever() {
    let gateway = TestGateway::with(trust_gateway::clock::Clock::system(), |config| {
        config.server.stall_timeout = std::time::Duration::from_millis(500);
    })
    .await;
    let (done, closed) = tokio::sync::oneshot::channel();
    let done = Arc::new(Mutex::new(Some(done)));
    let agent = Agent::start(move |mut conn: Conn| {
        let done = Arc::clone(&done);
        async move {
            while let Some(request) = conn.request().await {
                if !request.request_line().starts_with("POST") {
                    conn.json("405 Method Not Allowed", &json!({})).await;
                    continue;
                }
                conn.begin_events().await;
                // More than all buffers on the way hold: in the end only a reader makes room.
                while conn.chunk([b'x'; 64 * 1024]).await {}
                if let Some(done) = done.lock().await.take() {
                    let _ = done.send(());
                }
            }
        }
    })
    .await;
    let (target, caller) = connected(&gateway, &agent).await;
    let mut client = gateway.client().await;
    client.call("/api/proxy/streamer", Some(&caller.key), &rpc(1, "SendStreamingMessage")).await;
    within("the agent is let go", closed).await.expect("it saw its connection end");
    let rows = within("its row", async {
        loop {
            let rows = gateway.rows_of(&target).await;
            if rows.iter().any(|row| row["operation"] == "SendStreamingMessage") {
                break rows;
            }
        }
    })
    .await;
    assert!(rows.iter().any(|row| row["outcome"] == "client_gone"), "{rows:?}");
    drop(client);
    gateway.stop().await;
}
