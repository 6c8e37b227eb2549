//! Several nodes on one PostgreSQL database: who they are to each other, and what none of them may miss or overwrite.

use std::time::Duration;

use uuid::Uuid;

use super::conformance::{agent, event, key};
use super::sql::query;
use super::testing::TestStore;
use super::{PostgresOptions, Store, StoreError};
use crate::audit::journal::entry::Draft;
use crate::audit::record::Charge;
use crate::clock::Timestamp;
use crate::store::calls::{ChargeTaken, DrainBatch, JournalPosition};

/// Long enough for anything that comes at all.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_at_once_on_an_empty_database_all_find_it_ready() {
    let (options, clean_up) = TestStore::empty_postgres().await;
    let mut starting = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let options: PostgresOptions = options.clone();
        starting.spawn(async move {
            let store = Store::open_postgres(&options).await?;
            store.ping().await.map(|()| store)
        });
    }
    for started in starting.join_all().await {
        started.expect("starts").close().await;
    }
    clean_up.await;
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_what_to_do() {
    let test = TestStore::postgres().await;
    test.by_hand("UPDATE _sqlx_migrations SET version = 999 WHERE version = 1").await;
    let refused = test.try_again().await.expect_err("newer");
    assert!(matches!(refused, StoreError::NewerSchema { found: 999, .. }), "{refused}");
    assert!(refused.to_string().contains("run the newer version"), "{refused}");
    test.end().await;
}

#[tokio::test]
async fn a_node_is_one_process_until_that_is_gone() {
    let test = TestStore::postgres().await;
    let other = test.again().await;
    let (node, another) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let held = test.store.listen(node).await.expect("nobody is").expect("a server");
    assert!(matches!(other.listen(node).await, Err(StoreError::Conflict(_))));
    other.listen(another).await.expect("somebody else may");
    drop(held);
    let freed = async {
        while other.listen(node).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("it is free again");
    other.close().await;
    test.end().await;
}

#[tokio::test]
async fn a_change_is_announced_to_every_node_and_a_probe_that_found_nothing_is_not() {
    let test = TestStore::postgres().await;
    let other = test.again().await;
    let mut listener = other.listen(Uuid::from_u128(1)).await.expect("listens").expect("a server");
    let before = other.newest_revision().await.expect("reads");
    let row = agent("news");
    test.store.add_agent(&row, &key(&row), false, &event("agent.create", row.id)).await.expect("adds");
    tokio::time::timeout(PATIENCE, listener.changed()).await.expect("announced").expect("connected");
    assert!(other.newest_revision().await.expect("reads") > before);
    let changes = other.directory_changes(before).await.expect("reads").expect("few");
    assert_eq!(changes.rows.agents.iter().map(|agent| agent.id).collect::<Vec<_>>(), [row.id]);

    let known = other.newest_revision().await.expect("reads");
    test.by_hand("UPDATE agents SET health = 'online', next_probe_at = now()").await;
    assert_eq!(other.newest_revision().await.expect("reads"), known);
    // Past every path of ours, and heard of all the same.
    test.by_hand("UPDATE agents SET name = 'by hand'").await;
    tokio::time::timeout(PATIENCE, listener.changed()).await.expect("announced").expect("connected");
    other.close().await;
    test.end().await;
}

#[tokio::test]
async fn a_listener_that_is_cut_off_says_so() {
    let test = TestStore::postgres().await;
    let mut listener = test.store.listen(Uuid::from_u128(1)).await.expect("listens").expect("a server");
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
               AND pid <> pg_backend_pid() AND query LIKE 'LISTEN%'";
    test.by_hand(cut).await;
    let told = tokio::time::timeout(PATIENCE, listener.changed()).await.expect("it notices");
    assert!(told.is_err());
    test.end().await;
}

/// What a reader that follows the revisions has seen once it has seen one of them is everything before it, however many
/// nodes write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_revisions_misses_no_change() {
    let test = TestStore::postgres().await;
    let other = test.again().await;
    let mut writing = tokio::task::JoinSet::new();
    for (n, store) in [&test.store, &other].into_iter().cycle().take(4).enumerate() {
        let store = store.clone();
        writing.spawn(async move {
            for m in 0..15 {
                let row = agent(&format!("agent-{n}-{m}"));
                store.add_agent(&row, &key(&row), false, &event("agent.create", row.id)).await.expect("adds");
            }
        });
    }
    let (mut seen, mut revision) = (std::collections::HashSet::new(), 0);
    let mut done = false;
    while !done {
        done = writing.is_empty();
        while writing.try_join_next().is_some() {}
        let changes = other.directory_changes(revision).await.expect("reads").expect("few");
        revision = changes.rows.revision;
        seen.extend(changes.agents);
    }
    assert_eq!(seen.len(), 60);
    other.close().await;
    test.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_charge_the_same_limits_at_once_add_up() {
    let test = TestStore::postgres().await;
    let other = test.again().await;
    let mut charging = tokio::task::JoinSet::new();
    for (n, store) in [&test.store, &other].into_iter().cycle().take(4).enumerate() {
        let store = store.clone();
        charging.spawn(async move {
            for _ in 0..10 {
                // Each in an order of its own: whoever locked them as they come would lock each other out.
                let keys: Vec<u8> = if n % 2 == 0 { (0..20).collect() } else { (0..20).rev().collect() };
                let charges = keys.into_iter().map(|key| ChargeTaken {
                    call: Uuid::from_u128(1),
                    charge: Charge { key: [key; 16], refill_us: 1_000_000, units: 1 },
                    called_at: Timestamp(1_700_000_000_000_000),
                });
                let batch = DrainBatch { charges: charges.collect(), ..DrainBatch::default() };
                store.commit_drained(&batch).await.expect("commits");
            }
        });
    }
    charging.join_all().await;
    let states = other.limit_state(Timestamp(1_700_000_000_000_000)).await.expect("reads");
    assert_eq!(states.len(), 20);
    for state in states {
        assert_eq!((state.used, state.tat_us), (40, 1_700_000_000_000_000 + 40_000_000));
    }
    other.close().await;
    test.end().await;
}

#[tokio::test]
async fn a_node_forgets_no_other_nodes_journal() {
    let test = TestStore::postgres().await;
    let (mine, theirs) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for node in [mine, theirs] {
        let position =
            JournalPosition { instance: Uuid::from_u128(node.as_u128() + 10), worker: 0, segment: 1, offset: 2 };
        let batch = DrainBatch { node, positions: vec![position], ..DrainBatch::default() };
        test.store.commit_drained(&batch).await.expect("commits");
    }
    let dir = tempfile::tempdir().expect("a directory");
    crate::audit::drain::Drain::recover(&test.store, mine, dir.path(), &crate::clock::Clock::system())
        .await
        .expect("recovers");
    let left: Vec<Uuid> =
        test.store.journal_positions().await.expect("reads").iter().map(|position| position.instance).collect();
    assert_eq!(left, [Uuid::from_u128(12)]);
    test.end().await;
}

/// Returns once somebody waits for a lock that another one holds.
async fn somebody_waits(test: &TestStore) {
    let waiting = async {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while query(sql).number(&test.store.reader).await.expect("reads") == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("somebody waits");
}

#[tokio::test]
async fn whether_a_commit_that_was_given_up_took_effect_is_asked_once_it_is_over() {
    let test = TestStore::postgres().await;
    let other = test.again().await;
    let node = Uuid::from_u128(1);
    let given_up = test.store.recording_of(node).await.expect("begins");
    let asking = tokio::spawn({
        let other = other.clone();
        async move { other.settled(node).await }
    });
    other.settled(Uuid::from_u128(2)).await.expect("another node's");
    somebody_waits(&test).await;
    assert!(!asking.is_finished());
    given_up.commit().await.expect("commits");
    asking.await.expect("answered").expect("settled");
    other.close().await;
    test.end().await;
}

#[tokio::test]
async fn secrets_change_over_while_their_agent_is_changed() {
    let test = TestStore::postgres().await;
    let other = test.again().await;
    let row = agent("changing");
    test.store.add_agent(&row, &key(&row), false, &event("agent.create", row.id)).await.expect("adds");
    test.by_hand("UPDATE agents SET next_signing_secret = 'x', next_signing_secret_from = '2020-01-01Z'").await;
    let mut change = test.store.begin().await.expect("its turn");
    let activating = tokio::spawn({
        let other = other.clone();
        async move { other.activate_signing_secrets(Timestamp(1_700_000_000_000_000)).await }
    });
    somebody_waits(&test).await;
    query("UPDATE agents SET name = 'changed'").execute(&mut change).await.expect("nobody is in the way");
    change.commit().await.expect("commits");
    assert_eq!(activating.await.expect("ends").expect("activates"), 1);
    other.close().await;
    test.end().await;
}

#[tokio::test]
async fn a_database_that_went_back_is_read_as_a_whole() {
    let test = TestStore::postgres().await;
    let row = agent("taken-back");
    test.store.add_agent(&row, &key(&row), false, &event("agent.create", row.id)).await.expect("adds");
    let known = test.store.newest_revision().await.expect("reads");
    assert!(test.store.directory_changes(known).await.expect("reads").is_some());
    // As a backup from before has it, or a standby that had not got so far.
    test.by_hand("UPDATE directory_changes SET revision = revision - 100").await;
    assert!(test.store.directory_changes(known).await.expect("reads").is_none());
    test.end().await;
}

#[tokio::test]
async fn a_schema_that_a_newer_node_brings_up_to_date_does_not_stop_the_others() {
    let test = TestStore::postgres().await;
    let row = agent("lasting");
    test.store.add_agent(&row, &key(&row), false, &event("agent.create", row.id)).await.expect("adds");
    for _ in 0..3 {
        test.store.directory_rows().await.expect("reads");
    }
    test.by_hand("ALTER TABLE agents ADD COLUMN newer text").await;
    let rows = test.store.directory_rows().await.expect("still reads");
    assert_eq!(rows.agents.len(), 1);
    test.end().await;
}

#[tokio::test]
async fn rows_are_in_the_table_of_their_day_and_odd_text_does_not_stop_them() {
    let test = TestStore::postgres().await;
    let node = Uuid::from_u128(1);
    let mut row = Draft::new(node).row;
    (row.seq, row.method) = (1, Some(String::from(&*crate::audit::record::bounded("a\0b", 9))));
    let batch = DrainBatch { node, rows: vec![row], ..DrainBatch::default() };
    test.store.commit_drained(&batch).await.expect("commits");
    let tables = query(
        "SELECT count(DISTINCT tableoid) FROM proxy_calls WHERE method = 'a' || chr(26) || 'b' \
         AND tableoid::regclass::text = 'proxy_calls_' || to_char(sealed_on, 'YYYYMMDD')",
    );
    assert_eq!(tables.number(&test.store.reader).await.expect("reads"), 1);
    let ready = query("SELECT count(*) FROM pg_inherits WHERE inhparent = 'proxy_calls'::regclass");
    assert_eq!(ready.number(&test.store.reader).await.expect("reads"), 2, "today and tomorrow");
    test.end().await;
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_named_without_its_password() {
    let options = PostgresOptions::parse("postgres://gw:hunter2@127.0.0.1:9/gw?sslmode=disable").expect("a URL");
    let refused = Store::open_postgres(&options).await.expect_err("nobody listens");
    let told = format!("{options}: {refused} {options:?} {refused:?}");
    assert!(told.contains("database gw at 127.0.0.1:9") && !told.contains("hunter2"), "{told}");
}
