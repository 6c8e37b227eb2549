//! When it was last known that the snapshot in force says what the database says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;

/// When the snapshot in force was last held against the database, and how long that may be ago.
#[derive(Debug)]
pub struct LastConfirmed {
    clock: Clock,
    at_nanos: AtomicU64,
    max_stale: Duration,
}

impl LastConfirmed {
    /// Confirmed now.
    #[must_use]
    pub fn now(clock: Clock, max_stale: Duration) -> Self {
        let at_nanos = AtomicU64::new(clock.nanos());
        Self { clock, at_nanos, max_stale }
    }

    /// Notes that the snapshot in force is what the database said at `nanos` of the clock.
    pub fn confirm(&self, nanos: u64) {
        self.at_nanos.fetch_max(nanos, Ordering::AcqRel);
    }

    /// How long ago that was.
    #[must_use]
    pub fn age(&self) -> Duration {
        Duration::from_nanos(self.clock.nanos().saturating_sub(self.at_nanos.load(Ordering::Acquire)))
    }

    /// Whether what the snapshot says could be wrong by now: only what was agreed between two agents still counts.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.age() > self.max_stale
    }

    /// The age from which on it is stale.
    #[must_use]
    pub fn max_stale(&self) -> Duration {
        self.max_stale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn a_snapshot_is_stale_once_nobody_has_confirmed_it_for_too_long() {
        let clock = Clock::manual(Timestamp(0));
        let confirmed = LastConfirmed::now(clock.clone(), Duration::from_secs(60));
        clock.advance(Duration::from_secs(60));
        assert!(!confirmed.is_stale());
        clock.advance(Duration::from_nanos(1));
        assert!(confirmed.is_stale());
        let asked_at = clock.nanos();
        clock.advance(Duration::from_secs(5));
        confirmed.confirm(asked_at);
        assert_eq!((confirmed.age(), confirmed.is_stale()), (Duration::from_secs(5), false));
        confirmed.confirm(0);
        assert_eq!(confirmed.age(), Duration::from_secs(5), "an answer that comes late takes nothing back");
    }
}
