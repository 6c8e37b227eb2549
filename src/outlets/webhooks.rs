//! Events of the registry and conditions of this gateway on their way to webhooks.
//!
//! Promises: an event is sent to each webhook that wants it until it was taken, for a day at most and always under the same id;
//! what waits is in the database, and one node sends each. While the database is away, what this gateway has to tell of itself
//! is sent from memory.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tracing::warn;
use uuid::Uuid;

use super::message::{self, Secret};
use super::pause;
use super::post::{Failure, Post, PostRequest, deliver};
use crate::clock::{Clock, Timestamp};
use crate::conditions::{Change, Conditions};
use crate::config;
use crate::store::{Delivery, Store, StoreError, WAITING_MAX, WebhookEvent};

/// How often it is looked for something to tell.
const LOOK: Duration = Duration::from_secs(1);
/// How long a receiver may take to answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How long a delivery is this node's own: longer than it can take.
const LEASE_US: i64 = 60_000_000;
/// The pauses between attempts of one delivery.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
/// How long a receiver that fails is left alone by all of its deliveries, at most.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// From then on a delivery is given up: a day, in microseconds.
const GIVE_UP_US: i64 = 86_400_000_000;
/// Events that nobody wants to be told are forgotten: an hour, in microseconds. Nodes that have webhooks have taken them by then.
const UNWANTED_US: i64 = 3_600_000_000;
/// A delivery to a webhook that this node does not have is forgotten once it was due for so long: two days, in microseconds.
/// Nodes that have it would have sent it, or given it up.
const ABANDONED_US: i64 = 2 * GIVE_UP_US;
/// Deliveries in memory at most while the database is away.
const HELD_MAX: usize = 256;

/// One webhook.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Names it.
    pub name: String,
    url: String,
    secret_file: PathBuf,
    events: Vec<&'static str>,
}

impl Hook {
    /// The webhook in the configuration.
    #[must_use]
    pub fn of(webhook: &config::Webhook) -> Self {
        Self {
            name: webhook.name.clone(),
            url: webhook.url.as_str().to_owned(),
            secret_file: webhook.secret_file.clone(),
            events: webhook.events.iter().map(|event| event.as_str()).collect(),
        }
    }
}

/// How a webhook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookTold {
    /// Its name.
    pub name: String,
    /// Deliveries that wait.
    pub waiting: i64,
    /// Those of them that were tried in vain.
    pub failing: i64,
    /// When the oldest was to be sent.
    pub oldest: Option<Timestamp>,
    /// Why one of them was not taken.
    pub error: Option<String>,
}

impl HookTold {
    /// What an operator should do something about.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let Self { name, failing, error, .. } = self;
        let error = error.as_deref()?;
        Some(format!("the webhook {name} does not take what it is sent, {failing} wait: {error}"))
    }
}

/// Why a webhook did not take a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestFailure {
    /// There is none of this name.
    Unknown,
    /// What went wrong.
    Failed(String),
}

/// A delivery that the database has not taken.
#[derive(Clone, Debug)]
struct Held {
    delivery: Delivery,
    next: Timestamp,
}

/// The webhooks of this node.
pub struct Webhooks {
    hooks: Vec<Hook>,
    node: Uuid,
    store: Store,
    conditions: Conditions,
    post: Post,
    clock: Clock,
    held: Mutex<Vec<Held>>,
}

impl Webhooks {
    /// The webhooks `hooks`, at `node`.
    #[must_use]
    pub fn new(
        hooks: Vec<Hook>,
        node: Uuid,
        store: Store,
        conditions: Conditions,
        post: Post,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self { hooks, node, store, conditions, post, clock, held: Mutex::default() })
    }

    /// Tells as long as it is not dropped. A database that is away is told of by whoever looks after it.
    pub async fn run(&self) {
        tokio::join!(self.gather(), join_all(self.hooks.iter().map(|hook| self.follow(hook))));
    }

    async fn gather(&self) {
        loop {
            let gathered = self.gather_once().await;
            tokio::time::sleep(if matches!(gathered, Ok(true)) { Duration::ZERO } else { LOOK }).await;
        }
    }

    /// One webhook's deliveries, one after the other: what happened first is told first, where it can be.
    async fn follow(&self, hook: &Hook) {
        let mut failures = 0;
        loop {
            let pause = match self.send_next(hook).await {
                Ok(Some(Ok(()))) => {
                    failures = 0;
                    Duration::ZERO
                }
                Ok(Some(Err(failure))) => {
                    failures += 1;
                    let wait = failure.retry_after.unwrap_or_default().min(LONGEST_REST);
                    pause::after(failures, LOOK, LONGEST_REST).max(wait)
                }
                Ok(None) | Err(_) => LOOK,
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Makes deliveries of what happened; whether there may be more at once.
    pub(super) async fn gather_once(&self) -> Result<bool, StoreError> {
        self.hold(self.conditions.take_changes());
        let queued = self.let_go().await;
        let now = self.clock.wall();
        let own: Vec<&str> = self.hooks.iter().map(|hook| hook.name.as_str()).collect();
        let abandoned = self.store.forget_deliveries(now.plus_micros(-ABANDONED_US), &own).await?;
        if abandoned > 0 {
            warn!(abandoned, "events for webhooks that are not configured any more are not told");
        }
        if self.hooks.is_empty() {
            self.store.forget_webhook_events(now.plus_micros(-UNWANTED_US)).await?;
            return Ok(false);
        }
        let taken = self.store.take_webhook_events(|event| self.deliveries(event, now)).await?;
        if taken > 0 || queued {
            for hook in &self.hooks {
                let dropped = self.store.bound_deliveries(&hook.name).await?;
                if dropped > 0 {
                    warn!(webhook = hook.name, dropped, "more than {WAITING_MAX} events wait: the oldest are not told");
                }
            }
        }
        Ok(taken > 0)
    }

    fn deliveries(&self, event: &WebhookEvent, now: Timestamp) -> Vec<Delivery> {
        let wanting = self.hooks.iter().filter(|hook| hook.events.contains(&event.kind.as_str()));
        let delivery = |hook: &Hook| Delivery {
            event_id: event.id,
            webhook: hook.name.clone(),
            body: message::body(event),
            created_at: now,
            attempts: 0,
        };
        wanting.map(delivery).collect()
    }

    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, changes: Vec<Change>) {
        let now = self.clock.wall();
        let mut held = self.held();
        for change in changes {
            let event = condition_event(&change, self.node);
            held.extend(self.deliveries(&event, now).into_iter().map(|delivery| Held { delivery, next: now }));
        }
        let over = held.len().saturating_sub(HELD_MAX);
        held.drain(..over);
    }

    /// Gives what is held to the database, or sends it where the database does not take it; whether there is more in that now.
    async fn let_go(&self) -> bool {
        let held = self.held().clone();
        if held.is_empty() {
            return false;
        }
        let deliveries: Vec<Delivery> = held.iter().map(|held| held.delivery.clone()).collect();
        if self.store.queue_deliveries(&deliveries).await.is_ok() {
            self.held().clear();
            return true;
        }
        let now = self.clock.wall();
        let due = held.into_iter().filter(|held| held.next <= now);
        // Side by side: one that is slow must not hold up the news for the others.
        let sent = join_all(due.map(|held| async move {
            let hook = self.hooks.iter().find(|hook| hook.name == held.delivery.webhook);
            let done = match hook {
                Some(hook) => self.send(hook, &held.delivery).await,
                None => Ok(()),
            };
            (held, done)
        }));
        for (Held { delivery, .. }, done) in sent.await {
            let mut held = self.held();
            let is_it =
                |one: &Held| one.delivery.event_id == delivery.event_id && one.delivery.webhook == delivery.webhook;
            match done {
                Ok(()) => held.retain(|one| !is_it(one)),
                Err(_) => {
                    for one in held.iter_mut().filter(|one| is_it(one)) {
                        one.delivery.attempts += 1;
                        one.next = self.clock.wall().plus_micros(micros(pause::after(
                            one.delivery.attempts,
                            FIRST_PAUSE,
                            LONGEST_REST,
                        )));
                    }
                }
            }
        }
        false
    }

    /// Sends the next delivery to a webhook, if one's time has come.
    pub(super) async fn send_next(&self, hook: &Hook) -> Result<Option<Result<(), Failure>>, StoreError> {
        let now = self.clock.wall();
        let claimed = self.store.claim_deliveries(&hook.name, now, now.plus_micros(LEASE_US), 1).await?;
        let Some(delivery) = claimed.first() else { return Ok(None) };
        let done = self.send(hook, delivery).await;
        match &done {
            Ok(()) => self.store.end_delivery(delivery).await?,
            Err(failure) => self.put_off(delivery, failure).await?,
        }
        Ok(Some(done))
    }

    async fn put_off(&self, delivery: &Delivery, failure: &Failure) -> Result<(), StoreError> {
        let Delivery { webhook, event_id, attempts, created_at, .. } = delivery;
        let now = self.clock.wall();
        if now.0.saturating_sub(created_at.0) >= GIVE_UP_US {
            warn!(webhook, event = %event_id, attempts = attempts + 1, why = failure.text, "an event is given up: it was not taken for a day");
            return self.store.end_delivery(delivery).await;
        }
        if *attempts == 0 {
            warn!(webhook, event = %event_id, why = failure.text, "an event was not taken: it is sent again for a day");
        }
        let pause = pause::after(attempts.saturating_add(1), FIRST_PAUSE, LONGEST_PAUSE);
        let next = now.plus_micros(micros(pause.max(failure.retry_after.unwrap_or_default().min(LONGEST_PAUSE))));
        self.store.put_off_delivery(delivery, next, &failure.text).await
    }

    async fn send(&self, hook: &Hook, delivery: &Delivery) -> Result<(), Failure> {
        let secret = Secret::read(&hook.secret_file).map_err(|error| Failure::lasting(error.to_string()))?;
        let headers = secret.headers(delivery.event_id, self.clock.wall(), &delivery.body);
        let body = Bytes::from(delivery.body.clone());
        deliver(&self.post, PostRequest { url: hook.url.clone(), headers, body, timeout: TIMEOUT }).await
    }

    /// Gathers and sends all whose time has come, as [`Webhooks::run`] does over time.
    #[cfg(test)]
    pub(crate) async fn settle(&self) {
        while self.gather_once().await.expect("the database answers") {}
        for hook in &self.hooks {
            while self.send_next(hook).await.expect("the database answers").is_some_and(|done| done.is_ok()) {}
        }
    }

    /// Sends an event of type `webhook.test` to a webhook, once and at once.
    ///
    /// # Errors
    /// When there is no such webhook, or it does not take it.
    pub async fn test(&self, name: &str) -> Result<(), TestFailure> {
        let hook = self.hooks.iter().find(|hook| hook.name == name).ok_or(TestFailure::Unknown)?;
        let now = self.clock.wall();
        let data = json!({"node_id": self.node, "text": "A test: nothing happened."});
        let event = WebhookEvent { id: Uuid::now_v7(), at: now, kind: "webhook.test".to_owned(), data };
        let delivery = Delivery {
            event_id: event.id,
            webhook: hook.name.clone(),
            body: message::body(&event),
            created_at: now,
            attempts: 0,
        };
        self.send(hook, &delivery).await.map_err(|failure| TestFailure::Failed(failure.text))
    }

    /// How each of them is.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn told(&self) -> Result<Vec<HookTold>, StoreError> {
        let waiting = self.store.waiting_deliveries().await?;
        let told = |hook: &Hook| {
            let of = waiting.iter().find(|waiting| waiting.webhook == hook.name);
            HookTold {
                name: hook.name.clone(),
                waiting: of.map_or(0, |of| of.deliveries),
                failing: of.map_or(0, |of| of.failing),
                oldest: of.map(|of| of.oldest),
                error: of.and_then(|of| of.error.clone()),
            }
        };
        Ok(self.hooks.iter().map(told).collect())
    }
}

/// That a condition has begun or ended.
fn condition_event(change: &Change, node: Uuid) -> WebhookEvent {
    let state = if change.text.is_some() { "begun" } else { "ended" };
    let data: Value = json!({"state": state, "since": change.since, "text": change.text, "node_id": node});
    WebhookEvent { id: Uuid::now_v7(), at: change.at, kind: change.condition.as_str().to_owned(), data }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "webhooks_tests.rs"]
mod tests;
