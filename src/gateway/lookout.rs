//! Looks every second at what this gateway can see of itself, and sets its conditions accordingly.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::world::World;
use crate::audit::journal::{Journal, JournalHealth, JournalRoom, Pressure};
use crate::conditions::{Condition, Conditions};
use crate::control::Freshness;
use crate::store::Store;

/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Looks in vain before the database counts as away: one that is being restarted is back by then, mostly.
const AWAY_AFTER: u32 = 5;

/// What is looked at.
pub(super) struct Lookout {
    pub(super) store: Store,
    pub(super) world: Arc<World>,
    pub(super) journal: Arc<Journal>,
    /// How the ledger is, and the time.
    pub(super) complaint: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    pub(super) conditions: Conditions,
}

impl Lookout {
    /// Goes on until it is dropped.
    pub(super) async fn run(self) {
        let mut turn = interval(Duration::from_secs(1));
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut in_vain = 0;
        loop {
            turn.tick().await;
            self.conditions.set(Condition::JournalDown, journal(self.journal.health()));
            self.conditions.set(Condition::JournalBudgetLow, room(&self.journal.room()));
            self.conditions.set(Condition::DirectoryStale, directory(&self.world.freshness()));
            self.conditions.set(Condition::Unwitnessed, (self.complaint)());
            let found = match tokio::time::timeout(PATIENCE, self.store.ping()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("the database cannot be read: {error}")),
                Err(_) => Some(format!("the database has not answered for {} s", PATIENCE.as_secs())),
            };
            in_vain = if found.is_some() { in_vain + 1 } else { 0 };
            if in_vain == 0 || in_vain >= AWAY_AFTER {
                self.conditions.set(Condition::DatabaseAway, found);
            }
        }
    }
}

fn journal(health: JournalHealth) -> Option<String> {
    match health {
        JournalHealth::Healthy => None,
        JournalHealth::Down { why, .. } => Some(format!("calls cannot be recorded and are refused: {why}")),
    }
}

fn room(room: &JournalRoom) -> Option<String> {
    (room.pressure != Pressure::None).then(|| room.to_string())
}

fn directory(freshness: &Freshness) -> Option<String> {
    (freshness.unconfirmed > freshness.max_stale).then(|| {
        let most = freshness.max_stale.as_secs();
        format!("the directory could not be read for more than {most} s: only connected callers are served")
    })
}
