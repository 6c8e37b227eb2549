//! Retention: what is taken out of rows and what rows go, by age and on request. Never on the connection that records, a few rows
//! at a time, and nothing that is held.
//!
//! | file | what it is for |
//! |---|---|
//! | `survey` | which rows may go, and whether they are what was signed for |
//! | `remove` | removing them |
//! | `erase` | erasing what is in rows, by age and for one caller |

mod erase;
mod remove;
mod survey;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::clock::{Clock, Timestamp};
use crate::store::calls::erase::Erasure;
use crate::store::{Store, StoreError};

pub use erase::{CallerErasure, Eraser};

/// How often it is looked whether something has become old enough.
const TURN: Duration = Duration::from_secs(3_600);
/// How long every checkpoint is kept; of earlier ones, the last of each hour.
const CHECKPOINTS: Duration = Duration::from_secs(86_400);
/// The least pause between two transactions.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 5 });

/// How long what is kept. What is not said is kept for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Rows.
    pub keep: Option<Duration>,
    /// Addresses in them.
    pub addresses: Option<Duration>,
    /// What came from outside with refused calls.
    pub refused: Option<Duration>,
}

/// What keeps rows that are old enough to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBy {
    /// A legal hold.
    Hold {
        /// Which.
        hold: Uuid,
        /// When the call it holds arrived.
        called_at: Timestamp,
    },
    /// No checkpoint speaks of them.
    Unsigned,
}

/// Where the removal of a node's rows does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldUp {
    /// Whose.
    pub node: Uuid,
    /// The first row that stays.
    pub seq: u64,
    /// Why.
    pub by: HeldBy,
}

/// What retention has done since the start, and how it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionState {
    /// When it last looked.
    pub looked_at: Option<Timestamp>,
    /// Rows that were removed.
    pub removed: u64,
    /// Rows whose address was erased by age.
    pub addresses: u64,
    /// Rows of refused calls that were erased.
    pub refused: u64,
    /// What keeps rows that are old enough.
    pub held_up: Vec<HeldUp>,
    /// What went wrong last.
    pub trouble: Vec<String>,
}

/// How retention goes, for those who look on.
#[derive(Clone, Debug, Default)]
pub struct RetentionView(Arc<Mutex<RetentionState>>);

impl RetentionView {
    /// Now.
    #[must_use]
    pub fn now(&self) -> RetentionState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut RetentionState)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The one task of a node that lets go of what is old.
#[derive(Debug)]
pub struct Retention {
    store: Store,
    clock: Clock,
    settings: RetentionSettings,
    view: RetentionView,
}

impl Retention {
    /// By these settings.
    #[must_use]
    pub fn new(store: Store, clock: Clock, settings: RetentionSettings) -> Self {
        Self { store, clock, settings, view: RetentionView::default() }
    }

    /// How it goes.
    #[must_use]
    pub fn view(&self) -> RetentionView {
        self.view.clone()
    }

    /// Goes on until it is dropped.
    pub async fn run(self) {
        let mut turn = interval(TURN);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            self.turn().await;
        }
    }

    /// Looks once. Of several nodes one does it at a time: the others find it being done, and look again in an hour.
    pub(crate) async fn turn(&self) {
        let mut trouble = Vec::new();
        match self.store.retention_turn().await {
            Ok(Some(turn)) => {
                self.each(&mut trouble).await;
                turn.end().await;
            }
            Ok(None) => return,
            Err(error) => note(&mut trouble, &error),
        }
        self.view.change(|state| {
            state.looked_at = Some(self.clock.wall());
            state.trouble = trouble;
        });
    }

    async fn each(&self, trouble: &mut Vec<String>) {
        let now = self.clock.wall();
        let before = |age: Duration| now.plus_micros(-i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
        if let Some(keep) = self.settings.keep
            && let Err(error) = self.remove_old(before(keep)).await
        {
            note(trouble, &error);
        }
        let classes = [
            (self.settings.addresses, Erasure::Addresses, "addresses"),
            (self.settings.refused, Erasure::Refused, "refused"),
        ];
        for (age, what, class) in classes {
            let Some(age) = age else { continue };
            match self.erase_old(what, class, before(age)).await {
                Ok(done) => self.view.change(|state| match what {
                    Erasure::Refused => state.refused += done.erased,
                    _ => state.addresses += done.erased,
                }),
                Err(error) => note(trouble, &error),
            }
        }
        if let Err(error) = self.remove_old_minutes(now).await {
            note(trouble, &error);
        }
        if let Err(error) = self.thin_checkpoints(before(CHECKPOINTS)).await {
            note(trouble, &error);
        }
    }

    /// Removes the sums of minutes that statistics do not tell any more.
    async fn remove_old_minutes(&self, now: Timestamp) -> Result<(), StoreError> {
        while paced(self.store.remove_old_minute(now)).await? > 0 {}
        Ok(())
    }

    async fn thin_checkpoints(&self, then: Timestamp) -> Result<(), StoreError> {
        for node in self.store.ledger_nodes().await? {
            paced(self.store.thin_checkpoints(node, then)).await?;
        }
        Ok(())
    }
}

fn note(trouble: &mut Vec<String>, error: &impl fmt::Display) {
    tracing::error!(%error, "retention cannot go on; it is tried again in an hour");
    trouble.push(error.to_string());
}

/// Does `work`, and then nothing for as long as that took: the database is there for others at least half of the time.
async fn paced<T>(work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let done = work.await;
    tokio::time::sleep(began.elapsed().max(PAUSE)).await;
    done
}
