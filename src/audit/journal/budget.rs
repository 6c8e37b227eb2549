//! What the journals of this node may take of the disk, and whose calls are refused as that runs out.
//!
//! Set where files come and go, a few times in many thousand calls; read on the path of every call, where it is one atomic load.
//! Those trusted least are refused first, and each level has a share that nothing of a lower one can take: what is recorded of
//! refused strangers ends where the share of the verified begins. Outcomes of open calls need no share: their room was taken by
//! the intent. Must not know files.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::trust::TrustLevel;

/// From how much of the budget on, in percent, each [`Pressure`] is there. Half of it is warning enough: of the default that is
/// 2 GiB, some three million calls. What connected callers have to themselves after the others are refused is a quarter of it.
const FROM: [(Pressure, u64); 4] =
    [(Pressure::Warned, 50), (Pressure::Unverified, 70), (Pressure::Verified, 85), (Pressure::Connected, 95)];
/// By how much of the budget, in percent, it must have fallen below that before the pressure is over: one file that the drain
/// deletes and a worker makes anew must not change anybody's answer.
const SLACK: u64 = 5;

/// How full the journals are: who is refused for it, and everybody trusted less with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Pressure {
    /// Nobody, and nobody has to look.
    #[default]
    None,
    /// Nobody, but somebody has to look.
    Warned,
    /// Callers without a credential.
    Unverified,
    /// Callers without a connection.
    Verified,
    /// Everybody.
    Connected,
}

impl Pressure {
    /// Whether calls of this level are refused.
    #[must_use]
    pub fn refuses(self, level: TrustLevel) -> bool {
        match level {
            TrustLevel::Blocked | TrustLevel::Unverified => self >= Self::Unverified,
            TrustLevel::Verified => self >= Self::Verified,
            TrustLevel::Connected => self >= Self::Connected,
        }
    }

    /// Whether refusals of calls of this level still have room: until those trusted more are refused themselves.
    fn records(self, level: TrustLevel) -> bool {
        match level {
            TrustLevel::Blocked | TrustLevel::Unverified => self < Self::Verified,
            TrustLevel::Verified => self < Self::Connected,
            TrustLevel::Connected => true,
        }
    }
}

/// Calls of this level are refused: the journals are too full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalFull;

impl JournalFull {
    /// When it may be otherwise: the drain tries that often at least, and room comes by nothing else.
    pub const RETRY: Duration = Duration::from_secs(5);
}

/// How much room there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalRoom {
    /// What journals and damaged files take of the disk, in bytes.
    pub used: u64,
    /// The part of it that is damaged files, kept aside for somebody to look at.
    pub aside: u64,
    /// What they may take.
    pub budget: u64,
    /// What follows from that.
    pub pressure: Pressure,
}

impl fmt::Display for JournalRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        write!(f, "the journals hold {} of the {} MiB of audit.journal_budget", mib(self.used), mib(self.budget))?;
        match self.aside {
            0 => Ok(()),
            aside => write!(f, ", {} of it damaged files that were put aside", mib(aside)),
        }
    }
}

/// The budget and what is taken of it.
#[derive(Debug)]
pub(super) struct Budget {
    most: u64,
    held: Mutex<Held>,
    pressure: AtomicU8,
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// By the segments of this process.
    own: u64,
    /// By the journals of others in the same directory: those that are dead, and not yet rows.
    others: u64,
    aside: u64,
}

impl Held {
    fn sum(self) -> u64 {
        self.own.saturating_add(self.others).saturating_add(self.aside)
    }
}

impl Budget {
    pub(super) fn new(most: u64) -> Self {
        Self { most, held: Mutex::default(), pressure: AtomicU8::new(Pressure::None as u8) }
    }

    /// Takes room for a segment.
    pub(super) fn take(&self, bytes: u64) -> io::Result<()> {
        let mut held = self.lock();
        if held.sum().saturating_add(bytes) > self.most {
            let room = self.room_of(*held);
            return Err(io::Error::new(io::ErrorKind::StorageFull, format!("{room}: there is no room for more")));
        }
        held.own += bytes;
        self.weigh(*held);
        Ok(())
    }

    /// Takes room whether there is any or not: every worker needs a first segment.
    pub(super) fn take_first(&self, bytes: u64) {
        let mut held = self.lock();
        held.own = held.own.saturating_add(bytes);
        self.weigh(*held);
    }

    pub(super) fn give_back(&self, bytes: u64) {
        let mut held = self.lock();
        held.own = held.own.saturating_sub(bytes);
        self.weigh(*held);
    }

    /// Notes what else there is, as it was found.
    pub(super) fn found(&self, others: u64, aside: u64) {
        let mut held = self.lock();
        (held.others, held.aside) = (others, aside);
        self.weigh(*held);
    }

    pub(super) fn room(&self) -> JournalRoom {
        self.room_of(*self.lock())
    }

    pub(super) fn admits(&self, level: TrustLevel) -> Result<(), JournalFull> {
        if self.pressure().refuses(level) { Err(JournalFull) } else { Ok(()) }
    }

    pub(super) fn records(&self, level: TrustLevel) -> bool {
        self.pressure().records(level)
    }

    fn pressure(&self) -> Pressure {
        let now = self.pressure.load(Ordering::Relaxed);
        FROM.iter().map(|(pressure, _)| *pressure).find(|pressure| *pressure as u8 == now).unwrap_or_default()
    }

    fn room_of(&self, held: Held) -> JournalRoom {
        JournalRoom { used: held.sum(), aside: held.aside, budget: self.most, pressure: self.pressure() }
    }

    /// Sets the pressure anew, and tells when it has changed. Under the lock, so that the last to change anything has the last word.
    fn weigh(&self, held: Held) {
        let (before, used) = (self.pressure(), u128::from(held.sum()));
        let reached = |percent: u64| used * 100 >= u128::from(self.most) * u128::from(percent);
        let holds = |(pressure, from): &&(Pressure, u64)| {
            reached(if *pressure <= before { from.saturating_sub(SLACK) } else { *from })
        };
        let now = FROM.iter().rfind(holds).map_or(Pressure::None, |(pressure, _)| *pressure);
        if now == before {
            return;
        }
        self.pressure.store(now as u8, Ordering::Relaxed);
        let room = self.room_of(held);
        match now {
            Pressure::None => tracing::info!("{room}: there is room again"),
            Pressure::Warned if before > now => tracing::warn!("{room}: calls of all levels are let through again"),
            Pressure::Warned => tracing::warn!("{room}: see why the database does not take the rows"),
            Pressure::Unverified => tracing::warn!("{room}: calls without a credential are refused"),
            Pressure::Verified => tracing::error!("{room}: calls without a connection are refused"),
            Pressure::Connected => tracing::error!("{room}: all calls are refused"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(budget: &Budget) -> Vec<TrustLevel> {
        TrustLevel::ALL.into_iter().filter(|level| budget.admits(*level).is_err()).collect()
    }

    #[test]
    fn those_trusted_least_are_refused_first_and_let_in_again_last() {
        use TrustLevel::{Blocked, Connected, Unverified, Verified};
        let budget = Budget::new(1_000);
        let levels = [Blocked, Unverified, Verified, Connected];
        let mut used = 0;
        for (at, pressure, count) in [
            (499, Pressure::None, 0),
            (500, Pressure::Warned, 0),
            (699, Pressure::Warned, 0),
            (700, Pressure::Unverified, 2),
            (849, Pressure::Unverified, 2),
            (850, Pressure::Verified, 3),
            (949, Pressure::Verified, 3),
            (950, Pressure::Connected, 4),
            // And back, five points later each.
            (900, Pressure::Connected, 4),
            (899, Pressure::Verified, 3),
            (800, Pressure::Verified, 3),
            (799, Pressure::Unverified, 2),
            (650, Pressure::Unverified, 2),
            (649, Pressure::Warned, 0),
            (450, Pressure::Warned, 0),
            (449, Pressure::None, 0),
        ] {
            if at > used {
                budget.take(at - used).expect("there is room")
            } else {
                budget.give_back(used - at)
            }
            used = at;
            assert_eq!((budget.room().pressure, refused(&budget)), (pressure, levels[..count].to_vec()), "{at}");
        }
    }

    #[test]
    fn what_others_hold_counts_and_nothing_goes_beyond_the_budget_but_first_segments() {
        let budget = Budget::new(1_000);
        budget.found(600, 90);
        budget.take(200).expect("there is room");
        let error = budget.take(111).expect_err("there is none").to_string();
        assert!(error.contains("audit.journal_budget") && error.contains("put aside"), "{error}");
        budget.take(110).expect("to the last byte");
        budget.found(0, 0);
        assert_eq!((budget.room().used, budget.room().pressure), (310, Pressure::None));
        budget.take_first(650);
        assert_eq!((budget.room().used, budget.room().pressure), (960, Pressure::Connected));
        budget.take_first(540);
        assert_eq!(budget.room().used, 1_500);
        budget.give_back(690);
        budget.found(0, 0);
        assert_eq!(budget.room(), JournalRoom { used: 810, aside: 0, budget: 1_000, pressure: Pressure::Verified });
    }

    proptest! {
        #[test]
        fn no_record_of_a_level_takes_the_share_of_a_higher_one(steps in prop::collection::vec((0_u64..300, any::<bool>()), 1..50)) {
            let budget = Budget::new(1_000);
            for (bytes, more) in steps {
                if more { let _ = budget.take(bytes); } else { budget.give_back(bytes); }
                for (lower, higher) in [(TrustLevel::Unverified, TrustLevel::Verified), (TrustLevel::Verified, TrustLevel::Connected)] {
                    prop_assert!(budget.records(lower) || budget.admits(lower).is_err(), "who is let through is recorded");
                    prop_assert!(!budget.records(lower) || budget.admits(higher).is_ok());
                    prop_assert!(budget.admits(lower).is_err() || budget.admits(higher).is_ok());
                }
                prop_assert!(budget.room().used <= 1_000);
            }
        }
    }
}
