//! A connection as its two sides and operators are shown it.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::rows::{AgentRow, ConnectionLimits, ConnectionRow};

/// The agreement between two agents.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct Connection {
    /// Names it.
    id: Uuid,
    /// Who asked.
    requester_id: Uuid,
    /// Who was asked.
    target_id: Uuid,
    /// Who asked, as strangers may know it.
    requester: Side,
    /// Who was asked, likewise.
    target: Side,
    /// `pending`, `connected`, `declined`, `paused`, `ended`, or `blocked`: a mark of either side covers the rest.
    status: &'static str,
    /// The same without the marks.
    agreement: &'static str,
    /// The requester's mark.
    blocked_by_requester: bool,
    /// The target's mark.
    blocked_by_target: bool,
    /// The marks were set by an operator: neither side can take its own away.
    blocked_by_operator: bool,
    /// Whether it makes its two sides connected now.
    in_force: bool,
    /// What the requester wrote.
    message: Option<String>,
    /// What it is for.
    purpose: Option<String>,
    /// What the requester may call at the target, by names of A2A 1.0; null: everything.
    #[schema(value_type = Option<Vec<String>>)]
    operations: Option<Vec<&'static str>>,
    /// The operations were fixed by an operator.
    operations_fixed: bool,
    /// Limits of its own.
    limits: Limits,
    /// Not in force from then on.
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<Timestamp>,
    /// Somebody should look at it then; nothing stops.
    #[schema(value_type = Option<String>, format = DateTime)]
    review_at: Option<Timestamp>,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was accepted or declined.
    #[schema(value_type = Option<String>, format = DateTime)]
    resolved_at: Option<Timestamp>,
}

/// One of the two agents.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct Side {
    /// Names it.
    id: Uuid,
    /// Null when the agent is gone.
    name: Option<String>,
    /// Likewise.
    slug: Option<String>,
    /// A picture.
    avatar_url: Option<String>,
}

/// Limits of a connection or of an agent; null: what they would be without.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct Limits {
    /// Calls per period.
    rate: Option<u32>,
    /// The period in milliseconds.
    period_ms: Option<u64>,
    /// Calls at once.
    burst: Option<u32>,
    /// Units per UTC day.
    daily: Option<u32>,
    /// Streams open at once.
    streams: Option<u32>,
}

impl From<&ConnectionLimits> for Limits {
    fn from(own: &ConnectionLimits) -> Self {
        let ConnectionLimits { rate, period_ms, burst, daily, streams } = *own;
        Self { rate, period_ms, burst, daily, streams }
    }
}

/// A connection that has just been asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct NewConnection {
    /// The connection.
    #[serde(flatten)]
    pub(in crate::control) connection: Connection,
    /// Whether the target accepts such requests at once, and did.
    pub(in crate::control) auto_accepted: bool,
}

/// The status as OpenAgora knows it: a block mark on either side covers the rest.
pub(in crate::control) fn connection_status(row: &ConnectionRow) -> &'static str {
    if row.blocked_by_requester || row.blocked_by_target { "blocked" } else { row.status.as_str() }
}

/// A connection with what strangers may know of its two agents.
pub(in crate::control) fn connection(
    row: &ConnectionRow,
    requester: Option<&AgentRow>,
    target: Option<&AgentRow>,
    now: Timestamp,
) -> Connection {
    let over = row.ends_at.is_some_and(|end| end <= now);
    let side = |id: Uuid, agent: Option<&AgentRow>| Side {
        id,
        name: agent.map(|agent| agent.name.clone()),
        slug: agent.map(|agent| agent.slug.clone()),
        avatar_url: agent.and_then(|agent| agent.avatar_url.clone()),
    };
    Connection {
        id: row.id,
        requester_id: row.requester_id,
        target_id: row.target_id,
        requester: side(row.requester_id, requester),
        target: side(row.target_id, target),
        status: connection_status(row),
        agreement: row.status.as_str(),
        blocked_by_requester: row.blocked_by_requester,
        blocked_by_target: row.blocked_by_target,
        blocked_by_operator: row.block_locked,
        in_force: connection_status(row) == "connected" && !over,
        message: row.message.clone(),
        purpose: row.purpose.clone(),
        operations: row.operations.map(|set| set.names().collect()),
        operations_fixed: row.operations_fixed,
        limits: (&row.limits).into(),
        ends_at: row.ends_at,
        review_at: row.review_at,
        created_at: row.created_at,
        resolved_at: row.resolved_at,
    }
}
