//! The log is asked the same on both databases.

use super::*;
use crate::audit::journal::entry::Draft;
use crate::audit::record::Charge;
use crate::store::calls::{ChargeTaken, DrainBatch, JournalPosition};
use crate::store::testing::{TestStore, on_each_database};

const NODE: Uuid = Uuid::from_u128(5);

/// Rows 1 to `n`, two of them in every microsecond, each different from the others in whatever can be filtered.
fn rows(n: i64) -> Vec<CallRow> {
    let row = |seq: i64| {
        let one_of = |names: [&str; 3]| names[usize::try_from(seq % 3).expect("small")].to_owned();
        CallRow {
            id: Uuid::from_u128(u128::try_from(seq).expect("positive")),
            seq,
            called_at: Timestamp(1_700_000_000_000_000 + seq / 2),
            target_agent_id: Some(Uuid::from_u128(u128::try_from(seq % 3).expect("small"))),
            caller_agent_id: Some(Uuid::from_u128(u128::try_from(seq % 5).expect("small"))),
            trust_level: one_of(["verified", "connected", "unverified"]),
            outcome: one_of(["completed", "refused", "timeout"]),
            decision: one_of(["allowed", "refused", "allowed"]),
            operation: one_of(["GetTask", "SendMessage", "Unknown"]),
            reason: match seq % 6 {
                1 => Some("loop".to_owned()),
                0 | 2 | 4 => Some("agent_not_found".to_owned()),
                _ => None,
            },
            trace_id: Some(format!("trace {}", seq % 7)),
            status_code: 200 + seq % 3,
            task_id: Some(format!("task {seq}")),
            context_id: Some(format!("context {}", seq % 3)),
            personal_salt: Some([3; 16]),
            client_ip: Some("192.0.2.0/24".to_owned()),
            upstream_status: Some(502),
            leaf_hash: [8; 32],
            calls: seq,
            ..Draft::new(NODE).row
        }
    };
    (1..=n).map(row).collect()
}

on_each_database!(
    pages_go_through_all_rows_newest_first_without_a_gap,
    whoever_follows_the_record_sees_every_row_once_in_its_order,
    one_look_at_the_record_goes_over_a_bounded_part_of_it,
    every_condition_selects_what_it_names,
    a_request_id_is_looked_for_near_the_time_in_it_and_in_the_time_asked_for,
    a_batch_is_committed_altogether_or_not_at_all,
    limits_add_up_over_batches_and_old_ones_go,
);

mod suite {
    use super::*;

    async fn filled(store: &Store, n: i64) -> Vec<CallRow> {
        let batch = DrainBatch { rows: rows(n), ..DrainBatch::default() };
        store.commit_drained(&batch).await.expect("commit");
        batch.rows
    }

    pub(super) async fn pages_go_through_all_rows_newest_first_without_a_gap(test: &TestStore) {
        let store = &test.store;
        let rows = filled(store, 601).await;
        assert_eq!(store.last_seq(NODE).await.expect("seq"), 601);
        for filter in [CallFilter::default(), CallFilter { agent: Some(Uuid::from_u128(1)), ..CallFilter::default() }] {
            let mut page = CallPage { limit: 100, ..CallPage::default() };
            let mut seen = Vec::new();
            while let rows = store.calls(&filter, &page).await.expect("rows")
                && let Some(last) = rows.last()
            {
                assert!(rows.len() <= 100);
                page.after = Some((last.called_at, last.id));
                seen.extend(rows);
            }
            seen.reverse();
            assert!(seen.iter().eq(rows.iter().filter(|row| filter.selects(row))), "{filter:?}");
        }
    }

    pub(super) async fn whoever_follows_the_record_sees_every_row_once_in_its_order(test: &TestStore) {
        let store = &test.store;
        let mut all = rows(7);
        for row in &mut all[5..] {
            row.node_id = Uuid::from_u128(9);
        }
        store.commit_drained(&DrainBatch { rows: all.clone(), ..DrainBatch::default() }).await.expect("commit");
        let none = CallFilter::default();
        let first = store.recorded_calls(&none, &[], 2).await.expect("rows");
        assert!(!first.more && first.reached == [(NODE, 5), (Uuid::from_u128(9), 7)], "{:?}", first.reached);
        assert_eq!(first.rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [4, 5, 6, 7], "the newest of each node");
        let (mut after, mut seen) = (vec![(NODE, 1), (Uuid::from_u128(9), 0)], Vec::new());
        let mut more = true;
        while more {
            let record = store.recorded_calls(&none, &after, 2).await.expect("rows");
            seen.extend(record.rows.iter().map(|row| row.seq));
            (after, more) = (record.reached, record.more);
        }
        assert_eq!(seen, [2, 3, 4, 5, 6, 7]);
        // What is not asked for is passed over all the same.
        let nobody = CallFilter { caller: Some(NODE), ..CallFilter::default() };
        for limit in [1, 2] {
            let record = store.recorded_calls(&nobody, &[(NODE, 1)], limit).await.expect("rows");
            assert_eq!(record, Record { rows: Vec::new(), reached: after.clone(), more: false });
        }
    }

    pub(super) async fn one_look_at_the_record_goes_over_a_bounded_part_of_it(test: &TestStore) {
        let store = &test.store;
        let mut all = rows(3);
        all[1].seq = 1 + LOOKED_AT;
        all[2].seq = 2 + LOOKED_AT;
        store.commit_drained(&DrainBatch { rows: all, ..DrainBatch::default() }).await.expect("commit");
        let none = CallFilter::default();
        let seqs = |record: &Record| record.rows.iter().map(|row| row.seq).collect::<Vec<_>>();
        let newest = store.recorded_calls(&none, &[], 10).await.expect("rows");
        assert_eq!(seqs(&newest), [1 + LOOKED_AT, 2 + LOOKED_AT]);
        let first = store.recorded_calls(&none, &[(NODE, 1)], 10).await.expect("rows");
        assert_eq!(
            (seqs(&first), &first.reached[..], first.more),
            (vec![1 + LOOKED_AT], &[(NODE, 1 + LOOKED_AT)][..], true)
        );
        let then = store.recorded_calls(&none, &first.reached, 10).await.expect("rows");
        assert_eq!((seqs(&then), then.more), (vec![2 + LOOKED_AT], false));
        // One that the reader has not heard of is read from its first row.
        let of_others = store.recorded_calls(&none, &[(Uuid::nil(), 0)], 10).await.expect("rows");
        assert_eq!(seqs(&of_others), [1]);
    }

    pub(super) async fn every_condition_selects_what_it_names(test: &TestStore) {
        let store = &test.store;
        let rows = filled(store, 60).await;
        let text = |text: &str| Some(text.to_owned());
        let one = Uuid::from_u128(1);
        let none = CallFilter::default;
        type Matches = fn(&CallRow) -> bool;
        let (three, two) = (Uuid::from_u128(3), Uuid::from_u128(2));
        let cases: [(CallFilter, Matches); 19] = [
            (CallFilter { agent: Some(one), ..none() }, |row| {
                [row.target_agent_id, row.caller_agent_id].contains(&Some(Uuid::from_u128(1)))
            }),
            (CallFilter { target: Some(one), ..none() }, |row| row.target_agent_id == Some(Uuid::from_u128(1))),
            (CallFilter { caller: Some(one), ..none() }, |row| row.caller_agent_id == Some(Uuid::from_u128(1))),
            (CallFilter { id: Some(one), ..none() }, |row| row.id == Uuid::from_u128(1)),
            (CallFilter { trust_level: text("connected"), ..none() }, |row| row.trust_level == "connected"),
            (CallFilter { outcome: text("timeout"), ..none() }, |row| row.outcome == "timeout"),
            (CallFilter { decision: text("allowed"), ..none() }, |row| row.decision == "allowed"),
            (CallFilter { operation: text("Unknown"), ..none() }, |row| row.operation == "Unknown"),
            (CallFilter { reason: text("loop"), ..none() }, |row| row.reason.as_deref() == Some("loop")),
            (CallFilter { status: Some(201), ..none() }, |row| row.status_code == 201),
            (CallFilter { since: Some(rows[20].called_at), ..none() }, |row| row.called_at.0 >= 1_700_000_000_000_010),
            (CallFilter { until: Some(rows[20].called_at), ..none() }, |row| row.called_at.0 < 1_700_000_000_000_010),
            (CallFilter { task_id: text("task 7"), ..none() }, |row| row.seq == 7),
            (CallFilter { context_id: text("context 2"), ..none() }, |row| row.seq % 3 == 2),
            (CallFilter { trace_id: text("trace 4"), ..none() }, |row| row.seq % 7 == 4),
            (CallFilter { pair: Some([one, two]), ..none() }, |row| [7, 11].contains(&(row.seq % 15))),
            (CallFilter { pair: Some([three, one]), agent: Some(three), ..none() }, |row| row.seq % 15 == 13),
            (CallFilter { agent: Some(one), caller: Some(two), ..none() }, |row| row.seq % 15 == 7),
            (CallFilter { known_to: Some(two), ..none() }, |row| row.seq % 3 == 2 || row.seq % 2 == 1),
        ];
        let page = CallPage { limit: 500, ..CallPage::default() };
        for (filter, matches) in cases {
            let expected: Vec<i64> = rows.iter().filter(|row| matches(row)).map(|row| row.seq).rev().collect();
            let found = store.calls(&filter, &page).await.expect("rows");
            let mut found: Vec<i64> = found.iter().map(|row| row.seq).collect();
            found.sort_unstable_by(|a, b| b.cmp(a));
            assert!(!expected.is_empty() && expected.len() < 60, "{filter:?}");
            assert_eq!(found, expected, "{filter:?}");
            let picked = rows.iter().filter(|row| filter.selects(row)).map(|row| row.seq).rev();
            assert!(picked.eq(expected.iter().copied()), "{filter:?} in memory");
            let sum = store.calls_sum(&filter).await.expect("sum");
            assert_eq!(i64::try_from(sum), Ok(expected.iter().sum()), "{filter:?}");
        }
    }

    pub(super) async fn a_request_id_is_looked_for_near_the_time_in_it_and_in_the_time_asked_for(test: &TestStore) {
        let store = &test.store;
        let mut rows = rows(2);
        rows[0].id = Uuid::now_v7();
        rows[1].id = Uuid::now_v7();
        let now = jiff::Timestamp::now().as_microsecond();
        rows[1].called_at = Timestamp(now);
        store.commit_drained(&DrainBatch { rows: rows.clone(), ..DrainBatch::default() }).await.expect("commit");
        let page = CallPage::default();
        let by_id = |row: &CallRow| CallFilter { id: Some(row.id), ..CallFilter::default() };
        assert_eq!(store.calls(&by_id(&rows[1]), &page).await.expect("rows"), [rows[1].clone()]);
        // The whole log is not read for an id whose time is not the row's; what is asked for is.
        let far = by_id(&rows[0]);
        assert_eq!(store.calls(&far, &page).await.expect("rows"), []);
        let far = CallFilter { since: Some(rows[0].called_at), ..far };
        assert_eq!(store.calls(&far, &page).await.expect("rows"), [rows[0].clone()]);
        for row in &rows {
            let later = CallFilter { since: Some(row.called_at.plus_micros(1)), ..by_id(row) };
            let earlier = CallFilter { until: Some(row.called_at), ..by_id(row) };
            for other_time in [later, earlier] {
                assert_eq!(store.calls(&other_time, &page).await.expect("rows"), []);
            }
        }
    }

    pub(super) async fn a_batch_is_committed_altogether_or_not_at_all(test: &TestStore) {
        let store = &test.store;
        let rows = filled(store, 3).await;
        let position = JournalPosition { instance: NODE, worker: 1, segment: 2, offset: 3 };
        let again = DrainBatch { rows, positions: vec![position], ..DrainBatch::default() };
        assert!(store.commit_drained(&again).await.is_err(), "a seq is taken once");
        assert_eq!(store.journal_positions().await.expect("positions"), []);
        let fresh = DrainBatch { rows: Vec::new(), finished: Some(NODE), synced: true, ..again };
        store.commit_drained(&fresh).await.expect("commit");
        assert_eq!(store.journal_positions().await.expect("positions"), [position]);
        assert_eq!(store.finished_journals().await.expect("finished"), [NODE]);
        store.forget_journal(NODE).await.expect("forget");
        assert_eq!(store.journal_positions().await.expect("positions"), []);
        assert!(store.finished_journals().await.expect("finished").is_empty());
    }

    pub(super) async fn limits_add_up_over_batches_and_old_ones_go(test: &TestStore) {
        let store = &test.store;
        let at = |seconds: i64| Timestamp(1_700_000_000_000_000 + seconds * 1_000_000);
        let taken = |key: u8, seconds: i64, units: u32| ChargeTaken {
            call: Uuid::from_u128(1),
            charge: Charge { key: [key; 16], refill_us: 60_000_000, units },
            called_at: at(seconds),
        };
        // 1 700 000 000 is 22:13:20 UTC: a day ends 6 400 s later.
        for charges in [
            vec![taken(1, 0, 1), taken(1, 1, 2), taken(2, 0, 1)],
            vec![taken(1, 2, 1)],
            vec![taken(1, 6_400, 5), taken(1, 6_399, 1)],
        ] {
            store.commit_drained(&DrainBatch { charges, ..DrainBatch::default() }).await.expect("commit");
        }
        let find =
            |rows: Vec<crate::store::calls::LimitStateRow>, key: u8| rows.into_iter().find(|r| r.key == [key; 16]);
        let rows = store.limit_state(at(6_400)).await.expect("limits");
        let one = find(rows.clone(), 1).expect("the first limit");
        assert_eq!((one.used, one.tat_us), (5, at(6_400 + 360).0));
        assert_eq!(find(rows, 2), None, "yesterday's, and its bucket is full again");
        assert_eq!(store.forget_limit_state(at(6_400)).await.expect("forget"), 1);
        assert!(find(store.limit_state(at(0)).await.expect("limits"), 1).is_some());
    }
}
