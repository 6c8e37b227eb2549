//! What happens between a look at rows and what is done to them.

use super::*;
use crate::store::calls::DrainBatch;
use crate::store::calls::remove::Prefix;
use crate::store::ledger::CheckpointRow;

on_each_database!(
    rows_that_changed_since_they_were_looked_at_stay,
    values_that_are_gone_are_not_taken_out_again,
    an_erasure_during_which_a_hold_was_released_begins_anew,
    one_caller_is_erased_at_a_time_and_none_that_is_not_told_of,
    what_names_a_key_stays_when_the_rows_it_speaks_of_go,
);

const YEAR: RetentionSettings =
    RetentionSettings { keep: Some(Duration::from_secs(365 * 86_400)), addresses: None, refused: None };

/// Twenty rows of the first day, which may go, under more checkpoints than are read at once.
async fn twenty(store: &Store, node: Uuid) -> Prefix {
    for n in 0..5 {
        record_rows(store, node, (n * 4..n * 4 + 4).map(|n| row_of_day(n, 0))).await;
        sign(store, node).await;
    }
    let question = survey::Question { node, cutoff: day(9), holds: &[], until: u64::MAX, most: u64::MAX };
    let found = survey::survey(store, question).await.expect("whole").prefix;
    assert_eq!(found.tree.size(), 20);
    found
}

mod suite {
    use super::*;

    pub(super) async fn rows_that_changed_since_they_were_looked_at_stay(test: &TestStore) {
        let store = &test.store;
        recorded_on(test, day(0)).await;
        let mut changes = vec![
            ("UPDATE proxy_calls SET leaf_hash = (SELECT leaf_hash FROM proxy_calls WHERE seq = 1) WHERE seq = 20", 14),
            ("DELETE FROM proxy_calls WHERE seq = 10", 7),
        ];
        if store.is_shared() {
            recorded_on(test, day(1)).await;
            recorded_on(test, day(0)).await;
            // The last of those that go first is there a second time, in another day.
            changes.push((
                "INSERT INTO proxy_calls SELECT (jsonb_populate_record(log, jsonb_build_object('sealed_on', \
                 sealed_on + 1))).* FROM proxy_calls AS log WHERE seq = 7",
                0,
            ));
            // As many as there should be, but not these.
            changes.push((
                "DELETE FROM proxy_calls WHERE seq = 5; \
                 INSERT INTO proxy_calls SELECT (jsonb_populate_record(log, jsonb_build_object('sealed_on', \
                 sealed_on + 1))).* FROM proxy_calls AS log WHERE seq = 3",
                0,
            ));
        }
        for (n, (change, gone)) in changes.into_iter().enumerate() {
            let node = Uuid::from_u128(100 + n as u128);
            let found = twenty(store, node).await;
            test.by_hand(&change.replace("WHERE seq", &format!("WHERE node_id = '{node}' AND seq"))).await;
            let error = loop {
                match store.remove_next(&found, 7, day(9)).await {
                    Ok(removed) => assert_eq!(removed, 7, "{change}"),
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, StoreError::Changed(_)), "{change}: {error}");
            assert_eq!(store.ledger_dropped(node).await.expect("reads").size(), gone, "{change}");
        }
    }

    pub(super) async fn what_names_a_key_stays_when_the_rows_it_speaks_of_go(test: &TestStore) {
        let (store, found) = (&test.store, twenty(&test.store, NODE).await);
        for (size, announces) in [(9, false), (10, true)] {
            let note = String::new();
            let row = CheckpointRow { node_id: NODE, size, root: [0; 32], signed_at: FIRST, announces, note };
            store.keep_checkpoint(&row).await.expect("kept");
        }
        while store.remove_next(&found, 7, day(9)).await.expect("removed") > 0 {}
        let left = store.checkpoints(NODE, 0, 9).await.expect("checkpoints");
        assert_eq!(left.iter().map(|row| row.size).collect::<Vec<_>>(), [10, 20]);
    }

    pub(super) async fn values_that_are_gone_are_not_taken_out_again(test: &TestStore) {
        let store = &test.store;
        record(store, NODE, 0..20).await;
        let span = crate::store::calls::erase::Span { node: NODE, after: 0, until: 20 };
        for (what, count) in [(Erasure::Addresses, 20), (Erasure::Refused, 3)] {
            let found = store.erasable(span, what).await.expect("rows");
            for erased in [count, 0] {
                let done = store.erase(NODE, &found, what, day(1)).await.expect("erased");
                assert_eq!(done.erased, erased, "{what:?}");
            }
        }
    }

    pub(super) async fn an_erasure_during_which_a_hold_was_released_begins_anew(test: &TestStore) {
        let store = &test.store;
        let id = hold(store, None, None, None).await;
        store.keep_erased_up_to(NODE, "addresses", 5, 0).await.expect("kept");
        assert_eq!(store.erased_up_to(NODE, "addresses").await.expect("reads"), 5);
        store.release_hold(id, day(1), &event()).await.expect("released");
        // It began before that.
        store.keep_erased_up_to(NODE, "addresses", 9, 0).await.expect("passed over");
        assert_eq!(store.erased_up_to(NODE, "addresses").await.expect("reads"), 0);
        store.keep_erased_up_to(NODE, "addresses", 9, 1).await.expect("kept");
        assert_eq!(store.erased_up_to(NODE, "addresses").await.expect("reads"), 9);
    }

    pub(super) async fn one_caller_is_erased_at_a_time_and_none_that_is_not_told_of(test: &TestStore) {
        let store = &test.store;
        record(store, NODE, 0..60).await;
        let eraser = Eraser::new(store.clone(), Clock::manual(day(1)));
        let (agent, told) = (Uuid::from_u128(201), event());
        let (first, second) = tokio::join!(eraser.begin(agent, told.clone()), eraser.begin(agent, event()));
        assert!(matches!((&first, &second), (Ok(Some(_)), Ok(None))), "{first:?} {second:?}");
        while eraser.now().is_some_and(|now| now.ended_at.is_none()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // An event of that id is there: this one cannot be recorded.
        eraser.begin(Uuid::from_u128(202), told).await.expect_err("nobody would know of it");
        assert_eq!(eraser.now(), None);
    }
}

#[tokio::test]
async fn a_day_that_is_not_over_stays_however_old_its_calls_are() {
    let test = TestStore::postgres().await;
    recorded_on(&test, day(400)).await;
    twenty(&test.store, NODE).await;
    for (now, gone) in [(400, 0), (765, 0), (766, 20)] {
        turn(&test.store, day(now), YEAR).await;
        assert_eq!(test.store.kept().await.expect("kept").dropped, gone, "day {now}");
    }
    test.end().await;
}

#[tokio::test]
async fn a_day_with_a_younger_call_goes_with_that() {
    let test = TestStore::postgres().await;
    recorded_on(&test, day(0)).await;
    record_rows(&test.store, NODE, (0..20).map(|n| row_of_day(n, if n == 9 { 5 } else { 0 }))).await;
    sign(&test.store, NODE).await;
    for (now, gone) in [(367, 0), (371, 20)] {
        turn(&test.store, day(now), YEAR).await;
        assert_eq!(test.store.kept().await.expect("kept").dropped, gone, "day {now}");
    }
    test.end().await;
}

#[tokio::test]
async fn a_day_with_rows_that_nobody_knows_is_not_dropped() {
    let test = TestStore::postgres().await;
    let (store, stray) = (&test.store, Uuid::from_u128(6));
    recorded_on(&test, day(0)).await;
    twenty(store, NODE).await;
    // A row of a node that has no tree.
    let row = CallRow { node_id: stray, seq: 1, ..row_of_day(50, 0) };
    let batch = DrainBatch { node: stray, rows: vec![row], ..DrainBatch::default() };
    store.commit_drained(&batch).await.expect("written");
    turn(store, day(366), YEAR).await;
    assert_eq!((store.kept().await.expect("kept").dropped, rows(store, stray).await.len()), (20, 1));
    test.end().await;
}

#[tokio::test]
async fn a_day_that_was_looked_at_before_a_hold_or_a_removal_is_not_dropped() {
    let test = TestStore::postgres().await;
    let store = &test.store;
    recorded_on(&test, day(0)).await;
    let found = twenty(store, NODE).await;
    let drop_day = async || store.drop_day("2023-11-14", std::slice::from_ref(&found), &[], day(9)).await;
    let id = hold(store, None, None, None).await;
    assert!(matches!(drop_day().await, Err(StoreError::Changed(_))));
    store.release_hold(id, day(9), &event()).await.expect("released");
    store.remove_next(&found, 7, day(9)).await.expect("removed");
    assert!(matches!(drop_day().await, Err(StoreError::Changed(_))));
    assert_eq!(rows(store, NODE).await.len(), 13);
    test.end().await;
}
