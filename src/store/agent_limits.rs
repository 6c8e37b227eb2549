//! The limits an agent has of its own, as one column of its row keeps them: JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::rows::ConnectionLimits;
use crate::a2a::Operation;

/// What holds for calls to one agent in place of the policy's; what is not said is the policy's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentLimits {
    /// Units that a call of an operation costs here.
    pub costs: BTreeMap<Operation, u32>,
    /// For callers with a connection.
    pub connected: LevelLimits,
    /// For known callers without one.
    pub verified: LevelLimits,
    /// For unknown callers.
    pub unverified: LevelLimits,
}

/// What one level's callers may do at one agent; `None` is the tier's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LevelLimits {
    /// What a connection may have of its own, too.
    #[serde(flatten)]
    pub shared: ConnectionLimits,
    /// Calls open at once, streams included.
    pub in_flight: Option<u32>,
}

impl AgentLimits {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Each level whose callers are served, with its limits here.
    #[must_use]
    pub fn levels(&self) -> [(&'static str, &LevelLimits); 3] {
        [("connected", &self.connected), ("verified", &self.verified), ("unverified", &self.unverified)]
    }
}

/// From the column's text.
pub(super) fn read(text: Option<String>) -> Result<AgentLimits, StoreError> {
    let Some(text) = text else { return Ok(AgentLimits::default()) };
    serde_json::from_str(&text).map_err(|_| StoreError::Corrupt(format!("limits = {text:?}")))
}

/// The column's text; none where nothing is said.
pub(super) fn text(limits: &AgentLimits) -> Option<String> {
    (!limits.is_empty()).then(|| serde_json::to_string(limits).expect("names and numbers are JSON"))
}
