//! What lives with the directory's entries: the buckets of one direction of a connection, and the gate before an agent.
//!
//! Both hold their counts directly, so that a call of a connected caller looks nothing up.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};

use super::account::{Account, Draws, Now, take_slot};
use super::bounds::Bounds;
use super::bucket::{Level, Limiter, Short, draw, limiter};
use super::key::LimitKey;
use super::seed::Seed;
use crate::clock::Clock;
use crate::policy::Policy;
use crate::store::rows::ConnectionLimits;

/// A policy and its place in the order of reloads.
#[derive(Debug)]
pub(super) struct Edition {
    pub(super) generation: u64,
    pub(super) policy: Arc<Policy>,
}

/// One bucket of one account, as governor finds it.
#[derive(Debug)]
pub(super) struct Cell {
    account: Arc<Account>,
    draws: Draws,
}

impl StateStore for Cell {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, step: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.account.measure_and_replace(self.draws, step)
    }
}

/// What applies to a direction now.
#[derive(Debug)]
pub(super) struct InForce {
    generation: u64,
    own: ConnectionLimits,
    pub(super) bounds: Bounds,
    work: Limiter<Cell>,
    reads: Limiter<Cell>,
}

impl InForce {
    fn new(edition: &Edition, own: ConnectionLimits, bounds: Bounds, account: &Arc<Account>, clock: &Clock) -> Self {
        let cell = |draws| Cell { account: Arc::clone(account), draws };
        Self {
            generation: edition.generation,
            own,
            bounds,
            work: limiter(bounds.shape(Draws::Work), cell(Draws::Work), clock),
            reads: limiter(bounds.shape(Draws::Reads), cell(Draws::Reads), clock),
        }
    }

    /// Draws from a bucket; a closed one is refused before this.
    pub(super) fn draw(&self, draws: Draws, units: NonZeroU32, now: Now) -> Result<Level, Short> {
        let limiter = match draws {
            Draws::Work => &self.work,
            Draws::Reads => &self.reads,
        };
        draw(limiter, self.bounds.shape(draws), units, now.nanos)
    }
}

/// The calls of one agent towards another over their connection: what they may do and what they have used.
#[derive(Debug)]
pub struct Direction {
    pub(super) key: LimitKey,
    pub(super) account: Arc<Account>,
    in_force: RwLock<InForce>,
    clock: Clock,
}

impl Direction {
    pub(super) fn new(
        key: LimitKey,
        edition: &Edition,
        own: ConnectionLimits,
        seed: Option<&Seed>,
        clock: &Clock,
    ) -> Self {
        let bounds = Bounds::connection(&edition.policy, &own);
        let account = seed
            .map_or_else(Account::default, |seed| Account::seeded(seed, bounds.shape(Draws::Work), Now::read(clock)));
        let account = Arc::new(account);
        let in_force = RwLock::new(InForce::new(edition, own, bounds, &account, clock));
        Self { key, account, in_force, clock: clock.clone() }
    }

    /// What applies under `edition`; hold it from the first look at the account to the last draw.
    pub(super) fn in_force(&self, edition: &Edition) -> RwLockReadGuard<'_, InForce> {
        // A panic cannot leave limits half written: they are replaced in one assignment.
        let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
        // Only ever forward: a call that loaded the policy just before a reload goes by the newer one.
        if in_force.generation >= edition.generation {
            return in_force;
        }
        drop(in_force);
        self.retune(edition, None);
        self.in_force.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the limits of `edition`, and the connection's `own` if given, in force; what was used stays used.
    pub(super) fn retune(&self, edition: &Edition, own: Option<&ConnectionLimits>) {
        let mut in_force = self.in_force.write().unwrap_or_else(PoisonError::into_inner);
        let own = own.copied().unwrap_or(in_force.own);
        if own == in_force.own && in_force.generation >= edition.generation {
            return;
        }
        let bounds = Bounds::connection(&edition.policy, &own);
        if bounds == in_force.bounds {
            (in_force.own, in_force.generation) = (own, edition.generation);
            return;
        }
        self.account.carry(&in_force.bounds, &bounds, Now::read(&self.clock));
        *in_force = InForce::new(edition, own, bounds, &self.account, &self.clock);
    }
}

/// The gate before one agent: how many calls it has, whoever made them.
#[derive(Debug)]
pub struct AgentGate {
    in_flight: AtomicU32,
    /// The registration's own limit; `u32::MAX` for none.
    own: AtomicU32,
}

impl AgentGate {
    pub(super) fn new(max_in_flight: Option<u32>) -> Self {
        Self { in_flight: AtomicU32::new(0), own: AtomicU32::new(max_in_flight.unwrap_or(u32::MAX)) }
    }

    pub(super) fn set_own(&self, max_in_flight: Option<u32>) {
        self.own.store(max_in_flight.unwrap_or(u32::MAX), Ordering::Release);
    }

    /// Calls in flight now.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    pub(super) fn take(&self, otherwise: Option<u32>) -> bool {
        let own = self.own.load(Ordering::Acquire);
        take_slot(&self.in_flight, if own == u32::MAX { otherwise } else { Some(own) })
    }

    pub(super) fn give_back(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}
