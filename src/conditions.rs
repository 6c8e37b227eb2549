//! What is wrong with the running gateway for as long as it lasts: named, with since when and in words.
//!
//! Whoever notices a condition sets it, as often as it looks; a change is kept only when one begins or ends. Promises: what
//! stands here is told by status, and each beginning and end is told to webhooks. Knows nothing of either.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::{Clock, Timestamp};

/// Changes that nobody has taken yet, at most; of more, the oldest are forgotten.
const CHANGES_MAX: usize = 256;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Calls cannot be recorded, and are refused.
    JournalDown,
    /// The room for the journal is running out.
    JournalBudgetLow,
    /// Checkpoints of the log have not left the machine for too long.
    Unwitnessed,
    /// The database cannot be read.
    DatabaseAway,
    /// Calls are decided from a directory that is too old: only connected callers are served.
    DirectoryStale,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::JournalDown, Self::JournalBudgetLow, Self::Unwitnessed, Self::DatabaseAway, Self::DirectoryStale];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JournalDown => "journal.down",
            Self::JournalBudgetLow => "journal.budget_low",
            Self::Unwitnessed => "audit.unwitnessed",
            Self::DatabaseAway => "database.away",
            Self::DirectoryStale => "directory.stale",
        }
    }
}

/// A condition that has begun or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub condition: Condition,
    /// When.
    pub at: Timestamp,
    /// Since when it stands, or stood.
    pub since: Timestamp,
    /// What is wrong; `None`: nothing any more.
    pub text: Option<String>,
}

/// A condition that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Since when.
    pub since: Timestamp,
    /// What is wrong, as it was last said.
    pub text: String,
}

#[derive(Debug, Default)]
struct State {
    standing: BTreeMap<Condition, Standing>,
    changes: VecDeque<Change>,
}

/// The conditions of one running gateway. Clones are the same.
#[derive(Clone, Debug)]
pub struct Conditions {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

impl Conditions {
    /// None yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how it is with a condition: what is wrong, or `None` for nothing.
    pub fn set(&self, condition: Condition, text: Option<String>) {
        let now = self.clock.wall();
        let mut state = self.state();
        let change = match (state.standing.get_mut(&condition), text) {
            (Some(standing), Some(text)) => {
                standing.text = text;
                return;
            }
            (None, None) => return,
            (None, Some(text)) => {
                state.standing.insert(condition, Standing { since: now, text: text.clone() });
                Change { condition, at: now, since: now, text: Some(text) }
            }
            (Some(standing), None) => {
                let since = standing.since;
                state.standing.remove(&condition);
                Change { condition, at: now, since, text: None }
            }
        };
        if state.changes.len() == CHANGES_MAX {
            state.changes.pop_front();
        }
        state.changes.push_back(change);
    }

    /// Those that stand.
    #[must_use]
    pub fn standing(&self) -> Vec<(Condition, Standing)> {
        self.state().standing.iter().map(|(condition, standing)| (*condition, standing.clone())).collect()
    }

    /// What has begun or ended since this was last asked, oldest first.
    #[must_use]
    pub fn take_changes(&self) -> Vec<Change> {
        self.state().changes.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_condition_is_told_when_it_begins_and_when_it_ends_however_often_it_is_set() {
        let clock = Clock::manual(Timestamp(5));
        let conditions = Conditions::new(clock.clone());
        conditions.set(Condition::DatabaseAway, None);
        for text in ["away", "still away"] {
            conditions.set(Condition::DatabaseAway, Some(text.to_owned()));
            clock.advance(Duration::from_micros(1));
        }
        let standing = Standing { since: Timestamp(5), text: "still away".to_owned() };
        assert_eq!(conditions.standing(), [(Condition::DatabaseAway, standing)]);
        for _ in 0..2 {
            conditions.set(Condition::DatabaseAway, None);
        }
        let (condition, since) = (Condition::DatabaseAway, Timestamp(5));
        let begun = Change { condition, since, at: Timestamp(5), text: Some("away".to_owned()) };
        assert_eq!(conditions.take_changes(), [begun, Change { condition, since, at: Timestamp(7), text: None }]);
        assert_eq!((conditions.standing(), conditions.take_changes()), (Vec::new(), Vec::new()));
    }

    #[test]
    fn changes_that_nobody_takes_do_not_pile_up() {
        let conditions = Conditions::new(Clock::manual(Timestamp(0)));
        for n in 0..CHANGES_MAX * 2 + 1 {
            conditions.set(Condition::Unwitnessed, (n % 2 == 0).then(|| n.to_string()));
        }
        let changes = conditions.take_changes();
        assert_eq!((changes.len(), changes.last().and_then(|c| c.text.clone())), (CHANGES_MAX, Some("512".to_owned())));
    }
}
