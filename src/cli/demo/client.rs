//! The demonstration's caller: a plain HTTP client that keeps what it was answered.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Why the demonstration cannot go on.
pub(super) type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// One answer, with the moments its pieces arrived.
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) pieces: Vec<(Duration, Bytes)>,
}

impl Answered {
    pub(super) fn json(&self) -> Value {
        let whole: Vec<u8> = self.pieces.iter().flat_map(|(_, piece)| piece.iter().copied()).collect();
        serde_json::from_slice(&whole).unwrap_or(Value::Null)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

pub(super) struct Caller(Client<HttpConnector, Full<Bytes>>);

impl Caller {
    pub(super) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    pub(super) async fn send(
        &self,
        method: Method,
        url: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answered, Trouble> {
        let mut request = Request::builder().method(method).uri(url).header("a2a-version", "1.0");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let started = Instant::now();
        let response = self.0.request(request.body(Full::new(bytes))?).await?;
        let (parts, mut body) = response.into_parts();
        let mut pieces = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                pieces.push((started.elapsed(), data));
            }
        }
        Ok(Answered { status: parts.status, headers: parts.headers, pieces })
    }

    /// As [`Caller::send`], for requests that must succeed.
    pub(super) async fn expect(
        &self,
        method: Method,
        url: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Value, Trouble> {
        let answer = self.send(method, url, token, body).await?;
        if answer.status.is_success() {
            return Ok(answer.json());
        }
        Err(format!("{url} answered {}: {}", answer.status, answer.json()).into())
    }
}
