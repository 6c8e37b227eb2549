//! What is counted of the shared limits, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Why a node decides alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It has not met the server yet.
    Starting,
    /// No connection, or one that was lost.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// The server has forgotten what it was told, or begins to be told anew.
    Emptied,
    /// The server answers with an error.
    Failed,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Starting, Self::Unreachable, Self::Timeout, Self::Emptied, Self::Failed];

    /// Its word in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Emptied => "emptied",
            Self::Failed => "failed",
        }
    }

    /// What it means, for people.
    #[must_use]
    pub fn explain(self) -> &'static str {
        match self {
            Self::Starting => "the server of shared limits has not been reached yet",
            Self::Unreachable => "the server of shared limits cannot be reached",
            Self::Timeout => "the server of shared limits did not answer in time",
            Self::Emptied => "the server of shared limits was emptied and is being told anew",
            Self::Failed => "the server of shared limits answers with an error",
        }
    }
}

/// The upper bounds of the round trips' histogram, in microseconds.
pub const BOUNDS_US: [u64; 9] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000];

/// How long the server took to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundTrips {
    /// How many took up to each bound, and longer than the last.
    pub buckets: [u64; BOUNDS_US.len() + 1],
    /// All of them together.
    pub sum_us: u64,
}

/// How calls were decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// By the server.
    pub shared: u64,
    /// By the node alone, for each of [`Cause::ALL`].
    pub alone: [u64; Cause::ALL.len()],
    /// Each for a batch of calls.
    pub round_trips: RoundTrips,
}

/// The counters behind [`Counted`].
#[derive(Debug, Default)]
pub(super) struct Counts {
    shared: AtomicU64,
    alone: [AtomicU64; Cause::ALL.len()],
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Counts {
    pub(super) fn shared(&self, calls: u64, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS_US.len());
        self.shared.fetch_add(calls, Ordering::Relaxed);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(took, Ordering::Relaxed);
    }

    pub(super) fn alone(&self, cause: Cause) {
        self.alone[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counted {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counted {
            shared: read(&self.shared),
            alone: self.alone.each_ref().map(read),
            round_trips: RoundTrips { buckets: self.buckets.each_ref().map(read), sum_us: read(&self.sum_us) },
        }
    }
}
