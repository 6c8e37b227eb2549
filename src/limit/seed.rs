//! What a restart remembers of limits: folded from the charges that journal and rows hold.
//!
//! Keeps seeds until somebody asks for the limit they belong to. Knows names and charges; knows no callers and no files.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use foldhash::fast::RandomState;

use super::account::Now;
use super::key::LimitKey;
use crate::audit::record::Charge;
use crate::clock::Timestamp;

/// What is known of one limit from before the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Names the limit.
    pub key: LimitKey,
    /// The UTC day that `used` belongs to ([`Timestamp::utc_day`]).
    pub day: i64,
    /// Units of the daily quota used on that day.
    pub used: u32,
    /// When the bucket will be full again, in microseconds since the Unix epoch.
    pub tat_us: i64,
}

impl Seed {
    /// A limit of which nothing is known yet.
    #[must_use]
    pub fn new(key: LimitKey) -> Self {
        Self { key, day: 0, used: 0, tat_us: 0 }
    }

    /// Adds a charge made at `at`; charges are added in the order they were made.
    pub fn add(&mut self, at: Timestamp, charge: &Charge) {
        let refill = charge.refill_us.saturating_mul(u64::from(charge.units));
        if refill > 0 {
            self.tat_us = self.tat_us.max(at.0).saturating_add(i64::try_from(refill).unwrap_or(i64::MAX));
        }
        let day = at.utc_day();
        if day > self.day {
            (self.day, self.used) = (day, charge.units);
        } else if day == self.day {
            self.used = self.used.saturating_add(charge.units);
        }
    }
}

/// Folds charges, in the order they were made, into one seed per limit.
#[must_use]
pub fn seeds_from(charges: impl IntoIterator<Item = (Timestamp, Charge)>) -> Vec<Seed> {
    let mut seeds: HashMap<LimitKey, Seed, RandomState> = HashMap::default();
    for (at, charge) in charges {
        seeds.entry(charge.key).or_insert_with(|| Seed::new(charge.key)).add(at, &charge);
    }
    seeds.into_values().collect()
}

/// Seeds that nobody has asked for yet.
#[derive(Debug)]
pub(super) struct Seeds {
    waiting: DashMap<LimitKey, Seed, RandomState>,
    /// Kept beside the map: soon after a start it is 0 for good, and then asking costs nothing.
    left: AtomicUsize,
}

impl Seeds {
    pub(super) fn new(seeds: Vec<Seed>) -> Self {
        let waiting: DashMap<_, _, _> = seeds.into_iter().map(|seed| (seed.key, seed)).collect();
        Self { left: AtomicUsize::new(waiting.len()), waiting }
    }

    pub(super) fn contains(&self, key: &LimitKey) -> bool {
        self.left.load(Ordering::Acquire) > 0 && self.waiting.contains_key(key)
    }

    pub(super) fn take(&self, key: &LimitKey) -> Option<Seed> {
        if self.left.load(Ordering::Acquire) == 0 {
            return None;
        }
        let (_, seed) = self.waiting.remove(key)?;
        self.left.fetch_sub(1, Ordering::AcqRel);
        Some(seed)
    }

    /// Drops what no longer matters.
    pub(super) fn sweep(&self, now: Now) {
        if self.left.load(Ordering::Acquire) == 0 {
            return;
        }
        let today = now.wall.utc_day();
        self.waiting.retain(|_, seed| {
            let matters = seed.tat_us > now.wall.0 || seed.day >= today;
            if !matters {
                self.left.fetch_sub(1, Ordering::AcqRel);
            }
            matters
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_US: i64 = 86_400_000_000;
    const KEY: LimitKey = [1; 16];

    fn charge(refill_us: u64, units: u32) -> Charge {
        Charge { key: KEY, refill_us, units }
    }

    #[test]
    fn charges_fold_into_the_days_units_and_the_moment_the_bucket_is_full() {
        let at = |us| Timestamp(10 * DAY_US + us);
        let [seed] = seeds_from([(at(0), charge(100, 2)), (at(50), charge(100, 1))])[..] else { panic!("one limit") };
        assert_eq!(seed, Seed { key: KEY, day: 10, used: 3, tat_us: at(300).0 });
    }

    #[test]
    fn a_new_day_begins_at_nothing_and_a_fast_bucket_is_not_remembered() {
        let charges = [(Timestamp(10 * DAY_US), charge(0, 5)), (Timestamp(11 * DAY_US), charge(0, 1))];
        let [seed] = seeds_from(charges)[..] else { panic!("one limit") };
        assert_eq!(seed, Seed { key: KEY, day: 11, used: 1, tat_us: 0 });
    }

    #[test]
    fn a_seed_waits_until_it_is_asked_for_or_no_longer_matters() {
        let seeds = Seeds::new(vec![
            Seed { key: KEY, day: 10, used: 1, tat_us: 0 },
            Seed { key: [2; 16], day: 9, used: 1, tat_us: 10 * DAY_US + 1 },
        ]);
        let now = |wall| Now { nanos: 0, wall: Timestamp(wall) };
        seeds.sweep(now(10 * DAY_US));
        assert!(seeds.contains(&KEY) && seeds.contains(&[2; 16]));
        seeds.sweep(now(10 * DAY_US + 1));
        assert!(seeds.contains(&KEY) && !seeds.contains(&[2; 16]));
        assert_eq!(seeds.take(&KEY).map(|seed| seed.used), Some(1));
        assert_eq!(seeds.take(&KEY), None);
    }
}
