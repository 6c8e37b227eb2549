//! What one caller has used and holds at one target: two bucket cells, the day's units, open streams and calls.
//!
//! All atomics, exact under any concurrency. An account knows no limits: they are told with each request to take something.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use governor::nanos::Nanos;

use super::bounds::Bounds;
use super::bucket::{Level, Parts, Shape, Short};
use super::seed::Seed;
use crate::clock::{Clock, Timestamp};

/// Both times, each read once per decision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// On the clock that buckets go by.
    pub(super) nanos: u64,
    /// On the clock that days go by.
    pub(super) wall: Timestamp,
}

impl Now {
    pub(super) fn read(clock: &Clock) -> Self {
        Self { nanos: clock.nanos(), wall: clock.wall() }
    }

    /// The UTC day as quotas store it.
    pub(super) fn day(self) -> u32 {
        u32::try_from(self.wall.utc_day().max(0)).unwrap_or(u32::MAX)
    }
}

/// Which of an account's two buckets a call draws on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Draws {
    /// Work; for network sources, requests that cost nothing.
    Work,
    /// Reads; for network sources, credentials that are not valid and registrations.
    Reads,
}

impl Draws {
    fn bit(self) -> u8 {
        match self {
            Self::Work => 1,
            Self::Reads => 2,
        }
    }

    /// The bucket's name to callers.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Work => "calls",
            Self::Reads => "reads",
        }
    }
}

/// What one caller has used and holds at one target.
#[derive(Debug, Default)]
pub(super) struct Account {
    cells: [AtomicU64; 2],
    /// The UTC day in the upper half, the units used on it in the lower.
    daily: AtomicU64,
    /// As [`Slots::pack`] has them.
    streams: AtomicU64,
    in_flight: AtomicU32,
    /// Buckets that were charged here and not where limits are shared, a bit for each of [`Draws`].
    owed: AtomicU8,
}

/// The open streams of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slots {
    /// Grows with every change: of two accounts of one moment each, the one with the larger number is the later.
    pub(super) version: u64,
    /// How many are open.
    pub(super) count: u32,
}

impl Slots {
    /// Bits of the count: four million streams of one caller at one agent.
    const COUNT_BITS: u32 = 22;
    /// The most that can be open.
    const MOST: u32 = (1 << Self::COUNT_BITS) - 1;

    fn unpack(packed: u64) -> Self {
        let count = u32::try_from(packed & u64::from(Self::MOST)).unwrap_or(Self::MOST);
        Self { version: packed >> Self::COUNT_BITS, count }
    }

    fn pack(self) -> u64 {
        self.version << Self::COUNT_BITS | u64::from(self.count)
    }

    /// Of an account that was forgotten by then.
    pub(super) fn none_at(now: Now) -> Self {
        Self { version: Self::version_at(now.nanos), count: 0 }
    }

    /// The least version a change at `nanos` gets: an account that was forgotten and is opened anew does not begin below
    /// where it ended. In steps of 65 microseconds, nine years of them.
    fn version_at(nanos: u64) -> u64 {
        nanos >> 16
    }
}

/// The state of a daily quota after a request to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Daily {
    /// The day that is counted, which is today unless the wall clock was set back across midnight.
    pub(super) day: u32,
    /// The units used on it.
    pub(super) used: u32,
}

impl Daily {
    fn unpack(packed: u64) -> Self {
        let [d0, d1, d2, d3, u0, u1, u2, u3] = packed.to_be_bytes();
        Self { day: u32::from_be_bytes([d0, d1, d2, d3]), used: u32::from_be_bytes([u0, u1, u2, u3]) }
    }

    fn pack(self) -> u64 {
        u64::from(self.day) << 32 | u64::from(self.used)
    }

    /// The same quota as it stands on `today`.
    fn on(self, today: u32) -> Self {
        if today > self.day {
            Self { day: today, used: 0 }
        } else if today.saturating_add(1) < self.day {
            // The wall clock was set back by days: what was used stays used.
            Self { day: today, used: self.used }
        } else {
            // Today, or a thread that read the clock just before midnight: never back to a day that is over.
            self
        }
    }

    /// Nanoseconds until the day that is counted is over.
    pub(super) fn ends_in(self, wall: Timestamp) -> u64 {
        let end = (i64::from(self.day) + 1).saturating_mul(86_400_000_000);
        u64::try_from(end.saturating_sub(wall.0)).unwrap_or(0).saturating_mul(1_000)
    }
}

impl Account {
    /// An account that goes on from what a seed remembers, its work bucket being of `shape` now.
    pub(super) fn seeded(seed: &Seed, shape: Shape, now: Now) -> Self {
        let ahead_us = u64::try_from(seed.tat_us.saturating_sub(now.wall.0)).unwrap_or(0);
        // Rounded up by the microsecond that the wall clock's reading may have cut off.
        let ahead = if ahead_us == 0 { 0 } else { ahead_us.saturating_add(1).saturating_mul(1_000).min(shape.fill()) };
        let account = Self { owed: AtomicU8::new(u8::MAX), ..Self::default() };
        if ahead > 0 {
            account.set_cell(Draws::Work, now.nanos + ahead);
        }
        let day = u32::try_from(seed.day.max(0)).unwrap_or(u32::MAX);
        if day >= now.day() {
            account.daily.store(Daily { day: now.day(), used: seed.used }.pack(), Ordering::Relaxed);
        }
        account
    }

    fn atomic(&self, draws: Draws) -> &AtomicU64 {
        match draws {
            Draws::Work => &self.cells[0],
            Draws::Reads => &self.cells[1],
        }
    }

    /// The state of a bucket, as [`super::bucket`] reads it.
    pub(super) fn cell(&self, draws: Draws) -> u64 {
        self.atomic(draws).load(Ordering::Acquire)
    }

    /// Puts a bucket into a state; nothing may be drawn meanwhile.
    pub(super) fn set_cell(&self, draws: Draws, cell: u64) {
        self.atomic(draws).store(cell, Ordering::Release);
    }

    /// Goes on under other limits; nothing may be drawn meanwhile.
    pub(super) fn carry(&self, old: &Bounds, new: &Bounds, now: Now) {
        for draws in [Draws::Work, Draws::Reads] {
            let cell = new.shape(draws).carry(old.shape(draws), self.cell(draws), now.nanos);
            self.set_cell(draws, cell);
        }
    }

    /// Counts as used here what is used in `other`, which goes by other limits; nothing may be drawn from this one meanwhile.
    pub(super) fn take_over(&self, other: &Self, old: &Bounds, new: &Bounds, now: Now) {
        for draws in [Draws::Work, Draws::Reads] {
            let cell = new.shape(draws).carry(old.shape(draws), other.cell(draws), now.nanos);
            self.set_cell(draws, cell.max(self.cell(draws)));
        }
        // The day is in the upper half: a later one is more.
        self.daily.fetch_max(other.daily.load(Ordering::Acquire), Ordering::AcqRel);
        // Where limits are shared, nobody knows of this name yet.
        self.owed.store(u8::MAX, Ordering::Release);
    }

    /// One step of governor's state store on one cell.
    pub(super) fn measure_and_replace<T, E>(
        &self,
        draws: Draws,
        step: impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    ) -> Result<T, E> {
        let cell = self.atomic(draws);
        let mut seen = cell.load(Ordering::Acquire);
        loop {
            let (outcome, next) = step((seen != 0).then(|| Nanos::new(seen)))?;
            match cell.compare_exchange_weak(seen, next.as_u64(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(outcome),
                Err(other) => seen = other,
            }
        }
    }

    /// Draws `units` as a node does that decides for `parts` of them alone, and owes them to the others.
    ///
    /// # Errors
    /// When the bucket does not hold that many.
    pub(super) fn draw_part(
        &self,
        draws: Draws,
        shape: Shape,
        units: NonZeroU32,
        parts: Parts,
        now: Now,
    ) -> Result<Level, Short> {
        let level = self.measure_and_replace(draws, |cell| {
            let (level, next) = shape.draw_part(cell.map_or(0, Nanos::as_u64), now.nanos, units, parts)?;
            Ok((level, Nanos::new(next)))
        })?;
        // Afterwards: what is told meanwhile may be how it stood before.
        self.owe(draws);
        Ok(level)
    }

    /// Takes `units` of the day's `limit`, each of them `parts` times: a node that decides alone must assume that the others
    /// take as many. Unlimited days are counted too: a limit may be set before they are over.
    ///
    /// # Errors
    /// How the quota stands, when it does not hold that many.
    pub(super) fn take_daily(&self, today: u32, units: u32, limit: Option<u32>, parts: Parts) -> Result<Daily, Daily> {
        let cost = units.saturating_mul(parts.get());
        let mut seen = self.daily.load(Ordering::Acquire);
        loop {
            let standing = Daily::unpack(seen).on(today);
            // What is less than a unit for each part is one for each.
            let fits = |limit: u32| standing.used.saturating_add(cost.min(limit.max(units))) <= limit;
            if limit.is_some_and(|limit| !fits(limit)) {
                return Err(standing);
            }
            let next = Daily { used: standing.used.saturating_add(cost), ..standing };
            match self.daily.compare_exchange_weak(seen, next.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(next),
                Err(other) => seen = other,
            }
        }
    }

    /// Gives back units taken on `day`; once that day is over there is nothing to give back to.
    pub(super) fn give_daily_back(&self, day: u32, units: u32) {
        let _ = self.daily.fetch_update(Ordering::AcqRel, Ordering::Acquire, |seen| {
            let standing = Daily::unpack(seen);
            (standing.day == day).then(|| Daily { used: standing.used.saturating_sub(units), ..standing }.pack())
        });
    }

    /// How the day's quota stands.
    pub(super) fn daily(&self, today: u32) -> Daily {
        Daily::unpack(self.daily.load(Ordering::Acquire)).on(today)
    }

    /// Learns how the day stands elsewhere; never less than it is known to.
    pub(super) fn raise_daily(&self, day: u32, used: u32) {
        let _ = self.daily.fetch_update(Ordering::AcqRel, Ordering::Acquire, |seen| {
            let standing = Daily::unpack(seen);
            let newer = day > standing.day || (day == standing.day && used > standing.used);
            newer.then(|| Daily { day, used }.pack())
        });
    }

    /// Learns how a bucket stands elsewhere; never fuller than it is known to be.
    pub(super) fn raise_cell(&self, draws: Draws, cell: u64) {
        self.atomic(draws).fetch_max(cell, Ordering::AcqRel);
    }

    /// Notes that a bucket was charged here alone.
    pub(super) fn owe(&self, draws: Draws) {
        self.owed.fetch_or(draws.bit(), Ordering::AcqRel);
    }

    /// What there is to tell of a bucket: whether it was charged here alone, and its state. Whoever asks tells it.
    pub(super) fn tell(&self, draws: Draws) -> (bool, u64) {
        // In this order: what is charged in between is owed anew.
        let owed = self.take_owed(draws);
        (owed, self.cell(draws))
    }

    fn take_owed(&self, draws: Draws) -> bool {
        // The common case writes nothing.
        self.owed.load(Ordering::Acquire) & draws.bit() != 0
            && self.owed.fetch_and(!draws.bit(), Ordering::AcqRel) & draws.bit() != 0
    }

    /// Takes a stream slot, if there is one; how many are open then.
    pub(super) fn take_stream(&self, limit: Option<u32>, now: Now) -> Option<Slots> {
        let limit = limit.unwrap_or(u32::MAX).min(Slots::MOST);
        let next = |packed| {
            let Slots { version, count } = Slots::unpack(packed);
            let version = (version + 1).max(Slots::version_at(now.nanos));
            (count < limit).then(|| Slots { version, count: count + 1 }.pack())
        };
        let before = self.streams.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok()?;
        next(before).map(Slots::unpack)
    }

    /// Gives a stream slot back.
    pub(super) fn give_stream_back(&self) {
        let _ = self.streams.fetch_update(Ordering::AcqRel, Ordering::Acquire, |packed| {
            let Slots { version, count } = Slots::unpack(packed);
            Some(Slots { version: version + 1, count: count.saturating_sub(1) }.pack())
        });
    }

    /// Stream slots taken.
    pub(super) fn streams(&self) -> u32 {
        self.slots().count
    }

    /// Stream slots taken, and at which change.
    pub(super) fn slots(&self) -> Slots {
        Slots::unpack(self.streams.load(Ordering::Acquire))
    }

    /// Calls in flight.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Takes a place among the calls in flight, if there is one.
    pub(super) fn take_in_flight(&self, limit: Option<u32>) -> bool {
        take_slot(&self.in_flight, limit)
    }

    /// Gives a place among the calls in flight back.
    pub(super) fn give_in_flight_back(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether a new account would say the same: full buckets, nothing used today, nothing open.
    pub(super) fn is_idle(&self, now: Now) -> bool {
        let full = [Draws::Work, Draws::Reads].iter().all(|draws| self.cell(*draws) <= now.nanos);
        full && self.in_flight.load(Ordering::Acquire) == 0 && self.streams() == 0 && self.daily(now.day()).used == 0
    }
}

/// Counts one more in `slots` unless `limit` are taken; exact under any concurrency.
pub(super) fn take_slot(slots: &AtomicU32, limit: Option<u32>) -> bool {
    let limit = limit.unwrap_or(u32::MAX);
    slots.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| (taken < limit).then(|| taken + 1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_US: i64 = 86_400_000_000;
    const NOW: Now = Now { nanos: 1_000, wall: Timestamp(10 * DAY_US) };

    #[test]
    fn a_day_that_is_over_gives_its_units_back_and_never_comes_again() {
        let account = Account::default();
        assert_eq!(account.take_daily(10, 2, Some(3), Parts::WHOLE), Ok(Daily { day: 10, used: 2 }));
        assert_eq!(account.take_daily(10, 2, Some(3), Parts::WHOLE), Err(Daily { day: 10, used: 2 }));
        assert_eq!(account.take_daily(11, 3, Some(3), Parts::WHOLE), Ok(Daily { day: 11, used: 3 }));
        // A thread that read the clock just before midnight finds the new day's count.
        assert_eq!(account.take_daily(10, 1, Some(3), Parts::WHOLE), Err(Daily { day: 11, used: 3 }));
        assert_eq!(account.take_daily(11, 1, Some(3), Parts::WHOLE), Err(Daily { day: 11, used: 3 }));
    }

    #[test]
    fn a_wall_clock_that_is_set_back_hands_nothing_out() {
        let account = Account::default();
        account.take_daily(100, 3, Some(3), Parts::WHOLE).expect("three of three");
        assert_eq!(account.take_daily(50, 1, Some(3), Parts::WHOLE), Err(Daily { day: 50, used: 3 }));
        assert_eq!(account.daily(50), Daily { day: 50, used: 3 });
    }

    #[test]
    fn units_are_given_back_to_their_own_day_only() {
        let account = Account::default();
        account.take_daily(10, 2, None, Parts::WHOLE).expect("no limit");
        account.give_daily_back(9, 2);
        assert_eq!(account.daily(10).used, 2);
        account.give_daily_back(10, 1);
        assert_eq!(account.daily(10).used, 1);
    }

    #[test]
    fn an_account_is_idle_only_when_a_new_one_would_say_the_same() {
        let now = Now { nanos: 1_000, wall: Timestamp(10 * DAY_US) };
        let tomorrow = Now { nanos: 1_000, wall: Timestamp(11 * DAY_US) };
        let account = Account::default();
        assert!(account.is_idle(now));
        account.take_daily(10, 1, None, Parts::WHOLE).expect("no limit");
        assert!(!account.is_idle(now), "used today");
        assert!(account.is_idle(tomorrow));
        account.set_cell(Draws::Reads, 1_001);
        assert!(!account.is_idle(tomorrow), "a bucket is not full");
        account.set_cell(Draws::Reads, 1_000);
        assert!(account.is_idle(tomorrow));
        assert!(account.take_stream(Some(1), now).is_some());
        assert!(!account.is_idle(tomorrow), "a stream is open");
        account.give_stream_back();
        assert!(account.take_in_flight(None));
        assert!(!account.is_idle(tomorrow), "a call is in flight");
    }

    #[test]
    fn slots_are_as_many_as_the_limit_says() {
        let account = Account::default();
        assert_eq!(account.take_stream(Some(0), NOW), None);
        let take = || account.take_stream(Some(2), NOW).map(|slots| slots.count);
        assert_eq!([take(), take(), take()], [Some(1), Some(2), None]);
        account.give_stream_back();
        assert_eq!(take(), Some(2));
    }

    #[test]
    fn every_change_of_the_open_streams_has_a_larger_number_also_after_the_account_was_forgotten() {
        let account = Account::default();
        let first = account.take_stream(None, NOW).expect("no limit");
        account.give_stream_back();
        let given_back = account.slots();
        assert!(given_back.version > first.version && given_back.count == 0, "{given_back:?}");
        let later = Now { nanos: NOW.nanos + 1_000_000, ..NOW };
        let anew = Account::default().take_stream(None, later).expect("no limit");
        assert!(anew.version > given_back.version, "{anew:?}");
    }

    #[test]
    fn a_day_that_is_known_better_elsewhere_is_learnt_and_never_unlearnt() {
        let account = Account::default();
        account.raise_daily(10, 5);
        account.raise_daily(10, 3);
        account.raise_daily(9, 100);
        assert_eq!(account.daily(10), Daily { day: 10, used: 5 });
        account.raise_daily(11, 1);
        assert_eq!(account.daily(11), Daily { day: 11, used: 1 });
    }

    #[test]
    fn a_node_that_decides_alone_takes_its_part_of_the_day_and_at_least_one_unit() {
        let halves = Parts::new(2);
        let admitted = |limit| {
            let account = Account::default();
            std::iter::repeat_with(|| account.take_daily(10, 1, Some(limit), halves)).take_while(Result::is_ok).count()
        };
        assert_eq!([admitted(0), admitted(1), admitted(2), admitted(10), admitted(11)], [0, 1, 1, 5, 5]);
    }

    #[test]
    fn what_is_owed_is_told_once() {
        let account = Account::default();
        assert!(!account.take_owed(Draws::Work));
        account.owe(Draws::Work);
        assert!(!account.take_owed(Draws::Reads));
        assert!(account.take_owed(Draws::Work) && !account.take_owed(Draws::Work));
    }

    #[test]
    fn what_is_charged_alone_while_it_is_told_is_told_then_or_owed() {
        let shape = Shape::new(1_000, NonZeroU32::MAX);
        let (account, begun, drawn) = (Account::default(), AtomicU32::new(0), AtomicU32::new(0));
        let (mut told, mut lost) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=2_000 {
                    while begun.load(Ordering::Acquire) < round {
                        std::hint::spin_loop();
                    }
                    let _ = account.draw_part(Draws::Work, shape, NonZeroU32::MIN, Parts::WHOLE, NOW);
                    drawn.store(round, Ordering::Release);
                }
            });
            for round in 1..=2_000 {
                begun.store(round, Ordering::Release);
                let mut last = false;
                while !last {
                    last = drawn.load(Ordering::Acquire) == round;
                    if let (true, cell) = account.tell(Draws::Work) {
                        told = cell;
                    }
                }
                lost += u32::from(told != account.cell(Draws::Work));
            }
        });
        assert_eq!(lost, 0);
    }

    #[test]
    fn the_last_slot_is_taken_by_one_of_many_that_reach_for_it() {
        let slots = AtomicU32::new(0);
        let holders = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100_000 {
                        if take_slot(&slots, Some(1)) {
                            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
                            holders.fetch_sub(1, Ordering::SeqCst);
                            slots.fetch_sub(1, Ordering::AcqRel);
                        }
                    }
                });
            }
        });
    }
}
