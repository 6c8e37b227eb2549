//! Buckets, quotas and slots: what a caller may do *now*.
//!
//! Promises: exact under any concurrency; a refused call keeps nothing it took and a denied check does not lengthen the wait; a
//! `Retry-After` is true; neither a reload, a change of the directory nor a restart hands anything out anew; memory stays
//! bounded whoever calls. Time comes from the gateway's one clock. Must not know HTTP (but for the names of its fields), SQL,
//! or how a caller was recognised.
//!
//! Token-bucket arithmetic, plainly: 300 per minute with burst 300 lets 300 calls through at once and then one every 200 ms, at
//! most 599 in the first minute. Counts belong to accounts; governor decides over their cells.

mod account;
mod admit;
mod bounds;
mod bucket;
mod direction;
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

use crate::a2a::Effect;
use crate::clock::Clock;
use crate::policy::Policy;
use crate::store::rows::ConnectionLimits;

use account::{Account, Draws, Now, Slots};
use admit::{Call, retry_after};
use bounds::Bounds;
use bucket::Parts;
use direction::Edition;
use key::{Grain, source_key};
use keyed::Keyed;
use permit::Home;
use seed::Seeds;
use shared::Node;

pub use direction::{AgentGate, Direction};
pub use headroom::{Headroom, Left, Room};
pub use key::{LimitKey, LimitNamer};
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
    /// Held while a policy is put in force, so that two reloads cannot cross.
    reloading: Mutex<()>,
    verified: Arc<Keyed>,
    anonymous: Arc<Keyed>,
    sources: Keyed,
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
        let seeds = Arc::new(Seeds::new(seeds));
        let keyed = |bounds| Keyed::new(bounds, DEFAULT_KEY_CAP, Arc::clone(&seeds), clock.clone());
        Self {
            verified: Arc::new(keyed(Bounds::verified(&policy))),
            anonymous: Arc::new(keyed(Bounds::unverified(&policy))),
            sources: keyed(Bounds::source(&policy)),
            namer: LimitNamer::new(secret),
            edition: ArcSwap::from_pointee(Edition { generation: 0, policy }),
            reloading: Mutex::new(()),
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

    /// The same with room for `cap` keys in each map. Beyond it, new anonymous callers share a limit with their network (/24,
    /// /48), then with every other newcomer; new verified ones share one over all their targets.
    #[must_use]
    pub fn with_key_cap(mut self, cap: usize) -> Self {
        let policy = self.policy();
        let keyed = |bounds| Keyed::new(bounds, cap, Arc::clone(&self.seeds), self.clock.clone());
        let sources = keyed(Bounds::source(&policy));
        let verified = Arc::new(keyed(Bounds::verified(&policy)));
        let anonymous = Arc::new(keyed(Bounds::unverified(&policy)));
        (self.verified, self.anonymous, self.sources) = (verified, anonymous, sources);
        self
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.edition.load().policy)
    }

    /// Puts another policy in force. Where limits change, what was used stays used and nobody gets a fresh burst.
    pub fn set_policy(&self, policy: Arc<Policy>) {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.edition.load().generation + 1;
        // Directions follow by themselves when they are next asked.
        self.edition.store(Arc::new(Edition { generation, policy: Arc::clone(&policy) }));
        self.verified.retune(Bounds::verified(&policy));
        self.anonymous.retune(Bounds::unverified(&policy));
        self.sources.retune(Bounds::source(&policy));
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
                Arc::new(Direction::new(key, &edition, *own, seed.as_ref(), &self.clock))
            };
            Arc::clone(&self.directions.entry(key).or_insert_with(open))
        });
        direction.retune(&edition, Some(own));
        direction
    }

    /// The gate before one agent, with its registration's own limit; `None` is the policy's. Asked for with every new
    /// directory: `previous` goes on counting.
    #[must_use]
    pub fn agent_gate(&self, max_in_flight: Option<u32>, previous: Option<&Arc<AgentGate>>) -> Arc<AgentGate> {
        match previous {
            Some(gate) => {
                gate.set_own(max_in_flight);
                Arc::clone(gate)
            }
            None => Arc::new(AgentGate::new(max_in_flight)),
        }
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
        let (effect, units) = edition.policy.units(ask.operation);
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
            agent_limit: edition.policy.agents.in_flight,
            node: self.node.as_ref(),
            parts: self.node.as_ref().map_or(Parts::WHOLE, |node| node.parts()),
        })
    }

    /// Counts a request that costs no unit against the network source it came from.
    ///
    /// # Errors
    /// When the source asked too often.
    pub fn abuse(&self, source: IpAddr, what: Abuse) -> Result<(), Refused> {
        let (draws, name) = match what {
            Abuse::Card | Abuse::NotFound | Abuse::Envelope => (Draws::Work, "requests"),
            Abuse::Credential | Abuse::Registration => (Draws::Reads, "credentials"),
        };
        let now = Now::read(&self.clock);
        let in_force = self.sources.in_force();
        let (key, ()) = self.sources.enter(|grain| source_key(grain, source), &in_force, now, |_| ());
        in_force.draw(&key, draws, NonZeroU32::MIN, now).map(|_| ()).map_err(|short| Refused {
            rule: in_force.bounds.bucket(draws).rule,
            kind: RefusedKind::Abuse,
            retry_after: short.wait.map(retry_after),
            headroom: Headroom {
                bucket: Some(Room::bucket(name, in_force.bounds.shape(draws), short.level)),
                day: None,
            },
        })
    }

    /// What `subject` has left for work, without taking any of it.
    #[must_use]
    pub fn headroom(&self, subject: &Subject<'_>) -> Headroom {
        self.look(subject, |account, bounds, now| Headroom {
            bucket: bounds
                .work
                .limit
                .map(|shape| Room::bucket("calls", shape, shape.level(account.cell(Draws::Work), now.nanos))),
            day: bounds.daily.limit.map(|limit| Room::day(limit, account.daily(now.day()), now.wall)),
        })
    }

    /// What `subject` has left of each of its limits, without taking any of it. Limits it does not have are not there.
    #[must_use]
    pub fn left(&self, subject: &Subject<'_>) -> Vec<Left> {
        self.look(subject, |account, bounds, now| {
            let bucket = |name, draws| match bounds.bucket(draws).limit {
                Some(shape) => {
                    let room = Room::bucket(name, shape, shape.level(account.cell(draws), now.nanos));
                    Left::of(name, room.quota, room.remaining, Some(room.reset))
                }
                // Closed: waiting does not help.
                None => Left::of(name, 0, 0, None),
            };
            let day = bounds.daily.limit.map(|limit| {
                let room = Room::day(limit, account.daily(now.day()), now.wall);
                Left::of("daily", limit, room.remaining, Some(room.reset))
            });
            let slots = |name, limit: Option<u32>, taken: u32| {
                limit.map(|limit| Left::of(name, limit, limit.saturating_sub(taken), None))
            };
            [
                Some(bucket("work", Draws::Work)),
                Some(bucket("reads", Draws::Reads)),
                day,
                slots("streams", bounds.streams.limit, account.streams()),
                slots("in_flight", bounds.in_flight.limit, account.in_flight()),
            ]
            .into_iter()
            .flatten()
            .collect()
        })
    }

    /// Looks at the account of `subject` under the bounds in force.
    fn look<R>(&self, subject: &Subject<'_>, look: impl Fn(&Account, &Bounds, Now) -> R) -> R {
        let now = Now::read(&self.clock);
        let look_keyed = |keyed: &Keyed, key: &dyn Fn(Grain) -> LimitKey| {
            let in_force = keyed.in_force();
            // A caller not met since the start may still have a past.
            keyed.enter(key, &in_force, now, |account| look(account, &in_force.bounds, now)).1
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
            let in_force = keyed.in_force();
            keyed.each(|key, account| visit(key, account, &in_force.bounds));
        }
        let edition = self.edition.load();
        for direction in &self.directions {
            visit(direction.key, &direction.account, &direction.in_force(&edition).bounds);
        }
    }

    /// The open streams of the account under `key`; none of one that is forgotten.
    fn slots(&self, key: &LimitKey) -> Slots {
        if let Some(direction) = self.directions.get(key) {
            return direction.account.slots();
        }
        let of = |keyed: &Keyed| keyed.visit(key, Account::slots);
        of(&self.verified).or_else(|| of(&self.anonymous)).unwrap_or_default()
    }

    /// Forgets what says no more than a new account would; called every minute, not on a worker's thread.
    pub fn sweep(&self) {
        let now = Now::read(&self.clock);
        for keyed in [&*self.verified, &*self.anonymous, &self.sources] {
            keyed.sweep(now);
        }
        // Nobody can clone the last reference while its shard is locked.
        self.directions.retain(|_, direction| Arc::strong_count(direction) > 1 || !direction.account.is_idle(now));
        self.seeds.sweep(now);
    }

    /// How many keys are held: verified, anonymous, network sources.
    #[must_use]
    pub fn keys(&self) -> [usize; 3] {
        [self.verified.len(), self.anonymous.len(), self.sources.len()]
    }
}

#[cfg(test)]
mod tests;
