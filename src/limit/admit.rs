//! One call on its way through its limits: what can be given back first, the bucket last.
//!
//! The order is the promise: governor takes nothing back, so nothing may refuse after it. Knows accounts and limits; how they
//! were found is its caller's business.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::account::{Account, Daily, Draws, Now};
use super::bounds::{AGENT_IN_FLIGHT, Bound, Bounds, GATEWAY_IN_FLIGHT};
use super::bucket::{Level, Parts, Shape, Short};
use super::gate::Gate;
use super::headroom::{Headroom, Room, whole_seconds};
use super::key::{Grain, Name};
use super::keyed::{Found, Keyed};
use super::permit::{Ask, Hold, Home, Permit, Places, Refused, RefusedKind};
use super::shared::Node;
use crate::audit::record::{Charge, LimitLeft};

/// A bucket that takes at least this long to fill is rebuilt after a restart; a faster one may grant one burst anew.
const WORTH_REBUILDING: Duration = Duration::from_secs(60);

/// One call on its way through its limits.
pub(super) struct Call<'a> {
    pub(super) ask: &'a Ask<'a>,
    pub(super) draws: Draws,
    /// `None`: an operation that the policy gives away.
    pub(super) units: Option<NonZeroU32>,
    pub(super) now: Now,
    /// Who else has to know; `None` where limits are this node's alone.
    pub(super) node: Option<&'a Arc<Node>>,
    /// For how many parts this node decides while it decides alone.
    pub(super) parts: Parts,
    /// The gate of the gateway.
    pub(super) gateway: &'a Arc<Gate>,
}

impl Call<'_> {
    pub(super) fn admit_keyed(&self, keyed: &Arc<Keyed>, name_of: impl Fn(Grain) -> Name) -> Result<Permit, Refused> {
        let table = keyed.table();
        let (found, taken) =
            keyed.enter(name_of, &table, self.now, |account, in_force| self.take(account, &in_force.bounds));
        let (places, day) = taken?;
        let Found { key, in_force } = found;
        let hold = self.hold(Home::Keyed(Arc::clone(keyed), key), places);
        self.settle(hold, day, &in_force.bounds, |units| in_force.draw(&key, self.draws, units, self.now))
    }

    pub(super) fn hold(&self, home: Home, places: Places) -> Hold {
        Hold::new(home, places, self.node.map(|node| node.changed()))
    }

    /// Takes what can be given back.
    pub(super) fn take(&self, account: &Account, bounds: &Bounds) -> Result<(Places, Option<Room>), Refused> {
        let mut places = self.take_places(account, bounds, bounds.streams.limit.map(|limit| self.parts.of(limit)))?;
        let taken = self.take_day(account, bounds, &mut places);
        if taken.is_err() {
            places.give_back(account);
        }
        taken.map(|day| (places, day))
    }

    /// Takes the places that a call holds while it lasts.
    pub(super) fn take_places(
        &self,
        account: &Account,
        bounds: &Bounds,
        streams: Option<u32>,
    ) -> Result<Places, Refused> {
        let mut places = Places::default();
        let taken = self.try_places(account, bounds, streams, &mut places);
        if taken.is_err() {
            places.give_back(account);
        }
        taken.map(|()| places)
    }

    fn try_places(
        &self,
        account: &Account,
        bounds: &Bounds,
        streams: Option<u32>,
        places: &mut Places,
    ) -> Result<(), Refused> {
        // First: from here on the account cannot be swept away.
        places.in_flight = account.take_in_flight(bounds.in_flight.limit);
        if !places.in_flight {
            return Err(full(RefusedKind::InFlight, bounds.in_flight.rule));
        }
        if self.ask.operation.streams() {
            places.stream = account.take_stream(streams, self.now);
            if places.stream.is_none() {
                return Err(full(RefusedKind::Streams, bounds.streams.rule));
            }
        }
        let gates = [
            (self.ask.agent, RefusedKind::AgentBusy, AGENT_IN_FLIGHT),
            (self.gateway, RefusedKind::GatewayBusy, GATEWAY_IN_FLIGHT),
        ];
        for ((gate, kind, rule), place) in gates.into_iter().zip(&mut places.through) {
            *place = gate.enter();
            if place.is_none() {
                return Err(full(kind, rule));
            }
        }
        Ok(())
    }

    fn take_day(&self, account: &Account, bounds: &Bounds, places: &mut Places) -> Result<Option<Room>, Refused> {
        let (Draws::Work, Some(units)) = (self.draws, self.units) else { return Ok(None) };
        let limit = bounds.daily.limit;
        match account.take_daily(self.now.day(), units.get(), limit, self.parts) {
            Ok(daily) => {
                places.daily = Some((daily.day, units.get().saturating_mul(self.parts.get())));
                Ok(limit.map(|limit| self.day(limit, daily)))
            }
            Err(daily) => {
                let cell = account.cell(self.draws);
                let bucket = bounds.bucket(self.draws).limit.map(|shape| {
                    let wait = shape.wait(cell, self.now.nanos, units);
                    (shape, Short { wait, level: shape.level(cell, self.now.nanos) })
                });
                Err(self.day_is_used(bounds, daily, bucket))
            }
        }
    }

    /// The refusal of a day whose quota stands at `daily`, the bucket at `bucket`.
    pub(super) fn day_is_used(&self, bounds: &Bounds, daily: Daily, bucket: Option<(Shape, Short)>) -> Refused {
        let Bound { limit, rule } = bounds.daily;
        // The bucket may take longer than the day: the wait that is told must be enough for both. A quota smaller than the
        // call is never enough.
        let enough = limit.zip(self.units).is_some_and(|(limit, units)| units.get() <= limit);
        let wait = bucket.and_then(|(_, short)| short.wait).filter(|_| enough);
        Refused {
            rule,
            kind: RefusedKind::Daily,
            retry_after: wait.map(|wait| retry_after(wait.max(daily.ends_in(self.now.wall)))),
            headroom: self.headroom(
                bucket.map(|(shape, short)| self.room(shape, short.level)),
                limit.map(|limit| self.day(limit, daily)),
            ),
        }
    }

    /// Draws on the bucket and makes the permit; on refusal the hold is dropped and gives everything back.
    pub(super) fn settle(
        &self,
        hold: Hold,
        day: Option<Room>,
        bounds: &Bounds,
        draw: impl FnOnce(NonZeroU32) -> Result<Level, Short>,
    ) -> Result<Permit, Refused> {
        let Bound { limit: shape, rule } = bounds.bucket(self.draws);
        let Some(units) = self.units else { return Ok(Permit::free_of_units(rule, hold)) };
        // The day's units go back with the hold.
        let given_back =
            |day: Room| Room { remaining: day.remaining.saturating_add(units.get()).min(day.quota), ..day };
        let refused = |wait, bucket| rate(rule, wait, self.headroom(bucket, day.map(given_back)));
        let Some(shape) = shape else { return Err(refused(None, None)) };
        let drawn = match self.node {
            None => draw(units),
            Some(_) => hold
                .account(|account| account.draw_part(self.draws, shape, units, self.parts, self.now))
                .expect("an account with a call in flight is never swept"),
        };
        let level = drawn.map_err(|short| refused(short.wait, Some(self.room(shape, short.level))))?;
        Ok(self.permit(hold, bounds, (shape, level), day))
    }

    /// The permit of a call that has paid.
    pub(super) fn permit(&self, mut hold: Hold, bounds: &Bounds, bucket: (Shape, Level), day: Option<Room>) -> Permit {
        let (shape, level) = bucket;
        // The units are spent.
        hold.places.daily = None;
        let rule = bounds.bucket(self.draws).rule;
        let room = self.room(shape, level);
        let rebuild = Duration::from_nanos(shape.fill()) >= WORTH_REBUILDING;
        let spent = self.units.filter(|_| self.draws == Draws::Work);
        let charge = spent.map(|units| Charge {
            key: hold.key(),
            refill_us: if rebuild { shape.interval.div_ceil(1_000) } else { 0 },
            units: units.get(),
        });
        Permit {
            units: charge.map_or(0, |charge| charge.units),
            charge,
            headroom: self.headroom(Some(room), day),
            nearest: nearest((rule, room), day.map(|day| (bounds.daily.rule, day))),
            rule,
            _hold: Some(hold),
        }
    }

    pub(super) fn room(&self, shape: Shape, level: Level) -> Room {
        Room::bucket(self.draws.name(), shape, level)
    }

    pub(super) fn headroom(&self, bucket: Option<Room>, day: Option<Room>) -> Headroom {
        Headroom { bucket, day, cost: self.units.unwrap_or(NonZeroU32::MIN) }
    }

    /// What a quota that stands at `daily` has left for this node to give.
    pub(super) fn day(&self, limit: u32, daily: Daily) -> Room {
        Room::day(limit, daily, self.now.wall).part(self.parts)
    }
}

/// The refusal of a limit on places: nobody knows when one comes back.
pub(super) fn full(kind: RefusedKind, rule: &'static str) -> Refused {
    Refused { rule, kind, retry_after: None, headroom: Headroom::default() }
}

/// The refusal of a bucket that holds enough in `wait` nanoseconds.
pub(super) fn rate(rule: &'static str, wait: Option<u64>, headroom: Headroom) -> Refused {
    Refused { rule, kind: RefusedKind::Rate, retry_after: wait.map(retry_after), headroom }
}

/// The limit with the least left of what it holds when nothing is used.
fn nearest(bucket: (&'static str, Room), day: Option<(&'static str, Room)>) -> Option<LimitLeft> {
    // a/b < c/d, without the division.
    let scarcer = |one: Room, other: Room| {
        u64::from(one.remaining) * u64::from(other.quota) < u64::from(other.remaining) * u64::from(one.quota)
    };
    let (name, room) = day.filter(|(_, day)| scarcer(*day, bucket.1)).unwrap_or(bucket);
    Some(LimitLeft { name, left: room.remaining })
}

/// A wait as `Retry-After` tells it: whole seconds, never too short, at least one.
pub(super) fn retry_after(nanos: u64) -> Duration {
    Duration::from_secs(whole_seconds(nanos).max(1))
}
