//! How long calls took, as counts in fixed buckets: small enough to be kept for every minute, and sums of such counts are exact.

/// The buckets' upper bounds in milliseconds, each included; longer ones have the last bucket.
pub const BOUNDS_MS: [i64; BUCKETS - 1] =
    [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 60_000, 120_000, 300_000, 600_000];

/// How many buckets there are.
pub const BUCKETS: usize = 19;

/// The buckets' columns.
pub(super) const COLUMNS: [&str; BUCKETS] = [
    "ms_1",
    "ms_2",
    "ms_5",
    "ms_10",
    "ms_20",
    "ms_50",
    "ms_100",
    "ms_200",
    "ms_500",
    "ms_1000",
    "ms_2000",
    "ms_5000",
    "ms_10000",
    "ms_20000",
    "ms_60000",
    "ms_120000",
    "ms_300000",
    "ms_600000",
    "ms_more",
];

/// Calls by how long they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram(pub(super) [i64; BUCKETS]);

impl Histogram {
    /// Counts `calls` that took that long.
    pub fn count(&mut self, latency_ms: i64, calls: i64) {
        self.0[BOUNDS_MS.partition_point(|bound| *bound < latency_ms)] += calls;
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    /// The upper bound of the bucket in which the call lies that `percent` of all calls took no longer than. `None`: there are
    /// no calls, or it took longer than the last bound.
    #[must_use]
    pub fn percentile(&self, percent: u8) -> Option<i64> {
        let total: i64 = self.0.iter().sum();
        // The rank is counted from 1, and rounded up: of two calls, the median is the first.
        let rank = i128::from(total).saturating_mul(percent.into()).div_euclid(100)
            + i128::from(i128::from(total) * i128::from(percent) % 100 != 0);
        let mut seen = 0;
        let at = self.0.iter().position(|calls| {
            seen += i128::from(*calls);
            seen >= rank.max(1)
        });
        BOUNDS_MS.get(at?).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_percentile_is_the_bound_of_the_bucket_its_call_lies_in(
            mut latencies in prop::collection::vec(prop_oneof![0_i64..700_000, prop::sample::select(&BOUNDS_MS[..])], 1..200),
            percent in 1_u8..=100,
        ) {
            let mut histogram = Histogram::default();
            latencies.iter().for_each(|latency| histogram.count(*latency, 1));
            latencies.sort_unstable();
            let rank = (latencies.len() * usize::from(percent)).div_ceil(100).max(1);
            let exact = latencies[rank - 1];
            let bound = BOUNDS_MS.into_iter().find(|bound| exact <= *bound);
            prop_assert_eq!(histogram.percentile(percent), bound);
        }
    }

    #[test]
    fn no_calls_have_no_percentile_and_each_bucket_is_one_column() {
        assert_eq!(Histogram::default().percentile(50), None);
        let named = BOUNDS_MS.iter().map(|bound| format!("ms_{bound}")).chain(["ms_more".to_owned()]);
        assert!(named.eq(COLUMNS));
    }
}
