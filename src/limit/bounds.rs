//! The limits that apply to one kind of caller now, resolved from the policy and a connection's own limits.
//!
//! Numbers and the rule ids they are known by in rows; keeps no counts.

use std::num::NonZeroU32;

use super::account::Draws;
use super::bucket::Shape;
use crate::policy::{Policy, Tier};
use crate::store::rows::ConnectionLimits;
use crate::trust::TrustLevel;

/// The period of a connection's own rate where it names none, in milliseconds.
const DEFAULT_PERIOD_MS: u64 = 60_000;

/// The id of the rule that admits what costs nothing.
pub(super) const FREE: &str = "free";
/// The id of the rule by which an agent has as many calls as it may have.
pub(super) const AGENT_IN_FLIGHT: &str = "agent.in_flight";
/// The id of the rule on requests that cost no unit.
pub(super) const ABUSE_SOURCE: &str = "abuse.source";
/// The id of the rule on credentials that are not valid.
pub(super) const ABUSE_CREDENTIALS: &str = "abuse.credentials";

/// A limit and the id of the rule it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound<T> {
    pub(super) limit: T,
    pub(super) rule: &'static str,
}

/// The limits that apply to one kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// `None`: a connection whose own rate is 0, nothing passes.
    pub(super) work: Bound<Option<Shape>>,
    pub(super) reads: Bound<Shape>,
    pub(super) daily: Bound<Option<u32>>,
    pub(super) streams: Bound<Option<u32>>,
    pub(super) in_flight: Bound<Option<u32>>,
}

/// The rule ids of one tier, in the order of [`Bounds`].
type Rules = [&'static str; 5];

const CONNECTED: Rules = [
    "tier.connected.rate",
    "tier.connected.reads",
    "tier.connected.daily",
    "tier.connected.streams",
    "tier.connected.in_flight",
];
const VERIFIED: Rules = [
    "tier.verified.rate",
    "tier.verified.reads",
    "tier.verified.daily",
    "tier.verified.streams",
    "tier.verified.in_flight",
];
const UNVERIFIED: Rules = [
    "tier.unverified.rate",
    "tier.unverified.reads",
    "tier.unverified.daily",
    "tier.unverified.streams",
    "tier.unverified.in_flight",
];

impl Bounds {
    fn of(tier: &Tier, [rate, reads, daily, streams, in_flight]: Rules) -> Self {
        Self {
            work: Bound { limit: Some(tier.work.into()), rule: rate },
            reads: Bound { limit: tier.reads.into(), rule: reads },
            daily: Bound { limit: tier.daily, rule: daily },
            streams: Bound { limit: tier.streams, rule: streams },
            in_flight: Bound { limit: tier.in_flight, rule: in_flight },
        }
    }

    fn tier(policy: &Policy, level: TrustLevel) -> &Tier {
        policy.tier(level).expect("every level but `Blocked` has a tier")
    }

    pub(super) fn verified(policy: &Policy) -> Self {
        Self::of(Self::tier(policy, TrustLevel::Verified), VERIFIED)
    }

    pub(super) fn unverified(policy: &Policy) -> Self {
        Self::of(Self::tier(policy, TrustLevel::Unverified), UNVERIFIED)
    }

    /// A connection's limits: its own where it has any. An own rate without a burst admits one period's worth at once; without
    /// a period it is per minute.
    pub(super) fn connection(policy: &Policy, own: &ConnectionLimits) -> Self {
        let tier = Self::tier(policy, TrustLevel::Connected);
        let mut bounds = Self::of(tier, CONNECTED);
        if own.rate.is_some() || own.burst.is_some() {
            let (calls, interval) = match own.rate {
                Some(calls) => {
                    let nanos = own.period_ms.unwrap_or(DEFAULT_PERIOD_MS).saturating_mul(1_000_000);
                    (NonZeroU32::new(calls), nanos.div_ceil(u64::from(calls.max(1))))
                }
                None => (Some(tier.work.burst), tier.work.rate.interval_nanos()),
            };
            let burst = own.burst.map_or(calls, NonZeroU32::new);
            let shape = calls.and(burst).map(|burst| Shape::new(interval, burst));
            bounds.work = Bound { limit: shape, rule: "connection.rate" };
        }
        if own.daily.is_some() {
            bounds.daily = Bound { limit: own.daily, rule: "connection.daily" };
        }
        if own.streams.is_some() {
            bounds.streams = Bound { limit: own.streams, rule: "connection.streams" };
        }
        bounds
    }

    /// What a network source may ask for that costs no unit. The second bucket is for credentials that are not valid.
    pub(super) fn source(policy: &Policy) -> Self {
        let none = Bound { limit: None, rule: ABUSE_SOURCE };
        Self {
            work: Bound { limit: Some(policy.abuse.source.into()), rule: ABUSE_SOURCE },
            reads: Bound { limit: policy.abuse.credentials.into(), rule: ABUSE_CREDENTIALS },
            daily: none,
            streams: none,
            in_flight: none,
        }
    }

    /// The bucket that `draws` names.
    pub(super) fn bucket(&self, draws: Draws) -> Bound<Option<Shape>> {
        match draws {
            Draws::Work => self.work,
            Draws::Reads => Bound { limit: Some(self.reads.limit), rule: self.reads.rule },
        }
    }

    /// The shape of the bucket that `draws` names; a closed one is kept as the smallest there is, and never drawn from.
    pub(super) fn shape(&self, draws: Draws) -> Shape {
        self.bucket(draws).limit.unwrap_or_else(|| Shape::new(u64::MAX, NonZeroU32::MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(own: ConnectionLimits) -> Bounds {
        Bounds::connection(&Policy::default(), &own)
    }

    fn shape(bounds: &Bounds) -> (u64, u32) {
        let shape = bounds.work.limit.expect("open");
        (shape.interval, shape.burst.get())
    }

    #[test]
    fn a_connection_without_limits_of_its_own_has_its_tiers() {
        let bounds = connection(ConnectionLimits::default());
        assert_eq!(shape(&bounds), (200_000_000, 300));
        assert_eq!((bounds.work.rule, bounds.daily.rule), ("tier.connected.rate", "tier.connected.daily"));
    }

    #[test]
    fn a_connections_own_limits_win_and_are_named_as_its_own() {
        let own = ConnectionLimits { rate: Some(6), daily: Some(7), streams: Some(1), ..Default::default() };
        let bounds = connection(own);
        assert_eq!(shape(&bounds), (10_000_000_000, 6), "per minute, a period's worth at once");
        assert_eq!(bounds.daily, Bound { limit: Some(7), rule: "connection.daily" });
        assert_eq!(bounds.streams, Bound { limit: Some(1), rule: "connection.streams" });
        assert_eq!(bounds.work.rule, "connection.rate");
        assert_eq!(bounds.reads.rule, "tier.connected.reads");

        let own = ConnectionLimits { rate: Some(1), period_ms: Some(300_000), burst: Some(2), ..Default::default() };
        assert_eq!(shape(&connection(own)), (300_000_000_000, 2));
        let own = ConnectionLimits { burst: Some(10), ..Default::default() };
        assert_eq!(shape(&connection(own)), (200_000_000, 10));
    }

    #[test]
    fn a_rate_or_burst_of_0_closes_the_connection_for_work() {
        for own in [
            ConnectionLimits { rate: Some(0), ..Default::default() },
            ConnectionLimits { rate: Some(0), burst: Some(5), ..Default::default() },
            ConnectionLimits { burst: Some(0), ..Default::default() },
        ] {
            assert_eq!(connection(own).work, Bound { limit: None, rule: "connection.rate" });
        }
    }
}
