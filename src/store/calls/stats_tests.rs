//! The sums are those of the rows, whatever came when and whatever is asked.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::*;
use crate::audit::journal::entry::Draft;
use crate::store::calls::DrainBatch;
use crate::store::rows::CallRow;
use crate::store::sql::query;
use crate::store::testing::{TestStore, on_each_database};

const NODE: Uuid = Uuid::from_u128(5);
const MINUTE: i64 = 60_000_000;
const DAY: i64 = 24 * 60 * MINUTE;
/// 2023-11-14T22:00:00Z.
const HOUR: i64 = 1_699_999_200_000_000;

on_each_database!(
    sums_are_those_of_the_rows_whatever_came_when_and_whatever_is_asked,
    a_batch_that_is_not_committed_is_not_summed,
    damage_is_no_call,
    minutes_go_and_hours_stay,
);

/// A call within three days, most of them within two hours: the drain sees late ones, too.
fn call() -> impl Strategy<Value = CallRow> {
    let at = prop_oneof![4 => 0..2 * 60 * MINUTE, 1 => -24 * 60 * MINUTE..48 * 60 * MINUTE];
    let who =
        (prop::option::of(1_u128..4), prop::option::of(1_u128..4), prop::sample::select(vec!["verified", "connected"]));
    let how = prop::sample::select(vec![
        ("allowed", "completed", None),
        ("allowed", "interrupted", Some("revoked")),
        ("refused", "refused", Some("rate_limited")),
        ("refused", "refused", Some("agent_not_found")),
    ]);
    (at, who, how, 0_i64..700_000, 1_i64..50, 0_i64..9, any::<bool>()).prop_map(
        |(at, (caller, target, level), (decision, outcome, reason), latency_ms, calls, bytes, other_node)| CallRow {
            called_at: Timestamp(HOUR + at),
            caller_agent_id: caller.map(Uuid::from_u128),
            target_agent_id: target.map(Uuid::from_u128),
            trust_level: level.to_owned(),
            decision: decision.to_owned(),
            outcome: outcome.to_owned(),
            reason: reason.map(str::to_owned),
            latency_ms,
            calls: if decision == "refused" { calls } else { 1 },
            request_bytes: bytes,
            response_bytes: 2 * bytes,
            node_id: if other_node { Uuid::from_u128(6) } else { NODE },
            ..Draft::new(NODE).row
        },
    )
}

/// A question about some of that time.
fn question() -> impl Strategy<Value = StatsQuery> {
    let from = -25 * 60..49 * 60_i64;
    let by = prop::sample::subsequence(vec![Dimension::Caller, Dimension::Target, Dimension::Level], 0..=3);
    let bucket = prop::sample::select(vec![Bucket::Whole, Bucket::Minute, Bucket::Hour, Bucket::Day]);
    let filter = prop_oneof![
        Just(CallFilter::default()),
        Just(CallFilter { agent: Some(Uuid::from_u128(1)), ..CallFilter::default() }),
        Just(CallFilter { pair: Some([1, 2].map(Uuid::from_u128)), ..CallFilter::default() }),
        Just(CallFilter {
            target: Some(Uuid::from_u128(2)),
            known_to: Some(Uuid::from_u128(1)),
            ..CallFilter::default()
        }),
        Just(CallFilter { reason: Some("rate_limited".to_owned()), ..CallFilter::default() }),
    ];
    (from.clone(), from, by, bucket, filter).prop_map(|(one, other, by, bucket, filter)| StatsQuery {
        filter,
        range: Timestamp(HOUR + one.min(other) * MINUTE)..Timestamp(HOUR + one.max(other) * MINUTE),
        by,
        bucket,
    })
}

type Sums = BTreeMap<String, (i64, i64, i64, [i64; histogram::BUCKETS])>;

fn name(sums: &CallSums) -> String {
    let CallSums { starts_at, caller, target, trust_level, decision, outcome, reason, .. } = sums;
    format!("{starts_at} {caller:?} {target:?} {trust_level:?} {decision} {outcome} {reason:?}")
}

fn added(all: impl IntoIterator<Item = CallSums>) -> Sums {
    let mut sums = Sums::new();
    for one in all {
        let sum = sums.entry(name(&one)).or_default();
        sum.0 += one.calls;
        sum.1 += one.request_bytes;
        sum.2 += one.response_bytes;
        sum.3.iter_mut().zip(one.latency.0).for_each(|(sum, calls)| *sum += calls);
    }
    sums
}

/// What the rows themselves say.
fn expected(rows: &[CallRow], asked: &StatsQuery) -> Sums {
    let length = match asked.bucket {
        Bucket::Whole => i64::MAX,
        Bucket::Minute => MINUTE,
        Bucket::Hour => 60 * MINUTE,
        Bucket::Day => 24 * 60 * MINUTE,
    };
    let by = |dimension| asked.by.contains(&dimension);
    added(rows.iter().filter(|row| asked.range.contains(&row.called_at) && asked.filter.selects(row)).map(|row| {
        let mut latency = Histogram::default();
        latency.count(row.latency_ms, row.calls);
        CallSums {
            starts_at: match asked.bucket {
                Bucket::Whole => asked.range.start,
                _ => Timestamp(row.called_at.0 - row.called_at.0 % length),
            },
            caller: row.caller_agent_id.filter(|_| by(Dimension::Caller)),
            target: row.target_agent_id.filter(|_| by(Dimension::Target)),
            trust_level: by(Dimension::Level).then(|| row.trust_level.clone()),
            decision: row.decision.clone(),
            outcome: row.outcome.clone(),
            reason: row.reason.clone(),
            calls: row.calls,
            request_bytes: row.request_bytes,
            response_bytes: row.response_bytes,
            latency,
        }
    }))
}

/// Numbers rows as the drain does, those of each node for themselves.
fn numbered(mut rows: Vec<CallRow>, ends: &mut BTreeMap<Uuid, i64>) -> Vec<CallRow> {
    for row in &mut rows {
        let end = ends.entry(row.node_id).or_default();
        *end += 1;
        row.seq = *end;
    }
    rows
}

mod suite {
    use super::*;

    pub(super) async fn sums_are_those_of_the_rows_whatever_came_when_and_whatever_is_asked(test: &TestStore) {
        let mut runner = TestRunner::deterministic();
        let (mut all, mut ends) = (Vec::new(), BTreeMap::new());
        for _ in 0..8 {
            let batch = prop::collection::vec(call(), 0..150).new_tree(&mut runner).expect("a batch").current();
            let rows = numbered(batch, &mut ends);
            all.extend(rows.iter().cloned());
            test.store.commit_drained(&DrainBatch { rows, ..DrainBatch::default() }).await.expect("commit");
            for _ in 0..15 {
                let asked = question().new_tree(&mut runner).expect("a question").current();
                let found = test.store.call_stats(&asked, 100_000).await.expect("sums");
                assert_eq!(added(found), expected(&all, &asked), "{asked:?}");
            }
        }
        // Each node has sums of its own: none waits for the commit of another.
        let nodes = query("SELECT count(DISTINCT node_id) FROM call_rollups").number(&test.store.reader).await;
        assert_eq!(nodes.expect("a number"), 2);
    }

    pub(super) async fn a_batch_that_is_not_committed_is_not_summed(test: &TestStore) {
        let row = CallRow { seq: 1, called_at: Timestamp(HOUR), calls: 1, ..Draft::new(NODE).row };
        let batch = DrainBatch { rows: vec![row.clone()], ..DrainBatch::default() };
        let day = StatsQuery {
            filter: CallFilter::default(),
            range: Timestamp(HOUR)..Timestamp(HOUR + MINUTE),
            by: Vec::new(),
            bucket: Bucket::Whole,
        };
        test.store.commit_drained(&batch).await.expect("commit");
        assert!(test.store.commit_drained(&batch).await.is_err(), "a seq is taken once");
        let found = test.store.call_stats(&day, 10).await.expect("sums");
        assert_eq!(added(found), expected(&[row], &day));
    }

    pub(super) async fn damage_is_no_call(test: &TestStore) {
        let row = CallRow {
            seq: 1,
            called_at: Timestamp(HOUR),
            decision: "gap".to_owned(),
            calls: 7,
            ..Draft::new(NODE).row
        };
        test.store.commit_drained(&DrainBatch { rows: vec![row], ..DrainBatch::default() }).await.expect("commit");
        let asked = StatsQuery {
            filter: CallFilter::default(),
            range: Timestamp(HOUR)..Timestamp(HOUR + MINUTE),
            by: Vec::new(),
            bucket: Bucket::Whole,
        };
        assert_eq!(test.store.call_stats(&asked, 10).await.expect("sums"), []);
    }

    pub(super) async fn minutes_go_and_hours_stay(test: &TestStore) {
        let mut runner = TestRunner::deterministic();
        let batch = prop::collection::vec(call(), 150).new_tree(&mut runner).expect("a batch").current();
        let rows = numbered(batch, &mut BTreeMap::new());
        let batch = DrainBatch { rows: rows.clone(), ..DrainBatch::default() };
        test.store.commit_drained(&batch).await.expect("commit");
        let minutes = async || {
            let everything = Timestamp(HOUR - 2 * DAY)..Timestamp(HOUR + 3 * DAY);
            let asked =
                StatsQuery { filter: CallFilter::default(), range: everything, by: Vec::new(), bucket: Bucket::Minute };
            let found = test.store.call_stats(&asked, 100_000).await.expect("sums");
            found.iter().map(|sum| sum.starts_at).min()
        };
        // Minutes of before an hour into the calls are not told, those of a day before that are not there.
        for now in [HOUR + 36 * DAY + 60 * MINUTE, HOUR + 36 * DAY + 90 * MINUTE, HOUR + 50 * DAY].map(Timestamp) {
            while test.store.remove_old_minute(now).await.expect("removed") > 0 {}
            let until = Span::Hour.start(now.plus_micros(-36 * DAY));
            let all = rows.iter().map(|row| Span::Minute.start(row.called_at));
            assert_eq!(minutes().await, all.filter(|minute| *minute >= until).min());
            for _ in 0..40 {
                let mut asked = question().new_tree(&mut runner).expect("a question").current();
                asked.range = whole_spans(asked.range, now);
                if asked.bucket != Bucket::Minute || has_minutes(asked.range.start, now) {
                    let found = test.store.call_stats(&asked, 100_000).await.expect("sums");
                    assert_eq!(added(found), expected(&rows, &asked), "{asked:?}");
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn the_parts_of_a_range_are_all_of_it_once(
        from in -10_000_i64..10_000,
        length in prop_oneof![0_i64..120, 0_i64..10_000],
    ) {
        let range = Timestamp(HOUR + from * MINUTE)..Timestamp(HOUR + (from + length) * MINUTE);
        for bucket in [Bucket::Whole, Bucket::Minute] {
            let parts = parts(&range, bucket);
            let mut at = range.start;
            for (span, part) in &parts {
                prop_assert_eq!(part.start, at);
                prop_assert!(*span == Span::Minute || (part.start == span.start(part.start) && part.end == span.start(part.end)));
                at = part.end;
            }
            prop_assert_eq!(at, range.end);
            let minutes: i64 = parts.iter().filter(|(span, _)| *span == Span::Minute).map(|(_, part)| part.end.0 - part.start.0).sum();
            prop_assert!(bucket == Bucket::Minute || length < 120 || minutes < 120 * MINUTE);
        }
    }

    #[test]
    fn a_range_grows_to_whole_minutes_and_to_whole_hours_where_those_are_gone(
        from in -180 * MINUTE..180 * MINUTE,
        length in 0..180 * MINUTE,
        begun in 0..60 * MINUTE,
    ) {
        let (since, from) = (HOUR, HOUR + from);
        let grown = whole_spans(Timestamp(from)..Timestamp(from + length), Timestamp(since + 35 * DAY + begun));
        let unit = |at: i64| if at < since { 60 * MINUTE } else { MINUTE };
        let (first, last) = (unit(from), unit(from + length));
        prop_assert_eq!((grown.start.0 % first, grown.end.0 % last), (0, 0));
        prop_assert!(grown.start.0 <= from && from - grown.start.0 < first);
        prop_assert!(grown.end.0 >= from + length && grown.end.0 - from - length < last);
        for (span, part) in parts(&grown, Bucket::Whole) {
            prop_assert!(span == Span::Hour || part.start.0 >= since);
        }
    }
}
