//! Whether the gateway lives, whether it serves, and how it is.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ledger::{self, Ledger};
use super::nodes::{self, Node};
use super::problem::Problem;
use super::who::Asked;
use super::{Control, Door, Entry, Freshness};
use crate::clock::Timestamp;

/// Longer than that, a database is as good as away.
pub(super) const DATABASE_PATIENCE: Duration = Duration::from_secs(2);

/// A snapshot that was not held against the database for that long is worth a word.
const STALE: Duration = Duration::from_secs(5);

/// A word on how the gateway is.
#[derive(Serialize, ToSchema)]
struct Word {
    /// `live`; `ready`, or `degraded`: calls are served, but something wants attention.
    status: &'static str,
    /// What was looked at, for operators: `ok`, or what is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<BTreeMap<&'static str, String>>,
}

/// Whether the process lives; asks nothing.
#[utoipa::path(get, path = "/livez", operation_id = "live", tag = "gateway", security(()),
    responses((status = 200, description = "It lives", body = Word)))]
pub(super) async fn live() -> Response {
    Json(Word { status: "live", checks: None }).into_response()
}

/// What is looked at, each with what is wrong with it. Without the first no call is served; without the others calls are served
/// as before, for as long as that can be answered for.
struct Checks {
    journal: Result<(), String>,
    database: Result<(), String>,
    drain: Result<(), String>,
    directory: Result<(), String>,
    /// `None`: this node's limits are its own.
    limits: Option<Result<(), String>>,
}

impl Checks {
    async fn of(control: &Control) -> Self {
        let database = match tokio::time::timeout(DATABASE_PATIENCE, control.store.ping()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("the database cannot be read: {error}")),
            Err(_) => Err(format!("the database has not answered for {} s", DATABASE_PATIENCE.as_secs())),
        };
        let gauges = (control.gauges)();
        let behind = gauges.drain.behind.as_secs();
        let limits = gauges.shared_limits.map(|shared| shared.check());
        let drain = || format!("calls could not be made rows for {behind} s: the journal keeps them");
        Self {
            journal: (control.ready)(),
            database,
            drain: if behind < 2 { Ok(()) } else { Err(drain()) },
            directory: directory(&gauges.directory),
            limits,
        }
    }

    /// Why no call is served.
    fn problem(&self) -> Option<&String> {
        self.journal.as_ref().err()
    }

    /// How it serves.
    fn word(&self) -> &'static str {
        if self.each().all(|(_, check)| check.is_ok()) { "ready" } else { "degraded" }
    }

    fn each(&self) -> impl Iterator<Item = (&'static str, &Result<(), String>)> {
        let always = [
            ("journal", &self.journal),
            ("database", &self.database),
            ("drain", &self.drain),
            ("directory", &self.directory),
        ];
        always.into_iter().chain(self.limits.as_ref().map(|limits| ("limits", limits)))
    }

    fn told(&self) -> BTreeMap<&'static str, String> {
        let word = |check: &Result<(), String>| check.as_ref().err().map_or("ok", String::as_str).to_owned();
        self.each().map(|(name, check)| (name, word(check))).collect()
    }
}

/// What is wrong with the snapshot that calls are decided from.
fn directory(freshness: &Freshness) -> Result<(), String> {
    let (age, most) = (freshness.unconfirmed, freshness.max_stale);
    if age > most {
        let (age, most) = (age.as_secs(), most.as_secs());
        return Err(format!("not read for {age} s, which is more than {most}: only connected callers are served"));
    }
    if age >= STALE {
        let (age, most) = (age.as_secs(), most.as_secs());
        return Err(format!(
            "not read for {age} s: calls are decided from what it was; after {most} s only connected callers are served"
        ));
    }
    match freshness.behind {
        true => Err("changes are in the database and not in force: it could not be read again".to_owned()),
        false => Ok(()),
    }
}

/// Whether calls are served, which they are only while they can be recorded.
#[utoipa::path(get, path = "/readyz", operation_id = "ready", tag = "gateway", security(()),
    responses((status = 200, description = "It serves", body = Word),
        (status = 503, description = "It does not; operators are told why")))]
pub(super) async fn ready(State(entry): State<Entry>) -> Response {
    let checks = Checks::of(&entry.control).await;
    // Why not is for those who can do something about it.
    match (checks.problem(), entry.door) {
        (None, Door::Public) => Json(Word { status: checks.word(), checks: None }).into_response(),
        (None, Door::Operator) => Json(Word { status: checks.word(), checks: Some(checks.told()) }).into_response(),
        (Some(_), Door::Public) => Problem::unavailable("not ready").into_response(),
        (Some(why), Door::Operator) => Problem::unavailable(why).with("checks", json!(checks.told())).into_response(),
    }
}

/// How the gateway is.
#[derive(Serialize, ToSchema)]
struct Status {
    /// Of the program.
    version: &'static str,
    /// The node whose rows it writes.
    node_id: Uuid,
    /// The nodes that share the database and are there.
    nodes: Vec<Node>,
    /// When it was started.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// Since then.
    uptime_seconds: i64,
    /// How callers reach it.
    public_url: String,
    /// Who may register agents: `closed` (operators), `approval` or `open`.
    registration: &'static str,
    /// Where it listens: `public`, `operators`.
    listeners: BTreeMap<&'static str, String>,
    /// Agents that are not deleted.
    agents: AgentTally,
    /// Connections.
    connections: ConnectionTally,
    /// Calls that are open.
    calls: OpenTally,
    /// Callers that the limiter remembers, by kind.
    limiter_keys: BTreeMap<&'static str, usize>,
    /// What has to be well: `ok`, or what is wrong.
    checks: BTreeMap<&'static str, String>,
    /// The revision of the registry that calls are decided from.
    directory_revision: i64,
    /// The size of the database.
    database_bytes: i64,
    /// The policy in force.
    policy_digest: String,
    /// Changed cards that wait for an admin.
    cards_held: i64,
    /// How the audit log of this node is signed for.
    ledger: Ledger,
    /// What an operator should do something about.
    warnings: Vec<String>,
}

/// How many agents.
#[derive(Serialize, ToSchema)]
struct AgentTally {
    /// By admin state.
    by_state: BTreeMap<String, i64>,
    /// By health.
    by_health: BTreeMap<String, i64>,
}

/// How many connections.
#[derive(Serialize, ToSchema)]
struct ConnectionTally {
    /// By what was agreed.
    by_status: BTreeMap<String, i64>,
    /// Those that wait for an answer.
    pending: i64,
    /// Those with a block on either side.
    blocked: i64,
}

/// How many calls are open.
#[derive(Serialize, ToSchema)]
struct OpenTally {
    /// All.
    open: usize,
    /// Those that stream.
    open_streaming: usize,
}

/// How the gateway is, and what to do something about.
#[utoipa::path(get, path = "/api/status", operation_id = "status", tag = "gateway",
    responses((status = 200, description = "How it is", body = Status)))]
pub(super) async fn show(asked: Asked) -> Result<Response, Problem> {
    let control = &asked.control;
    let checks = Checks::of(control).await;
    let tally = control.store.tally().await?;
    let open = (control.active_calls)();
    let of = |groups: &[(String, i64)]| groups.iter().cloned().collect::<BTreeMap<String, i64>>();
    let (by_state, by_health) = (of(&tally.agents_by_state), of(&tally.agents_by_health));
    let by_status = of(&tally.connections_by_status);
    let count = |groups: &BTreeMap<String, i64>, name: &str| groups.get(name).copied().unwrap_or_default();

    let mut warnings: Vec<String> = checks.each().filter_map(|(_, check)| check.clone().err()).collect();
    for (n, what) in [
        (count(&by_state, "pending"), "agents wait for approval: an admin sets their state to active"),
        (tally.cards_held, "changed cards are held: an admin accepts or rejects them"),
        (count(&by_health, "offline"), "agents are offline: their health_reason says why"),
    ] {
        if n > 0 {
            warnings.push(format!("{n} {what}"));
        }
    }
    let (now, about) = (control.registry.clock().wall(), &control.about);
    let nodes = nodes::present(control.store.nodes().await?, about.node_id, now);
    warnings.extend(nodes::warnings(&nodes, (control.gauges)().shared_limits.is_some()));
    let told = (control.gauges)().ledger;
    warnings.extend(told.complaint(now));
    let [verified, unverified, sources] = control.limits.keys();
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        node_id: about.node_id,
        nodes,
        started_at: about.started_at,
        uptime_seconds: now.0.saturating_sub(about.started_at.0).max(0) / 1_000_000,
        public_url: control.public_url.clone(),
        registration: control.registry.registration().as_str(),
        listeners: BTreeMap::from([("public", about.public.to_string()), ("operators", about.admin.to_string())]),
        agents: AgentTally { by_state, by_health },
        connections: ConnectionTally {
            pending: count(&by_status, "pending"),
            by_status,
            blocked: tally.connections_blocked,
        },
        calls: OpenTally {
            open: open.len(),
            open_streaming: open.iter().filter(|call| call.operation.streams()).count(),
        },
        limiter_keys: BTreeMap::from([("verified", verified), ("unverified", unverified), ("sources", sources)]),
        checks: checks.told(),
        directory_revision: control.directory.load().revision(),
        database_bytes: tally.bytes,
        policy_digest: control.limits.policy().digest.to_string(),
        cards_held: tally.cards_held,
        ledger: ledger::view(&told),
        warnings,
    };
    Ok(Json(status).into_response())
}
