//! Agents that speak HTTP/2, where data, trailers and the end of an answer are frames of their own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use trust_gateway::clock::Clock;

use crate::support::agent::Agent;
use crate::support::client::Answer;
use crate::support::gateway::TestGateway;
use crate::support::{rpc, within};

/// A body that never says beforehand which of its frames is the last, and breaks down where it is told to.
struct Frames(std::vec::IntoIter<Option<Frame<Bytes>>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut().0.next() {
            Some(Some(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(None) => panic!("the agent breaks down, as the test wants it"),
            None => Poll::Ready(None),
        }
    }
}

/// An HTTP/2 agent that answers with these headers and frames; `None` is a breakdown.
async fn agent(
    headers: &'static [(&'static str, &'static str)],
    frames: fn() -> Vec<Option<Frame<Bytes>>>,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |_: Request<Incoming>| async move {
                let mut response = Response::builder();
                for (name, value) in headers {
                    response = response.header(*name, *value);
                }
                Ok::<_, Infallible>(response.body(Frames(frames().into_iter())).expect("sound headers"))
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, task)
}

/// One call to such an agent over HTTP/1.1; the answer and the row.
async fn call(
    headers: &'static [(&'static str, &'static str)],
    frames: fn() -> Vec<Option<Frame<Bytes>>>,
) -> (Answer, Value) {
    let (address, agent) = agent(headers, frames).await;
    let gateway = TestGateway::start().await;
    let url = format!("http://{address}/a2a");
    let target = gateway.register_as(json!({"name": "two", "slug": "two", "url": url, "http2": true})).await;
    let caller = gateway.register_client("caller").await;
    gateway.connect(&caller, &target).await;
    let answer = gateway.call("two", Some(&caller.key), &rpc(5, "SendMessage")).await;
    let rows = gateway.rows_of(&target).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    gateway.stop().await;
    agent.abort();
    (answer, rows[0].clone())
}

fn data(text: &'static str) -> Option<Frame<Bytes>> {
    Some(Frame::data(Bytes::from_static(text.as_bytes())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_known_length_is_whole_with_its_last_byte() {
    let headers = &[("content-type", "application/json"), ("content-length", "2")];
    let (answer, row) = call(headers, || vec![data("{}")]).await;
    assert_eq!((answer.text().as_str(), answer.cut), ("{}", false));
    assert_eq!(row["outcome"], "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_end_an_answer() {
    let trailers = || {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", http::HeaderValue::from_static("1"));
        vec![data("{}"), Some(Frame::trailers(trailers))]
    };
    let (answer, row) = call(&[("content-type", "application/json")], trailers).await;
    assert_eq!((answer.text().as_str(), answer.cut), ("{}", false));
    assert_eq!(row["outcome"], "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_breaks_down_in_a_stream_is_passed_on_as_a_cut() {
    let frames = || vec![data("data: {}\n\n"), None];
    let (answer, row) = call(&[("content-type", "text/event-stream")], frames).await;
    assert!(answer.cut);
    assert_eq!(row["outcome"], "agent_gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_reach_an_http2_caller_without_what_only_the_gateway_may_say() {
    use http_body_util::{BodyExt as _, Full};

    let trailers = || {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", http::HeaderValue::from_static("1"));
        trailers.insert("x-openagora-trust-level", http::HeaderValue::from_static("connected"));
        trailers.insert("set-cookie", http::HeaderValue::from_static("a=b"));
        vec![data("{}"), Some(Frame::trailers(trailers))]
    };
    let (address, agent) = agent(&[("content-type", "application/json")], trailers).await;
    let gateway = TestGateway::start().await;
    let url = format!("http://{address}/a2a");
    let target = gateway.register_as(json!({"name": "two", "slug": "two", "url": url, "http2": true})).await;
    let stream = tokio::net::TcpStream::connect(gateway.gateway.public_address()).await.expect("the gateway listens");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = Request::post("http://gateway/api/proxy/two")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(rpc(1, "SendMessage").to_string())))
        .expect("a request");
    let body = sender.send_request(request).await.expect("an answer").into_body().collect().await.expect("whole");
    let names: Vec<&str> = body.trailers().expect("trailers").keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-checksum"]);
    assert_eq!(body.to_bytes(), "{}");
    assert_eq!(gateway.rows_of(&target).await[0]["outcome"], "completed");
    gateway.stop().await;
    agent.abort();
}

/// A body that begins and never ends.
struct Unfinished(bool);

impl http_body::Body for Unfinished {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if std::mem::replace(&mut self.0, false) {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"{\"jsonrpc\"")))));
        }
        Poll::Pending
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_still_being_sent_when_the_gateway_stops_has_its_row() {
    let gateway = TestGateway::with(Clock::system(), |config| {
        config.server.drain_timeout = std::time::Duration::from_millis(100);
    })
    .await;
    let agent = Agent::echo().await;
    let target = gateway.register("echo", &agent).await;
    let stream = TcpStream::connect(gateway.gateway.public_address()).await.expect("the gateway listens");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.expect("the gateway speaks HTTP/2");
    tokio::spawn(connection);
    let request = |method: &str, body| {
        let request = Request::builder().method(method).uri("http://gateway/api/proxy/echo");
        request.body(Unfinished(body)).expect("a request")
    };
    let unfinished = tokio::spawn(sender.send_request(request("POST", true)));
    // Frames keep their order: once this is answered, the gateway has the call before it.
    let card = within("the card", sender.send_request(request("GET", false))).await.expect("an answer");
    assert_eq!(card.status(), 200);
    let gateway = gateway.restart(Clock::system(), |_| {}).await;
    let rows = gateway.rows_of(&target).await;
    assert!(rows.iter().any(|row| row["binding"] == "jsonrpc" && row["outcome"] == "client_gone"), "{rows:?}");
    unfinished.abort();
    gateway.stop().await;
}
