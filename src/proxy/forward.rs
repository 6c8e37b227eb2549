//! Steps 9 to 11: the call goes to the agent, its answer comes back, the record closes.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;

use super::attribution;
use super::body::{Answer, Farewell, Notice};
use super::call::OpenCall;
use super::headers::{self, AGENT_AUTHORIZATION, Hop};
use super::live::{Cut, Tap};
use super::reason::Reason;
use super::refusal::{self, Refusal, RenderContext};
use super::sign::{self, Statement};
use super::trace::Trace;
use super::upstream::{self, UpstreamError};
use super::{Body, Peer, Settings, Worker, dialect, holder};
use crate::a2a::{Effect, EventScanner};
use crate::audit::record::{Ending, Intent};
use crate::directory::{Agent, Endpoint};
use crate::identity::Caller;
use crate::limit::Headroom;
use crate::vitals::{Passage, Shown, Sign};

/// Everything forwarding needs of an admitted call.
pub(super) struct Order<'a> {
    pub(super) intent: &'a Intent,
    pub(super) caller: &'a Caller,
    pub(super) target: &'a Agent,
    pub(super) endpoint: &'a Arc<Endpoint>,
    pub(super) head: &'a Parts,
    /// The path below the endpoint; empty for JSON-RPC.
    pub(super) rest: &'a str,
    pub(super) peer: &'a Peer,
    pub(super) settings: &'a Settings,
    pub(super) body: Bytes,
    pub(super) headroom: Headroom,
    pub(super) trace: Trace,
}

/// How an attempt ended that brought no answer.
enum Failure {
    Upstream(UpstreamError),
    Silent,
    Cut(Cut),
}

impl Worker {
    pub(super) async fn forward(&self, mut open: OpenCall, passage: Passage, order: Order<'_>) -> Response<Body> {
        let tap = open.entered.as_ref().map(|entered| Arc::clone(&entered.tap)).unwrap_or_default();
        let attempt = self.attempt(&tap, &order).await;
        // Counted now, not at the end: a stream may go on for hours.
        if let Some((shown, sign)) = shown(&attempt, &order) {
            order.target.vitals.note(shown);
            passage.tell(sign, &self.shared.clock);
        }
        match attempt {
            Ok(answer) => self.pass(open, &tap, answer, &order).await,
            Err(failure) => {
                let (ending, refusal) = explain(failure);
                open.outcome.reason = Some(refusal.reason.word());
                open.outcome.status_code = refusal.status(order.intent.binding).as_u16();
                let written = open.close(ending);
                self.give_up(written, refusal, &order).await
            }
        }
    }

    /// Sends the call, a read once more when its connection broke: asking twice for a result changes nothing.
    async fn attempt(&self, tap: &Tap, order: &Order<'_>) -> Result<Response<Incoming>, Failure> {
        let query = order.head.uri.query();
        let uri = upstream::target(order.endpoint, order.rest, query)
            .ok_or_else(|| Failure::Upstream(UpstreamError::Dial("its URL cannot be joined".to_owned(), false)))?;
        let request = request(order, uri, self.headers(order));
        let reads = order.intent.operation.effect() == Effect::Read;
        let limit = if reads { order.target.timeouts.read_first_byte } else { order.target.timeouts.first_byte };
        let client = self.pools.client(order.target, order.endpoint);
        let attempt = async |request| {
            let sent = upstream::send(&client, request);
            tokio::select! {
                biased;
                cut = poll_fn(|cx| tap.poll_cut(cx)) => Err(Failure::Cut(cut)),
                sent = tokio::time::timeout(limit, sent) => match sent {
                    Err(_) => Err(Failure::Silent),
                    Ok(answer) => answer.map_err(Failure::Upstream),
                },
            }
        };
        // Only what may be sent twice is worth a copy.
        let again = reads.then(|| request.clone());
        match (attempt(request).await, again) {
            (Err(Failure::Upstream(UpstreamError::Broken(_))), Some(again)) => attempt(again).await,
            (first, _) => first,
        }
    }

    fn headers(&self, order: &Order<'_>) -> HeaderMap {
        let hop = Hop {
            source: order.intent.client_ip.unwrap_or(order.peer.address),
            scheme: order.peer.scheme,
            host: host(order.head),
            pseudonym: &self.shared.pseudonym,
            version: order.head.version,
            pass_accept_encoding: order.settings.pass_accept_encoding,
        };
        let mut headers = headers::to_agent(&order.head.headers, &hop);
        if !headers.contains_key(header::ACCEPT) {
            let accept = if order.intent.operation.streams() { "text/event-stream" } else { "application/json" };
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        }
        order.trace.pass(&mut headers, order.intent.request_id);
        if order.target.pass_authorization
            && let Some(own) = order.head.headers.get(AGENT_AUTHORIZATION)
        {
            headers.insert(header::AUTHORIZATION, own.clone());
        }
        if let Some((name, value)) = &order.target.upstream_credential {
            headers.insert(name.clone(), value.clone());
        }
        let statement = Statement {
            request_id: order.intent.request_id,
            at: order.intent.called_at,
            caller: order.caller,
            level: order.intent.trust_level,
            http_method: &order.head.method,
            method: order.intent.method.as_deref().unwrap_or_default(),
            body: &order.body,
        };
        sign::add_identity(&mut headers, order.target, &statement);
        headers
    }

    /// Passes the answer on. Its head waits for nothing but a body that is whole already.
    async fn pass(
        &self,
        mut open: OpenCall,
        tap: &Tap,
        answer: Response<Incoming>,
        order: &Order<'_>,
    ) -> Response<Body> {
        let (mut parts, body) = answer.into_parts();
        open.outcome.upstream_status = Some(parts.status.as_u16());
        open.outcome.ttfb_ms = Some(open.elapsed_ms());
        if let Some(refusal) = unusable(parts.status) {
            drop(body);
            open.outcome.reason = Some(refusal.reason.word());
            open.outcome.status_code = refusal.status(order.intent.binding).as_u16();
            let written = open.close(Ending::AgentGone);
            return self.give_up(written, refusal, order).await;
        }
        open.outcome.status_code = parts.status.as_u16();
        open.agent_failed = parts.status.is_server_error();
        let notice = notice(&parts.headers, &body);
        let length = body.size_hint().exact();
        let events = matches!(notice, Notice::Events(_));
        open.outcome.stream_events = events.then_some(0);
        // Within an announced length a farewell would stand in for the agent's own bytes, and could make a cut answer look whole.
        let farewell = (events && length.is_none()).then(|| farewell(order));
        headers::clean_answer(&mut parts.headers);
        if length.is_none() {
            // It stood beside `Transfer-Encoding` and was never true (RFC 9112 section 6.3): the caller must not count on it.
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        self.mark_answer(&mut parts.headers, order, open.elapsed_ms());
        tap.attach(body);
        let idle: Duration = order.target.timeouts.idle;
        let body = match Box::new(Answer::new(open, notice, length, idle, farewell)).settle().await {
            Ok(body) => body,
            Err(down) => return self.give_up(None, down.into(), order).await,
        };
        let mut response = Response::new(body);
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        response
    }

    fn mark_answer(&self, headers: &mut HeaderMap, order: &Order<'_>, elapsed_ms: u32) {
        if let Ok(id) = HeaderValue::try_from(order.intent.request_id.hyphenated().to_string()) {
            headers.insert("x-openagora-request-id", id);
        }
        headers.insert("x-openagora-trust-level", HeaderValue::from_static(order.intent.trust_level.as_str()));
        headers.insert("x-openagora-latency-ms", HeaderValue::from(elapsed_ms));
        holder::tell(headers, &order.headroom, order.settings);
    }
}

fn request(order: &Order<'_>, uri: Uri, headers: HeaderMap) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(order.body.clone()));
    *request.method_mut() = order.head.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    if order.endpoint.http2 {
        *request.version_mut() = http::Version::HTTP_2;
    }
    request
}

/// The name the caller used for us.
fn host(head: &Parts) -> Option<&str> {
    match head.headers.get(header::HOST) {
        Some(host) => host.to_str().ok(),
        None => head.uri.authority().map(http::uri::Authority::as_str),
    }
}

/// Answers that are no answers: interim ones nobody asked for, and redirects, which would lead past the gateway.
fn unusable(status: StatusCode) -> Option<Refusal> {
    let problem = match status.as_u16() {
        100..=199 => "an interim status came as the final one",
        301 | 302 | 303 | 307 | 308 => "it redirects; its registration must name the final URL",
        _ => return None,
    };
    Some(Refusal::new(Reason::InvalidAnswer).with("problem", problem))
}

/// What an attempt says of the agent; `None` where the gateway ended it.
fn shown(attempt: &Result<Response<Incoming>, Failure>, order: &Order<'_>) -> Option<(Shown, Sign)> {
    match attempt {
        Ok(answer) => {
            let callers_own = order.target.pass_authorization && order.head.headers.contains_key(AGENT_AUTHORIZATION);
            let own = order.target.upstream_credential.is_some() && !callers_own;
            Some(attribution::of_answer(answer.status(), answer.headers(), number(order), own))
        }
        Err(Failure::Upstream(error)) => Some(attribution::of_failure(error)),
        Err(Failure::Silent) => Some(attribution::SILENT),
        Err(Failure::Cut(_)) => None,
    }
}

/// Tells callers apart, as far as one that is no longer alone matters: agents by id, others by address, IPv6 by /64.
fn number(order: &Order<'_>) -> u32 {
    match (order.caller.agent_id(), order.intent.client_ip.unwrap_or(order.peer.address)) {
        (Some(id), _) => crc32fast::hash(id.as_bytes()),
        (None, IpAddr::V4(address)) => crc32fast::hash(&address.octets()),
        (None, IpAddr::V6(address)) => crc32fast::hash(&address.octets()[..8]),
    }
}

fn explain(failure: Failure) -> (Ending, Refusal) {
    let (ending, reason) = match failure {
        Failure::Silent => (Ending::Timeout, Reason::UpstreamTimeout),
        Failure::Cut(cut) => (Ending::Interrupted, reason_of(cut)),
        Failure::Upstream(UpstreamError::Dial(why, timeout)) => {
            tracing::debug!(why, "agent cannot be reached");
            (if timeout { Ending::Timeout } else { Ending::AgentGone }, Reason::ConnectFailed)
        }
        Failure::Upstream(UpstreamError::Broken(why)) => {
            tracing::debug!(why, "agent broke off");
            (Ending::AgentGone, Reason::AgentGone)
        }
    };
    (ending, Refusal::new(reason))
}

fn reason_of(cut: Cut) -> Reason {
    match cut {
        Cut::Revoked => Reason::Revoked,
        Cut::Draining => Reason::Draining,
        Cut::Ended => Reason::EndedByOperator,
    }
}

/// What to look for in an answer. Its content type decides, not the operation: a stream call may be answered with plain JSON.
fn notice(headers: &HeaderMap, body: &Incoming) -> Notice {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if headers.contains_key(header::CONTENT_ENCODING) {
        Notice::Nothing
    } else if essence.eq_ignore_ascii_case("text/event-stream") {
        Notice::Events(EventScanner::new())
    } else if essence.to_ascii_lowercase().ends_with("json") && body.size_hint().lower() <= 64 * 1024 {
        Notice::Unary(BytesMut::new())
    } else {
        Notice::Nothing
    }
}

/// The event that tells a reader why the gateway ended its stream.
fn farewell(order: &Order<'_>) -> Farewell {
    let (binding, level) = (order.intent.binding, order.intent.trust_level);
    let dialect = dialect(order.head, order.intent.method.as_deref());
    let rpc_id = order.intent.rpc_id.clone();
    let request_id = order.intent.request_id;
    Box::new(move |cut| {
        let refusal = Refusal::new(cut.map_or(Reason::UpstreamTimeout, reason_of));
        let trust_level = Some(level);
        let context = RenderContext { binding, rpc_id: rpc_id.as_deref(), request_id, trust_level, head: false };
        refusal::error_event(&refusal, &context, dialect)
    })
}
