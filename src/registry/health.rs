//! Health: every agent is probed when it is registered and again every few minutes, a bounded number at a time; and what its
//! calls show is looked at every second.
//!
//! Promises: what is found is in the store, and the directory is rebuilt only when a card changed. Health is shown to people
//! and to agents that look for agents; it never refuses a call. An agent that fails is looked at sooner, so that it is seen to
//! be back; a card that changed for the worse is held until an admin has seen it.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use url::Url;
use uuid::Uuid;

pub use super::probe::{CARD_MAX, CredentialState, Fetch, FetchError, FetchRequest, FetchResponse};
use super::probe::{Finding, Validator, probe, try_credential};
use super::verdict::{Sign, Verdict};
use super::{Actor, Registry, RegistryError, cards};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::rows::{AdminState, AgentRow, HealthStatus};
use crate::vitals::{Ailment, Counts, Vitals};

/// How soon an agent that failed is probed again; doubled each time, up to its interval.
const RETRY: Duration = Duration::from_secs(10);

/// How often probes of one agent may be asked for.
const ASKED_EVERY: Duration = Duration::from_secs(5);

/// The seconds an agent may have as an interval of its own: up to a week.
pub const INTERVALS: RangeInclusive<u32> = 10..=604_800;

/// That many answers in a row that refuse the gateway's credential are no accident.
const UNAUTHORIZED: u32 = 3;

/// How probes are made.
#[derive(Clone, Copy, Debug)]
pub struct HealthSettings {
    /// Between two probes of an agent, give or take a tenth.
    pub interval: Duration,
    /// For one request of a probe.
    pub timeout: Duration,
    /// Probes at once.
    pub concurrency: usize,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(300), timeout: Duration::from_secs(8), concurrency: 8 }
    }
}

/// Where it is found what calls showed of agents.
#[derive(Clone)]
pub struct Calls {
    /// Of every agent.
    pub all: Arc<dyn Fn() -> Vec<(Uuid, Arc<Vitals>)> + Send + Sync>,
    /// Of one.
    pub of: Arc<dyn Fn(Uuid) -> Option<Arc<Vitals>> + Send + Sync>,
}

/// What a probe that somebody asked for found.
#[derive(Debug)]
pub struct Checked {
    /// The agent after it.
    pub agent: AgentRow,
    /// Where its card is.
    pub card_url: Option<Url>,
    /// Whether the agent takes the gateway's credential.
    pub credential: CredentialState,
}

/// What is kept in memory of one agent.
struct Track {
    endpoint: Option<String>,
    verdict: Verdict,
    /// What of its calls has been looked at.
    seen: Counts,
    aged_at: Timestamp,
}

/// The prober.
pub struct Health {
    registry: Arc<Registry>,
    fetch: Fetch,
    settings: HealthSettings,
    calls: Calls,
    slots: Semaphore,
    tracks: Mutex<HashMap<Uuid, Track>>,
    /// When a probe was last asked for.
    asked: Mutex<HashMap<Uuid, Timestamp>>,
    /// Where each agent's card was last found, to ask whether it changed. Lost at a restart: one full fetch each.
    validators: Mutex<HashMap<Uuid, Validator>>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Health {
    /// A prober that asks through `fetch`.
    #[must_use]
    pub fn new(registry: Arc<Registry>, fetch: Fetch, settings: HealthSettings, calls: Calls) -> Self {
        let slots = Semaphore::new(settings.concurrency.max(1));
        let (tracks, asked, validators) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { registry, fetch, settings, calls, slots, tracks, asked, validators }
    }

    /// Probes for ever; a task to be aborted at shutdown (a probe cut short has no effect).
    pub async fn run(&self) {
        if let Err(error) = self.spread().await {
            tracing::warn!(%error, "probes that are overdue cannot be spread: they are made as fast as allowed");
        }
        let wanted = self.registry.probe_wanted();
        let pause = (self.settings.interval / 20).clamp(Duration::from_secs(1), RETRY / 2);
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut running = FuturesUnordered::new();
        let mut under_way = HashSet::new();
        loop {
            // One agent that lets us wait must not make the others wait: free slots are filled as they become free.
            match self.due(&under_way).await {
                Ok(due) => {
                    for agent in due.into_iter().take(self.settings.concurrency.max(1).saturating_sub(running.len())) {
                        under_way.insert(agent.id);
                        running.push(async { (agent.id, self.probe_one(agent).await) });
                    }
                }
                Err(error) => tracing::warn!(%error, "agents cannot be probed now"),
            }
            let waited = tokio::time::sleep(pause);
            tokio::pin!(waited);
            loop {
                tokio::select! {
                    Some((agent, result)) = running.next() => {
                        under_way.remove(&agent);
                        match result {
                            Ok(probed) if probed.card_changed => self.registry.reload().await,
                            Ok(_) => {}
                            Err(error) => {
                                tracing::warn!(%agent, %error, "what a probe found cannot be kept");
                                tokio::time::sleep(pause).await;
                            }
                        }
                        break;
                    }
                    () = wanted.notified() => break,
                    () = &mut waited => break,
                    _ = second.tick() => {
                        if let Err(error) = self.look_at_calls().await {
                            tracing::warn!(%error, "what calls showed of agents cannot be kept");
                        }
                    }
                }
            }
        }
    }

    /// Probes those whose turn it is; how many.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub async fn probe_due(&self) -> Result<usize, StoreError> {
        let due = self.due(&HashSet::new()).await?;
        let count = due.len();
        let mut changed = false;
        let mut results = futures_util::stream::iter(due.into_iter().map(|agent| self.probe_one(agent)))
            .buffer_unordered(self.settings.concurrency.max(1));
        while let Some(result) = results.next().await {
            changed |= result?.card_changed;
        }
        if changed {
            self.registry.reload().await;
        }
        Ok(count)
    }

    /// Probes an agent now, because `who` asks for it.
    ///
    /// # Errors
    /// [`RegistryError::Forbidden`] to all but its owner and admins, [`RegistryError::TooSoon`],
    /// [`RegistryError::Invalid`] for a client.
    pub async fn probe_now(&self, who: &Actor, id: Uuid) -> Result<Checked, RegistryError> {
        if !who.owns(id) {
            return Err(RegistryError::Forbidden("only the agent itself or an admin can have it probed".to_owned()));
        }
        let agent = self.registry.store.agent(id).await?.ok_or(RegistryError::NotFound("agent"))?;
        // Or strangers could have the gateway ask whom they like before anybody has approved of them.
        if agent.state == AdminState::Pending && !who.is_admin() {
            return Err(RegistryError::Forbidden(
                "the agent is waiting for approval: it is probed once an operator has approved it".to_owned(),
            ));
        }
        let endpoint = agent.endpoint_url.as_deref().and_then(|text| Url::parse(text).ok());
        let endpoint = endpoint.ok_or_else(|| RegistryError::invalid("endpoint_url", "a client cannot be probed"))?;
        {
            let (now, every) = (self.registry.clock.wall(), micros(ASKED_EVERY));
            let mut asked = locked(&self.asked);
            asked.retain(|_, at| now < at.plus_micros(every));
            if let Some(at) = asked.get(&id) {
                let wait = u64::try_from(at.plus_micros(every).0 - now.0).unwrap_or(0);
                return Err(RegistryError::TooSoon(Duration::from_micros(wait)));
            }
            asked.insert(id, now);
        }
        let credential = self.registry.upstream_credential(&agent)?;
        let probed = self.probe_one(agent.clone()).await?;
        if probed.card_changed {
            self.registry.reload().await;
        }
        let credential =
            try_credential(&self.fetch, &agent, &endpoint, credential.as_ref(), self.settings.timeout).await;
        let agent = self.registry.store.agent(id).await?.ok_or(RegistryError::NotFound("agent"))?;
        Ok(Checked { agent, card_url: probed.place, credential })
    }

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
                news.push((id, track.verdict, track.endpoint.clone()));
            }
        }
        for (id, verdict, endpoint) in news {
            let Some(agent) = self.registry.store.agent(id).await? else { continue };
            if agent.endpoint_url != endpoint {
                locked(&self.tracks).remove(&id);
                continue;
            }
            let mut found = agent.clone();
            fill(&mut found, &verdict, now);
            if self.registry.store.set_health(&agent, &found, self.next(&agent, &verdict, now), None).await? {
                tell(&agent, &found, "calls");
            }
        }
        Ok(())
    }

    /// Those whose turn came while nobody looked are not all probed at once.
    async fn spread(&self) -> Result<(), StoreError> {
        let now = self.registry.clock.wall();
        let over = micros(self.settings.interval / 5).max(1);
        let turns: Vec<_> = self.registry.store.overdue_probes(now).await?;
        let turns: Vec<_> = turns
            .into_iter()
            .map(|id| (id, now.plus_micros(i64::from(crc32fast::hash(id.as_bytes())) % over)))
            .collect();
        self.registry.store.set_next_probes(&turns).await
    }

    /// Those whose turn it is and that are not being probed already; never probed ones first.
    async fn due(&self, under_way: &HashSet<Uuid>) -> Result<Vec<AgentRow>, StoreError> {
        let candidates = self.registry.store.agents_to_probe(self.registry.clock.wall(), 100).await?;
        Ok(candidates.into_iter().filter(|agent| !under_way.contains(&agent.id)).collect())
    }

    /// The time of the next probe: at the agent's interval, sooner while it is not clear how it is doing.
    fn next(&self, agent: &AgentRow, verdict: &Verdict, now: Timestamp) -> Timestamp {
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

    /// Makes sure that a track is there, of the agent where it is now.
    fn track(&self, agent: &AgentRow, now: Timestamp) {
        let mut tracks = locked(&self.tracks);
        let anew = tracks
            .get(&agent.id)
            .is_none_or(|track| track.endpoint != agent.endpoint_url || agent.health_checked_at.is_none());
        if anew {
            let verdict = Verdict::kept(agent.health, agent.health_reason.as_deref());
            let seen = tracks.get(&agent.id).map(|track| track.seen).unwrap_or_default();
            let track = Track { endpoint: agent.endpoint_url.clone(), verdict, seen, aged_at: now };
            tracks.insert(agent.id, track);
        }
    }

    /// Takes a sign of a probe in.
    fn see(&self, agent: &AgentRow, sign: Sign, now: Timestamp) -> Verdict {
        self.track(agent, now);
        if !matches!(sign, Sign::Down(_))
            && let Some(vitals) = (self.calls.of)(agent.id)
        {
            vitals.breaker.close();
        }
        let mut tracks = locked(&self.tracks);
        let Some(track) = tracks.get_mut(&agent.id) else {
            return Verdict::kept(agent.health, agent.health_reason.as_deref());
        };
        track.verdict.see(sign);
        track.verdict
    }

    async fn probe_one(&self, agent: AgentRow) -> Result<Probed, StoreError> {
        let _slot = self.slots.acquire().await;
        let Some(endpoint) = agent.endpoint_url.as_deref().and_then(|text| Url::parse(text).ok()) else {
            // Changed by hand. Noted all the same, or its turn would never be over.
            let finding = Finding { sign: Sign::Down(Ailment::BadUrl), place: None, card: None, validator: None };
            return self.keep(agent, None, finding).await;
        };
        let credential = self.registry.upstream_credential(&agent).unwrap_or_else(|error| {
            tracing::error!(agent = %agent.id, %error, "probing without its credential");
            None
        });
        let known = locked(&self.validators).get(&agent.id).cloned();
        let began = self.registry.clock.nanos();
        let timeout = self.settings.timeout;
        let mut finding = probe(&self.fetch, &agent, &endpoint, credential.as_ref(), known.as_ref(), timeout).await;
        let took = Duration::from_nanos(self.registry.clock.nanos().saturating_sub(began));
        if matches!(finding.sign, Sign::Well(_)) && took > timeout / 2 {
            finding.sign = Sign::Ill(Ailment::Slow);
        }
        self.keep(agent, Some(&endpoint), finding).await
    }

    /// Writes what a probe found.
    async fn keep(&self, agent: AgentRow, endpoint: Option<&Url>, finding: Finding) -> Result<Probed, StoreError> {
        let now = self.registry.clock.wall();
        let verdict = self.see(&agent, finding.sign, now);
        let mut found = agent.clone();
        fill(&mut found, &verdict, now);
        let rejected = match (&finding.card, &agent.card_json) {
            (Some(card), Some(served)) if card != served => self.registry.store.rejected_card(agent.id).await?,
            _ => None,
        };
        let event = match finding.card {
            Some(card) => cards::take(&agent, &mut found, &card, endpoint, rejected.as_deref(), now),
            None => None,
        };
        let next = self.next(&agent, &verdict, now);
        let written = self.registry.store.set_health(&agent, &found, next, event.as_ref()).await;
        // Of a card that was not kept the agent must not say next time that it is still the same.
        match finding.validator.filter(|_| matches!(written, Ok(true))) {
            Some(validator) => locked(&self.validators).insert(agent.id, validator),
            None => locked(&self.validators).remove(&agent.id),
        };
        let written = written?;
        if written {
            tell(&agent, &found, "probe");
            if let Some(held) = found.held_card.as_ref().filter(|_| event.is_some()) {
                tracing::warn!(agent = %agent.id, reason = held.reason, "its new card is held: an admin has to accept or reject it");
            }
        }
        let changed = (&found.card_json, &found.skills_json) != (&agent.card_json, &agent.skills_json);
        Ok(Probed { card_changed: written && changed, place: finding.place })
    }
}

/// What a probe came to.
struct Probed {
    card_changed: bool,
    place: Option<Url>,
}

fn fill(found: &mut AgentRow, verdict: &Verdict, now: Timestamp) {
    let (health, reason) = verdict.shown();
    found.health = health;
    found.health_reason = reason.map(|ailment| ailment.as_str().to_owned());
    found.health_checked_at = Some(now);
}

fn tell(before: &AgentRow, after: &AgentRow, by: &'static str) {
    if after.health != before.health {
        let reason = after.health_reason.as_deref();
        if after.health == HealthStatus::Offline {
            tracing::warn!(agent = %after.id, reason, by, "an agent is offline");
        } else {
            tracing::info!(agent = %after.id, health = after.health.as_str(), reason, by, "health changed");
        }
    }
}

/// The interval, give or take a tenth: the same for the same agent and time, another for the next.
fn jittered(interval: i64, agent: Uuid, at: i64) -> i64 {
    let mut seed = agent.as_bytes().to_vec();
    seed.extend_from_slice(&at.to_be_bytes());
    let share = i64::from(crc32fast::hash(&seed) % 2_001) - 1_000; // -1000..=1000 of 10000
    interval / 10_000 * (10_000 + share)
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
