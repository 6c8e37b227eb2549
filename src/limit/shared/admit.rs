//! A call whose limits are shared: what can be given back here is taken here, the rest is the server's to decide.
//!
//! No lock is held while the server is asked: limits that change meanwhile apply from the next call on.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::link::{Link, Order, day_of};
use super::script::{Answer, Question, Verdict, interval};
use crate::clock::Timestamp;
use crate::limit::Limits;
use crate::limit::account::{Account, Daily, Draws, Now};
use crate::limit::admit::{Call, full, rate};
use crate::limit::bounds::Bounds;
use crate::limit::bucket::{Parts, Shape, Short};
use crate::limit::key::{Grain, LimitKey, Name};
use crate::limit::keyed::Keyed;
use crate::limit::permit::{Ask, Home, Permit, Places, Refused, RefusedKind, Subject};

impl Limits {
    /// As [`Limits::admit`], by the counts that all nodes share as long as they can be reached.
    ///
    /// # Errors
    /// The limit that is in the way; nothing stays taken.
    pub async fn admit_shared(&self, ask: &Ask<'_>, link: &Link) -> Result<Permit, Refused> {
        let node = &link.node;
        if !node.is_shared() {
            node.counts.alone(node.cause());
            return self.admit(ask);
        }
        let Some((call, bounds, order)) = self.order(ask)? else { return self.admit(ask) };
        match link.decide(order).await {
            Ok((order, answer)) => call.answered(order, &bounds, &answer),
            Err(cause) => {
                node.counts.alone(cause);
                self.admit(ask)
            }
        }
    }

    /// What to ask the server; `None` where there is nothing to ask.
    fn order<'a>(&'a self, ask: &'a Ask<'a>) -> Result<Option<(Call<'a>, Bounds, Order)>, Refused> {
        let edition = self.edition.load();
        // By the server's counts there are no parts.
        let Some(call) = self.call(ask, &edition).map(|call| Call { parts: Parts::WHOLE, ..call }) else {
            return Ok(None);
        };
        let (bounds, order) = match ask.subject {
            Subject::Connected(direction) => {
                let bounds = direction.in_force(&edition).bounds;
                let taken = call.take_to_ask(&direction.account, &bounds);
                (bounds, call.order(taken, Home::Direction(Arc::clone(direction))))
            }
            Subject::Verified { caller, target } => {
                call.order_keyed(&self.verified, |grain| self.namer.verified_at(grain, caller, target))
            }
            Subject::Anonymous { target, source } => {
                call.order_keyed(&self.anonymous, |grain| self.namer.anonymous_at(grain, target, source))
            }
        };
        Ok(order?.map(|order| (call, bounds, order)))
    }
}

impl Call<'_> {
    fn order_keyed(
        &self,
        keyed: &Arc<Keyed>,
        name_of: impl Fn(Grain) -> Name,
    ) -> (Bounds, Result<Option<Order>, Refused>) {
        let table = keyed.table();
        let (found, taken) =
            keyed.enter(name_of, &table, self.now, |account, in_force| self.take_to_ask(account, &in_force.bounds));
        (found.in_force.bounds, self.order(taken, Home::Keyed(Arc::clone(keyed), found.key)))
    }

    fn order(&self, taken: Result<Option<(Places, Question)>, Refused>, home: Home) -> Result<Option<Order>, Refused> {
        Ok(taken?.map(|(places, question)| {
            let hold = self.hold(home, places);
            Order { question: Question { key: hold.key(), ..question }, hold }
        }))
    }

    /// Takes the places, and says what is to be asked for the rest; nothing where the node can tell by itself.
    fn take_to_ask(&self, account: &Account, bounds: &Bounds) -> Result<Option<(Places, Question)>, Refused> {
        let shape = match (bounds.bucket(self.draws).limit, self.units) {
            (Some(shape), Some(units)) if units <= shape.burst => shape,
            // Never passes.
            (_, Some(_)) => return Ok(None),
            (_, None) if self.ask.operation.streams() => bounds.shape(self.draws),
            (_, None) => return Ok(None),
        };
        let places = self.take_places(account, bounds, bounds.streams.limit)?;
        // First: what is charged alone meanwhile is owed anew.
        let (owed, cell) = account.tell(self.draws);
        let day = (self.draws == Draws::Work && self.units.is_some()).then(|| {
            let Daily { day, used } = account.daily(self.now.day());
            (bounds.daily.limit, day, used)
        });
        let question = Question {
            key: LimitKey::default(),
            draws: self.draws,
            shape,
            units: self.units.map_or(0, NonZeroU32::get),
            full_in: cell.saturating_sub(self.now.nanos).div_ceil(1_000),
            owed,
            day,
            stream: places.stream.map(|slots| (slots, bounds.streams.limit)),
        };
        Ok(Some((places, question)))
    }

    /// What the server's answer is to the caller. Days are counted by the server's clock.
    fn answered(self, order: Order, bounds: &Bounds, answer: &Answer) -> Result<Permit, Refused> {
        let call = Call { now: Now { wall: Timestamp(answer.now), ..self.now }, ..self };
        let Order { question, hold } = order;
        let shape = Shape::new(interval(question.shape) * 1_000, question.shape.burst);
        let nanos = |micros: u64| micros.saturating_mul(1_000);
        let level = shape.level(call.now.nanos.saturating_add(nanos(answer.full_in)), call.now.nanos);
        let daily = Daily { day: day_of(answer.now), used: answer.used };
        let room = || bounds.daily.limit.filter(|_| question.day.is_some()).map(|limit| call.day(limit, daily));
        let rule = bounds.bucket(call.draws).rule;
        match answer.verdict {
            Verdict::Passes if question.units == 0 => Ok(Permit::free_of_units(rule, hold)),
            Verdict::Passes => Ok(call.permit(hold, bounds, (shape, level), room())),
            Verdict::Streams => Err(full(RefusedKind::Streams, bounds.streams.rule)),
            Verdict::Day => {
                let short = Short { wait: Some(nanos(answer.wait)), level };
                Err(call.day_is_used(bounds, daily, Some((shape, short))))
            }
            Verdict::Bucket => {
                let headroom = call.headroom(Some(call.room(shape, level)), room());
                Err(rate(rule, Some(nanos(answer.wait)), headroom))
            }
        }
    }
}
