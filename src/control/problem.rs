//! How a refusal looks: one problem document (RFC 9457) with OpenAgora's `error` member in it.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::view;
use crate::registry::RegistryError;
use crate::store::StoreError;

/// A refusal, to be rendered.
#[derive(Debug)]
pub(super) struct Problem {
    status: u16,
    error: String,
    detail: String,
    extra: Map<String, Value>,
    challenge: bool,
}

impl Problem {
    pub(super) fn new(status: u16, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { status, error: detail.clone(), detail, extra: Map::new(), challenge: false }
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
        problem.challenge = true;
        problem
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
            RegistryError::Taken(what) => Self::new(409, what),
            RegistryError::Connection { problem, current } => Self::new(409, problem)
                .with("connection", json!({"id": current.id, "status": view::connection_status(&current)})),
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
        let mut problem = Self::new(503, "the database cannot be used now: try again in a moment");
        problem.extra.insert("retry_after".to_owned(), json!(1));
        problem
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
        if self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"trust-gateway\""));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
