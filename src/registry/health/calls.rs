//! What is known of each agent from one look to the next, and what its calls showed meanwhile.

use std::sync::Arc;

use uuid::Uuid;

use super::keep::tell;
use super::{Health, Sign, Verdict, locked, micros};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::rows::AgentRow;
use crate::vitals::{Counts, Vitals};

/// That many answers in a row that refuse the gateway's credential are no accident.
const UNAUTHORIZED: u32 = 3;

/// Where it is found what calls showed of agents.
#[derive(Clone)]
pub struct Calls {
    /// Of every agent.
    pub all: Arc<dyn Fn() -> Vec<(Uuid, Arc<Vitals>)> + Send + Sync>,
    /// Of one.
    pub of: Arc<dyn Fn(Uuid) -> Option<Arc<Vitals>> + Send + Sync>,
}

/// What is kept in memory of one agent.
pub(super) struct Track {
    endpoint: Option<String>,
    verdict: Verdict,
    /// What of its calls has been looked at.
    seen: Counts,
    aged_at: Timestamp,
    /// When this node last looked: what is in the database from later is another node's verdict.
    looked_at: Timestamp,
}

impl Health {
    /// Takes in what calls showed since the last time, and writes the verdicts that changed by it.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub async fn look_at_calls(&self) -> Result<(), StoreError> {
        let now = self.registry.clock.wall();
        let mut news = Vec::new();
        for (id, vitals) in (self.calls.all)() {
            let counts = vitals.counts();
            if counts == Counts::default() {
                continue;
            }
            if !locked(&self.tracks).contains_key(&id) {
                let Some(agent) = self.registry.store.agent(id).await? else { continue };
                self.track(&agent, now);
            }
            let mut tracks = locked(&self.tracks);
            let Some(track) = tracks.get_mut(&id) else { continue };
            let before = track.verdict.shown();
            if now >= track.aged_at.plus_micros(micros(self.settings.interval)) {
                track.verdict.age();
                track.aged_at = now;
            }
            // Less than before: the agent has moved, and is counted anew.
            let less = |new: u64, old: u64| new.checked_sub(old).unwrap_or(new);
            let since = Counts {
                answered: less(counts.answered, track.seen.answered),
                erred: less(counts.erred, track.seen.erred),
                silent: less(counts.silent, track.seen.silent),
            };
            track.seen = counts;
            track.verdict.see_calls(since, vitals.unauthorized() >= UNAUTHORIZED, vitals.last_ailment());
            if track.verdict.shown() != before {
                track.looked_at = now;
                news.push((id, track.verdict, track.endpoint.clone()));
            }
        }
        let mut changes = Vec::with_capacity(news.len());
        for (id, verdict, endpoint) in news {
            let Some(agent) = self.registry.store.agent(id).await? else { continue };
            if agent.endpoint_url == endpoint {
                changes.push(self.change(agent, &verdict, now));
            } else {
                locked(&self.tracks).remove(&id);
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let written = self.registry.store.set_health(&changes).await?;
        for (change, _) in changes.iter().zip(written).filter(|(_, written)| *written) {
            tell(&change.probed, &change.found, "calls");
        }
        Ok(())
    }

    /// Makes sure that a track is there, of the agent where it is now, and that it does not go on from before another node's
    /// verdict.
    fn track(&self, agent: &AgentRow, now: Timestamp) {
        let mut tracks = locked(&self.tracks);
        let anew = |track: &Track| {
            let overruled = |at| at > track.looked_at && agent.health != track.verdict.shown().0;
            track.endpoint != agent.endpoint_url || agent.health_checked_at.is_none_or(overruled)
        };
        if tracks.get(&agent.id).is_none_or(anew) {
            let verdict = Verdict::kept(agent.health, agent.health_reason.as_deref());
            let seen = tracks.get(&agent.id).map(|track| track.seen).unwrap_or_default();
            let track = Track { endpoint: agent.endpoint_url.clone(), verdict, seen, aged_at: now, looked_at: now };
            tracks.insert(agent.id, track);
        }
    }

    /// Takes a sign of a probe in.
    pub(super) fn see(&self, agent: &AgentRow, sign: Sign, now: Timestamp) -> Verdict {
        self.track(agent, now);
        let mut tracks = locked(&self.tracks);
        let Some(track) = tracks.get_mut(&agent.id) else {
            return Verdict::kept(agent.health, agent.health_reason.as_deref());
        };
        track.verdict.see(sign);
        track.looked_at = now;
        track.verdict
    }
}
