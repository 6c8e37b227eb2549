//! `/api/audit/erase`, `/api/audit/holds`, `/api/audit/retention`: what is taken out of the log, what must stay, and how that goes.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::Members;
use super::forms::{ErasureForm, HoldForm, ReleaseForm};
use super::problem::Problem;
use super::who::Asked;
use crate::audit::ledger::retention::{
    CallerErasure, Eraser, HeldBy, HeldUp, RetentionSettings, RetentionState, RetentionView,
};
use crate::clock::Timestamp;
use crate::store::calls::remove::Kept;
use crate::store::holds::HoldRow;

/// What the API needs of retention.
#[derive(Clone, Debug)]
pub struct RetentionHandle {
    /// How long what is kept.
    pub settings: RetentionSettings,
    /// How it goes.
    pub view: RetentionView,
    /// Erases callers' addresses.
    pub eraser: Eraser,
}

/// An erasure of one caller's addresses.
#[derive(Serialize, ToSchema)]
struct Erasure {
    /// The caller.
    agent_id: Uuid,
    /// When it began. Rows that are recorded later keep their addresses.
    #[schema(value_type = String, format = DateTime)]
    began_at: Timestamp,
    /// When it ended; null: it goes on.
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Timestamp>,
    /// Rows to look through, whoever made the calls.
    rows: u64,
    /// Rows looked through.
    rows_seen: u64,
    /// Rows whose address is gone.
    rows_erased: u64,
    /// Rows of the caller that keep it, because a hold covers them.
    rows_held: u64,
    /// Why it ended before it was done; to be begun again.
    trouble: Option<String>,
}

/// The erasure under way, or the last; null: none since the start.
#[derive(Serialize, ToSchema)]
struct LastErasure {
    /// It.
    erasure: Option<Erasure>,
}

/// A legal hold.
#[derive(Serialize, ToSchema)]
struct Hold {
    /// Names it.
    id: Uuid,
    /// Calls it made or received are held; null: everybody's.
    agent_id: Option<Uuid>,
    /// Calls that arrived then or later; null: from the first on.
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Calls that arrived before; null: all that will come, too.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Why.
    reason: String,
    /// Who placed it.
    placed_by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    placed_at: Timestamp,
    /// From then on it holds nothing; null: it holds.
    #[schema(value_type = Option<String>, format = DateTime)]
    released_at: Option<Timestamp>,
}

/// Legal holds.
#[derive(Serialize, ToSchema)]
struct HoldList {
    /// The newest first, released ones among them.
    holds: Vec<Hold>,
}

/// How long what is kept, and how that goes.
#[derive(Serialize, ToSchema)]
pub(super) struct Retention {
    /// How long rows are kept; null: for ever.
    keep_seconds: Option<u64>,
    /// How long addresses in them are kept; null: as long as the rows.
    keep_addresses_seconds: Option<u64>,
    /// How long what came from outside with refused calls is kept; null: as long as the rows.
    keep_refused_seconds: Option<u64>,
    /// Rows in the database, of all nodes.
    rows: u64,
    /// Rows that were removed by age, ever; the signed checkpoints still speak of them.
    rows_removed: u64,
    /// The earliest call.
    #[schema(value_type = Option<String>, format = DateTime)]
    oldest_call_at: Option<Timestamp>,
    /// When this node last looked; null: not yet, or another node does.
    #[schema(value_type = Option<String>, format = DateTime)]
    looked_at: Option<Timestamp>,
    /// What keeps rows that are old enough to go.
    held_up: Vec<Obstacle>,
    /// What went wrong when this node last looked.
    trouble: Vec<String>,
}

/// Why a node's rows are not removed from here on.
#[derive(Serialize, ToSchema)]
struct Obstacle {
    /// Whose rows.
    node_id: Uuid,
    /// The first that stays.
    seq: u64,
    /// The hold that covers it; null: no checkpoint speaks of it.
    hold_id: Option<Uuid>,
    /// How long it would be gone without the hold.
    overdue_seconds: Option<i64>,
}

fn erasure(now: &CallerErasure) -> Erasure {
    Erasure {
        agent_id: now.agent,
        began_at: now.began_at,
        ended_at: now.ended_at,
        rows: now.rows,
        rows_seen: now.seen,
        rows_erased: now.done.erased,
        rows_held: now.done.held,
        trouble: now.trouble.clone(),
    }
}

fn hold(row: &HoldRow) -> Hold {
    Hold {
        id: row.id,
        agent_id: row.agent,
        since: row.since,
        until: row.until,
        reason: row.reason.clone(),
        placed_by: row.placed_by.clone(),
        placed_at: row.placed_at,
        released_at: row.released_at,
    }
}

impl Retention {
    pub(super) fn of(settings: &RetentionSettings, state: &RetentionState, kept: &Kept, now: Timestamp) -> Self {
        let seconds = |age: Option<std::time::Duration>| age.map(|age| age.as_secs());
        let overdue = |called_at: Timestamp| {
            let keep = i64::try_from(seconds(settings.keep)?).ok()?;
            Some((now.0.saturating_sub(called_at.0) / 1_000_000).saturating_sub(keep).max(0))
        };
        let obstacle = |up: &HeldUp| {
            let (hold_id, overdue_seconds) = match up.by {
                HeldBy::Hold { hold, called_at } => (Some(hold), overdue(called_at)),
                HeldBy::Unsigned => (None, None),
            };
            Obstacle { node_id: up.node, seq: up.seq, hold_id, overdue_seconds }
        };
        Self {
            keep_seconds: seconds(settings.keep),
            keep_addresses_seconds: seconds(settings.addresses),
            keep_refused_seconds: seconds(settings.refused),
            rows: kept.rows,
            rows_removed: kept.dropped,
            oldest_call_at: kept.oldest,
            looked_at: state.looked_at,
            held_up: state.held_up.iter().map(obstacle).collect(),
            trouble: state.trouble.clone(),
        }
    }

    /// What an operator should know of.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        let unsigned = self.held_up.iter().filter(|up| up.hold_id.is_none()).map(|up| {
            let Obstacle { node_id, seq, .. } = up;
            format!(
                "retention: rows of node {node_id} from {seq} on are old enough to go, and no checkpoint speaks of them"
            )
        });
        self.trouble.iter().map(|trouble| format!("retention: {trouble}")).chain(unsigned)
    }
}

/// The agent that is named in the body, or was: the log outlives the agents it names.
async fn agent(asked: &Asked, members: &Members, member: &str) -> Result<Option<Uuid>, Problem> {
    let Some(name) = members.plain_text(member)? else { return Ok(None) };
    match Uuid::parse_str(&name) {
        Ok(id) => Ok(Some(id)),
        Err(_) => match asked.find_agent(&name).await? {
            Some(agent) => Ok(Some(agent.id)),
            None => Err(Problem::not_found("Agent not found: one that was deleted is named by its id")),
        },
    }
}

fn reason(members: &Members) -> Result<String, Problem> {
    members
        .plain_text("reason")?
        .ok_or_else(|| Problem::invalid("reason", "is missing: say why, for those who ask later"))
}

/// Begins to erase the network addresses in the rows of one caller, as the log is now; the rows stay provable. What a hold covers
/// stays. Begun again, it goes on where it ended.
#[utoipa::path(post, path = "/api/audit/erase", operation_id = "begin_erasure", tag = "calls",
    request_body = ErasureForm,
    responses((status = 202, description = "It goes on by itself; GET tells how far it has come", body = Erasure),
        (status = 404, description = "There is no such agent"),
        (status = 409, description = "Another is under way")))]
pub(super) async fn erase(asked: Asked) -> Result<Response, Problem> {
    let members = asked.members()?;
    let agent = agent(&asked, &members, "caller").await?;
    let agent = agent.ok_or_else(|| Problem::invalid("caller", "is missing: name an agent by id or slug"))?;
    let begun = asked.control.registry.erasure(&asked.who, agent, &reason(&members)?)?;
    // What is recorded and not a row yet is to be erased, too.
    if let Some(flush) = &asked.control.drain_flush {
        flush().await;
    }
    match asked.control.retention.eraser.begin(agent, begun).await? {
        Some(now) => Ok((StatusCode::ACCEPTED, Json(erasure(&now))).into_response()),
        None => Err(Problem::new(409, "the addresses of another caller are being erased: wait until that has ended")),
    }
}

/// How far the erasure under way has come, or how the last one ended.
#[utoipa::path(get, path = "/api/audit/erase", operation_id = "show_erasure", tag = "calls",
    responses((status = 200, description = "It", body = LastErasure)))]
pub(super) async fn erasing(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let now = asked.control.retention.eraser.now();
    Ok(Json(LastErasure { erasure: now.as_ref().map(erasure) }).into_response())
}

/// Legal holds.
#[utoipa::path(get, path = "/api/audit/holds", operation_id = "list_holds", tag = "calls",
    responses((status = 200, description = "All of them", body = HoldList)))]
pub(super) async fn holds(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let holds = asked.control.store.holds().await?;
    Ok(Json(HoldList { holds: holds.iter().map(hold).collect() }).into_response())
}

/// Places a legal hold: what it covers is neither removed nor erased until it is released.
#[utoipa::path(post, path = "/api/audit/holds", operation_id = "place_hold", tag = "calls",
    request_body = HoldForm,
    responses((status = 201, description = "It holds", body = Hold), (status = 404, description = "There is no such agent")))]
pub(super) async fn place(asked: Asked) -> Result<Response, Problem> {
    let members = asked.members()?;
    let agent = match (agent(&asked, &members, "agent").await?, members.flag("all")?.unwrap_or_default()) {
        (None, false) => return Err(Problem::invalid("agent", "is missing: name one, or send all: true")),
        (Some(_), true) => return Err(Problem::invalid("all", "and an agent do not go together")),
        (agent, _) => agent,
    };
    let (since, until) = (members.time("since")?.flatten(), members.time("until")?.flatten());
    let placed = asked.control.registry.place_hold(&asked.who, agent, since, until, &reason(&members)?).await?;
    Ok((StatusCode::CREATED, Json(hold(&placed))).into_response())
}

/// Releases a legal hold. It stays in the list.
#[utoipa::path(delete, path = "/api/audit/holds/{id}", operation_id = "release_hold", tag = "calls",
    params(("id" = Uuid, Path, description = "The hold")), request_body = Option<ReleaseForm>,
    responses((status = 204, description = "It holds nothing any more"),
        (status = 404, description = "There is none that holds")))]
pub(super) async fn release(Path(id): Path<String>, asked: Asked) -> Result<Response, Problem> {
    let id = Uuid::parse_str(&id).map_err(|_| Problem::not_found("Hold not found"))?;
    let reason = asked.optional_members()?.plain_text("reason")?;
    asked.control.registry.release_hold(&asked.who, id, reason).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// How long what is kept, what retention has done, and what keeps it from going on.
#[utoipa::path(get, path = "/api/audit/retention", operation_id = "retention", tag = "calls",
    responses((status = 200, description = "How it goes", body = Retention)))]
pub(super) async fn show(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let kept = asked.control.store.kept().await?;
    let (settings, state) = (asked.control.retention.settings, asked.control.retention.view.now());
    Ok(Json(Retention::of(&settings, &state, &kept, asked.control.registry.clock().wall())).into_response())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn what_holds_rows_up_is_told_and_what_nobody_intends_is_warned_of() {
        let day = Duration::from_secs(86_400);
        let settings = RetentionSettings { keep: Some(9 * day), addresses: Some(2 * day), refused: Some(day) };
        let (node, hold) = (Uuid::from_u128(5), Uuid::from_u128(7));
        let by_hold = |seq, called_at| HeldUp { node, seq, by: HeldBy::Hold { hold, called_at: Timestamp(called_at) } };
        let state = RetentionState {
            looked_at: Some(Timestamp(3)),
            held_up: vec![by_hold(4, 1_000_000), by_hold(5, 60_000_000), HeldUp { node, seq: 6, by: HeldBy::Unsigned }],
            trouble: vec!["it went wrong".to_owned()],
            ..RetentionState::default()
        };
        let now = Timestamp(9 * 86_400_000_000 + 31_000_000);
        let kept = Kept { rows: 10, dropped: 3, oldest: Some(Timestamp(1)) };
        let told = Retention::of(&settings, &state, &kept, now);
        let up = |seq, hold: Option<Uuid>, overdue: Option<i64>| json!({"node_id": node, "seq": seq, "hold_id": hold, "overdue_seconds": overdue});
        let expected = json!({
            "keep_seconds": 777_600, "keep_addresses_seconds": 172_800, "keep_refused_seconds": 86_400,
            "rows": 10, "rows_removed": 3, "oldest_call_at": Timestamp(1), "looked_at": Timestamp(3),
            "held_up": [up(4, Some(hold), Some(30)), up(5, Some(hold), Some(0)), up(6, None, None)],
            "trouble": ["it went wrong"],
        });
        assert_eq!(serde_json::to_value(&told).expect("JSON"), expected);
        let unsigned =
            format!("retention: rows of node {node} from 6 on are old enough to go, and no checkpoint speaks of them");
        assert_eq!(told.warnings().collect::<Vec<_>>(), ["retention: it went wrong".to_owned(), unsigned]);
    }
}
