//! How a refusal looks: one problem document (RFC 9457) with OpenAgora's `error` member in it.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::view;
use crate::limit::Refused;
use crate::registry::RegistryError;
use crate::store::StoreError;

/// A refusal, to be rendered.
#[derive(Debug)]
pub(super) struct Problem {
    status: u16,
    error: String,
    detail: String,
    extra: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(status: u16, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { status, error: detail.clone(), detail, extra: Map::new(), headers: Vec::new() }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(400, detail)
    }

    /// A member or parameter of the request that is not acceptable.
    pub(super) fn invalid(member: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(400, format!("{member}: {problem}")).with("member", json!(member))
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, detail)
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(403, detail)
    }

    /// The same for a missing, a wrong and an expired credential.
    pub(super) fn unauthorized(hint: &'static str) -> Self {
        let mut problem = Self::new(401, hint).with("hint", json!(hint));
        problem.error = "Unauthorized".to_owned();
        problem.headers.push((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"trust-gateway\"")));
        problem
    }

    /// With another challenge than the usual one.
    pub(super) fn challenge(mut self, challenge: HeaderValue) -> Self {
        self.headers.retain(|(name, _)| *name != header::WWW_AUTHENTICATE);
        self.headers.push((header::WWW_AUTHENTICATE, challenge));
        self
    }

    /// Not now, but perhaps in a moment.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(503, detail).retry_after(1)
    }

    /// What is wrong.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// What the framework refuses by itself (a path that is not UTF-8) it refuses in plain text: that becomes a problem, too.
    pub(super) fn instead_of_text(response: Response) -> Response {
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        if !(status.is_client_error() || status.is_server_error())
            || !kind.is_none_or(|kind| kind.starts_with(b"text/"))
        {
            return response;
        }
        Self::new(status.as_u16(), "this request cannot be read: check its path").into_response()
    }

    /// In so many seconds, the same may be answered otherwise.
    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.headers.push((header::RETRY_AFTER, HeaderValue::from(seconds)));
        self.with("retry_after", json!(seconds))
    }

    pub(super) fn with(mut self, member: &str, value: Value) -> Self {
        self.extra.insert(member.to_owned(), value);
        self
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NotFound(what) => {
                let mut text = format!("{what} not found");
                if let Some(first) = text.get_mut(..1) {
                    first.make_ascii_uppercase();
                }
                Self::not_found(text)
            }
            RegistryError::Forbidden(why) => Self::forbidden(why),
            RegistryError::Invalid { member, problem } => Self::invalid(&member, problem),
            RegistryError::Full(why) => Self::new(503, why).retry_after(3_600),
            RegistryError::Taken(what) => Self::new(409, what),
            RegistryError::Connection { problem, current } => Self::new(409, problem)
                .with("connection", json!({"id": current.id, "status": view::connection_status(&current)})),
            RegistryError::TooSoon(wait) => {
                Self::new(429, RegistryError::TooSoon(wait).to_string()).retry_after(wait.as_secs().max(1))
            }
            RegistryError::Store(error) => error.into(),
            RegistryError::Vault(error) => {
                tracing::error!(%error, "a secret cannot be handled");
                Self::new(500, "a secret of the gateway cannot be handled: its log says why")
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        // What the database says is for the operator's eyes.
        tracing::error!(%error, "the database refused a request of the API");
        Self::unavailable("the database cannot be used now: try again in a moment")
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let seconds = refused.retry_after.map_or(1, |wait| wait.as_secs());
        let mut problem =
            Self::new(429, format!("too much of this from your network address: try again in {seconds} s"));
        problem.error = "Too Many Requests".to_owned();
        problem.headers.extend(refused.headroom.headers());
        problem.retry_after(seconds)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut body = self.extra;
        body.insert("type".to_owned(), json!("about:blank"));
        body.insert("title".to_owned(), json!(status.canonical_reason().unwrap_or("Error")));
        body.insert("status".to_owned(), json!(status.as_u16()));
        body.insert("detail".to_owned(), json!(self.detail));
        body.insert("error".to_owned(), json!(self.error));
        let mut response = (status, Value::Object(body).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.headers);
        response
    }
}
