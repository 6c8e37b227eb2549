//! The limits of an agent's own, as it and operators are shown them.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::connection::Limits;
use crate::store::rows;

/// What holds for calls to one agent in place of the policy's.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct AgentLimits {
    /// Units that a call of an operation costs here.
    costs: BTreeMap<&'static str, u32>,
    /// For callers with a connection.
    connected: LevelLimits,
    /// For known callers without one.
    verified: LevelLimits,
    /// For unknown callers.
    unverified: LevelLimits,
}

/// What one level's callers may do; null: the tier's.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct LevelLimits {
    /// What a connection may have of its own, too.
    #[serde(flatten)]
    shared: Limits,
    /// Calls open at once, streams included.
    in_flight: Option<u32>,
}

impl From<&rows::AgentLimits> for AgentLimits {
    fn from(own: &rows::AgentLimits) -> Self {
        let level =
            |level: &rows::LevelLimits| LevelLimits { shared: (&level.shared).into(), in_flight: level.in_flight };
        Self {
            costs: own.costs.iter().map(|(operation, units)| (operation.as_str(), *units)).collect(),
            connected: level(&own.connected),
            verified: level(&own.verified),
            unverified: level(&own.unverified),
        }
    }
}
