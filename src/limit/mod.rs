//! Buckets, quotas and slots: what a caller may do *now*.
//!
//! Promises: exact under any concurrency; a refused call keeps nothing it took and a denied check does not lengthen the wait; a
//! `Retry-After` is true; neither a reload, a change of the directory nor a restart hands anything out anew; memory stays
//! bounded whoever calls. Time comes from the gateway's one clock. Must not know HTTP (but for the names of its fields), SQL,
//! or how a caller was recognised.
//!
//! The order of the gates is in `admit`; who wins where several set a limit is in `bounds`.
//!
//! Token-bucket arithmetic, plainly: 300 per minute with burst 300 lets 300 calls through at once and then one every 200 ms, at
//! most 599 in the first minute. Counts belong to accounts; governor decides over their cells.

mod account;
mod admit;
mod bounds;
mod bucket;
mod direction;
mod edition;
mod gate;
mod headroom;
mod key;
mod keyed;
mod permit;
mod seed;
pub mod shared;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use foldhash::fast::RandomState;
use uuid::Uuid;

use crate::a2a::{Effect, Operation};
use crate::clock::Clock;
use crate::policy::Policy;
use crate::store::rows::{AgentLimits, ConnectionLimits};

use account::{Account, Draws, Now, Slots};
use admit::{Call, retry_after};
use bounds::{Bound, Bounds};
use bucket::{Parts, Shape};
use edition::Edition;
use key::{Grain, Name, source_at};
use keyed::{Keyed, Resolve};
use permit::Home;
use seed::Seeds;
use shared::Node;

pub use direction::Direction;
pub use edition::OwnLimits;
pub use gate::Gate;
pub use headroom::{Headroom, Left, Room};
pub use key::{LimitKey, LimitNamer, source_key};
pub use permit::{Abuse, Ask, Permit, Refused, RefusedKind, Subject};
pub use seed::{Seed, seeds_from};

/// Keys per map unless [`Limits::with_key_cap`] says otherwise.
pub const DEFAULT_KEY_CAP: usize = 1_000_000;

/// Every limit of the gateway; one value shared by all workers.
#[derive(Debug)]
pub struct Limits {
    clock: Clock,
    namer: LimitNamer,
    edition: ArcSwap<Edition>,
    /// Held while an edition is put in force, so that two changes cannot cross.
    changing: Mutex<()>,
    /// Before the whole gateway.
    gate: Arc<Gate>,
    verified: Arc<Keyed>,
    anonymous: Arc<Keyed>,
    sources: Keyed,
    strangers: Keyed,
    /// Every direction with anything to remember, also while no directory has it: a connection that is paused and resumed
    /// goes on from where it was.
    directions: DashMap<LimitKey, Arc<Direction>, RandomState>,
    seeds: Arc<Seeds>,
    /// This node among those that share these limits; `None` where they are its own.
    node: Option<Arc<Node>>,
}

impl Limits {
    /// Limits that go on from `seeds`; `secret` names limits across restarts.
    #[must_use]
    pub fn new(clock: Clock, policy: Arc<Policy>, secret: [u8; 32], seeds: Vec<Seed>) -> Self {
        Self::with_key_cap(clock, policy, secret, seeds, DEFAULT_KEY_CAP)
    }

    /// The same with room for `cap` keys in each map. Beyond it, new anonymous callers share a limit with their network (/24,
    /// /48), then with every other newcomer; new verified ones share one over all their targets.
    #[must_use]
    pub fn with_key_cap(clock: Clock, policy: Arc<Policy>, secret: [u8; 32], seeds: Vec<Seed>, cap: usize) -> Self {
        let seeds = Arc::new(Seeds::new(seeds));
        let edition = Edition { generation: 0, policy, agents: Arc::default() };
        let keyed = |resolve: Resolve| Keyed::new(resolve, &edition, cap, Arc::clone(&seeds), clock.clone());
        Self {
            verified: Arc::new(keyed(Bounds::verified)),
            anonymous: Arc::new(keyed(Bounds::unverified)),
            sources: keyed(Bounds::source),
            strangers: keyed(Bounds::api),
            namer: LimitNamer::new(secret),
            edition: ArcSwap::from_pointee(edition),
            changing: Mutex::new(()),
            gate: Arc::new(Gate::new(u32::MAX)),
            directions: DashMap::default(),
            clock,
            seeds,
            node: None,
        }
    }

    /// The same, shared with the other nodes.
    #[must_use]
    pub fn shared_by(mut self, node: Arc<Node>) -> Self {
        self.node = Some(node);
        self
    }

    /// How many calls the gateway may have open at once.
    pub fn set_max_in_flight(&self, most: u32) {
        self.gate.set_most(most);
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.edition.load().policy)
    }

    /// Puts another policy in force. Where limits change, what was used stays used and nobody gets a fresh burst.
    pub fn set_policy(&self, policy: Arc<Policy>) {
        self.change(|now| Edition { generation: now.generation + 1, policy, agents: Arc::clone(&now.agents) });
    }

    /// Puts the agents' own limits in force, in place of those before; the same promise holds.
    pub fn set_agents(&self, agents: OwnLimits) {
        if *self.edition.load().agents == agents {
            return;
        }
        let agents = Arc::new(agents);
        self.change(|now| Edition { generation: now.generation + 1, policy: Arc::clone(&now.policy), agents });
    }

    /// Whether an agent may have these limits of its own under the policy in force.
    ///
    /// # Errors
    /// What could never work, and what to write instead.
    pub fn check(&self, own: &AgentLimits) -> Result<(), String> {
        self.edition.load().check(own)
    }

    fn change(&self, next: impl FnOnce(&Edition) -> Edition) {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let edition = Arc::new(next(&self.edition.load()));
        self.edition.store(Arc::clone(&edition));
        // At once, not when they are next asked: until then they would refill as before.
        for direction in &self.directions {
            direction.retune(&edition, None);
        }
        for keyed in [&*self.verified, &*self.anonymous, &self.sources, &self.strangers] {
            keyed.retune(&edition);
        }
    }

    /// The limits of one direction of a connection: the calls towards the agent `towards`. Asked for with every new directory;
    /// the answer is always the one that is already counting, under the connection's limits as they are now. `previous`, the
    /// directory's answer from before, only spares the look-up.
    #[must_use]
    pub fn direction(
        &self,
        connection: Uuid,
        towards: Uuid,
        own: &ConnectionLimits,
        previous: Option<&Arc<Direction>>,
    ) -> Arc<Direction> {
        let key = self.namer.connection(connection, towards);
        let edition = self.edition.load();
        let known = previous.filter(|direction| direction.key == key).map(Arc::clone);
        let direction = known.unwrap_or_else(|| {
            let open = || {
                let seed = self.seeds.take(&key);
                Arc::new(Direction::new(key, towards, &edition, *own, seed.as_ref(), &self.clock))
            };
            Arc::clone(&self.directions.entry(key).or_insert_with(open))
        });
        direction.retune(&edition, Some(own));
        direction
    }

    /// May this call pass now?
    ///
    /// What can be given back is taken first (stream slot, places in flight, the day's units), the bucket last, since governor
    /// takes nothing back. Where limits are shared, this is the decision of a node that cannot reach the others.
    ///
    /// # Errors
    /// The limit that is in the way; nothing stays taken.
    pub fn admit(&self, ask: &Ask<'_>) -> Result<Permit, Refused> {
        let edition = self.edition.load();
        let Some(call) = self.call(ask, &edition) else { return Ok(Permit::free_of_units(bounds::FREE, None)) };
        match ask.subject {
            Subject::Connected(direction) => {
                let in_force = direction.in_force(&edition);
                let (places, day) = call.take(&direction.account, &in_force.bounds)?;
                let hold = call.hold(Home::Direction(Arc::clone(direction)), places);
                call.settle(hold, day, &in_force.bounds, |units| in_force.draw(call.draws, units, call.now))
            }
            Subject::Verified { caller, target } => {
                call.admit_keyed(&self.verified, |grain| self.namer.verified_at(grain, caller, target))
            }
            Subject::Anonymous { target, source } => {
                call.admit_keyed(&self.anonymous, |grain| self.namer.anonymous_at(grain, target, source))
            }
        }
    }

    /// What is asked for, in units and places; `None`: it costs nothing.
    fn call<'a>(&'a self, ask: &'a Ask<'a>, edition: &Edition) -> Option<Call<'a>> {
        let (effect, units) = edition.cost(ask.subject.target(), ask.operation);
        let draws = match effect {
            Effect::Free => return None,
            Effect::Work => Draws::Work,
            Effect::Read => Draws::Reads,
        };
        Some(Call {
            ask,
            draws,
            units: NonZeroU32::new(units),
            now: Now::read(&self.clock),
            gateway: &self.gate,
            node: self.node.as_ref(),
            parts: self.node.as_ref().map_or(Parts::WHOLE, |node| node.parts()),
        })
    }

    /// Counts a request that costs no unit against the network source it came from; yields what that has left.
    ///
    /// # Errors
    /// When the source asked too often.
    pub fn abuse(&self, source: IpAddr, what: Abuse) -> Result<Headroom, Refused> {
        let (keyed, draws, name) = match what {
            Abuse::Card | Abuse::NotFound | Abuse::Envelope => (&self.sources, Draws::Work, "requests"),
            Abuse::Credential | Abuse::Registration => (&self.sources, Draws::Reads, "credentials"),
            Abuse::Api => (&self.strangers, Draws::Work, "requests"),
        };
        let now = Now::read(&self.clock);
        let table = keyed.table();
        let (found, ()) = keyed.enter(|grain| source_at(grain, source), &table, now, |_, _| ());
        let bounds = &found.in_force.bounds;
        let headroom =
            |level| Headroom { bucket: Some(Room::bucket(name, bounds.shape(draws), level)), ..Headroom::default() };
        match found.in_force.draw(&found.key, draws, NonZeroU32::MIN, now) {
            Ok(level) => Ok(headroom(level)),
            Err(short) => Err(Refused {
                rule: bounds.bucket(draws).rule,
                kind: RefusedKind::Abuse,
                retry_after: short.wait.map(retry_after),
                headroom: headroom(short.level),
            }),
        }
    }

    /// What `subject` has left for calls of `operation`, without taking any of it.
    #[must_use]
    pub fn headroom(&self, subject: &Subject<'_>, operation: Operation) -> Headroom {
        let (effect, units) = self.edition.load().cost(subject.target(), operation);
        let draws = if effect == Effect::Read { Draws::Reads } else { Draws::Work };
        let parts = self.parts();
        self.look(subject, |account, bounds, now| {
            let bucket = bounds.bucket(draws).limit;
            let day = bounds.daily.limit.filter(|_| draws == Draws::Work);
            let level = |shape: Shape| shape.level(account.cell(draws), now.nanos).part(parts);
            Headroom {
                bucket: bucket.map(|shape| Room::bucket(draws.name(), shape, level(shape))),
                day: day.map(|limit| Room::day(limit, account.daily(now.day()), now.wall).part(parts)),
                cost: NonZeroU32::new(units).unwrap_or(NonZeroU32::MIN),
            }
        })
    }

    /// What `subject` has left of each of its limits, without taking any of it. Limits it does not have are not there.
    #[must_use]
    pub fn left(&self, subject: &Subject<'_>) -> Vec<Left> {
        let parts = self.parts();
        self.look(subject, |account, bounds, now| {
            let bucket = |name, draws| match bounds.bucket(draws) {
                Bound { limit: Some(shape), rule } => {
                    let level = shape.level(account.cell(draws), now.nanos).part(parts);
                    Left::of_room(name, rule, Room::bucket(name, shape, level))
                }
                // Closed: waiting does not help.
                Bound { limit: None, rule } => Left::of_places(name, rule, 0, 0),
            };
            let day = bounds.daily.limit.map(|limit| {
                let room = Room::day(limit, account.daily(now.day()), now.wall).part(parts);
                Left::of_room("daily", bounds.daily.rule, room)
            });
            let places = |name, bound: Bound<Option<u32>>, taken| {
                bound.limit.map(|limit| Left::of_places(name, bound.rule, limit, taken))
            };
            [
                Some(bucket("work", Draws::Work)),
                Some(bucket("reads", Draws::Reads)),
                day,
                places("streams", bounds.streams, account.streams()),
                places("in_flight", bounds.in_flight, account.in_flight()),
            ]
            .into_iter()
            .flatten()
            .collect()
        })
    }

    /// For how many parts this node decides now: of what is left, so much less is there for callers.
    fn parts(&self) -> Parts {
        let alone = self.node.as_ref().filter(|node| !node.is_shared());
        alone.map_or(Parts::WHOLE, |node| node.parts())
    }

    /// Looks at the account of `subject` under the bounds in force.
    fn look<R>(&self, subject: &Subject<'_>, look: impl Fn(&Account, &Bounds, Now) -> R) -> R {
        let now = Now::read(&self.clock);
        let look_keyed = |keyed: &Keyed, name_of: &dyn Fn(Grain) -> Name| {
            // A caller not met since the start may still have a past.
            keyed.enter(name_of, &keyed.table(), now, |account, in_force| look(account, &in_force.bounds, now)).1
        };
        match *subject {
            Subject::Connected(direction) => {
                let edition = self.edition.load();
                look(&direction.account, &direction.in_force(&edition).bounds, now)
            }
            Subject::Verified { caller, target } => {
                look_keyed(&self.verified, &|grain| self.namer.verified_at(grain, caller, target))
            }
            Subject::Anonymous { target, source } => {
                look_keyed(&self.anonymous, &|grain| self.namer.anonymous_at(grain, target, source))
            }
        }
    }

    /// Visits every account that more than one node may know of, with its name and its limits.
    fn each_account(&self, mut visit: impl FnMut(LimitKey, &Account, &Bounds)) {
        for keyed in [&self.verified, &self.anonymous] {
            keyed.each(&mut visit);
        }
        let edition = self.edition.load();
        for direction in &self.directions {
            visit(direction.key, &direction.account, &direction.in_force(&edition).bounds);
        }
    }

    /// The open streams of the account under `key`. None of one that is forgotten, which may have to be told yet.
    fn slots(&self, key: &LimitKey) -> Slots {
        if let Some(direction) = self.directions.get(key) {
            return direction.account.slots();
        }
        let of = |keyed: &Keyed| keyed.visit(key, Account::slots);
        of(&self.verified).or_else(|| of(&self.anonymous)).unwrap_or_else(|| Slots::none_at(Now::read(&self.clock)))
    }

    /// Forgets what says no more than a new account would; called every minute, not on a worker's thread.
    pub fn sweep(&self) {
        let now = Now::read(&self.clock);
        for keyed in [&*self.verified, &*self.anonymous, &self.sources, &self.strangers] {
            keyed.sweep(now);
        }
        // Nobody can clone the last reference while its shard is locked.
        self.directions.retain(|_, direction| Arc::strong_count(direction) > 1 || !direction.account.is_idle(now));
        self.seeds.sweep(now);
    }

    /// How many keys are held: verified, anonymous, network sources.
    #[must_use]
    pub fn keys(&self) -> [usize; 3] {
        [self.verified.len(), self.anonymous.len(), self.sources.len() + self.strangers.len()]
    }
}

#[cfg(test)]
mod tests;
