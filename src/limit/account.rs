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
#[path = "account_tests.rs"]
mod tests;
