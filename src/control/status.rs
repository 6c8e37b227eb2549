//! Whether the gateway lives, whether it serves, and how it is.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::problem::Problem;
use super::who::Asked;
use super::{Control, Door, Entry};

/// Longer than that, a database is as good as away.
const DATABASE_PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn live() -> Response {
    Json(json!({"status": "live"})).into_response()
}

/// What has to be well for calls to be answered; each with what is wrong with it.
struct Checks {
    journal: Result<(), String>,
    database: Result<(), String>,
}

impl Checks {
    async fn of(control: &Control) -> Self {
        let database = match tokio::time::timeout(DATABASE_PATIENCE, control.store.ping()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("the database cannot be read: {error}")),
            Err(_) => Err(format!("the database has not answered for {} s", DATABASE_PATIENCE.as_secs())),
        };
        Self { journal: (control.ready)(), database }
    }

    fn problem(&self) -> Option<&String> {
        self.journal.as_ref().err().or(self.database.as_ref().err())
    }

    fn json(&self) -> Value {
        let word = |check: &Result<(), String>| check.as_ref().err().map_or("ok", String::as_str).to_owned();
        json!({"journal": word(&self.journal), "database": word(&self.database)})
    }
}

pub(super) async fn ready(State(entry): State<Entry>) -> Response {
    let checks = Checks::of(&entry.control).await;
    // Why not is for those who can do something about it.
    match (checks.problem(), entry.door) {
        (None, Door::Public) => Json(json!({"status": "ready"})).into_response(),
        (None, Door::Operator) => Json(json!({"status": "ready", "checks": checks.json()})).into_response(),
        (Some(_), Door::Public) => Problem::unavailable("not ready").into_response(),
        (Some(why), Door::Operator) => Problem::unavailable(why).with("checks", checks.json()).into_response(),
    }
}

/// `GET /api/status`, for operators.
pub(super) async fn show(asked: Asked) -> Result<Response, Problem> {
    let control = &asked.control;
    let checks = Checks::of(control).await;
    let tally = control.store.tally().await?;
    let open = (control.active_calls)();
    let streams = open.iter().filter(|call| call.operation.streams()).count();
    let of = |groups: &[(String, i64)]| groups.iter().cloned().collect::<BTreeMap<String, i64>>();
    let (states, connections) = (of(&tally.agents_by_state), of(&tally.connections_by_status));
    let count = |groups: &BTreeMap<String, i64>, name: &str| groups.get(name).copied().unwrap_or_default();
    let pending = count(&connections, "pending");
    let offline = count(&of(&tally.agents_by_health), "offline");

    let mut warnings: Vec<String> =
        [&checks.journal, &checks.database].into_iter().filter_map(|c| c.clone().err()).collect();
    for (n, what) in [
        (count(&states, "pending"), "agents wait for approval: an admin sets their state to active"),
        (tally.cards_held, "changed cards are held: an admin accepts or rejects them"),
        (offline, "agents are offline: their health_reason says why"),
    ] {
        if n > 0 {
            warnings.push(format!("{n} {what}"));
        }
    }
    let now = control.registry.clock().wall();
    let about = &control.about;
    let [verified, anonymous, sources] = control.limits.keys();
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node_id": about.node_id,
        "started_at": about.started_at,
        "uptime_seconds": now.0.saturating_sub(about.started_at.0).max(0) / 1_000_000,
        "public_url": control.public_url,
        "open_registration": control.open_registration.load(Ordering::Relaxed),
        "listeners": {"public": about.public, "operators": about.admin},
        "agents": {"by_state": states, "by_health": of(&tally.agents_by_health)},
        "connections": {"by_status": connections, "pending": pending, "blocked": tally.connections_blocked},
        "calls": {"open": open.len(), "open_streaming": streams},
        "limits": {"keys": {"verified": verified, "unverified": anonymous, "sources": sources}},
        "checks": checks.json(),
        "directory": {"revision": control.directory.load().revision()},
        "database": {"bytes": tally.bytes},
        "policy_digest": control.limits.policy().digest,
        "cards_held": tally.cards_held,
        "warnings": warnings,
    }))
    .into_response())
}
