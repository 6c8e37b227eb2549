//! What an answer to "may this call pass now?" consists of: the question, the permit, the refusal.
//!
//! A permit gives back what it holds when it is dropped, whatever ends the call. A refusal holds nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::account::{Account, Slots};
use super::bounds::Bounds;
use super::direction::Direction;
use super::gate::{Gate, Through};
use super::headroom::Headroom;
use super::key::LimitKey;
use super::keyed::Keyed;
use super::shared::Changed;
use crate::a2a::Operation;
use crate::audit::record::{Charge, LimitLeft};

/// Whose limits a call is held to.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A caller with an accepted connection.
    Connected(&'a Arc<Direction>),
    /// A known caller without one.
    Verified {
        /// Who calls.
        caller: Uuid,
        /// Whom.
        target: Uuid,
    },
    /// An unknown caller.
    Anonymous {
        /// Whom it calls.
        target: Uuid,
        /// Where it calls from.
        source: IpAddr,
    },
}

impl Subject<'_> {
    /// The agent that is called.
    pub(super) fn target(&self) -> Uuid {
        match self {
            Self::Connected(direction) => direction.towards,
            Self::Verified { target, .. } | Self::Anonymous { target, .. } => *target,
        }
    }
}

/// May this call pass now?
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Whose limits it is held to.
    pub subject: Subject<'a>,
    /// What it does.
    pub operation: Operation,
    /// The gate of the agent it goes to.
    pub agent: &'a Arc<Gate>,
}

/// What a network source asks for that costs no unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// An agent card.
    Card,
    /// An address that leads nowhere.
    NotFound,
    /// A broken envelope.
    Envelope,
    /// A credential that is not valid.
    Credential,
    /// Something of the API, without a credential.
    Api,
    /// To be registered, without being an operator.
    Registration,
}

/// Which kind of limit refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedKind {
    /// The token bucket.
    Rate,
    /// The quota of the UTC day.
    Daily,
    /// As many streams are open as may be.
    Streams,
    /// As many of the caller's calls are in flight as may be.
    InFlight,
    /// The agent has as many calls as it may have, whoever made them.
    AgentBusy,
    /// The gateway has as many calls as it may have, whoever made them.
    GatewayBusy,
    /// The network source asked too often for what costs nothing.
    Abuse,
}

/// A call that may not pass now. It took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The id of the rule that decided.
    pub rule: &'static str,
    /// Which kind of limit it is.
    pub kind: RefusedKind,
    /// Whole seconds, at least 1, after which the same call passes if nothing else draws on the limit; `None` where nobody can
    /// know (slots are given back when calls end) or waiting does not help.
    pub retry_after: Option<Duration>,
    /// What is left.
    pub headroom: Headroom,
}

impl Refused {
    /// The limit that is in the way, and what is left of it: none of what is counted in places.
    #[must_use]
    pub fn limit(&self) -> LimitLeft {
        let room = match self.kind {
            RefusedKind::Rate | RefusedKind::Abuse => self.headroom.bucket,
            RefusedKind::Daily => self.headroom.day,
            RefusedKind::Streams | RefusedKind::InFlight | RefusedKind::AgentBusy | RefusedKind::GatewayBusy => None,
        };
        LimitLeft { name: self.rule, left: room.map_or(0, |room| room.remaining) }
    }
}

/// The places a call holds.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// How many streams were open once this one was.
    pub(super) stream: Option<Slots>,
    pub(super) in_flight: bool,
    /// Places behind the gates of the agent and of the gateway.
    pub(super) through: [Option<Through>; 2],
    /// The day and the units taken from it, until the call is admitted and they are spent.
    pub(super) daily: Option<(u32, u32)>,
}

impl Places {
    /// Gives everything back, once.
    pub(super) fn give_back(&mut self, account: &Account) {
        if self.stream.take().is_some() {
            account.give_stream_back();
        }
        if let Some((day, units)) = self.daily.take() {
            account.give_daily_back(day, units);
        }
        self.through = [None, None];
        // Last: while it is taken, the account cannot be swept away.
        if std::mem::take(&mut self.in_flight) {
            account.give_in_flight_back();
        }
    }
}

/// Where the account is that places were taken in.
#[derive(Debug)]
pub(super) enum Home {
    Direction(Arc<Direction>),
    Keyed(Arc<Keyed>, LimitKey),
}

/// Places and the account they go back to when this is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) home: Home,
    pub(super) places: Places,
    /// Where it is noted that the number of open streams has changed; `None` where nobody else has to know.
    pub(super) changed: Option<Arc<Changed>>,
}

impl Hold {
    /// Places just taken in the account at `home`.
    pub(super) fn new(home: Home, places: Places, changed: Option<&Arc<Changed>>) -> Self {
        let hold = Self { changed: changed.filter(|_| places.stream.is_some()).map(Arc::clone), home, places };
        hold.note_change();
        hold
    }

    /// Visits the account.
    pub(super) fn account<R>(&self, visit: impl FnOnce(&Account) -> R) -> Option<R> {
        match &self.home {
            Home::Direction(direction) => Some(visit(&direction.account)),
            Home::Keyed(keyed, key) => keyed.visit(key, visit),
        }
    }

    /// Visits the account with what holds for it now, and does so meanwhile.
    pub(super) fn account_and_bounds<R>(&self, visit: impl FnOnce(&Account, &Bounds) -> R) -> Option<R> {
        match &self.home {
            Home::Direction(direction) => Some(direction.visit(visit)),
            Home::Keyed(keyed, key) => keyed.visit_with_bounds(key, visit),
        }
    }

    /// The name of the account.
    pub(super) fn key(&self) -> LimitKey {
        match &self.home {
            Home::Direction(direction) => direction.key,
            Home::Keyed(_, key) => *key,
        }
    }

    fn note_change(&self) {
        if let Some(changed) = &self.changed {
            changed.note(self.key());
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut places = std::mem::take(&mut self.places);
        let found = self.account(|account| places.give_back(account));
        debug_assert!(found.is_some(), "an account with a call in flight is never swept");
        self.note_change();
    }
}

/// Proof that a call passed the limits; forwarding takes one. Dropping it gives back its stream slot and its places in flight.
/// Units are spent.
#[derive(Debug)]
#[must_use = "dropping a permit gives its places back"]
pub struct Permit {
    pub(super) charge: Option<Charge>,
    pub(super) headroom: Headroom,
    pub(super) rule: &'static str,
    pub(super) nearest: Option<LimitLeft>,
    pub(super) units: u32,
    /// `None` for what costs and holds nothing.
    pub(super) _hold: Option<Hold>,
}

impl Permit {
    /// The permit of a call that costs nothing, and holds what `hold` holds.
    pub(super) fn free_of_units(rule: &'static str, hold: impl Into<Option<Hold>>) -> Self {
        let headroom = Headroom::default();
        Self { charge: None, headroom, rule, nearest: None, units: 0, _hold: hold.into() }
    }

    /// What a restart must remember of the call; `None` for what costs no unit.
    #[must_use]
    pub fn charge(&self) -> Option<Charge> {
        self.charge
    }

    /// Units charged: 0 for reads and for what is free.
    #[must_use]
    pub fn units(&self) -> u32 {
        self.units
    }

    /// What is left after this call.
    #[must_use]
    pub fn headroom(&self) -> Headroom {
        self.headroom
    }

    /// The limit that the call left least of, in proportion; `None` where it drew on none.
    #[must_use]
    pub fn nearest(&self) -> Option<LimitLeft> {
        self.nearest
    }

    /// The id of the rule that admitted the call.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        self.rule
    }
}
