//! Accounts found by key: verified callers, anonymous ones, network sources.
//!
//! Promises: never more than a set number of keys (beyond it, new ones share coarser accounts), and what an account holds
//! against its caller is never forgotten, neither by a sweep nor because the caller finds an account of its own again. Knows
//! keys, not whose they are.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::fast::RandomState;
use governor::nanos::Nanos;
use governor::state::StateStore;
use uuid::Uuid;

use super::account::{Account, Draws, Now};
use super::bounds::Bounds;
use super::bucket::{Level, Limiter, Short, draw_keyed, limiter};
use super::edition::Edition;
use super::key::{Grain, LimitKey, Name};
use super::seed::Seeds;
use crate::clock::Clock;
use crate::policy::Policy;
use crate::store::rows::AgentLimits;

/// Many shards: sweeping locks one at a time, so each pause is short.
const SHARDS: usize = 64;
/// A map that lost more than half of at least this many keys gives its memory back.
const WORTH_SHRINKING: usize = 65_536;

type Accounts = DashMap<LimitKey, Held, RandomState>;

/// The limits that apply, made of a policy and what an agent has of its own.
pub(super) type Resolve = fn(&Policy, &AgentLimits) -> Bounds;

/// An account in its place.
#[derive(Debug)]
struct Held {
    account: Account,
    /// The agent whose own limits hold for it.
    agent: Option<Uuid>,
    grain: Grain,
}

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
        if let Some(held) = self.accounts.get(key) {
            return held.account.measure_and_replace(self.draws, step);
        }
        // Only an account that holds nothing can be missing here: swept between being found and being drawn from. Calls hold
        // their place in flight, so it is a network source's.
        let fresh = || Held { account: Account::default(), agent: None, grain: Grain::Fine };
        self.accounts.entry(*key).or_insert_with(fresh).account.measure_and_replace(self.draws, step)
    }
}

/// What applies to an account now.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) bounds: Bounds,
    work: Limiter<Cells>,
    reads: Limiter<Cells>,
}

impl InForce {
    fn new(accounts: &Arc<Accounts>, bounds: Bounds, clock: &Clock) -> Self {
        let cells = |draws| Cells { accounts: Arc::clone(accounts), draws };
        Self {
            bounds,
            work: limiter(bounds.shape(Draws::Work), cells(Draws::Work), clock),
            reads: limiter(bounds.shape(Draws::Reads), cells(Draws::Reads), clock),
        }
    }

    /// Draws from a bucket of the account under `key`; a closed bucket is refused before this.
    pub(super) fn draw(&self, key: &LimitKey, draws: Draws, units: NonZeroU32, now: Now) -> Result<Level, Short> {
        let limiter = match draws {
            Draws::Work => &self.work,
            Draws::Reads => &self.reads,
        };
        draw_keyed(limiter, key, self.bounds.shape(draws), units, now.nanos)
    }
}

/// What applies to the accounts of a map now. Held for reading while a call is decided, so that a change of limits and the
/// change of every account that follows from it are one step to callers.
#[derive(Debug)]
pub(super) struct Table {
    tier: InForce,
    /// For the accounts at agents with limits of their own.
    own: HashMap<Uuid, InForce, RandomState>,
}

impl Table {
    fn new(accounts: &Arc<Accounts>, edition: &Edition, resolve: Resolve, clock: &Clock) -> Self {
        let tier = resolve(&edition.policy, &AgentLimits::default());
        let own = edition.agents.iter().map(|(agent, limits)| (*agent, resolve(&edition.policy, limits)));
        let own = own.filter(|(_, bounds)| *bounds != tier);
        Self {
            own: own.map(|(agent, bounds)| (agent, InForce::new(accounts, bounds, clock))).collect(),
            tier: InForce::new(accounts, tier, clock),
        }
    }

    fn of(&self, agent: Option<Uuid>) -> &InForce {
        agent.and_then(|agent| self.own.get(&agent)).unwrap_or(&self.tier)
    }

    fn says_the_same_as(&self, other: &Self) -> bool {
        let same = |(agent, one): (&Uuid, &InForce)| other.own.get(agent).is_some_and(|two| one.bounds == two.bounds);
        self.tier.bounds == other.tier.bounds && self.own.len() == other.own.len() && self.own.iter().all(same)
    }
}

/// The account a caller was found under, and what applies to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'t> {
    pub(super) key: LimitKey,
    pub(super) in_force: &'t InForce,
}

/// Accounts found by key.
#[derive(Debug)]
pub(super) struct Keyed {
    accounts: Arc<Accounts>,
    /// How many there are; counting a sharded map takes all its locks.
    keys: AtomicUsize,
    /// How many of them are shared by several callers for want of room.
    coarser: AtomicUsize,
    cap: usize,
    resolve: Resolve,
    table: RwLock<Table>,
    seeds: Arc<Seeds>,
    clock: Clock,
}

impl Keyed {
    pub(super) fn new(resolve: Resolve, edition: &Edition, cap: usize, seeds: Arc<Seeds>, clock: Clock) -> Self {
        let accounts = Arc::new(DashMap::with_capacity_and_hasher_and_shard_amount(0, RandomState::default(), SHARDS));
        let table = RwLock::new(Table::new(&accounts, edition, resolve, &clock));
        let (keys, coarser) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { accounts, keys, coarser, cap, resolve, table, seeds, clock }
    }

    /// What applies now; hold it from the first look at an account to the last draw.
    pub(super) fn table(&self) -> RwLockReadGuard<'_, Table> {
        // A panic cannot leave limits half written: they are replaced in one assignment.
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts other limits in force; every account goes on from what it has used.
    pub(super) fn retune(&self, edition: &Edition) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let next = Table::new(&self.accounts, edition, self.resolve, &self.clock);
        if next.says_the_same_as(&table) {
            return;
        }
        let now = Now::read(&self.clock);
        for held in self.accounts.iter() {
            held.account.carry(&table.of(held.agent).bounds, &next.of(held.agent).bounds, now);
        }
        *table = next;
    }

    /// Visits the account of the finest key there is room for, opening it if need be; `name_of` gives the name of each grain.
    pub(super) fn enter<'t, R>(
        &self,
        name_of: impl Fn(Grain) -> Name,
        table: &'t Table,
        now: Now,
        visit: impl Fn(&Account, &InForce) -> R,
    ) -> (Found<'t>, R) {
        for grain in [Grain::Fine, Grain::Coarse, Grain::Rest] {
            let name = name_of(grain);
            let in_force = table.of(name.agent);
            let found = Found { key: name.key, in_force };
            if let Some(held) = self.accounts.get(&name.key) {
                return (found, visit(&held.account, in_force));
            }
            if let Some(visited) = self.open(&name_of, grain, table, now, &visit) {
                return (found, visited);
            }
        }
        unreachable!("there is always room for the last grain")
    }

    /// Visits the account under `key`, which exists as long as it holds anything.
    pub(super) fn visit<R>(&self, key: &LimitKey, visit: impl FnOnce(&Account) -> R) -> Option<R> {
        self.accounts.get(key).map(|held| visit(&held.account))
    }

    /// The same with what holds for it now, and does so meanwhile.
    pub(super) fn visit_with_bounds<R>(&self, key: &LimitKey, visit: impl FnOnce(&Account, &Bounds) -> R) -> Option<R> {
        let table = self.table();
        self.accounts.get(key).map(|held| visit(&held.account, &table.of(held.agent).bounds))
    }

    /// Visits every account, with its limits.
    pub(super) fn each(&self, mut visit: impl FnMut(LimitKey, &Account, &Bounds)) {
        let table = self.table();
        for held in self.accounts.iter() {
            visit(*held.key(), &held.account, &table.of(held.agent).bounds);
        }
    }

    /// Room for accounts of one grain. Those for the rest are one per agent at most, so they need none of their own.
    fn room(&self, grain: Grain) -> usize {
        match grain {
            Grain::Fine => self.cap,
            Grain::Coarse => self.cap + self.cap / 8,
            Grain::Rest => usize::MAX,
        }
    }

    /// Takes room for the account under `key`. One with a past moves from one map to another, so there is room for it.
    fn reserve(&self, key: &LimitKey, grain: Grain) -> bool {
        let room = if self.seeds.contains(key) { usize::MAX } else { self.room(grain) };
        self.keys.fetch_update(Ordering::AcqRel, Ordering::Acquire, |keys| (keys < room).then(|| keys + 1)).is_ok()
    }

    /// Opens the account of `grain`, if there is room for it, or finds that somebody else was faster.
    fn open<R>(
        &self,
        name_of: &impl Fn(Grain) -> Name,
        grain: Grain,
        table: &Table,
        now: Now,
        visit: &impl Fn(&Account, &InForce) -> R,
    ) -> Option<R> {
        let name = name_of(grain);
        let in_force = table.of(name.agent);
        // Before its entry is locked: the others may be in the same shard.
        let account = self.inherited(name_of, grain, table, now);
        match self.accounts.entry(name.key) {
            Entry::Occupied(entry) => Some(visit(&entry.get().account, in_force)),
            Entry::Vacant(entry) => {
                // Within the lock, so that callers of one name cannot find an account and no room for it at once.
                if !self.reserve(&name.key, grain) {
                    return None;
                }
                let account = match self.seeds.take(&name.key) {
                    Some(seed) => Account::seeded(&seed, in_force.bounds.shape(Draws::Work), now),
                    None => account,
                };
                self.coarser.fetch_add(usize::from(grain != Grain::Fine), Ordering::AcqRel);
                let held = entry.insert(Held { account, agent: name.agent, grain });
                Some(visit(&held.account, in_force))
            }
        }
    }

    /// A new account. Its caller may be one of those who used up what is shared by many: it begins where that stands.
    fn inherited(&self, name_of: &impl Fn(Grain) -> Name, grain: Grain, table: &Table, now: Now) -> Account {
        let account = Account::default();
        if self.coarser.load(Ordering::Acquire) == 0 || self.keys.load(Ordering::Acquire) >= self.room(grain) {
            return account;
        }
        let coarser: &[Grain] = match grain {
            Grain::Fine => &[Grain::Coarse, Grain::Rest],
            Grain::Coarse => &[Grain::Rest],
            Grain::Rest => &[],
        };
        let bounds = &table.of(name_of(grain).agent).bounds;
        for grain in coarser {
            if let Some(held) = self.accounts.get(&name_of(*grain).key) {
                account.take_over(&held.account, &table.of(held.agent).bounds, bounds, now);
            }
        }
        account
    }

    /// Forgets the accounts that say no more than a new one would; locks one shard at a time.
    pub(super) fn sweep(&self, now: Now) {
        let before = self.keys.load(Ordering::Acquire);
        let (mut forgotten, mut coarser) = (0, 0);
        self.accounts.retain(|_, held| {
            let idle = held.account.is_idle(now);
            forgotten += usize::from(idle);
            coarser += usize::from(idle && held.grain != Grain::Fine);
            !idle
        });
        self.coarser.fetch_sub(coarser, Ordering::AcqRel);
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

    #[test]
    fn an_account_that_a_draw_put_back_after_a_sweep_does_not_upset_the_count() {
        let clock = Clock::manual(Timestamp(0));
        let edition = Edition { generation: 0, policy: Arc::default(), agents: Arc::default() };
        let keyed = Keyed::new(Bounds::source, &edition, 10, Arc::new(Seeds::new(Vec::new())), clock.clone());
        // Swept between being found and being drawn from.
        let drawn = keyed.table().of(None).draw(&[1; 16], Draws::Work, NonZeroU32::MIN, Now::read(&clock));
        assert!(drawn.is_ok());
        clock.advance(Duration::from_secs(86_400));
        keyed.sweep(Now::read(&clock));
        assert_eq!(keyed.len(), 0);
    }
}
