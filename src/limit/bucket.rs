//! Token buckets by governor over cells of our own, so that a bucket's state can be read, carried over and seeded.
//!
//! A cell holds one number: the nanosecond, on the gateway's clock, at which the bucket will be full again (the theoretical
//! arrival time of GCRA); 0 is a bucket never drawn from. Every bucket counts from the clock's origin, so a cell means the
//! same to every limiter. Knows no callers.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{InsufficientCapacity, NotUntil, Quota, RateLimiter};

use crate::clock::Clock;
use crate::policy::Allowance;

/// No bucket takes longer to fill: ten years, far from where 64-bit nanoseconds end.
const LONGEST_FILL: u64 = 3_660 * 86_400 * 1_000_000_000;

/// A bucket's size and speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Nanoseconds in which one unit comes back; never 0.
    pub(super) interval: u64,
    /// Units in a full bucket.
    pub(super) burst: NonZeroU32,
}

impl From<Allowance> for Shape {
    fn from(allowance: Allowance) -> Self {
        Self::new(allowance.rate.interval_nanos(), allowance.burst)
    }
}

impl Shape {
    /// A shape cut to what the arithmetic can hold; only limits no policy file could state are ever cut.
    pub(super) fn new(interval: u64, burst: NonZeroU32) -> Self {
        let interval = interval.clamp(1, LONGEST_FILL);
        let most = u32::try_from(LONGEST_FILL / interval).unwrap_or(u32::MAX);
        Self { interval, burst: NonZeroU32::new(most).map_or(NonZeroU32::MIN, |most| most.min(burst)) }
    }

    fn quota(self) -> Quota {
        Quota::with_period(Duration::from_nanos(self.interval)).expect("an interval is never 0").allow_burst(self.burst)
    }

    /// Nanoseconds an empty bucket takes to fill.
    pub(super) fn fill(self) -> u64 {
        self.interval * u64::from(self.burst.get())
    }

    /// Nanoseconds until `units` can be drawn from a cell; `None`: the bucket never holds that many.
    pub(super) fn wait(self, cell: u64, now: u64, units: NonZeroU32) -> Option<u64> {
        let spare = self.burst.get().checked_sub(units.get())?;
        // All of it fits once the bucket lacks no more than what is left after the draw.
        Some(cell.saturating_sub(now).saturating_sub(self.interval * u64::from(spare)))
    }

    /// What is in the bucket.
    pub(super) fn level(self, cell: u64, now: u64) -> Level {
        let lacking = cell.saturating_sub(now);
        let remaining = self.fill().saturating_sub(lacking) / self.interval;
        Level { remaining: u32::try_from(remaining).unwrap_or(u32::MAX), full_in: lacking }
    }

    /// Draws `units` for one of `parts`: as from a bucket of a part of the size, that fills as much more slowly and holds the
    /// same fraction. One that is less than a unit for each part still lets one through, and then owes the rest of its price.
    /// Tells the bucket's next state.
    pub(super) fn draw_part(self, cell: u64, now: u64, units: NonZeroU32, parts: Parts) -> Result<(Level, u64), Short> {
        let price = self.interval.saturating_mul(u64::from(units.get())).saturating_mul(u64::from(parts.get()));
        let level = self.level(cell, now);
        if units > self.burst {
            return Err(Short { wait: None, level: level.part(parts) });
        }
        // Not more than a full bucket holds.
        let spare = self.fill().saturating_sub(price);
        match cell.saturating_sub(now).saturating_sub(spare) {
            0 => {
                let next = cell.max(now).saturating_add(price);
                Ok((self.level(next, now).part(parts), next))
            }
            wait => Err(Short { wait: Some(wait), level: level.part(parts) }),
        }
    }

    /// The cell of a bucket of this shape that goes on from one of shape `old`: what was used stays used, and a bucket that
    /// is not full gains nothing by the change. A full one stays full.
    pub(super) fn carry(self, old: Self, cell: u64, now: u64) -> u64 {
        let used = u128::from(cell.saturating_sub(now).min(old.fill()));
        if used == 0 || self == old {
            return cell;
        }
        // In units of 1/old.interval: `used` of them are gone, a larger bucket counts what it is larger by as gone too.
        let larger = u128::from(self.burst.get().saturating_sub(old.burst.get())) * u128::from(old.interval);
        let nanos = ((used + larger) * u128::from(self.interval)).div_ceil(u128::from(old.interval));
        now + u64::try_from(nanos).map_or(self.fill(), |nanos| nanos.min(self.fill()))
    }
}

/// For how many parts a node decides alone while the counts that it shares with others are out of reach: every unit costs it so
/// many. What it takes is then known in units of the whole, whoever it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts(NonZeroU32);

impl Parts {
    /// Nobody else is there.
    pub(super) const WHOLE: Self = Self(NonZeroU32::MIN);

    /// At least one.
    pub(super) fn new(parts: u32) -> Self {
        Self(NonZeroU32::new(parts).unwrap_or(NonZeroU32::MIN))
    }

    pub(super) fn get(self) -> u32 {
        self.0.get()
    }

    /// This node's part of `limit`, at least one of those there are.
    pub(super) fn of(self, limit: u32) -> u32 {
        (limit / self.0).max(1).min(limit)
    }
}

/// What a bucket holds at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    /// Whole units that can be drawn.
    pub(super) remaining: u32,
    /// Nanoseconds until it is full, if nothing is drawn.
    pub(super) full_in: u64,
}

impl Level {
    /// What there is to give for a node that decides for `parts` alone.
    pub(super) fn part(self, parts: Parts) -> Self {
        Self { remaining: self.remaining / parts.get(), ..self }
    }
}

/// A draw that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Short {
    /// Nanoseconds to wait; `None`: waiting does not help.
    pub(super) wait: Option<u64>,
    /// What the bucket holds.
    pub(super) level: Level,
}

/// The gateway's clock, except that its first reading is 0.
///
/// governor takes that reading as the limiter's beginning and keeps its state relative to it. With 0, state is relative to the
/// clock's origin in every limiter, whenever it was made, and carrying it from one to another is exact.
#[derive(Debug)]
pub(super) struct FromOrigin {
    clock: Clock,
    started: AtomicBool,
}

impl governor::clock::Clock for FromOrigin {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        // Relaxed: the first reading is made while the limiter is still in one thread's hands.
        if self.started.load(Ordering::Relaxed) {
            return Nanos::new(self.clock.nanos());
        }
        self.started.store(true, Ordering::Relaxed);
        Nanos::new(0)
    }
}

/// A limiter over cells found in `S`.
pub(super) type Limiter<S> = RateLimiter<<S as StateStore>::Key, S, FromOrigin, StateInformationMiddleware>;

/// A limiter of `shape` over the cells in `store`, which keep the state they have.
pub(super) fn limiter<S: StateStore>(shape: Shape, store: S, clock: &Clock) -> Limiter<S> {
    RateLimiter::new(shape.quota(), store, FromOrigin { clock: clock.clone(), started: AtomicBool::new(false) })
}

/// Draws `units` from the one bucket of `limiter`.
pub(super) fn draw<S>(limiter: &Limiter<S>, shape: Shape, units: NonZeroU32, now: u64) -> Result<Level, Short>
where
    S: StateStore<Key = NotKeyed>,
{
    judge(limiter.check_n(units), shape, units, now)
}

/// Draws `units` from the bucket of `key`.
pub(super) fn draw_keyed<S>(
    limiter: &Limiter<S>,
    key: &S::Key,
    shape: Shape,
    units: NonZeroU32,
    now: u64,
) -> Result<Level, Short>
where
    S: StateStore,
    S::Key: std::hash::Hash + Eq + Clone,
{
    judge(limiter.check_key_n(key, units), shape, units, now)
}

fn judge(
    verdict: Result<Result<StateSnapshot, NotUntil<Nanos>>, InsufficientCapacity>,
    shape: Shape,
    units: NonZeroU32,
    now: u64,
) -> Result<Level, Short> {
    match verdict {
        Ok(Ok(drawn)) => {
            let remaining = drawn.remaining_burst_capacity();
            let lacking = shape.burst.get().saturating_sub(remaining);
            Ok(Level { remaining, full_in: shape.interval * u64::from(lacking) })
        }
        Ok(Err(not_until)) => {
            // `now` was read before governor read its own: the wait is never told too short.
            let wait = u64::try_from(not_until.wait_time_from(Nanos::new(now)).as_nanos()).unwrap_or(u64::MAX);
            let spare = shape.interval * u64::from(shape.burst.get().saturating_sub(units.get()));
            Err(Short { wait: Some(wait), level: shape.level(now + wait + spare, now) })
        }
        Err(InsufficientCapacity(_)) => Err(Short { wait: None, level: Level { remaining: 0, full_in: shape.fill() } }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape(interval: u64, burst: u32) -> Shape {
        Shape::new(interval, NonZeroU32::new(burst).expect("not 0"))
    }

    #[test]
    fn a_changed_bucket_keeps_what_was_used() {
        let (old, new) = (shape(10, 100), shape(20, 50));
        // 30 of 100 used, then the bucket shrinks to 50: 20 left.
        let cell = new.carry(old, 1_000 + 300, 1_000);
        assert_eq!(new.level(cell, 1_000).remaining, 20);
        // 80 of 100 used: nothing left of 50.
        assert_eq!(new.level(new.carry(old, 1_000 + 800, 1_000), 1_000).remaining, 0);
    }

    #[test]
    fn a_larger_bucket_is_no_fresh_burst_for_one_that_has_drawn() {
        let (old, new) = (shape(60, 1), shape(1, 300));
        assert_eq!(new.level(new.carry(old, 1_060, 1_000), 1_000).remaining, 0, "it had nothing left");
        assert_eq!(new.level(new.carry(old, 900, 1_000), 1_000).remaining, 300, "a full one stays full");
    }

    #[test]
    fn limits_beyond_the_arithmetic_are_cut_and_do_not_overflow() {
        let huge = shape(u64::MAX, u32::MAX);
        assert_eq!(huge.burst.get(), 1);
        assert_eq!(huge.fill(), LONGEST_FILL);
        assert!(shape(0, u32::MAX).fill() > 0);
        let _ = huge.quota();
    }

    #[test]
    fn a_part_of_a_bucket_is_a_smaller_and_slower_one() {
        let admitted = |burst, parts| {
            let (shape, mut cell) = (shape(10, burst), 0);
            let mut draw = || shape.draw_part(cell, 0, NonZeroU32::MIN, Parts::new(parts)).map(|(_, next)| cell = next);
            std::iter::repeat_with(&mut draw).take_while(Result::is_ok).count()
        };
        assert_eq!([admitted(300, 1), admitted(300, 2), admitted(300, 4), admitted(3, 2)], [300, 150, 75, 1]);
        assert_eq!([admitted(1, 2), admitted(2, 4)], [1, 1], "at least one");
        // One of two a bucket of one: the next after twice the time.
        let one = shape(10, 1);
        let (_, cell) = one.draw_part(0, 0, NonZeroU32::MIN, Parts::new(2)).expect("full");
        assert_eq!(one.draw_part(cell, 5, NonZeroU32::MIN, Parts::new(2)).expect_err("used").wait, Some(15));
        assert!(one.draw_part(cell, 20, NonZeroU32::MIN, Parts::new(2)).is_ok());
    }

    proptest! {
        #[test]
        fn the_whole_of_a_bucket_is_what_governor_makes_of_it(
            (interval, burst) in (1u64..1_000, 1u32..20), steps in prop::collection::vec((1u32..25, 0u64..3_000), 1..50),
        ) {
            let (shape, clock) = (shape(interval, burst), Clock::manual(crate::clock::Timestamp(0)));
            let store = governor::state::InMemoryState::default();
            let governor = limiter(shape, store, &clock);
            let mut cell = 0;
            for (units, later) in steps {
                clock.advance(Duration::from_nanos(later));
                let (now, units) = (clock.nanos(), NonZeroU32::new(units).expect("from 1"));
                let own = shape.draw_part(cell, now, units, Parts::WHOLE);
                let theirs = draw(&governor, shape, units, now);
                prop_assert_eq!(own.map(|(level, _)| level.remaining).ok(), theirs.map(|level| level.remaining).ok());
                prop_assert_eq!(own.err().and_then(|short| short.wait), theirs.err().and_then(|short| short.wait));
                cell = own.map_or(cell, |(_, next)| next);
            }
        }

        #[test]
        fn carrying_over_never_hands_out_and_never_overfills(
            (i1, b1, i2, b2) in (1u64..1 << 40, 1u32..5_000, 1u64..1 << 40, 1u32..5_000), part in 0.0f64..1.0, now in 0u64..1 << 50,
        ) {
            let (old, new) = (shape(i1, b1), shape(i2, b2));
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let cell = now + 1 + (part * (old.fill() - 1) as f64) as u64;
            let before = old.level(cell, now).remaining;
            let carried = new.carry(old, cell, now);
            let after = new.level(carried, now);
            prop_assert!(after.remaining <= before, "{} -> {}", before, after.remaining);
            prop_assert!(after.full_in <= new.fill());
        }
    }
}
