//! The buckets of one direction of a connection. They hold their counts directly, so that a call of a connected caller looks
//! nothing up.

use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use uuid::Uuid;

use super::account::{Account, Draws, Now};
use super::bounds::Bounds;
use super::bucket::{Level, Limiter, Short, draw, limiter};
use super::edition::Edition;
use super::key::LimitKey;
use super::seed::Seed;
use crate::clock::Clock;
use crate::store::rows::ConnectionLimits;

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
    /// The agent that is called.
    pub(super) towards: Uuid,
    pub(super) account: Arc<Account>,
    in_force: RwLock<InForce>,
    clock: Clock,
}

impl Direction {
    pub(super) fn new(
        key: LimitKey,
        towards: Uuid,
        edition: &Edition,
        own: ConnectionLimits,
        seed: Option<&Seed>,
        clock: &Clock,
    ) -> Self {
        let bounds = Bounds::connection(&edition.policy, edition.of_agent(towards), &own);
        let account = seed
            .map_or_else(Account::default, |seed| Account::seeded(seed, bounds.shape(Draws::Work), Now::read(clock)));
        let account = Arc::new(account);
        let in_force = RwLock::new(InForce::new(edition, own, bounds, &account, clock));
        Self { key, towards, account, in_force, clock: clock.clone() }
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

    /// Visits the account with what holds for it now, and does so meanwhile.
    pub(super) fn visit<R>(&self, visit: impl FnOnce(&Account, &Bounds) -> R) -> R {
        let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
        visit(&self.account, &in_force.bounds)
    }

    /// Puts the limits of `edition`, and the connection's `own` if given, in force; what was used stays used.
    pub(super) fn retune(&self, edition: &Edition, own: Option<&ConnectionLimits>) {
        let mut in_force = self.in_force.write().unwrap_or_else(PoisonError::into_inner);
        let own = own.copied().unwrap_or(in_force.own);
        if own == in_force.own && in_force.generation >= edition.generation {
            return;
        }
        let bounds = Bounds::connection(&edition.policy, edition.of_agent(self.towards), &own);
        if bounds == in_force.bounds {
            (in_force.own, in_force.generation) = (own, edition.generation);
            return;
        }
        self.account.carry(&in_force.bounds, &bounds, Now::read(&self.clock));
        *in_force = InForce::new(edition, own, bounds, &self.account, &self.clock);
    }
}
