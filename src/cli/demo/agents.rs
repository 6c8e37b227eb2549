//! The two agents of the demonstration: one that speaks A2A 0.3 and 1.0, unary and streaming, and one that speaks the legacy
//! `tasks/send`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Answer = fn(&Value) -> Response<Body>;

/// How long the streaming agent thinks between two events.
const PAUSE: Duration = Duration::from_millis(250);

/// Starts the agent that speaks 0.3 and 1.0; returns its endpoint.
pub(super) async fn weather() -> std::io::Result<String> {
    start(weather_card, weather_answer).await
}

/// Starts the agent that speaks `tasks/send`; returns its endpoint.
pub(super) async fn archive() -> std::io::Result<String> {
    start(archive_card, archive_answer).await
}

async fn start(card: fn(&str) -> Value, answer: Answer) -> std::io::Result<String> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let url = format!("http://{}/a2a", listener.local_addr()?);
    let card = Bytes::from(card(&url).to_string());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let card = card.clone();
            let service = service_fn(move |request| serve(request, card.clone(), answer));
            tokio::spawn(async move {
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(url)
}

async fn serve(request: Request<Incoming>, card: Bytes, answer: Answer) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if request.method() == Method::GET && path.ends_with("/.well-known/agent-card.json") {
        return Ok(json_answer(StatusCode::OK, card));
    }
    if request.method() != Method::POST {
        return Ok(json_answer(StatusCode::METHOD_NOT_ALLOWED, Bytes::from_static(b"{}")));
    }
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let call: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Ok(answer(&call))
}

fn json_answer(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn result(call: &Value, result: &Value) -> Response<Body> {
    let answer = json!({"jsonrpc": "2.0", "id": call["id"], "result": result});
    json_answer(StatusCode::OK, Bytes::from(answer.to_string()))
}

fn unknown_method(call: &Value) -> Response<Body> {
    let error = json!({"code": -32601, "message": "Method not found"});
    let answer = json!({"jsonrpc": "2.0", "id": call["id"], "error": error});
    json_answer(StatusCode::OK, Bytes::from(answer.to_string()))
}

fn weather_card(url: &str) -> Value {
    json!({
        "name": "Weather",
        "description": "Tells the weather of the demonstration, which is always fine",
        "version": "1.0.0",
        "protocolVersion": "0.3.0",
        "url": url,
        "preferredTransport": "JSONRPC",
        "supportedInterfaces": [
            {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
            {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "0.3"}
        ],
        "capabilities": {"streaming": true},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "forecast", "name": "Forecast", "description": "The weather of a place", "tags": ["weather"]}]
    })
}

fn weather_answer(call: &Value) -> Response<Body> {
    match call["method"].as_str().unwrap_or_default() {
        "SendMessage" => result(call, &json!({"task": task(call, true, "TASK_STATE_COMPLETED")})),
        "message/send" => result(call, &task(call, false, "completed")),
        "SendStreamingMessage" => events(call, true),
        "message/stream" => events(call, false),
        _ => unknown_method(call),
    }
}

fn text_part(v1: bool, text: &str) -> Value {
    if v1 { json!({"text": text}) } else { json!({"kind": "text", "text": text}) }
}

fn task(call: &Value, v1: bool, state: &str) -> Value {
    let context = call["params"]["message"]["contextId"].as_str().unwrap_or("demo-context");
    let mut task = json!({
        "id": Uuid::new_v4().to_string(),
        "contextId": context,
        "status": {"state": state},
        "artifacts": [{"artifactId": "forecast", "parts": [text_part(v1, "Fine, 21 degrees, light wind from the west")]}]
    });
    if !v1 {
        task["kind"] = json!("task");
    }
    task
}

/// A working task, three pieces of the forecast, and the end.
fn events(call: &Value, v1: bool) -> Response<Body> {
    let id = Uuid::new_v4().to_string();
    let status = |state: &str, last: bool| {
        let state = json!({"state": state});
        if v1 {
            json!({"statusUpdate": {"taskId": id, "contextId": "demo-context", "status": state}})
        } else {
            json!({"kind": "status-update", "taskId": id, "contextId": "demo-context", "status": state, "final": last})
        }
    };
    let piece = |text: &str| {
        let artifact = json!({"artifactId": "forecast", "parts": [text_part(v1, text)]});
        if v1 {
            json!({"artifactUpdate": {"taskId": id, "contextId": "demo-context", "artifact": artifact, "append": true}})
        } else {
            json!({"kind": "artifact-update", "taskId": id, "contextId": "demo-context", "artifact": artifact, "append": true})
        }
    };
    let first = if v1 {
        json!({"task": {"id": id, "contextId": "demo-context", "status": {"state": "TASK_STATE_WORKING"}}})
    } else {
        json!({"kind": "task", "id": id, "contextId": "demo-context", "status": {"state": "working"}})
    };
    let last = status(if v1 { "TASK_STATE_COMPLETED" } else { "completed" }, true);
    let all = vec![first, piece("Morning: fog."), piece("Noon: sun."), piece("Evening: stars."), last];
    let rpc_id = call["id"].clone();
    let frames = stream::unfold(all.into_iter(), move |mut left| {
        let rpc_id = rpc_id.clone();
        async move {
            let event = left.next()?;
            if left.len() < 4 {
                tokio::time::sleep(PAUSE).await;
            }
            let data = json!({"jsonrpc": "2.0", "id": rpc_id, "result": event});
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(format!("data: {data}\n\n")))), left))
        }
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let content_type = header::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

fn archive_card(url: &str) -> Value {
    json!({
        "name": "Archive",
        "description": "Speaks the first A2A dialect: tasks/send",
        "url": url,
        "version": "1.0",
        "skills": [{"id": "search", "name": "Search", "description": "Finds old documents", "tags": ["research"]}]
    })
}

fn archive_answer(call: &Value) -> Response<Body> {
    if call["method"] != "tasks/send" {
        return unknown_method(call);
    }
    let answer = json!({
        "id": call["params"]["id"],
        "sessionId": "demo-session",
        "status": {"state": "completed"},
        "artifacts": [{"parts": [{"type": "text", "text": "Found: a paper from 1974"}]}]
    });
    result(call, &answer)
}
