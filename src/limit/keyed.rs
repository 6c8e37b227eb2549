//! Accounts found by key: verified callers, anonymous ones, network sources.
//!
//! Promises: never more than a set number of keys (beyond it, new ones share coarser accounts), and an account that still
//! holds anything against its caller is never forgotten. Knows keys, not whose they are.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::fast::RandomState;
use governor::nanos::Nanos;
use governor::state::StateStore;

use super::account::{Account, Draws, Now};
use super::bounds::Bounds;
use super::bucket::{Level, Limiter, Short, draw_keyed, limiter};
use super::key::{Grain, LimitKey};
use super::seed::Seeds;
use crate::clock::Clock;

/// Many shards: sweeping locks one at a time, so each pause is short.
const SHARDS: usize = 64;
/// A map that lost more than half of at least this many keys gives its memory back.
const WORTH_SHRINKING: usize = 65_536;

type Accounts = DashMap<LimitKey, Account, RandomState>;

/// One bucket of every account of a map, as governor finds it.
#[derive(Debug)]
pub(super) struct Cells {
    accounts: Arc<Accounts>,
    draws: Draws,
}

impl StateStore for Cells {
    type Key = LimitKey;

    fn measure_and_replace<T, F, E>(&self, key: &LimitKey, step: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(account) = self.accounts.get(key) {
            return account.measure_and_replace(self.draws, step);
        }
        // Only an account that holds nothing can be missing here: swept between being found and being drawn from.
        self.accounts.entry(*key).or_default().measure_and_replace(self.draws, step)
    }
}

/// What applies to the accounts of a map now. Held for reading while a call is decided, so that a change of limits and the
/// change of every account that follows from it are one step to callers.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) bounds: Bounds,
    work: Limiter<Cells>,
    reads: Limiter<Cells>,
}

impl InForce {
    /// Draws from a bucket of the account under `key`; a closed bucket is refused before this.
    pub(super) fn draw(&self, key: &LimitKey, draws: Draws, units: NonZeroU32, now: Now) -> Result<Level, Short> {
        let limiter = match draws {
            Draws::Work => &self.work,
            Draws::Reads => &self.reads,
        };
        draw_keyed(limiter, key, self.bounds.shape(draws), units, now.nanos)
    }
}

/// Accounts found by key.
#[derive(Debug)]
pub(super) struct Keyed {
    accounts: Arc<Accounts>,
    /// How many there are; counting a sharded map takes all its locks.
    keys: AtomicUsize,
    cap: usize,
    in_force: RwLock<InForce>,
    seeds: Arc<Seeds>,
    clock: Clock,
}

impl Keyed {
    pub(super) fn new(bounds: Bounds, cap: usize, seeds: Arc<Seeds>, clock: Clock) -> Self {
        let accounts = Arc::new(DashMap::with_capacity_and_hasher_and_shard_amount(0, RandomState::default(), SHARDS));
        let in_force = RwLock::new(Self::limiters(&accounts, bounds, &clock));
        Self { accounts, keys: AtomicUsize::new(0), cap, in_force, seeds, clock }
    }

    fn limiters(accounts: &Arc<Accounts>, bounds: Bounds, clock: &Clock) -> InForce {
        let cells = |draws| Cells { accounts: Arc::clone(accounts), draws };
        InForce {
            bounds,
            work: limiter(bounds.shape(Draws::Work), cells(Draws::Work), clock),
            reads: limiter(bounds.shape(Draws::Reads), cells(Draws::Reads), clock),
        }
    }

    /// What applies now; hold it from the first look at an account to the last draw.
    pub(super) fn in_force(&self) -> RwLockReadGuard<'_, InForce> {
        // A panic cannot leave limits half written: they are replaced in one assignment.
        self.in_force.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts other limits in force; every account goes on from what it has used.
    pub(super) fn retune(&self, bounds: Bounds) {
        let mut in_force = self.in_force.write().unwrap_or_else(PoisonError::into_inner);
        if in_force.bounds == bounds {
            return;
        }
        let now = Now::read(&self.clock);
        for account in self.accounts.iter() {
            account.carry(&in_force.bounds, &bounds, now);
        }
        *in_force = Self::limiters(&self.accounts, bounds, &self.clock);
    }

    /// Visits the account of the finest key there is room for, opening it if need be; `name` gives the key of each grain.
    pub(super) fn enter<R>(
        &self,
        name: impl Fn(Grain) -> LimitKey,
        in_force: &InForce,
        now: Now,
        visit: impl Fn(&Account) -> R,
    ) -> (LimitKey, R) {
        let fine = name(Grain::Fine);
        if let Some(account) = self.accounts.get(&fine) {
            return (fine, visit(&account));
        }
        if self.seeds.contains(&fine) {
            // It moves from one map to another, so there is room for it.
            self.keys.fetch_add(1, Ordering::AcqRel);
            return (fine, self.open(fine, in_force, now, visit));
        }
        if self.reserve(self.cap) {
            return (fine, self.open(fine, in_force, now, visit));
        }
        let coarse = name(Grain::Coarse);
        if let Some(account) = self.accounts.get(&coarse) {
            return (coarse, visit(&account));
        }
        if self.reserve(self.cap + self.cap / 8) {
            return (coarse, self.open(coarse, in_force, now, visit));
        }
        // One per target at most, so these need no room of their own.
        let rest = name(Grain::Rest);
        self.keys.fetch_add(1, Ordering::AcqRel);
        (rest, self.open(rest, in_force, now, visit))
    }

    /// Visits the account under `key`, which exists as long as it holds anything.
    pub(super) fn visit<R>(&self, key: &LimitKey, visit: impl FnOnce(&Account) -> R) -> Option<R> {
        self.accounts.get(key).map(|account| visit(&account))
    }

    /// Visits every account.
    pub(super) fn each(&self, mut visit: impl FnMut(LimitKey, &Account)) {
        for account in self.accounts.iter() {
            visit(*account.key(), account.value());
        }
    }

    fn reserve(&self, cap: usize) -> bool {
        self.keys.fetch_update(Ordering::AcqRel, Ordering::Acquire, |keys| (keys < cap).then(|| keys + 1)).is_ok()
    }

    /// Opens the account under `key`, for which room is reserved; given back if somebody else was faster.
    fn open<R>(&self, key: LimitKey, in_force: &InForce, now: Now, visit: impl Fn(&Account) -> R) -> R {
        match self.accounts.entry(key) {
            Entry::Occupied(entry) => {
                self.keys.fetch_sub(1, Ordering::AcqRel);
                visit(entry.get())
            }
            Entry::Vacant(entry) => {
                let account = match self.seeds.take(&key) {
                    Some(seed) => Account::seeded(&seed, in_force.bounds.shape(Draws::Work), now),
                    None => Account::default(),
                };
                visit(&entry.insert(account))
            }
        }
    }

    /// Forgets the accounts that say no more than a new one would.
    pub(super) fn sweep(&self, now: Now) {
        let before = self.keys.load(Ordering::Acquire);
        let mut forgotten = 0;
        self.accounts.retain(|_, account| {
            let idle = account.is_idle(now);
            forgotten += usize::from(idle);
            !idle
        });
        // Not below zero: an account that a draw put back after a sweep was never counted.
        let less = |keys: usize| Some(keys.saturating_sub(forgotten));
        let _ = self.keys.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        if before >= WORTH_SHRINKING && forgotten > before / 2 {
            self.accounts.shrink_to_fit();
        }
    }

    /// How many accounts there are.
    pub(super) fn len(&self) -> usize {
        self.keys.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;
    use crate::policy::Policy;

    #[test]
    fn an_account_that_a_draw_put_back_after_a_sweep_does_not_upset_the_count() {
        let clock = Clock::manual(Timestamp(0));
        let bounds = Bounds::source(&Policy::default());
        let keyed = Keyed::new(bounds, 10, Arc::new(Seeds::new(Vec::new())), clock.clone());
        // Swept between being found and being drawn from.
        let drawn = keyed.in_force().draw(&[1; 16], Draws::Work, NonZeroU32::MIN, Now::read(&clock));
        assert!(drawn.is_ok());
        clock.advance(Duration::from_secs(86_400));
        keyed.sweep(Now::read(&clock));
        assert_eq!(keyed.len(), 0);
    }
}
