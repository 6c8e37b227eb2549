//! The HTTP API for agents and operators: `/api/agents`, `/api/keys`, `/api/connections`, `/api/calls`, `/livez`, `/readyz`.
//!
//! Promises: OpenAgora's two dialects are understood and answered; every refusal is a problem document (RFC 9457) with
//! OpenAgora's `error` in it; a change that was begun is finished although the asker hangs up; nothing private about an
//! agent is told to strangers. Holds no rules of its own but who sees what: those are the registry's.

mod agent_form;
mod agents;
mod body;
mod calls;
mod connections;
mod cursor;
mod events;
mod import;
mod keys;
mod operators;
mod problem;
mod readings;
mod status;
mod view;
mod who;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures_util::future::BoxFuture;

use crate::audit::record::Intent;
use crate::directory;
use crate::limit::Limits;
use crate::registry::Registry;
use crate::store::Store;
use problem::Problem;
pub use readings::Readings;

/// The largest request body.
const BODY_MAX: usize = 1024 * 1024;

/// Waits until all calls that are over are in the log.
pub type Flush = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// What the API works on.
pub struct Control {
    /// The rules.
    pub registry: Arc<Registry>,
    /// What is read beside them.
    pub store: Store,
    /// What calls are decided from: the keys of agents, the cards served for them.
    pub directory: directory::Current,
    /// How often a network source may try what costs nothing.
    pub limits: Arc<Limits>,
    /// The gateway's address as callers see it, without a slash at the end.
    pub public_url: String,
    /// Whether anybody may register an agent; changes with the configuration.
    pub open_registration: Arc<AtomicBool>,
    /// The calls that are open now.
    pub active_calls: Arc<dyn Fn() -> Vec<Intent> + Send + Sync>,
    /// Called before the log is read, so that it shows what has just happened.
    pub drain_flush: Option<Flush>,
    /// What operators read of the log lately.
    pub readings: Readings,
    /// Whether calls are recorded, which they must be to be served; the text says why not.
    pub ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("public_url", &self.public_url).finish_non_exhaustive()
    }
}

/// Where a request comes from, proxies that are trusted left out. Whoever hands a request in puts this into its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Source(pub IpAddr);

/// Which listener a request came in by: each takes credentials of one kind only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Public,
    Operator,
}

/// What handlers are given.
#[derive(Clone)]
struct Entry {
    control: Arc<Control>,
    door: Door,
}

/// The API on the public listener: agents with their own keys, and strangers.
pub fn public(control: Arc<Control>) -> Router {
    routes(Entry { control, door: Door::Public })
}

/// The API on the operator listener: operators with their tokens, nobody else.
pub fn operator(control: Arc<Control>) -> Router {
    routes(Entry { control, door: Door::Operator })
}

/// The largest request body at `path`.
fn body_max(path: &str) -> usize {
    if path == import::PATH { import::EXPORT_MAX } else { BODY_MAX }
}

fn routes(entry: Entry) -> Router {
    let router = Router::new()
        .route("/api/agents", get(agents::list).post(agents::create))
        .route("/api/agents/find", get(agents::find))
        .route("/api/agents/{id}", get(agents::show).put(agents::update).patch(agents::update).delete(agents::delete))
        .route("/api/agents/{id}/agent-card.json", get(agents::card))
        .route("/api/keys", get(keys::list).post(keys::create))
        .route("/api/keys/{id}", axum::routing::delete(keys::revoke))
        .route("/api/connections", get(connections::list).post(connections::create))
        .route(
            "/api/connections/{id}",
            get(connections::show).put(connections::update).patch(connections::update).delete(connections::end),
        )
        .route("/api/calls", get(calls::list))
        .route("/api/calls/active", get(calls::active))
        .route("/livez", get(status::live))
        .route("/readyz", get(status::ready));
    let router = match entry.door {
        Door::Public => router,
        Door::Operator => router
            .route("/api/operators", get(operators::list).post(operators::create))
            .route("/api/operators/{id}", axum::routing::delete(operators::remove))
            .route("/api/operators/{id}/rotate", post(operators::rotate))
            .route("/api/events", get(events::list))
            .route(import::PATH, post(import::openagora)),
    };
    router
        .fallback(async || Problem::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || Problem::new(405, "this method is not allowed here"))
        .with_state(entry)
        .layer(from_fn(detached))
}

/// Runs the request as a task of its own: a change in the database is followed by the rebuilding of the directory even
/// when the asker has gone in between.
async fn detached(request: Request, next: Next) -> Response {
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, "a request to the API failed");
            Problem::new(500, "the gateway failed to answer: its log says why").into_response()
        }
    }
}
