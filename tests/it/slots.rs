//! A stream's slot is free again when the stream is over, however it ends.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use trust_gateway::clock::Clock;

use crate::support::agent::{Agent, Conn};
use crate::support::client::Client;
use crate::support::gateway::{Registered, TestGateway};
use crate::support::{rpc, within};

/// What an agent does once it is told to: nothing, unless told.
#[derive(Clone, Copy)]
enum Then {
    End,
    Die,
}

/// A gateway, and a caller that may have one stream open at an agent that has sent one event and waits.
struct Scene {
    gateway: TestGateway,
    caller: Registered,
    connection: String,
    told: Arc<Notify>,
    _agent: Agent,
}

impl Scene {
    async fn new(then: Then) -> Self {
        Self::with(then, 600_000).await
    }

    async fn with(then: Then, idle_ms: u64) -> Self {
        let gateway = TestGateway::with(Clock::system(), |_| {}).await;
        let told = Arc::new(Notify::new());
        let tell = Arc::clone(&told);
        let agent = Agent::start(move |mut conn: Conn| {
            let told = Arc::clone(&tell);
            async move {
                while let Some(request) = conn.request().await {
                    if !request.request_line().starts_with("POST") {
                        conn.json("405 Method Not Allowed", &json!({})).await;
                        continue;
                    }
                    conn.begin_events().await;
                    conn.chunk(b"data: {\"first\":true}\n\n").await;
                    told.notified().await;
                    match then {
                        Then::End => conn.end_chunks().await,
                        Then::Die => return,
                    };
                }
            }
        })
        .await;
        let body =
            json!({"name": "streamer", "slug": "streamer", "url": agent.url(), "timeouts": {"idle_ms": idle_ms}});
        let target = gateway.register_as(body).await;
        let caller = gateway.register_client("caller").await;
        let connection = gateway.connect(&caller, &target).await["id"].as_str().expect("an id").to_owned();
        let path = format!("/api/connections/{connection}");
        gateway.operated("PUT", &path, &json!({"limits": {"streams": 1}})).await;
        Self { gateway, caller, connection, told, _agent: agent }
    }

    /// Opens the one stream there may be, and shows that there is no other.
    async fn stream(&self) -> Client {
        let mut client = self.gateway.client().await;
        client.call("/api/proxy/streamer", Some(&self.caller.key), &rpc(1, "SendStreamingMessage")).await;
        assert_eq!(client.head().await.status, 200);
        client.until("first").await;
        self.is_taken().await;
        client
    }

    async fn is_taken(&self) {
        let second = self.gateway.call("streamer", Some(&self.caller.key), &rpc(2, "SubscribeToTask")).await;
        let refusal = second.json()["error"]["data"][0].clone();
        assert_eq!((second.status, &refusal["reason"]), (429, &json!("TOO_MANY_STREAMS")), "{}", second.text());
        assert_eq!(refusal["metadata"]["limit"], "connection.streams");
        assert!(second.header("ratelimit").is_some_and(|value| value.starts_with("\"reads\"")), "{}", second.head);
    }

    async fn ends_free(self) {
        within("the slot is free", async {
            loop {
                let mut client = self.gateway.client().await;
                let token = format!("Bearer {}", self.caller.key);
                client.send("GET", "/api/me?target=streamer", &[("authorization", &token)], b"").await;
                let me = client.answer().await.json();
                let streams = me["limits"].as_array().into_iter().flatten().find(|limit| limit["name"] == "streams");
                if streams.is_some_and(|limit| limit["remaining"] == 1) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        let active = self.gateway.operated("GET", "/api/calls/active", &Value::Null).await;
        assert_eq!(active["calls"], json!([]));
        self.gateway.stop().await;
    }

    async fn act(&self, action: &str) {
        let path = format!("/api/connections/{}", self.connection);
        self.gateway.operated("PUT", &path, &json!({"action": action})).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_agent_ends_it() {
    let scene = Scene::new(Then::End).await;
    let mut client = scene.stream().await;
    scene.told.notify_one();
    assert_eq!(client.chunk().await, Ok(None));
    scene.ends_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_agent_dies() {
    let scene = Scene::new(Then::Die).await;
    let mut client = scene.stream().await;
    scene.told.notify_one();
    assert_eq!(client.chunk().await, Err(()));
    scene.ends_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_caller_leaves() {
    let scene = Scene::new(Then::End).await;
    drop(scene.stream().await);
    scene.ends_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_it_is_cut_although_nobody_reads_that_it_is() {
    for (cut, back) in [("pause", "resume"), ("block", "unblock")] {
        let scene = Scene::new(Then::End).await;
        let stalled = scene.stream().await;
        scene.act(cut).await;
        scene.act(back).await;
        scene.ends_free().await;
        drop(stalled);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_agent_is_silent_for_too_long() {
    let scene = Scene::with(Then::End, 1_000).await;
    let mut client = scene.stream().await;
    let farewell = client.until("\n\n").await;
    assert!(farewell.contains("error"), "{farewell}");
    assert_eq!(client.chunk().await, Err(()));
    scene.ends_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_caller_resets_it_on_a_connection_that_goes_on() {
    let scene = Scene::new(Then::End).await;
    let stream = TcpStream::connect(scene.gateway.gateway.public_address()).await.expect("the gateway listens");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request = Request::post("http://gateway/api/proxy/streamer")
        .header("authorization", format!("Bearer {}", scene.caller.key))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(rpc(1, "SendStreamingMessage").to_string())))
        .expect("a request");
    let mut answer = within("an answer", sender.send_request(request)).await.expect("an answer");
    let first = within("an event", answer.frame()).await.expect("a frame").expect("data");
    assert!(first.into_data().is_ok_and(|data| data.starts_with(b"data: ")));
    scene.is_taken().await;
    drop(answer);
    scene.ends_free().await;
    drop(sender);
    let _ = connection.await;
}
