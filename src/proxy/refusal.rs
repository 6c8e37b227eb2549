//! Refusals: the typed reasons for not forwarding a call, or for ending one, and the one place where they become answers.
//!
//! Promises that every refusal carries its real HTTP status (but for faults of a JSON-RPC envelope, which are answered as the
//! SDKs do), the caller's JSON-RPC id as it was written, a message that says what to do, and the request id by which an
//! operator finds the row; and that the body is valid JSON whatever it was given. An agent that does not exist and one that
//! the caller may not know are answered in the same words. Pure: knows no sockets, no limits and no rules.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::reason::{A2A_DOMAIN, DOMAIN, Reason};
use crate::a2a::{Binding, Dialect};
use crate::limit::Headroom;
use crate::trust::TrustLevel;

/// The header that names a call to its caller.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-openagora-request-id");

/// The header that tells a caller its trust level.
pub const TRUST_LEVEL: HeaderName = HeaderName::from_static("x-openagora-trust-level");

/// A reason with what belongs to this one case of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// When the same call may succeed.
    pub retry_after: Option<Duration>,
    /// Further facts for the caller's program, such as which limit it was.
    pub metadata: Vec<(&'static str, String)>,
    /// The id of the rule that decided, for the row.
    pub rule: Option<&'static str>,
    /// Where that rule is a limit: what was left of it, for the row.
    pub left: Option<u32>,
    /// What is left of the limits that refused it.
    pub headroom: Option<Box<Headroom>>,
}

impl Refusal {
    /// A refusal for `reason`.
    #[must_use]
    pub fn new(reason: Reason) -> Self {
        Self { reason, retry_after: None, metadata: Vec::new(), rule: None, left: None, headroom: None }
    }

    /// With the time after which the same call may succeed.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// With a further fact.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((key, value.into()));
        self
    }

    /// With the rule that decided.
    #[must_use]
    pub fn by_rule(mut self, rule: &'static str) -> Self {
        self.rule = Some(rule);
        self
    }

    /// The wait in whole seconds, rounded up, so that a caller that waits so long is not too early; at least 1.
    #[must_use]
    pub fn retry_seconds(&self) -> Option<u64> {
        self.retry_after.map(|wait| (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
    }

    /// The HTTP status it has on `binding`.
    #[must_use]
    pub fn status(&self, binding: Binding) -> StatusCode {
        self.reason.status(binding)
    }

    /// What the caller's user reads.
    fn message(&self, level: Option<TrustLevel>) -> String {
        let mut message = self.reason.message();
        if let Some(seconds) = self.retry_seconds() {
            let s = if seconds == 1 { "" } else { "s" };
            message.push_str(&format!(" Try again in {seconds} second{s}."));
        }
        if self.reason.is_limit() {
            match level {
                Some(TrustLevel::Unverified) => message.push_str(" Calls with an API key have higher limits."),
                Some(TrustLevel::Verified) => {
                    message.push_str(" Connected agents have higher limits: ask this agent for a connection.");
                }
                _ => {}
            }
        }
        message
    }
}

/// What of the call an answer needs to know.
#[derive(Clone, Copy, Debug)]
pub struct RenderContext<'a> {
    /// The wire form of the call.
    pub binding: Binding,
    /// The JSON-RPC id as JSON text. Anything but a string, a number or null is answered as null.
    pub rpc_id: Option<&'a str>,
    /// The request id.
    pub request_id: Uuid,
    /// What the caller is to the target, where that was found out.
    pub trust_level: Option<TrustLevel>,
    /// Whether it was a HEAD request: the answer has a head only.
    pub head: bool,
}

impl RenderContext<'_> {
    /// The level to show: none where even the level would tell that the agent exists.
    fn shown_level(&self, refusal: &Refusal) -> Option<TrustLevel> {
        self.trust_level.filter(|_| refusal.reason != Reason::AgentNotFound)
    }
}

/// Renders a refusal for a call that has not been answered yet.
#[must_use]
pub fn render(refusal: &Refusal, ctx: &RenderContext<'_>) -> Response<Bytes> {
    let status = refusal.status(ctx.binding);
    let (body, content_type) = match ctx.binding {
        Binding::JsonRpc => (rpc_body(refusal, ctx), "application/json"),
        Binding::Rest => (rest_body(refusal, ctx), "application/json"),
        Binding::Http => (problem_body(refusal, ctx), "application/problem+json"),
    };
    let length = body.len();
    let mut response = Response::new(if ctx.head { Bytes::new() } else { body });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    add_headers(refusal, ctx, headers);
    response
}

fn add_headers(refusal: &Refusal, ctx: &RenderContext<'_>, headers: &mut HeaderMap) {
    if let Some(seconds) = refusal.retry_seconds() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    match refusal.reason {
        Reason::CredentialMissing => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"trust-gateway\""));
        }
        Reason::CredentialInvalid => {
            let challenge = "Bearer realm=\"trust-gateway\", error=\"invalid_token\"";
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        Reason::MethodNotAllowed { allow } => {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        _ => {}
    }
    let mut id = Uuid::encode_buffer();
    let id = HeaderValue::from_str(ctx.request_id.as_hyphenated().encode_lower(&mut id));
    headers.insert(REQUEST_ID, id.expect("a UUID is hex digits and hyphens"));
    if let Some(level) = ctx.shown_level(refusal) {
        headers.insert(TRUST_LEVEL, HeaderValue::from_static(level.as_str()));
    }
}

/// The one event that says why the gateway ends a stream, framed as the caller's dialect frames errors (A2A 1.0 SDKs name the
/// event). To be written at an event boundary only. `None` for streams that are not A2A: those can only be cut.
#[must_use]
pub fn error_event(refusal: &Refusal, ctx: &RenderContext<'_>, dialect: Dialect) -> Option<Bytes> {
    let data = match ctx.binding {
        Binding::JsonRpc => rpc_body(refusal, ctx),
        Binding::Rest => rest_body(refusal, ctx),
        Binding::Http => return None,
    };
    let name: &[u8] = match dialect {
        Dialect::V03 => b"",
        Dialect::V10 => b"event: error\n",
    };
    Some([name, b"data: ", &data, b"\n\n"].concat().into())
}

/// `google.rpc.ErrorInfo` in JSON; its metadata values are strings.
#[derive(Serialize)]
struct ErrorInfo {
    #[serde(rename = "@type")]
    kind: &'static str,
    reason: &'static str,
    domain: &'static str,
    metadata: Map<String, Value>,
}

impl ErrorInfo {
    fn of(refusal: &Refusal, ctx: &RenderContext<'_>) -> Self {
        let reason = refusal.reason.info();
        Self {
            kind: "type.googleapis.com/google.rpc.ErrorInfo",
            reason,
            domain: if refusal.reason.is_a2a() { A2A_DOMAIN } else { DOMAIN },
            metadata: metadata(refusal, ctx),
        }
    }
}

fn metadata(refusal: &Refusal, ctx: &RenderContext<'_>) -> Map<String, Value> {
    let own = refusal.metadata.iter().map(|(key, value)| ((*key).to_owned(), value.as_str().into()));
    let mut metadata: Map<String, Value> = own.collect();
    metadata.insert("request_id".into(), ctx.request_id.to_string().into());
    if let Some(seconds) = refusal.retry_seconds() {
        metadata.insert("retry_after".into(), seconds.to_string().into());
    }
    if let Some(level) = ctx.shown_level(refusal) {
        metadata.insert("trust_level".into(), level.as_str().into());
    }
    metadata
}

/// The id as written, if it is one: text from a row may have been cut, and a cut string would break the answer.
fn echoed<'a>(refusal: &Refusal, ctx: &RenderContext<'a>) -> &'a RawValue {
    let readable = !matches!(refusal.reason, Reason::Envelope(_));
    ctx.rpc_id
        .filter(|_| readable)
        .map(str::trim)
        .filter(|text| text.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()))
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(RawValue::NULL)
}

fn rpc_body(refusal: &Refusal, ctx: &RenderContext<'_>) -> Bytes {
    #[derive(Serialize)]
    struct Answer<'a> {
        jsonrpc: &'static str,
        id: &'a RawValue,
        error: RpcError,
    }
    #[derive(Serialize)]
    struct RpcError {
        code: i64,
        message: String,
        data: [ErrorInfo; 1],
    }
    let message = refusal.message(ctx.shown_level(refusal));
    let error = RpcError { code: refusal.reason.code(), message, data: [ErrorInfo::of(refusal, ctx)] };
    json(&Answer { jsonrpc: "2.0", id: echoed(refusal, ctx), error })
}

/// The shape of Google's AIP-193, which the REST binding uses.
fn rest_body(refusal: &Refusal, ctx: &RenderContext<'_>) -> Bytes {
    #[derive(Serialize)]
    struct Answer {
        error: Status,
    }
    #[derive(Serialize)]
    struct Status {
        code: u16,
        status: &'static str,
        message: String,
        details: [ErrorInfo; 1],
    }
    json(&Answer {
        error: Status {
            code: refusal.status(Binding::Rest).as_u16(),
            status: refusal.reason.canonical(),
            message: refusal.message(ctx.shown_level(refusal)),
            details: [ErrorInfo::of(refusal, ctx)],
        },
    })
}

/// RFC 9457 problem details, with the member `error` that OpenAgora's clients read.
fn problem_body(refusal: &Refusal, ctx: &RenderContext<'_>) -> Bytes {
    let status = refusal.status(Binding::Http);
    let title = status.canonical_reason().unwrap_or("Refused");
    let mut problem = metadata(refusal, ctx);
    problem.insert("type".into(), "about:blank".into());
    problem.insert("title".into(), title.into());
    problem.insert("status".into(), status.as_u16().into());
    problem.insert("detail".into(), refusal.message(ctx.shown_level(refusal)).into());
    problem.insert("error".into(), refusal.reason.openagora_error().unwrap_or(title).into());
    problem.insert("reason".into(), refusal.reason.info().into());
    if let Some(seconds) = refusal.retry_seconds() {
        problem.insert("retry_after".into(), seconds.into());
    }
    json(&problem)
}

fn json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("these types have string keys only and writing to memory does not fail").into()
}

#[cfg(test)]
#[path = "refusal_tests.rs"]
mod tests;
