//! What goes and what stays, on both databases, by a clock that is set.

mod between;
mod days;
mod model;

use std::time::Duration;

use futures_util::FutureExt as _;
use uuid::Uuid;

use super::*;
use crate::audit::canonical::{commitment, leaf_hash};
use crate::audit::ledger::proof::{check_consistency, check_inclusion};
use crate::audit::ledger::read::TreeReader;
use crate::audit::ledger::testing::{NODE, record, record_rows, row, sign};
use crate::audit::ledger::tree::Hash;
use crate::store::call_query::CallFilter;
use crate::store::calls::stats::{Bucket, StatsQuery};
use crate::store::holds::HoldRow;
use crate::store::rows::{AdminEvent, CallRow};
use crate::store::testing::{TestStore, on_each_database};
use crate::store::{EventFilter, EventPage};

on_each_database!(
    an_erasure_goes_on_when_whoever_asked_has_gone,
    of_old_checkpoints_the_last_of_each_hour_stays,
    the_addresses_of_a_caller_go_and_every_row_is_still_proved,
    what_is_held_is_not_erased_until_it_is_released,
    addresses_go_by_age_and_late_rows_with_their_neighbours,
    of_refused_calls_what_came_from_outside_goes,
    old_rows_go_and_the_rest_is_proved,
    a_removal_that_broke_off_goes_on,
    what_is_not_what_was_signed_for_stays,
    a_hold_that_comes_between_keeps_its_rows,
    sums_of_minutes_go_and_those_of_hours_stay,
);

const DAY: i64 = 86_400_000_000;
/// The call of row 0.
const FIRST: Timestamp = Timestamp(1_700_000_000_000_000);

/// Days, counted from the first call.
fn day(n: i64) -> Timestamp {
    FIRST.plus_micros(n * DAY)
}

fn days(n: u64) -> Option<Duration> {
    Some(Duration::from_secs(n * 86_400))
}

/// Row `n`, which arrived on that day.
fn row_of_day(n: u64, called: i64) -> CallRow {
    CallRow { called_at: day(called).plus_micros(n.cast_signed()), ..row(NODE, n) }
}

fn retention(store: &Store, now: Timestamp, settings: RetentionSettings) -> Retention {
    Retention::new(store.clone(), Clock::manual(now), settings)
}

/// One look, in which nothing goes wrong.
async fn turn(store: &Store, now: Timestamp, settings: RetentionSettings) -> RetentionState {
    let retention = retention(store, now, settings);
    retention.turn().await;
    let state = retention.view().now();
    assert_eq!((&state.trouble, state.looked_at), (&Vec::new(), Some(now)));
    state
}

fn event() -> AdminEvent {
    AdminEvent {
        id: Uuid::now_v7(),
        at: FIRST,
        actor: "operator:root".to_owned(),
        action: "audit.erase".to_owned(),
        subject: "x".to_owned(),
        before: None,
        after: None,
        reason: Some("asked to".to_owned()),
    }
}

async fn hold(store: &Store, agent: Option<Uuid>, since: Option<Timestamp>, until: Option<Timestamp>) -> Uuid {
    let id = Uuid::now_v7();
    let (reason, placed_by) = ("court".to_owned(), "operator:root".to_owned());
    let hold = HoldRow { id, agent, since, until, reason, placed_by, placed_at: FIRST, released_at: None };
    store.place_hold(&hold, &event()).await.expect("placed");
    id
}

async fn erase(store: &Store, agent: Uuid) -> CallerErasure {
    let eraser = Eraser::new(store.clone(), Clock::manual(day(1)));
    eraser.begin(agent, event()).await.expect("begun").expect("alone");
    loop {
        let now = eraser.now().expect("begun");
        if now.ended_at.is_some() {
            assert_eq!((&now.trouble, now.seen), (&None, now.rows));
            return now;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn rows(store: &Store, node: Uuid) -> Vec<CallRow> {
    store.rows_after(node, 0, 10_000).await.expect("rows")
}

/// What is left of `node` is proved to be part of the tree that all of `leaves` make: of many rows, some fifty of them.
async fn proved(store: &Store, node: Uuid, leaves: &[Hash]) {
    let reader = TreeReader::open(store, node).await.expect("opens");
    let size = leaves.len() as u64;
    let (gone, root) = (reader.dropped().size(), crate::audit::ledger::tree::tests::by_definition(leaves));
    assert_eq!((reader.tree().size(), reader.tree().root()), (size, root));
    let left = rows(store, node).await;
    assert_eq!(
        left.iter().map(|row| row.seq).collect::<Vec<_>>(),
        (gone + 1..=size).map(u64::cast_signed).collect::<Vec<_>>()
    );
    for (at, (row, leaf)) in left.iter().zip(&leaves[gone as usize..]).enumerate() {
        assert_eq!(&row.leaf_hash, leaf);
        assert!(row.erased_at.is_some() || leaf_hash(row) == *leaf, "row {}", row.seq);
        if at % (left.len() / 50 + 1) != 0 && at + 1 != left.len() {
            continue;
        }
        let index = row.seq.cast_unsigned() - 1;
        let proof = reader.inclusion(index, size).await.expect("a proof");
        assert_eq!(check_inclusion(leaf, index, size, &root, &proof), Ok(()));
    }
    for checkpoint in store.checkpoints(node, 0, 1_000).await.expect("checkpoints") {
        assert!(checkpoint.size >= gone);
        assert_eq!(reader.frontier(checkpoint.size).await.expect("a root").root(), checkpoint.root);
        let proof = reader.consistency(checkpoint.size, size).await.expect("a proof");
        assert_eq!(check_consistency(checkpoint.size, &checkpoint.root, size, &root, &proof), Ok(()));
    }
}

async fn leaves(store: &Store, node: Uuid) -> Vec<Hash> {
    store.leaf_hashes(node, 0, 10_000).await.expect("leaves").into_iter().map(|(_, leaf)| leaf).collect()
}

/// Rows are recorded as if it were that day.
async fn recorded_on(test: &TestStore, day: Timestamp) {
    if test.store.is_shared() {
        let day = &day.to_string()[..10];
        let name = format!("proxy_calls_{}", day.replace('-', ""));
        let sql = format!(
            "DO $do$ BEGIN IF to_regclass('{name}') IS NULL THEN CREATE TABLE {name} (LIKE proxy_calls INCLUDING DEFAULTS); \
             ALTER TABLE proxy_calls ATTACH PARTITION {name} FOR VALUES FROM ('{day}') TO ('{day}'::date + 1); END IF; END $do$; \
             CREATE OR REPLACE FUNCTION proxy_calls_day() RETURNS date LANGUAGE sql AS $$ SELECT '{day}'::date $$"
        );
        test.try_by_hand(&sql).await.expect("runs");
    }
}

mod suite {
    use super::*;

    pub(super) async fn sums_of_minutes_go_and_those_of_hours_stay(test: &TestStore) {
        let store = &test.store;
        record_rows(store, NODE, (0..40).map(|n| row_of_day(n, n.cast_signed()))).await;
        turn(store, day(40), RetentionSettings::default()).await;
        let sums = async |bucket| {
            let asked = StatsQuery { filter: CallFilter::default(), range: FIRST..day(50), by: Vec::new(), bucket };
            store.call_stats(&asked, 1_000).await.expect("sums").iter().map(|sum| sum.calls).sum::<i64>()
        };
        let all: i64 = rows(store, NODE).await.iter().map(|row| row.calls).sum();
        let (minutes, days) = (sums(Bucket::Minute).await, sums(Bucket::Day).await);
        assert!(0 < minutes && minutes < days && days <= all, "{minutes} {days} {all}");
    }

    pub(super) async fn an_erasure_goes_on_when_whoever_asked_has_gone(test: &TestStore) {
        record(&test.store, NODE, 0..60).await;
        let eraser = Eraser::new(test.store.clone(), Clock::manual(day(1)));
        // Most often it waits for the database then.
        let _ = eraser.begin(Uuid::from_u128(201), event()).now_or_never();
        let ended = || eraser.now().is_some_and(|now| now.ended_at.is_some());
        for _ in 0..2_000 {
            if ended() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(ended(), "another can begin");
    }

    pub(super) async fn of_old_checkpoints_the_last_of_each_hour_stays(test: &TestStore) {
        record(&test.store, NODE, 0..60).await;
        let hour = Timestamp(FIRST.0 / 3_600_000_000 * 3_600_000_000);
        for size in 1..=6_u64 {
            let row = crate::store::ledger::CheckpointRow {
                node_id: NODE,
                size,
                root: [0; 32],
                signed_at: hour.plus_micros(size.cast_signed() * 1_200_000_000),
                announces: false,
                note: String::new(),
            };
            test.store.keep_checkpoint(&row).await.expect("kept");
        }
        let sizes = async || {
            let rows = test.store.checkpoints(NODE, 0, 9).await.expect("checkpoints");
            rows.iter().map(|row| row.size).collect::<Vec<_>>()
        };
        turn(&test.store, hour.plus_micros(DAY), RetentionSettings::default()).await;
        assert_eq!(sizes().await, [1, 2, 3, 4, 5, 6]);
        turn(&test.store, hour.plus_micros(2 * DAY), RetentionSettings::default()).await;
        assert_eq!(sizes().await, [2, 5, 6]);
    }

    pub(super) async fn the_addresses_of_a_caller_go_and_every_row_is_still_proved(test: &TestStore) {
        let store = &test.store;
        let other = Uuid::from_u128(6);
        record(store, NODE, 0..60).await;
        record(store, other, 60..90).await;
        let (agent, before) = (Uuid::from_u128(201), rows(store, NODE).await);
        let all = [leaves(store, NODE).await, leaves(store, other).await];
        let theirs = |rows: &[CallRow]| rows.iter().filter(|row| row.caller_agent_id == Some(agent)).count() as u64;
        let count = theirs(&before) + theirs(&rows(store, other).await);
        let done = erase(store, agent).await.done;
        assert_eq!((done.erased, done.held, count > 15), (count, 0, true));
        for (now, before) in rows(store, NODE).await.iter().zip(&before) {
            if now.caller_agent_id == Some(agent) {
                let expected =
                    commitment(&before.personal_salt.expect("salt"), before.client_ip.as_ref().expect("an address"));
                assert_eq!(
                    (&now.client_ip, now.personal_salt, now.client_ip_commitment),
                    (&None, None, Some(expected))
                );
            } else {
                assert_eq!(now, before);
            }
        }
        proved(store, NODE, &all[0]).await;
        proved(store, other, &all[1]).await;
        // Again, there is nothing to do but to say so.
        assert_eq!(erase(store, agent).await.done.erased, 0);
        let events = store.admin_events(&EventFilter::default(), &EventPage::newest(9)).await.expect("events");
        assert_eq!(events.iter().filter(|event| event.action == "audit.erased").count(), 2);
        assert!(
            events.iter().any(|event| event
                .after
                .as_ref()
                .is_some_and(|text| text.contains(&format!("\"rows_erased\":{count}"))))
        );
    }

    pub(super) async fn what_is_held_is_not_erased_until_it_is_released(test: &TestStore) {
        let store = &test.store;
        record_rows(store, NODE, (0..60).map(|n| row_of_day(n, n.cast_signed() / 10))).await;
        let agent = Uuid::from_u128(201);
        let id = hold(store, Some(agent), Some(day(1)), Some(day(3))).await;
        let is_held =
            |row: &CallRow| row.caller_agent_id == Some(agent) && row.called_at >= day(1) && row.called_at < day(3);
        let held = rows(store, NODE).await.iter().filter(|row| is_held(row)).count() as u64;
        assert_eq!((erase(store, agent).await.done.held, held > 1), (held, true));
        let settings = RetentionSettings { addresses: days(1), refused: days(1), ..Default::default() };
        turn(store, day(100), settings).await;
        for row in rows(store, NODE).await {
            assert_eq!(row.client_ip.is_some(), is_held(&row), "{}", row.seq);
            assert_eq!(row.erased_at.is_some(), row.decision == "refused" && !is_held(&row), "{}", row.seq);
        }
        // Nothing is left to do, but for what is released.
        assert_eq!(turn(store, day(100), settings).await.addresses, 0);
        store.release_hold(id, day(100), &event()).await.expect("released");
        store.release_hold(id, day(100), &event()).await.expect_err("it is");
        let state = turn(store, day(100), settings).await;
        assert_eq!(state.addresses, held);
        assert!(rows(store, NODE).await.iter().all(|row| row.client_ip.is_none()));
    }

    pub(super) async fn addresses_go_by_age_and_late_rows_with_their_neighbours(test: &TestStore) {
        let store = &test.store;
        // The 40th row is a stream's that began on the first day.
        let called = |n: u64| if n == 40 { 0 } else { n.cast_signed() / 10 };
        record_rows(store, NODE, (0..60).map(|n| row_of_day(n, called(n)))).await;
        let all = leaves(store, NODE).await;
        let settings = RetentionSettings { addresses: days(30), ..Default::default() };
        for now in [29, 31, 33, 33, 50] {
            turn(store, day(now), settings).await;
            let left = rows(store, NODE).await;
            for row in &left {
                let n = row.seq.cast_unsigned() - 1;
                let goes = n.cast_signed() / 10 < now - 30;
                assert_eq!(row.client_ip.is_none(), goes, "row {n} on day {now}");
            }
            proved(store, NODE, &all).await;
        }
    }

    pub(super) async fn of_refused_calls_what_came_from_outside_goes(test: &TestStore) {
        let store = &test.store;
        record(store, NODE, 0..30).await;
        let (before, all) = (rows(store, NODE).await, leaves(store, NODE).await);
        let state = turn(store, day(9), RetentionSettings { refused: days(7), ..Default::default() }).await;
        assert_eq!(state.refused, 5);
        for (now, before) in rows(store, NODE).await.iter().zip(&before) {
            if before.decision == "refused" {
                assert_eq!(
                    (now.erased_at, &now.client_ip, &now.method, &now.rpc_id),
                    (Some(day(9)), &None, &None, &None)
                );
                assert!(now.client_ip_commitment.is_some());
                let kept = |row: &CallRow| (row.caller_agent_id, row.reason.clone(), row.calls, row.leaf_hash);
                assert_eq!(kept(now), kept(before));
            } else {
                assert_eq!(now, before);
            }
        }
        proved(store, NODE, &all).await;
    }

    pub(super) async fn old_rows_go_and_the_rest_is_proved(test: &TestStore) {
        let store = &test.store;
        for n in 0..10 {
            recorded_on(test, day(n)).await;
            // More than one kept subtree.
            record_rows(store, NODE, (0..60).map(|r| row_of_day(n.cast_unsigned() * 60 + r, n))).await;
            sign(store, NODE).await;
        }
        let all = leaves(store, NODE).await;
        let settings = RetentionSettings { keep: days(365), ..Default::default() };
        for (now, gone) in [(365, 0), (368, 180), (372, 420), (373, 480)] {
            turn(store, day(now), settings).await;
            assert_eq!(store.kept().await.expect("kept").dropped, gone);
            proved(store, NODE, &all).await;
        }
        let kept = store.kept().await.expect("kept");
        assert_eq!((kept.rows, kept.oldest), (120, Some(day(8).plus_micros(480))));
        assert!(
            store.subtree_hashes(NODE, 8, 0, 9).await.expect("subtrees").iter().all(|(position, _)| *position == 2)
        );
        // And it grows on.
        record(store, NODE, 700..720).await;
        sign(store, NODE).await;
        let all = [all, leaves(store, NODE).await[120..].to_vec()].concat();
        proved(store, NODE, &all).await;
    }

    pub(super) async fn a_removal_that_broke_off_goes_on(test: &TestStore) {
        let store = &test.store;
        record_rows(store, NODE, (0..60).map(|n| row_of_day(n, 0))).await;
        sign(store, NODE).await;
        let all = leaves(store, NODE).await;
        let question = survey::Question { node: NODE, cutoff: day(9), holds: &[], until: 50, most: u64::MAX };
        let found = survey::survey(store, question).await.expect("whole").prefix;
        assert_eq!((found.before, found.tree.size()), (0, 50));
        for gone in [7, 14] {
            assert_eq!(store.remove_next(&found, 7, day(9)).await.expect("removed"), 7);
            assert_eq!(store.ledger_dropped(NODE).await.expect("reads").size(), gone);
            proved(store, NODE, &all).await;
        }
        // The next look, of another process, finds the rest.
        let found = survey::survey(store, question).await.expect("whole").prefix;
        assert_eq!((found.before, found.tree.size()), (14, 50));
        while store.remove_next(&found, 7, day(9)).await.expect("removed") > 0 {}
        assert_eq!(store.ledger_dropped(NODE).await.expect("reads").size(), 50);
        proved(store, NODE, &all).await;
    }

    pub(super) async fn what_is_not_what_was_signed_for_stays(test: &TestStore) {
        let store = &test.store;
        let changes = [
            "UPDATE proxy_calls SET calls = calls + 1 WHERE seq = 25",
            "UPDATE proxy_calls SET leaf_hash = (SELECT leaf_hash FROM proxy_calls WHERE seq = 1) WHERE seq = 25",
            "DELETE FROM proxy_calls WHERE seq = 25",
            "UPDATE ledger_checkpoints SET note = replace(note, 'gw.', 'gx.')",
            // It may have been erased, but then its leaf is what it was.
            "UPDATE proxy_calls SET erased_at = '2026-01-01T00:00:00.000000Z', leaf_hash = \
             (SELECT leaf_hash FROM proxy_calls WHERE seq = 1) WHERE seq = 25",
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let node = Uuid::from_u128(100 + n as u128);
            record_rows(store, node, (0..30).map(|n| row_of_day(n, 0))).await;
            sign(store, node).await;
            let change = change.replace("WHERE seq", &format!("WHERE node_id = '{node}' AND seq"));
            test.by_hand(&change).await;
            let question = survey::Question { node, cutoff: day(9), holds: &[], until: u64::MAX, most: u64::MAX };
            let error = survey::survey(store, question).await.expect_err(&change);
            assert!(matches!(error, survey::SurveyError::Wrong { .. }), "{change}: {error}");
        }
        let retention = retention(store, day(4_000), RetentionSettings { keep: days(1), ..Default::default() });
        retention.turn().await;
        let state = retention.view().now();
        assert!(state.trouble[0].contains("audit verify"), "{state:?}");
        assert_eq!((state.removed, store.kept().await.expect("kept").dropped), (0, 0));
    }

    pub(super) async fn a_hold_that_comes_between_keeps_its_rows(test: &TestStore) {
        let store = &test.store;
        record_rows(store, NODE, (0..60).map(|n| row_of_day(n, n.cast_signed() / 10))).await;
        sign(store, NODE).await;
        let all = leaves(store, NODE).await;
        let question = survey::Question { node: NODE, cutoff: day(90), holds: &[], until: u64::MAX, most: u64::MAX };
        let found = survey::survey(store, question).await.expect("whole").prefix;
        let id = hold(store, None, Some(day(2)), Some(day(3))).await;
        while store.remove_next(&found, 7, day(90)).await.expect("removed") > 0 {}
        assert_eq!(store.ledger_dropped(NODE).await.expect("reads").size(), 20);
        proved(store, NODE, &all).await;
        let settings = RetentionSettings { keep: days(1), ..Default::default() };
        let by = HeldBy::Hold { hold: id, called_at: day(2).plus_micros(20) };
        assert_eq!(turn(store, day(4_000), settings).await.held_up, [HeldUp { node: NODE, seq: 21, by }]);
        store.release_hold(id, day(90), &event()).await.expect("released");
        let state = turn(store, day(4_000), settings).await;
        assert_eq!((state.removed, state.held_up), (40, Vec::new()));
        // Not signed for: it stays, however old, and that is told.
        record(store, NODE, 60..63).await;
        let state = turn(store, day(4_000), settings).await;
        assert_eq!(state.held_up, [HeldUp { node: NODE, seq: 61, by: HeldBy::Unsigned }]);
    }
}
