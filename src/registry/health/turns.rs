//! Whose turn it is to be probed: agents are claimed from the database a few at a time and wait here for a free slot.
//!
//! Promises: agents that were never probed, or not where they are now, go before those that wait; those whose turn came while
//! nobody looked are not all probed at once. A claim is a lease: gateways that share a database do not come to probe an agent
//! at the same time, and one that dies leaves its agents to the others once its leases have run out. A change of the agent,
//! or calls to it that fail, end the lease early.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Health, INTERVALS, Verdict, micros};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::rows::AgentRow;

/// How soon an agent that failed is probed again; doubled each time, up to its interval.
const RETRY: Duration = Duration::from_secs(10);

/// Agents claimed at once for each slot: few enough to be through before the claim runs out, unless most of them are slow.
const PER_SLOT: usize = 4;

/// The most requests of one probe, one after the other: five places of a card and the endpoint.
const REQUESTS: u32 = 6;

/// A claim lasts as long as that many of the longest probes.
const LEASE: u32 = 3;

/// An agent that nobody else is given for now.
struct Claim {
    agent: AgentRow,
    /// Later the claim would run out before the probe is over.
    start_by: Timestamp,
}

/// The claimed agents that wait for a slot.
pub(super) struct Turns<'a> {
    health: &'a Health,
    wanted: Arc<Notify>,
    waiting: VecDeque<Claim>,
}

impl Turns<'_> {
    /// The next one, once there is one.
    pub(super) async fn next(&mut self) -> AgentRow {
        let pause = (self.health.settings.interval / 20).clamp(Duration::from_secs(1), RETRY / 2);
        loop {
            if let Some(agent) = self.ready().await {
                return agent;
            }
            tokio::select! {
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The next one, if it is anybody's turn.
    pub(super) async fn ready(&mut self) -> Option<AgentRow> {
        if self.wanted.notified().now_or_never().is_some() {
            self.claim().await;
        }
        if let Some(agent) = self.in_time() {
            return Some(agent);
        }
        self.claim().await;
        self.in_time()
    }

    /// The first one whose claim lasts; those that waited too long are left to whoever claims them next.
    fn in_time(&mut self) -> Option<AgentRow> {
        let now = self.health.registry.clock.wall();
        std::iter::from_fn(|| self.waiting.pop_front()).find(|claim| now <= claim.start_by).map(|claim| claim.agent)
    }

    async fn claim(&mut self) {
        let now = self.health.registry.clock.wall();
        let longest = self.health.settings.timeout * REQUESTS;
        let lease_until = now.plus_micros(micros(longest * LEASE));
        let start_by = now.plus_micros(micros(longest * (LEASE - 1)));
        let most = u32::try_from(self.health.settings.concurrency.max(1) * PER_SLOT).unwrap_or(u32::MAX);
        let agents = match self.health.registry.store.claim_probes(now, lease_until, most).await {
            Ok(agents) => agents,
            Err(error) => return tracing::warn!(%error, "agents cannot be probed now"),
        };
        // One that waits already was changed meanwhile.
        let again: HashSet<Uuid> = agents.iter().map(|agent| agent.id).collect();
        self.waiting.retain(|claim| !again.contains(&claim.agent.id));
        for agent in agents {
            let new = agent.health_checked_at.is_none();
            let claim = Claim { agent, start_by };
            if new { self.waiting.push_front(claim) } else { self.waiting.push_back(claim) }
        }
    }
}

impl Health {
    pub(super) fn turns(&self) -> Turns<'_> {
        Turns { health: self, wanted: self.registry.probe_wanted(), waiting: VecDeque::new() }
    }

    /// Those whose turn came while nobody looked are not all probed at once.
    pub(super) async fn spread(&self) -> Result<(), StoreError> {
        let now = self.registry.clock.wall();
        let over = micros(self.settings.interval / 5).max(1);
        let turns: Vec<_> = self.registry.store.overdue_probes(now).await?;
        let turns: Vec<_> = turns
            .into_iter()
            .map(|id| (id, now.plus_micros(i64::from(crc32fast::hash(id.as_bytes())) % over)))
            .collect();
        self.registry.store.set_next_probes(&turns).await
    }

    /// The time of the next probe: at the agent's interval, sooner while it is not clear how it is doing.
    pub(super) fn next(&self, agent: &AgentRow, verdict: &Verdict, now: Timestamp) -> Timestamp {
        let own = agent
            .health_interval_s
            .map(|seconds| Duration::from_secs(seconds.clamp(*INTERVALS.start(), *INTERVALS.end()).into()));
        let interval = own.unwrap_or(self.settings.interval);
        let wait = if verdict.unsettled() {
            interval.min(RETRY * (1 << verdict.bad_signs().saturating_sub(1).min(10)))
        } else {
            interval
        };
        now.plus_micros(jittered(micros(wait), agent.id, now.0))
    }
}

/// The interval, give or take a tenth: the same for the same agent and time, another for the next.
fn jittered(interval: i64, agent: Uuid, at: i64) -> i64 {
    let mut seed = agent.as_bytes().to_vec();
    seed.extend_from_slice(&at.to_be_bytes());
    let share = i64::from(crc32fast::hash(&seed) % 2_001) - 1_000; // -1000..=1000 of 10000
    interval / 10_000 * (10_000 + share)
}
