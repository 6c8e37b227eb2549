//! Health: every agent is probed when it is registered and again every few minutes, a bounded number at a time; and what its
//! calls show is looked at every second.
//!
//! | module | what it is for |
//! |---|---|
//! | `turns` | whose turn it is |
//! | `keep` | what probes found is judged and written, many at a time |
//! | `calls` | what calls showed |
//!
//! Promises: what is found is in the store, and the directory is rebuilt only when a card changed. Health is shown to people
//! and to agents that look for agents; it never refuses a call. An agent that fails is looked at sooner, so that it is seen to
//! be back; a card that changed for the worse is held until an admin has seen it.

mod calls;
mod keep;
mod turns;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, mpsc};
use url::Url;
use uuid::Uuid;

pub use self::calls::Calls;
use self::calls::Track;
use self::keep::Found;
use self::turns::Turns;
pub use super::probe::{CARD_MAX, CredentialState, Fetch, FetchError, FetchRequest, FetchResponse};
use super::probe::{Finding, Validator, probe, try_credential};
use super::verdict::{Sign, Verdict};
use super::{Actor, Registry, RegistryError};
use crate::clock::Timestamp;
use crate::store::rows::{AdminState, AgentRow};
use crate::vitals::Ailment;

/// How often probes of one agent may be asked for.
const ASKED_EVERY: Duration = Duration::from_secs(5);

/// The seconds an agent may have as an interval of its own: up to a week.
pub const INTERVALS: RangeInclusive<u32> = 10..=604_800;

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

    /// Probes for ever; a task to be aborted at shutdown. The agents whose probes are cut short wait for their claims to run out.
    pub async fn run(&self) {
        if let Err(error) = self.spread().await {
            tracing::warn!(%error, "probes that are overdue cannot be spread: they are made as fast as allowed");
        }
        let (found, to_keep) = mpsc::channel(keep::AT_ONCE);
        let turns = tokio::sync::Mutex::new(self.turns());
        let slots = (0..self.settings.concurrency.max(1)).map(|_| self.probe_by_turns(&turns, &found));
        tokio::join!(join_all(slots), self.keep_all(to_keep));
    }

    /// One agent after the other, each once it is free: an agent that lets us wait does not make the others wait.
    async fn probe_by_turns(&self, turns: &tokio::sync::Mutex<Turns<'_>>, found: &mpsc::Sender<Found>) {
        loop {
            let agent = turns.lock().await.next().await;
            let looked = self.look(agent).await;
            if found.send(looked).await.is_err() {
                return;
            }
        }
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
        let found = self.look(agent.clone()).await;
        let card_url = found.finding.place.clone();
        self.keep(vec![found]).await?;
        let credential =
            try_credential(&self.fetch, &agent, &endpoint, credential.as_ref(), self.settings.timeout).await;
        let agent = self.registry.store.agent(id).await?.ok_or(RegistryError::NotFound("agent"))?;
        Ok(Checked { agent, card_url, credential })
    }

    /// Probes an agent as soon as a slot is free.
    async fn look(&self, agent: AgentRow) -> Found {
        let _slot = self.slots.acquire().await;
        let Some(endpoint) = agent.endpoint_url.as_deref().and_then(|text| Url::parse(text).ok()) else {
            // Changed by hand. Noted all the same, or its turn would never be over.
            let finding = Finding { sign: Sign::Down(Ailment::BadUrl), place: None, card: None, validator: None };
            return Found { agent, endpoint: None, finding };
        };
        let credential = self.registry.upstream_credential(&agent).unwrap_or_else(|error| {
            tracing::error!(agent = %agent.id, %error, "probing without its credential");
            None
        });
        // Taken out: of a card that is then not kept the agent must not say next time that it is still the same.
        let known = locked(&self.validators).remove(&agent.id);
        let began = self.registry.clock.nanos();
        let timeout = self.settings.timeout;
        let mut finding = probe(&self.fetch, &agent, &endpoint, credential.as_ref(), known.as_ref(), timeout).await;
        let took = Duration::from_nanos(self.registry.clock.nanos().saturating_sub(began));
        if matches!(finding.sign, Sign::Well(_)) && took > timeout / 2 {
            finding.sign = Sign::Ill(Ailment::Slow);
        }
        if let Some(vitals) = (self.calls.of)(agent.id) {
            match finding.sign {
                Sign::Down(_) => vitals.breaker.confirm(&self.registry.clock),
                Sign::Well(_) | Sign::Ill(_) => vitals.breaker.close(),
            }
        }
        Found { agent, endpoint: Some(endpoint), finding }
    }
}

#[cfg(test)]
mod tests;
