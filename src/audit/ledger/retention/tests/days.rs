//! What PostgreSQL does day by day.

use super::*;

async fn tables(store: &Store) -> Vec<String> {
    store.days().await.expect("days").into_iter().filter(|day| day.starts_with("2023")).collect()
}

const YEAR: RetentionSettings =
    RetentionSettings { keep: Some(Duration::from_secs(365 * 86_400)), addresses: None, refused: None };

#[tokio::test]
async fn a_day_goes_as_a_whole_but_not_while_it_is_read() {
    let test = TestStore::postgres().await;
    let store = &test.store;
    let other = Uuid::from_u128(6);
    for n in 0..2 {
        recorded_on(&test, day(n)).await;
        for node in [NODE, other] {
            record_rows(store, node, (0..30).map(|r| row_of_day(r, n))).await;
        }
    }
    sign(store, NODE).await;
    sign(store, other).await;
    let all = leaves(store, NODE).await;
    let now = day(366);
    let reading = {
        let store = test.again().await;
        let (told, begun) = tokio::sync::oneshot::channel();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let reading = store.reading_of_a_day("2023-11-14").await;
            told.send(()).expect("awaited");
            let _ = ended.await;
            drop(reading);
            store.close().await;
        });
        begun.await.expect("it reads");
        (end, task)
    };
    let retention = retention(store, now, YEAR);
    retention.turn().await;
    assert!(retention.view().now().trouble[0].contains("are being read"), "{:?}", retention.view().now());
    assert_eq!((tables(store).await.len(), store.kept().await.expect("kept").dropped), (2, 0));
    drop(reading.0);
    reading.1.await.expect("ends");
    turn(store, now, YEAR).await;
    assert_eq!((tables(store).await, store.kept().await.expect("kept").dropped), (vec!["2023-11-15".to_owned()], 60));
    proved(store, NODE, &all).await;
    test.end().await;
}

#[tokio::test]
async fn a_node_that_is_held_up_holds_up_no_other() {
    let test = TestStore::postgres().await;
    let store = &test.store;
    let other = Uuid::from_u128(6);
    for n in 0..3 {
        recorded_on(&test, day(n)).await;
        for node in [NODE, other] {
            record_rows(store, node, (0..30).map(|r| row_of_day(r, n))).await;
        }
        sign(store, NODE).await;
    }
    // Nobody has signed for the other's.
    let all = leaves(store, NODE).await;
    let state = turn(store, day(367), YEAR).await;
    assert_eq!(state.held_up, [HeldUp { node: other, seq: 1, by: HeldBy::Unsigned }]);
    assert_eq!((tables(store).await.len(), state.removed), (3, 60));
    proved(store, NODE, &all).await;
    sign(store, other).await;
    let state = turn(store, day(367), YEAR).await;
    assert_eq!((tables(store).await.len(), state.removed, state.held_up), (1, 60, Vec::new()));
    test.end().await;
}

#[tokio::test]
async fn of_several_nodes_one_does_it() {
    let test = TestStore::postgres().await;
    let again = test.again().await;
    let turn = test.store.retention_turn().await.expect("answers").expect("free");
    assert!(again.retention_turn().await.expect("answers").is_none());
    let retention = retention(&again, day(1), YEAR);
    retention.turn().await;
    assert_eq!(retention.view().now(), RetentionState::default());
    turn.end().await;
    let turn = again.retention_turn().await.expect("answers").expect("given back");
    turn.end().await;
    again.close().await;
    test.end().await;
}
