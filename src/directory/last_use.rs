//! When a key was last used: noted by whoever lets it in, written to the database now and then, never on the path of a call.
//!
//! Promises that a use noted before a new snapshot is not forgotten by it: snapshots share the note.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock::Timestamp;

/// Uses this close together count as one: workers that share a busy key need not fight over its note.
const CLOSE_US: i64 = 1_000_000;

/// No use at all.
const NEVER: i64 = i64::MIN;

/// The last use of one key, to the second.
#[derive(Debug)]
pub struct LastUse {
    noted: AtomicI64,
    kept: AtomicI64,
}

impl LastUse {
    /// A note that says what the database says.
    #[must_use]
    pub fn kept_at(at: Option<Timestamp>) -> Self {
        let at = at.map_or(NEVER, |at| at.0);
        Self { noted: AtomicI64::new(at), kept: AtomicI64::new(at) }
    }

    /// Notes a use.
    pub fn note(&self, now: Timestamp) {
        if self.noted.load(Ordering::Relaxed) <= now.0.saturating_sub(CLOSE_US) {
            self.noted.fetch_max(now.0, Ordering::Relaxed);
        }
    }

    /// When the key was last used.
    #[must_use]
    pub fn at(&self) -> Option<Timestamp> {
        let noted = self.noted.load(Ordering::Relaxed);
        (noted != NEVER).then_some(Timestamp(noted))
    }

    /// The last use, where the database does not know of it.
    #[must_use]
    pub fn unkept(&self) -> Option<Timestamp> {
        self.at().filter(|at| at.0 > self.kept.load(Ordering::Relaxed))
    }

    /// The database knows of the use at `at`.
    pub fn keep(&self, at: Timestamp) {
        self.kept.fetch_max(at.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_unkept_until_the_database_knows_of_it() {
        let note = LastUse::kept_at(None);
        assert_eq!((note.at(), note.unkept()), (None, None));
        note.note(Timestamp(0));
        assert_eq!(note.unkept(), Some(Timestamp(0)));
        note.keep(Timestamp(0));
        assert_eq!((note.at(), note.unkept()), (Some(Timestamp(0)), None));
        note.note(Timestamp(CLOSE_US));
        assert_eq!(note.unkept(), Some(Timestamp(CLOSE_US)));
    }

    #[test]
    fn uses_within_a_second_count_as_one_and_time_never_goes_back() {
        let note = LastUse::kept_at(Some(Timestamp(5 * CLOSE_US)));
        for at in [6 * CLOSE_US - 1, 5 * CLOSE_US, 0] {
            note.note(Timestamp(at));
            assert_eq!(note.unkept(), None, "{at}");
        }
        note.note(Timestamp(6 * CLOSE_US));
        assert_eq!(note.unkept(), Some(Timestamp(6 * CLOSE_US)));
    }
}
