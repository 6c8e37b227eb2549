//! Counts of calls for `/metrics`: each worker keeps its own, whoever asks adds them up.
//!
//! Promises: a call costs a look-up and a few additions in memory that no other worker writes; whoever reads takes the lock of
//! that memory for a moment, and nobody else does. What is counted by is bounded: the agents that are registered, operations,
//! outcomes and reasons of fixed sets. Knows no text format and no HTTP.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use foldhash::fast::RandomState;
use uuid::Uuid;

use crate::a2a::Operation;
use crate::audit::record::{Decision, Ending};

/// What is counted by, in the order of the enum.
pub const OPERATIONS: [Operation; 13] = [
    Operation::SendMessage,
    Operation::SendStreamingMessage,
    Operation::GetTask,
    Operation::ListTasks,
    Operation::CancelTask,
    Operation::SubscribeToTask,
    Operation::CreateTaskPushNotificationConfig,
    Operation::GetTaskPushNotificationConfig,
    Operation::ListTaskPushNotificationConfigs,
    Operation::DeleteTaskPushNotificationConfig,
    Operation::GetExtendedAgentCard,
    Operation::GetAgentCard,
    Operation::Unknown,
];

/// What is counted by, in the order of the enum.
pub const ENDINGS: [Ending; 7] = [
    Ending::Completed,
    Ending::AgentError,
    Ending::ClientGone,
    Ending::AgentGone,
    Ending::Timeout,
    Ending::Interrupted,
    Ending::Refused,
];

/// The decisions, in the order they are kept in.
pub const DECISIONS: [Decision; 2] = [Decision::Allowed, Decision::Refused];

/// Upper bounds of durations, in milliseconds; what is longer is in one more bucket.
pub const BOUNDS_MS: [u32; 15] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000, 30_000, 120_000, 600_000];

/// What a duration is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Something is asked of an agent.
    Work,
    /// Something is read.
    Read,
    /// Events follow one another.
    Stream,
    /// A card, answered by the gateway.
    Card,
}

impl Class {
    /// Every class, in the order of the enum.
    pub const ALL: [Self; 4] = [Self::Work, Self::Read, Self::Stream, Self::Card];

    fn of(operation: Operation) -> Self {
        match operation {
            Operation::GetAgentCard | Operation::GetExtendedAgentCard => Self::Card,
            _ if operation.streams() => Self::Stream,
            Operation::GetTask
            | Operation::ListTasks
            | Operation::GetTaskPushNotificationConfig
            | Operation::ListTaskPushNotificationConfigs => Self::Read,
            _ => Self::Work,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Read => "read",
            Self::Stream => "stream",
            Self::Card => "card",
        }
    }
}

/// A call that is over.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// The registered agent that was called.
    pub target: Option<Uuid>,
    /// What was asked for.
    pub operation: Operation,
    /// Whether it was let through.
    pub decision: Decision,
    /// How it ended.
    pub ending: Ending,
    /// Why it was refused, or ended as it did.
    pub reason: Option<&'static str>,
    /// From arrival to the end.
    pub latency_ms: u32,
    /// From arrival to the agent's first byte.
    pub ttfb_ms: Option<u32>,
    /// Of the body.
    pub request_bytes: u64,
    /// Of the body.
    pub response_bytes: u64,
}

/// How many calls to one agent, by operation, decision and outcome.
#[derive(Debug, Default)]
struct Calls([[[AtomicU64; ENDINGS.len()]; DECISIONS.len()]; OPERATIONS.len()]);

impl Calls {
    fn count(&self, call: &Ended) {
        let decision = usize::from(call.decision == Decision::Refused);
        self.0[call.operation as usize][decision][call.ending as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn each(&self, agent: Option<Uuid>, tell: &mut impl FnMut(CallCount)) {
        for (operation, decisions) in OPERATIONS.into_iter().zip(&self.0) {
            for (decision, endings) in DECISIONS.into_iter().zip(decisions) {
                for (ending, count) in ENDINGS.into_iter().zip(endings) {
                    let calls = count.load(Ordering::Relaxed);
                    if calls > 0 {
                        tell(CallCount { agent, operation, decision, ending, calls });
                    }
                }
            }
        }
    }
}

/// How many calls of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // as in `Ended`
pub struct CallCount {
    pub agent: Option<Uuid>,
    pub operation: Operation,
    pub decision: Decision,
    pub ending: Ending,
    pub calls: u64,
}

/// Durations in buckets.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_ms: AtomicU64,
}

impl Histogram {
    fn note(&self, ms: u32) {
        let bucket = BOUNDS_MS.partition_point(|bound| *bound < ms);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_ms.fetch_add(u64::from(ms), Ordering::Relaxed);
    }
}

/// Durations added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// One more than there are bounds; each counts what is in it alone.
    pub buckets: [u64; BOUNDS_MS.len() + 1],
    /// All of them together.
    pub sum_ms: u64,
}

/// The counts of one worker.
#[derive(Debug, Default)]
pub struct Meter {
    agents: DashMap<Uuid, Box<Calls>, RandomState>,
    nobody: Calls,
    reasons: DashMap<&'static str, u64, RandomState>,
    latency: [Histogram; Class::ALL.len()],
    first_byte: [Histogram; Class::ALL.len()],
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
}

impl Meter {
    /// Counts a call.
    pub fn ended(&self, call: &Ended) {
        match call.target {
            None => self.nobody.count(call),
            Some(agent) => match self.agents.get(&agent) {
                Some(calls) => calls.count(call),
                None => self.agents.entry(agent).or_default().count(call),
            },
        }
        if let Some(reason) = call.reason {
            *self.reasons.entry(reason).or_default() += 1;
        }
        let class = Class::of(call.operation) as usize;
        self.latency[class].note(call.latency_ms);
        if let Some(ms) = call.ttfb_ms {
            self.first_byte[class].note(ms);
        }
        self.request_bytes.fetch_add(call.request_bytes, Ordering::Relaxed);
        self.response_bytes.fetch_add(call.response_bytes, Ordering::Relaxed);
    }

    /// Forgets agents that are gone.
    pub fn retain(&self, mut there: impl FnMut(Uuid) -> bool) {
        self.agents.retain(|agent, _| there(*agent));
    }
}

/// The counts of all workers.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Calls by agent, operation, decision and outcome; those there were none of are left out.
    pub calls: Vec<CallCount>,
    /// Why calls were refused or ended as they did.
    pub reasons: Vec<(&'static str, u64)>,
    /// From arrival to the end, by [`Class`].
    pub latency: [Durations; Class::ALL.len()],
    /// From arrival to the agent's first byte, by [`Class`].
    pub first_byte: [Durations; Class::ALL.len()],
    /// Bodies of requests.
    pub request_bytes: u64,
    /// Bodies of answers.
    pub response_bytes: u64,
}

/// Adds up what all workers counted.
#[must_use]
pub fn totals<'a>(meters: impl IntoIterator<Item = &'a Meter>) -> Totals {
    let mut totals = Totals::default();
    let mut calls: std::collections::HashMap<(Option<Uuid>, usize, usize, usize), CallCount> = Default::default();
    let mut reasons: std::collections::BTreeMap<&'static str, u64> = Default::default();
    for meter in meters {
        let mut add = |count: CallCount| {
            let key = (count.agent, count.operation as usize, count.decision as usize, count.ending as usize);
            calls.entry(key).and_modify(|sum| sum.calls += count.calls).or_insert(count);
        };
        meter.nobody.each(None, &mut add);
        for agent in &meter.agents {
            agent.value().each(Some(*agent.key()), &mut add);
        }
        for reason in &meter.reasons {
            *reasons.entry(*reason.key()).or_default() += *reason.value();
        }
        for (sums, histograms) in [(&mut totals.latency, &meter.latency), (&mut totals.first_byte, &meter.first_byte)] {
            for (sum, histogram) in sums.iter_mut().zip(histograms) {
                for (bucket, count) in sum.buckets.iter_mut().zip(&histogram.buckets) {
                    *bucket += count.load(Ordering::Relaxed);
                }
                sum.sum_ms += histogram.sum_ms.load(Ordering::Relaxed);
            }
        }
        totals.request_bytes += meter.request_bytes.load(Ordering::Relaxed);
        totals.response_bytes += meter.response_bytes.load(Ordering::Relaxed);
    }
    totals.calls = calls.into_values().collect();
    totals
        .calls
        .sort_by_key(|count| (count.agent, count.operation as usize, count.decision as usize, count.ending as usize));
    totals.reasons = reasons.into_iter().collect();
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(target: Option<Uuid>, latency_ms: u32) -> Ended {
        Ended {
            target,
            operation: Operation::GetTask,
            decision: Decision::Allowed,
            ending: Ending::Completed,
            reason: None,
            latency_ms,
            ttfb_ms: Some(latency_ms),
            request_bytes: 3,
            response_bytes: 5,
        }
    }

    #[test]
    fn every_operation_and_outcome_has_a_place_of_its_own() {
        for (at, operation) in OPERATIONS.into_iter().enumerate() {
            assert_eq!(operation as usize, at, "{operation:?}");
        }
        for (at, ending) in ENDINGS.into_iter().enumerate() {
            assert_eq!(ending as usize, at, "{ending:?}");
        }
        assert_eq!(Operation::Unknown as usize + 1, OPERATIONS.len());
        assert_eq!(Ending::Refused as usize + 1, ENDINGS.len());
        for (at, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, at);
        }
    }

    #[test]
    fn a_duration_is_in_the_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::default();
        for ms in [0, 1, 2, 3, 600_000, 600_001] {
            histogram.note(ms);
        }
        let counts = histogram.buckets.each_ref().map(|count| count.load(Ordering::Relaxed));
        assert_eq!((counts[0], counts[1], counts[2]), (2, 1, 1), "0 and 1; 2; 3");
        assert_eq!((counts[14], counts[15]), (1, 1), "the last bound and what is longer");
        assert_eq!(counts.iter().sum::<u64>(), 6);
        assert_eq!(histogram.sum_ms.load(Ordering::Relaxed), 1_200_007);
    }

    #[test]
    fn what_workers_counted_is_added_up_and_agents_that_are_gone_are_forgotten() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let meters = [Meter::default(), Meter::default()];
        for (meter, target) in [(0, Some(one)), (0, Some(one)), (1, Some(one)), (1, Some(other)), (1, None)] {
            meters[meter].ended(&ended(target, 7));
        }
        meters[0].ended(&Ended {
            decision: Decision::Refused,
            ending: Ending::Refused,
            reason: Some("rate_limited"),
            ttfb_ms: None,
            ..ended(Some(one), 0)
        });
        let sums = totals(&meters);
        let of = |agent, ending| {
            sums.calls
                .iter()
                .filter(|count| count.agent == agent && count.ending == ending)
                .map(|count| count.calls)
                .sum::<u64>()
        };
        assert_eq!((of(Some(one), Ending::Completed), of(Some(one), Ending::Refused)), (3, 1));
        assert_eq!((of(Some(other), Ending::Completed), of(None, Ending::Completed)), (1, 1));
        assert_eq!(sums.reasons, [("rate_limited", 1)]);
        let reads = Class::Read as usize;
        assert_eq!(sums.latency[reads].buckets.iter().sum::<u64>(), 6);
        assert_eq!(sums.first_byte[reads].buckets.iter().sum::<u64>(), 5);
        assert_eq!((sums.latency[reads].sum_ms, sums.request_bytes, sums.response_bytes), (35, 18, 30));

        meters.iter().for_each(|meter| meter.retain(|agent| agent == other));
        assert!(totals(&meters).calls.iter().all(|count| count.agent != Some(one)));
    }
}
