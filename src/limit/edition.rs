//! What is in force: a policy, and the limits that agents have of their own. One value, so that a change of either is the same
//! kind of change. Keeps no counts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use uuid::Uuid;

use super::account::Draws;
use super::bounds::Bounds;
use crate::a2a::{Effect, Operation};
use crate::policy::Policy;
use crate::store::rows::{AgentLimits, ConnectionLimits, LevelLimits};

/// The limits of those agents that have any of their own.
pub type OwnLimits = HashMap<Uuid, Arc<AgentLimits>, RandomState>;

const UNSAID: LevelLimits = LevelLimits {
    shared: ConnectionLimits { rate: None, period_ms: None, burst: None, daily: None, streams: None },
    in_flight: None,
};

/// What an agent that says nothing has.
static NONE: AgentLimits =
    AgentLimits { costs: BTreeMap::new(), connected: UNSAID, verified: UNSAID, unverified: UNSAID };

/// A policy with the agents' own limits, and its place in the order of changes.
#[derive(Debug)]
pub(super) struct Edition {
    pub(super) generation: u64,
    pub(super) policy: Arc<Policy>,
    pub(super) agents: Arc<OwnLimits>,
}

impl Edition {
    /// What the agent has of its own.
    pub(super) fn of_agent(&self, agent: Uuid) -> &AgentLimits {
        self.agents.get(&agent).map_or(&NONE, |limits| limits)
    }

    /// What a call of `operation` at `agent` draws on, and how many units it costs there.
    pub(super) fn cost(&self, agent: Uuid, operation: Operation) -> (Effect, u32) {
        let (effect, units) = self.policy.units(operation);
        match self.of_agent(agent).costs.get(&operation) {
            Some(own) if effect != Effect::Free => (effect, *own),
            _ => (effect, units),
        }
    }

    /// Whether every bucket of an agent with these limits of its own holds the price of every operation that it prices.
    ///
    /// # Errors
    /// The first that never could, and what to write instead.
    pub(super) fn check(&self, own: &AgentLimits) -> Result<(), String> {
        let levels = [
            ("connected", Bounds::connection(&self.policy, own, &ConnectionLimits::default())),
            ("verified", Bounds::verified(&self.policy, own)),
            ("unverified", Bounds::unverified(&self.policy, own)),
        ];
        for (operation, units) in &own.costs {
            let draws = match self.policy.units(*operation).0 {
                Effect::Free => continue,
                Effect::Work => Draws::Work,
                Effect::Read => Draws::Reads,
            };
            for (level, bounds) in &levels {
                let holds = bounds.shape(draws).burst.get();
                if *units > holds {
                    return Err(format!(
                        "{} would cost {units} units, but a caller that is {level} has {holds} at once and could never \
                         call it: make it cost less, or give {level} a larger burst in the same change",
                        operation.as_str()
                    ));
                }
            }
        }
        Ok(())
    }
}
