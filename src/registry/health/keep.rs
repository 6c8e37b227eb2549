//! What probes found is judged and written, many at a time.
//!
//! Promises: what is found is in the database a moment later; of two verdicts on an agent the later one is written later.

use std::time::Duration;

use tokio::sync::mpsc;
use url::Url;

use super::{Finding, Health, Verdict, locked};
use crate::clock::Timestamp;
use crate::registry::cards;
use crate::store::rows::{AgentRow, HealthStatus};
use crate::store::{HealthChange, StoreError};

/// Findings written at once at most: as many cards, in memory twice.
pub(super) const AT_ONCE: usize = 64;

/// How long a finding may wait for others.
const GATHER: Duration = Duration::from_millis(200);

/// What a probe found of an agent.
pub(super) struct Found {
    /// The agent as it was when it was probed.
    pub agent: AgentRow,
    /// Where it was.
    pub endpoint: Option<Url>,
    /// What was found there.
    pub finding: Finding,
}

impl Health {
    /// Writes what probes find and, every second, what calls show: by turns, so that neither overtakes the other.
    pub(super) async fn keep_all(&self, mut found: mpsc::Receiver<Found>) {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut gathered = Vec::with_capacity(AT_ONCE);
        loop {
            tokio::select! {
                Some(one) = found.recv() => {
                    gathered.push(one);
                    gather(&mut found, &mut gathered).await;
                    if let Err(error) = self.keep(std::mem::take(&mut gathered)).await {
                        tracing::warn!(%error, "what probes found cannot be kept");
                    }
                }
                _ = second.tick() => {
                    if let Err(error) = self.look_at_calls().await {
                        tracing::warn!(%error, "what calls showed of agents cannot be kept");
                    }
                }
            }
        }
    }

    /// Judges and writes what probes found, all in one transaction.
    pub(super) async fn keep(&self, found: Vec<Found>) -> Result<(), StoreError> {
        let now = self.registry.clock.wall();
        let (mut changes, mut validators) = (Vec::with_capacity(found.len()), Vec::with_capacity(found.len()));
        for Found { agent, endpoint, finding } in found {
            let verdict = self.see(&agent, finding.sign, now);
            let mut change = self.change(agent, &verdict, now);
            if let Some(card) = finding.card {
                let rejected = match &change.probed.card_json {
                    Some(served) if *served != card => self.registry.store.rejected_card(change.probed.id).await?,
                    _ => None,
                };
                let HealthChange { probed, found, event, .. } = &mut change;
                *event = cards::take(probed, found, &card, endpoint.as_ref(), rejected.as_deref(), now);
            }
            changes.push(change);
            validators.push(finding.validator);
        }
        let written = self.registry.store.set_health(&changes).await?;
        let mut card_changed = false;
        for ((HealthChange { probed, found, event, .. }, validator), _) in
            changes.iter().zip(validators).zip(written).filter(|(_, written)| *written)
        {
            if let Some(validator) = validator {
                locked(&self.validators).insert(probed.id, validator);
            }
            tell(probed, found, "probe");
            if let Some(held) = found.held_card.as_ref().filter(|_| event.is_some()) {
                tracing::warn!(agent = %probed.id, reason = held.reason, "its new card is held: an admin has to accept or reject it");
            }
            card_changed |= (&found.card_json, &found.skills_json) != (&probed.card_json, &probed.skills_json);
        }
        if card_changed {
            self.registry.reload().await;
        }
        Ok(())
    }

    /// What a verdict makes of an agent.
    pub(super) fn change(&self, probed: AgentRow, verdict: &Verdict, now: Timestamp) -> HealthChange {
        let mut found = probed.clone();
        let (health, reason) = verdict.shown();
        found.health = health;
        found.health_reason = reason.map(|ailment| ailment.as_str().to_owned());
        found.health_checked_at = Some(now);
        HealthChange { next: self.next(&probed, verdict, now), probed, found, event: None }
    }
}

/// Waits a short time for more, until there are as many as are written at once.
async fn gather(found: &mut mpsc::Receiver<Found>, gathered: &mut Vec<Found>) {
    let more = async {
        while gathered.len() < AT_ONCE {
            match found.recv().await {
                Some(one) => gathered.push(one),
                None => return,
            }
        }
    };
    // As many as have come by then are kept.
    drop(tokio::time::timeout(GATHER, more).await);
}

pub(super) fn tell(before: &AgentRow, after: &AgentRow, by: &'static str) {
    if after.health != before.health {
        let reason = after.health_reason.as_deref();
        if after.health == HealthStatus::Offline {
            tracing::warn!(agent = %after.id, reason, by, "an agent is offline");
        } else {
            tracing::info!(agent = %after.id, health = after.health.as_str(), reason, by, "health changed");
        }
    }
}
