//! The worker's own connections to agents: one pool per agent, so that agents share neither locks nor fates.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use uuid::Uuid;

use super::dial::{DialError, Dialer};
use crate::directory::{Agent, Endpoint};

/// TLS towards agents, by the protocol they speak.
#[derive(Clone)]
pub struct UpstreamTls {
    /// Offers HTTP/1.1 only.
    pub http1: Arc<rustls::ClientConfig>,
    /// Offers HTTP/2 only.
    pub http2: Arc<rustls::ClientConfig>,
}

/// How the agent failed.
#[derive(Debug)]
pub(super) enum UpstreamError {
    /// No connection stands: nothing was sent.
    Dial(String, bool),
    /// The connection broke before an answer began. The agent may have seen the call.
    Broken(String),
}

/// The connections of one worker. Its own thread uses them; the lock is taken by another for a moment, once a minute.
pub(super) struct Pools {
    tls: UpstreamTls,
    idle: Duration,
    clients: Mutex<HashMap<Uuid, Pool, RandomState>>,
}

type AgentClient = Client<Dialer, Full<Bytes>>;

struct Pool {
    endpoint: Arc<Endpoint>,
    client: AgentClient,
}

impl Pools {
    /// No connections yet. Idle ones are closed after `idle`, which must be below what agents' servers use.
    #[must_use]
    pub(super) fn new(tls: UpstreamTls, idle: Duration) -> Self {
        Self { tls, idle, clients: Mutex::default() }
    }

    /// The pool of `agent`; a new one where its endpoint has changed.
    pub(super) fn client(&self, agent: &Agent, endpoint: &Arc<Endpoint>) -> AgentClient {
        let mut clients = self.clients();
        match clients.get(&agent.id) {
            Some(pool) if Arc::ptr_eq(&pool.endpoint, endpoint) => pool.client.clone(),
            _ => {
                let client = self.build(endpoint);
                clients.insert(agent.id, Pool { endpoint: Arc::clone(endpoint), client: client.clone() });
                client
            }
        }
    }

    /// Lets go of pools of agents that `keep` does not know.
    pub(super) fn retain(&self, keep: impl Fn(Uuid) -> bool) {
        self.clients().retain(|id, _| keep(*id));
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<Uuid, Pool, RandomState>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn build(&self, endpoint: &Endpoint) -> AgentClient {
        let dialer = Dialer {
            network: endpoint.network.clone(),
            timeout: endpoint.connect_timeout,
            tls: Arc::clone(if endpoint.http2 { &self.tls.http2 } else { &self.tls.http1 }),
        };
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(self.idle)
            .http1_max_headers(200)
            .http1_max_buf_size(256 * 1024)
            .http2_only(endpoint.http2)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .build(dialer)
    }
}

/// Sends a call and waits for the head of the answer. An unstarted call on a reused connection that turns out dead is sent anew
/// by the pool; anything else is not, for the agent may have seen it.
///
/// # Errors
/// See [`UpstreamError`].
pub(super) async fn send(
    client: &AgentClient,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, UpstreamError> {
    client.request(request).await.map_err(|error| classify(&error))
}

fn classify(error: &legacy::Error) -> UpstreamError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut deepest = error.to_string();
    while let Some(cause) = source {
        if let Some(dial) = cause.downcast_ref::<DialError>() {
            return UpstreamError::Dial(dial.to_string(), matches!(dial, DialError::Timeout));
        }
        deepest = cause.to_string();
        source = cause.source();
    }
    UpstreamError::Broken(deepest)
}

/// Where a call on `rest` goes: the registered URL itself for JSON-RPC, below it otherwise, with the caller's query.
#[must_use]
pub(super) fn target(endpoint: &Endpoint, rest: &str, query: Option<&str>) -> Option<Uri> {
    if rest.is_empty() && query.is_none() {
        return Some(endpoint.uri.clone());
    }
    let mut text = String::with_capacity(endpoint.base.len() + rest.len() + 64);
    if rest.is_empty() {
        text.push_str(endpoint.url.as_str());
    } else {
        text.push_str(&endpoint.base);
        text.push_str(rest);
        if let Some(own) = endpoint.url.query() {
            text.push('?');
            text.push_str(own);
        }
    }
    if let Some(query) = query {
        text.push(if text.contains('?') { '&' } else { '?' });
        text.push_str(query);
    }
    text.parse().ok()
}
