//! One call on its way through its limits: what can be given back first, the bucket last.
//!
//! The order is the promise: governor takes nothing back, so nothing may refuse after it. Knows accounts and limits; how they
//! were found is its caller's business.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::account::{Account, Draws, Now};
use super::bounds::{AGENT_IN_FLIGHT, Bound, Bounds, GATEWAY_IN_FLIGHT};
use super::bucket::{Level, Shape, Short};
use super::gate::Gate;
use super::headroom::{Headroom, Room, whole_seconds};
use super::key::{Grain, LimitKey, Name};
use super::keyed::{Found, Keyed};
use super::permit::{Ask, Hold, Home, Permit, Places, Refused, RefusedKind};
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
        let hold = Hold { home: Home::Keyed(Arc::clone(keyed), key), places };
        self.settle(hold, day, key, &in_force.bounds, |units| in_force.draw(&key, self.draws, units, self.now))
    }

    /// Takes what can be given back.
    pub(super) fn take(&self, account: &Account, bounds: &Bounds) -> Result<(Places, Option<Room>), Refused> {
        let mut places = Places::default();
        let taken = self.try_take(account, bounds, &mut places);
        if taken.is_err() {
            places.give_back(account);
        }
        taken.map(|day| (places, day))
    }

    fn try_take(&self, account: &Account, bounds: &Bounds, places: &mut Places) -> Result<Option<Room>, Refused> {
        let full = |kind, rule| Refused { rule, kind, retry_after: None, headroom: Headroom::default() };
        // First: from here on the account cannot be swept away.
        places.in_flight = account.take_in_flight(bounds.in_flight.limit);
        if !places.in_flight {
            return Err(full(RefusedKind::InFlight, bounds.in_flight.rule));
        }
        if self.ask.operation.streams() {
            places.stream = account.take_stream(bounds.streams.limit);
            if !places.stream {
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

        let (Draws::Work, Some(units)) = (self.draws, self.units) else { return Ok(None) };
        let Bound { limit, rule } = bounds.daily;
        let room = |daily| limit.map(|limit| Room::day(limit, daily, self.now.wall));
        match account.take_daily(self.now.day(), units.get(), limit) {
            Ok(daily) => {
                places.daily = Some((daily.day, units.get()));
                Ok(room(daily))
            }
            Err(daily) => {
                // The bucket may take longer than the day: the wait that is told must be enough for both. A quota smaller than
                // the call is never enough.
                let enough = limit.is_some_and(|limit| units.get() <= limit);
                let bucket = bounds.bucket(self.draws).limit;
                let shape_wait = |shape: Shape| shape.wait(account.cell(self.draws), self.now.nanos, units);
                let wait = bucket.and_then(shape_wait).filter(|_| enough);
                Err(Refused {
                    rule,
                    kind: RefusedKind::Daily,
                    retry_after: wait.map(|wait| retry_after(wait.max(daily.ends_in(self.now.wall)))),
                    headroom: self.headroom(
                        bucket.map(|shape| self.room(shape, shape.level(account.cell(self.draws), self.now.nanos))),
                        room(daily),
                    ),
                })
            }
        }
    }

    /// Draws on the bucket and makes the permit; on refusal the hold is dropped and gives everything back.
    pub(super) fn settle(
        &self,
        mut hold: Hold,
        day: Option<Room>,
        key: LimitKey,
        bounds: &Bounds,
        draw: impl FnOnce(NonZeroU32) -> Result<Level, Short>,
    ) -> Result<Permit, Refused> {
        let Bound { limit: shape, rule } = bounds.bucket(self.draws);
        let Some(units) = self.units else {
            let headroom = Headroom::default();
            return Ok(Permit { charge: None, headroom, rule, nearest: None, units: 0, _hold: Some(hold) });
        };
        let refused = |retry_after, bucket| {
            // The day's units go back with the hold.
            let day =
                day.map(|day| Room { remaining: day.remaining.saturating_add(units.get()).min(day.quota), ..day });
            Refused { rule, kind: RefusedKind::Rate, retry_after, headroom: self.headroom(bucket, day) }
        };
        let Some(shape) = shape else { return Err(refused(None, None)) };
        let level =
            draw(units).map_err(|short| refused(short.wait.map(retry_after), Some(self.room(shape, short.level))))?;

        let bucket = self.room(shape, level);
        // Admitted: the units are spent.
        let spent = hold.places.daily.take();
        let rebuild = Duration::from_nanos(shape.fill()) >= WORTH_REBUILDING;
        let charge = spent.map(|(_, units)| Charge {
            key,
            refill_us: if rebuild { shape.interval.div_ceil(1_000) } else { 0 },
            units,
        });
        Ok(Permit {
            units: charge.map_or(0, |charge| charge.units),
            charge,
            headroom: self.headroom(Some(bucket), day),
            nearest: nearest((rule, bucket), day.map(|day| (bounds.daily.rule, day))),
            rule,
            _hold: Some(hold),
        })
    }

    fn headroom(&self, bucket: Option<Room>, day: Option<Room>) -> Headroom {
        Headroom { bucket, day, cost: self.units.unwrap_or(NonZeroU32::MIN) }
    }

    fn room(&self, shape: Shape, level: Level) -> Room {
        Room::bucket(self.draws.name(), shape, level)
    }
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
