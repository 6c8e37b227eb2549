//! The HTTP API for agents and operators: `/api/agents`, `/api/keys`, `/api/connections`, `/api/calls`, `/livez`, `/readyz`.
//!
//! Promises: OpenAgora's two dialects are understood and answered; every refusal is a problem document (RFC 9457) with
//! OpenAgora's `error` in it; a change that was begun is finished although the asker hangs up; nothing private about an
//! agent is told to strangers. Holds no rules of its own but who sees what: those are the registry's.

mod agent_form;
mod agent_limits;
mod agents;
mod audit;
mod body;
mod calls;
mod connections;
mod cursor;
mod events;
mod extended_card;
mod forms;
mod health;
mod history;
mod import;
mod keys;
mod ledger;
mod me;
mod metrics;
mod nodes;
mod notifications;
mod openapi;
mod operators;
mod problem;
mod readings;
mod retention;
mod shared_limits;
mod skill;
mod status;
mod story;
mod telling;
mod view;
mod webhooks;
mod who;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::audit::ledger::seal::NotChanged;
use crate::audit::record::Intent;
use crate::conditions::Conditions;
use crate::directory;
use crate::limit::Limits;
use crate::meter::Meter;
use crate::outlets::{Outlet, Webhooks};
use crate::registry::Registry;
use crate::registry::health::Health;
use crate::store::Store;
pub use audit::Exports;
pub use calls::call_lines;
pub use calls::follow::Follow;
pub use ledger::LedgerTold;
pub use metrics::{Freshness, Gauges};
use problem::Problem;
pub use readings::Readings;
pub use retention::RetentionHandle;
pub use shared_limits::SharedLimits;

/// The largest request body.
const BODY_MAX: usize = 1024 * 1024;

/// Waits until all calls that are over are in the log.
pub type Flush = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Lets a new key sign checkpoints; the key in its public form, or what stands in the way.
pub type NewLedgerKey = Arc<dyn Fn() -> BoxFuture<'static, Result<String, NotChanged>> + Send + Sync>;

/// What the API works on.
pub struct Control {
    /// The rules.
    pub registry: Arc<Registry>,
    /// Looks at agents.
    pub health: Arc<Health>,
    /// What is read beside them.
    pub store: Store,
    /// What calls are decided from: the keys of agents, the cards served for them.
    pub directory: directory::Current,
    /// How often a network source may try what costs nothing.
    pub limits: Arc<Limits>,
    /// The gateway's address as callers see it, without a slash at the end.
    pub public_url: String,
    /// The calls that are open now.
    pub active_calls: Arc<dyn Fn() -> Vec<Intent> + Send + Sync>,
    /// Ends a call that is open here; whether it was.
    pub end_call: Arc<dyn Fn(uuid::Uuid) -> bool + Send + Sync>,
    /// What the streams of the log share.
    pub follow: Arc<Follow>,
    /// Called before the log is read, so that it shows what has just happened.
    pub drain_flush: Option<Flush>,
    /// What the workers counted.
    pub meters: Vec<Arc<Meter>>,
    /// What the parts of the running gateway know of themselves.
    pub gauges: Arc<dyn Fn() -> Gauges + Send + Sync>,
    /// Makes a new key for the checkpoints of the log.
    pub new_ledger_key: NewLedgerKey,
    /// What this process is.
    pub about: About,
    /// What parts of the log are exported with.
    pub exports: Exports,
    /// What operators read of the log lately.
    pub readings: Readings,
    /// What is wrong with this gateway now.
    pub conditions: Conditions,
    /// Where its rows are sent.
    pub outlets: Vec<Arc<Outlet>>,
    /// Who is sent events.
    pub webhooks: Arc<Webhooks>,
    /// What is erased in the log, and what is removed.
    pub retention: RetentionHandle,
    /// Whether calls are recorded, which they must be to be served; the text says why not.
    pub ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// What a gateway tells operators of itself.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// The node whose rows it writes.
    pub node_id: uuid::Uuid,
    /// When it was started.
    pub started_at: crate::clock::Timestamp,
    /// Where callers connect.
    pub public: std::net::SocketAddr,
    /// Where operators connect.
    pub admin: std::net::SocketAddr,
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
    /// The description of the API at this door.
    openapi: Bytes,
}

/// The API on the public listener: agents with their own keys, and strangers.
pub fn public(control: Arc<Control>) -> Router {
    router(control, Door::Public)
}

/// The API on the operator listener: operators with their tokens, nobody else.
pub fn operator(control: Arc<Control>) -> Router {
    router(control, Door::Operator)
}

/// The largest request body at `path`.
fn body_max(path: &str) -> usize {
    if path == import::PATH { import::EXPORT_MAX } else { BODY_MAX }
}

/// Every route with its documentation: `routes!` takes no handler without.
fn described(door: Door) -> (Router<Entry>, utoipa::openapi::OpenApi) {
    let router = OpenApiRouter::with_openapi(openapi::blank())
        .routes(routes!(agents::list, agents::create))
        .routes(routes!(agents::find))
        .routes(routes!(agents::show, agents::update, agents::delete))
        .routes(routes!(agents::card))
        .routes(routes!(agents::card_without_prefix))
        .routes(routes!(extended_card::show))
        .routes(routes!(agents::signing_secret))
        .routes(routes!(skill::show))
        .routes(routes!(history::agent))
        .routes(routes!(health::probe))
        .routes(routes!(health::held))
        .routes(routes!(health::accept))
        .routes(routes!(health::reject))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(keys::rotate))
        .routes(routes!(connections::list, connections::create))
        .routes(routes!(connections::show, connections::update, connections::end))
        .routes(routes!(connections::history))
        .routes(routes!(me::show))
        .routes(routes!(notifications::list))
        .routes(routes!(calls::list))
        .routes(routes!(calls::active))
        .routes(routes!(calls::stats::show))
        .routes(routes!(calls::live::follow))
        .routes(routes!(story::show))
        .routes(routes!(status::live))
        .routes(routes!(status::ready))
        .routes(routes!(openapi::document));
    let router = match door {
        Door::Public => router,
        Door::Operator => router
            .routes(routes!(calls::end::end))
            .routes(routes!(operators::list, operators::create))
            .routes(routes!(operators::remove))
            .routes(routes!(operators::rotate))
            .routes(routes!(events::list))
            .routes(routes!(retention::erasing, retention::erase))
            .routes(routes!(retention::holds, retention::place))
            .routes(routes!(retention::release))
            .routes(routes!(retention::show))
            .routes(routes!(status::show))
            .routes(routes!(metrics::show))
            .routes(routes!(ledger::newest))
            .routes(routes!(ledger::list))
            .routes(routes!(ledger::rotate_key))
            .routes(routes!(webhooks::test))
            .routes(routes!(audit::rows))
            .routes(routes!(audit::rows_proof))
            .routes(routes!(audit::call))
            .routes(routes!(audit::consistent))
            .routes(routes!(import::openagora)),
    };
    router.split_for_parts()
}

fn router(control: Arc<Control>, door: Door) -> Router {
    let (router, document) = described(door);
    let openapi = openapi::finish(document, door, &control.public_url);
    router
        .fallback(nothing)
        .method_not_allowed_fallback(async || Problem::new(405, "this method is not allowed here"))
        .with_state(Entry { control, door, openapi })
        .layer(from_fn(detached))
}

/// What is not here; calls that came in by the operators' door are told where to go.
async fn nothing(State(entry): State<Entry>, uri: http::Uri) -> Problem {
    if entry.door == Door::Operator && crate::proxy::is_call(uri.path()) {
        return Problem::not_found(format!(
            "calls are not taken here: send them to {}/api/proxy/AGENT with an API key of the calling agent",
            entry.control.public_url
        ));
    }
    Problem::not_found("there is nothing at this path")
}

/// Runs the request as a task of its own: a change in the database is followed by the rebuilding of the directory even
/// when the asker has gone in between.
async fn detached(request: Request, next: Next) -> Response {
    match tokio::spawn(next.run(request)).await {
        Ok(response) => Problem::instead_of_text(response),
        Err(error) => {
            tracing::error!(%error, "a request to the API failed");
            Problem::new(500, "the gateway failed to answer: its log says why").into_response()
        }
    }
}
