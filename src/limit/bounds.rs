//! The limits that apply to one kind of caller now, resolved from the policy, the agent's own limits and the connection's.
//!
//! Where several say something, the connection wins, then the agent, then the tier; rate and burst are one limit. Numbers and
//! the rule ids they are known by in rows; keeps no counts.

use std::num::NonZeroU32;

use super::account::Draws;
use super::bucket::Shape;
use crate::policy::Policy;
use crate::store::rows::{AgentLimits, ConnectionLimits, LevelLimits};
use crate::trust::TrustLevel;

/// The period of an own rate that names none, in milliseconds.
const DEFAULT_PERIOD_MS: u64 = 60_000;

/// The id of the rule that admits what costs nothing.
pub(super) const FREE: &str = "free";
/// The id of the rule by which an agent has as many calls as it may have.
pub(super) const AGENT_IN_FLIGHT: &str = "agent.in_flight";
/// The id of the rule by which the gateway has as many calls as it may have.
pub(super) const GATEWAY_IN_FLIGHT: &str = "gateway.in_flight";
/// The id of the rule on requests that cost no unit.
pub(super) const ABUSE_SOURCE: &str = "abuse.source";
/// The id of the rule on credentials that are not valid.
pub(super) const ABUSE_CREDENTIALS: &str = "abuse.credentials";
/// The id of the rule on what strangers ask of the API.
pub(super) const ABUSE_API: &str = "abuse.api";

/// A limit and the id of the rule it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound<T> {
    pub(super) limit: T,
    pub(super) rule: &'static str,
}

/// The limits that apply to one kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// `None`: an own rate of 0, nothing passes.
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

/// The rule ids of limits of an agent's or a connection's own: rate, daily, streams, in flight.
type OwnRules = [&'static str; 4];

const AGENT_CONNECTED: OwnRules =
    ["agent.connected.rate", "agent.connected.daily", "agent.connected.streams", "agent.connected.in_flight"];
const AGENT_VERIFIED: OwnRules =
    ["agent.verified.rate", "agent.verified.daily", "agent.verified.streams", "agent.verified.in_flight"];
const AGENT_UNVERIFIED: OwnRules =
    ["agent.unverified.rate", "agent.unverified.daily", "agent.unverified.streams", "agent.unverified.in_flight"];
const CONNECTION: OwnRules = ["connection.rate", "connection.daily", "connection.streams", "connection.in_flight"];

impl Bounds {
    fn of(policy: &Policy, level: TrustLevel, [rate, reads, daily, streams, in_flight]: Rules) -> Self {
        let tier = policy.tier(level).expect("every level but `Blocked` has a tier");
        Self {
            work: Bound { limit: Some(tier.work.into()), rule: rate },
            reads: Bound { limit: tier.reads.into(), rule: reads },
            daily: Bound { limit: tier.daily, rule: daily },
            streams: Bound { limit: tier.streams, rule: streams },
            in_flight: Bound { limit: tier.in_flight, rule: in_flight },
        }
    }

    /// These limits with what `own` says in their place. An own rate without a burst admits one period's worth at once; without
    /// a period it is per minute; an own burst without a rate refills as before.
    fn with(mut self, own: &LevelLimits, [rate, daily, streams, in_flight]: OwnRules) -> Self {
        let LevelLimits { shared, in_flight: places } = own;
        let bucket = match (shared.rate, shared.burst) {
            (None, None) => None,
            (Some(calls), burst) => {
                let nanos = shared.period_ms.unwrap_or(DEFAULT_PERIOD_MS).saturating_mul(1_000_000);
                let interval = nanos.div_ceil(u64::from(calls.max(1)));
                let burst = NonZeroU32::new(calls).and(NonZeroU32::new(burst.unwrap_or(calls)));
                Some(burst.map(|burst| Shape::new(interval, burst)))
            }
            (None, Some(burst)) => {
                let before = self.work.limit;
                Some(before.zip(NonZeroU32::new(burst)).map(|(before, burst)| Shape::new(before.interval, burst)))
            }
        };
        if let Some(limit) = bucket {
            self.work = Bound { limit, rule: rate };
        }
        for (place, own, rule) in [
            (&mut self.daily, shared.daily, daily),
            (&mut self.streams, shared.streams, streams),
            (&mut self.in_flight, *places, in_flight),
        ] {
            if own.is_some() {
                *place = Bound { limit: own, rule };
            }
        }
        self
    }

    pub(super) fn verified(policy: &Policy, agent: &AgentLimits) -> Self {
        Self::of(policy, TrustLevel::Verified, VERIFIED).with(&agent.verified, AGENT_VERIFIED)
    }

    pub(super) fn unverified(policy: &Policy, agent: &AgentLimits) -> Self {
        Self::of(policy, TrustLevel::Unverified, UNVERIFIED).with(&agent.unverified, AGENT_UNVERIFIED)
    }

    pub(super) fn connection(policy: &Policy, agent: &AgentLimits, own: &ConnectionLimits) -> Self {
        Self::of(policy, TrustLevel::Connected, CONNECTED)
            .with(&agent.connected, AGENT_CONNECTED)
            .with(&LevelLimits { shared: *own, in_flight: None }, CONNECTION)
    }

    /// What a network source may ask for that costs no unit. The second bucket is for credentials that are not valid.
    pub(super) fn source(policy: &Policy, _: &AgentLimits) -> Self {
        let abuse = &policy.abuse;
        Self::buckets((abuse.source.into(), ABUSE_SOURCE), (abuse.credentials.into(), ABUSE_CREDENTIALS))
    }

    /// What strangers may ask of the API.
    pub(super) fn api(policy: &Policy, _: &AgentLimits) -> Self {
        let api = (policy.abuse.api.into(), ABUSE_API);
        Self::buckets(api, api)
    }

    fn buckets(work: (Shape, &'static str), reads: (Shape, &'static str)) -> Self {
        let none = Bound { limit: None, rule: work.1 };
        Self {
            work: Bound { limit: Some(work.0), rule: work.1 },
            reads: Bound { limit: reads.0, rule: reads.1 },
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
        Bounds::connection(&Policy::default(), &AgentLimits::default(), &own)
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
    fn the_connection_wins_over_the_agent_and_the_agent_over_the_tier() {
        let mut agent = AgentLimits::default();
        agent.connected.shared =
            ConnectionLimits { rate: Some(60), burst: Some(9), daily: Some(50), ..Default::default() };
        agent.connected.in_flight = Some(2);
        agent.verified.shared.streams = Some(1);
        agent.unverified.shared.burst = Some(3);
        let policy = Policy::default();

        let own = ConnectionLimits { burst: Some(4), streams: Some(7), ..Default::default() };
        let bounds = Bounds::connection(&policy, &agent, &own);
        assert_eq!(shape(&bounds), (1_000_000_000, 4), "the agent's rate, the connection's burst");
        let rules =
            [bounds.work.rule, bounds.daily.rule, bounds.streams.rule, bounds.in_flight.rule, bounds.reads.rule];
        let expected = [
            "connection.rate",
            "agent.connected.daily",
            "connection.streams",
            "agent.connected.in_flight",
            "tier.connected.reads",
        ];
        assert_eq!(rules, expected);
        let bounds = Bounds::connection(&policy, &agent, &ConnectionLimits::default());
        assert_eq!((shape(&bounds), bounds.work.rule), ((1_000_000_000, 9), "agent.connected.rate"));

        let bounds = Bounds::verified(&policy, &agent);
        assert_eq!(bounds.streams, Bound { limit: Some(1), rule: "agent.verified.streams" });
        assert_eq!((shape(&bounds), bounds.work.rule), ((60_000_000_000, 1), "tier.verified.rate"));
        assert_eq!(shape(&Bounds::unverified(&policy, &agent)), (300_000_000_000, 3));
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
