//! The stored tree, and checkpoints of it, on both databases.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use tokio::sync::watch;

use super::grow::tree_of;
use super::note::{Checkpoint, Note, Signer, VerifierKey};
use super::proof::{check_consistency, check_inclusion};
use super::publish::{Place, Publisher};
use super::read::{ReadError, TreeReader};
use super::seal::{NotChanged, SealHandle, SealState, Sealed, Sealer, SealerSettings};
use super::testing::{NODE, ORIGIN, record, row};
use super::tree::Frontier;
use super::tree::tests::by_definition;
use crate::clock::Clock;
use crate::store::Store;
use crate::store::calls::remove::Prefix;
use crate::store::testing::{TestStore, on_each_database};

on_each_database!(
    the_stored_tree_proves_every_leaf_and_every_beginning,
    rows_from_before_there_were_trees_get_one,
    a_tree_grows_from_what_it_was_only,
    what_is_recorded_is_signed_for_and_brought_to_every_place,
    a_new_key_is_named_by_the_one_before,
    a_database_without_what_was_signed_is_not_signed_for,
    a_database_from_before_a_key_is_not_signed_for,
    rows_behind_what_was_signed_for_do_not_come_to_be_signed_for,
    a_key_that_signed_must_not_be_missing,
    a_crash_before_it_is_remembered_what_was_signed_does_no_harm,
    what_is_remembered_of_another_log_or_by_a_stranger_does_not_count,
    a_key_that_comes_too_soon_waits_and_sealing_goes_on,
    a_key_that_could_not_be_entered_takes_over_once_it_can,
    a_log_keeps_its_name,
    checkpoints_are_thinned_to_one_an_hour_but_for_those_that_name_keys,
);

/// A gateway's sealing: its tree told by hand.
struct Sealing {
    store: Store,
    dir: tempfile::TempDir,
    clock: Clock,
    origin: &'static str,
}

/// One run of it.
struct Running {
    tree: watch::Sender<Option<Frontier>>,
    handle: SealHandle,
    sealer: tokio::task::JoinHandle<()>,
    publisher: tokio::task::JoinHandle<()>,
    received: Arc<Mutex<Vec<String>>>,
}

impl Sealing {
    fn new(test: &TestStore) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Clock::manual(crate::clock::Timestamp(1_700_000_000_000_000));
        Self { store: test.store.clone(), dir, clock, origin: ORIGIN }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("last-checkpoint")
    }

    fn start(&self, seeds: &[u8]) -> Running {
        let tree = watch::Sender::new(None);
        let settings = SealerSettings {
            node: NODE,
            origin: self.origin.to_owned(),
            seeds: seeds.iter().map(|seed| [*seed; 32]).collect(),
            file: self.file(),
        };
        let (sealer, handle) = Sealer::new(self.store.clone(), self.clock.clone(), settings, tree.subscribe());
        let received: Arc<Mutex<Vec<String>>> = Arc::default();
        let place = Arc::clone(&received);
        let place = Place {
            name: "here".to_owned(),
            send: Arc::new(move |note| {
                place.lock().expect("whole").push(note);
                Box::pin(async { Ok(()) })
            }),
        };
        let publisher =
            Publisher { store: self.store.clone(), node: NODE, clock: self.clock.clone(), places: vec![place] };
        let view = publisher.view();
        let publisher = tokio::spawn(publisher.run(handle.sealed.clone(), view));
        Running { tree, handle, sealer: tokio::spawn(sealer.run()), publisher, received }
    }

    /// Seals all there is, with these keys.
    async fn run(&self, seeds: &[u8]) -> SealState {
        let mut running = self.start(seeds);
        let size = running.tell(&self.store).await;
        running.sealed(size).await;
        let view = running.handle.view.clone();
        running.end().await;
        view.now()
    }

    /// Why nothing is sealed with these keys.
    async fn trouble(&self, seeds: &[u8]) -> String {
        let running = self.start(seeds);
        running.tell(&self.store).await;
        let view = running.handle.view.clone();
        running.end().await;
        view.now().trouble.expect("it says why")
    }
}

impl Running {
    async fn tell(&self, store: &Store) -> u64 {
        let tree = tree_of(store, NODE).await.expect("the tree");
        let size = tree.size();
        self.tree.send_replace(Some(tree));
        size
    }

    async fn sealed(&mut self, size: u64) {
        self.handle.sealed.wait_for(|sealed| *sealed >= size).await.expect("it seals");
    }

    /// Ends as the gateway does; what was received.
    async fn end(self) -> Vec<String> {
        let Self { tree, handle, sealer, publisher, received } = self;
        drop(tree);
        sealer.await.expect("the sealer ends");
        drop(handle);
        publisher.await.expect("the publisher ends");
        Arc::into_inner(received).map(|notes| notes.into_inner().expect("whole")).unwrap_or_default()
    }
}

mod suite {
    use super::*;

    pub(super) async fn the_stored_tree_proves_every_leaf_and_every_beginning(test: &TestStore) {
        let store = &test.store;
        // More than one kept subtree of level 8, and a ragged end.
        for numbers in [0..1, 1..255, 255..700, 700..701, 701..1_300] {
            record(store, NODE, numbers).await;
        }
        let leaves: Vec<_> =
            store.leaf_hashes(NODE, 0, 2_000).await.expect("leaves").into_iter().map(|(_, leaf)| leaf).collect();
        let reader = TreeReader::open(store, NODE).await.expect("opens");
        let size = leaves.len() as u64;
        assert_eq!(reader.tree().root(), by_definition(&leaves));
        assert_eq!(store.subtree_hashes(NODE, 8, 0, 100).await.expect("subtrees").len(), 5);
        for index in [0, 1, 254, 255, 256, 257, 511, 767, 1_023, 1_024, 1_298, 1_299] {
            for size in [size, 1_024, 1_025, index + 1] {
                if index < size {
                    let proof = reader.inclusion(index, size).await.expect("a proof");
                    let root = by_definition(&leaves[..size as usize]);
                    assert_eq!(check_inclusion(&leaves[index as usize], index, size, &root, &proof), Ok(()));
                }
            }
        }
        for old in [0, 1, 2, 255, 256, 257, 300, 1_024, 1_100, 1_299, 1_300] {
            let old_root = reader.frontier(old).await.expect("a root").root();
            assert_eq!(old_root, by_definition(&leaves[..old as usize]));
            let proof = reader.consistency(old, size).await.expect("a proof");
            assert_eq!(check_consistency(old, &old_root, size, &reader.tree().root(), &proof), Ok(()));
        }
        assert!(matches!(reader.frontier(1_301).await, Err(ReadError::OutOfRange { asked: 1_301, size: 1_300 })));
        assert!(reader.inclusion(1_300, 1_300).await.is_err());
        // The row behind it does not stand in for one that is gone.
        test.by_hand("DELETE FROM proxy_calls WHERE seq = 1290").await;
        assert!(matches!(reader.frontier(1_296).await, Err(ReadError::Missing(1_290))));
    }

    pub(super) async fn rows_from_before_there_were_trees_get_one(test: &TestStore) {
        let store = &test.store;
        record(store, NODE, 0..600).await;
        let tree = tree_of(store, NODE).await.expect("the tree");
        for table in ["ledger_heads", "ledger_subtrees"] {
            test.by_hand(&format!("DELETE FROM {table}")).await;
        }
        assert_eq!(store.ledger_head(NODE).await.expect("reads").size(), 0);
        assert_eq!(tree_of(store, NODE).await.expect("made anew"), tree);
        assert_eq!(store.ledger_head(NODE).await.expect("reads"), tree);
        assert_eq!(store.subtree_hashes(NODE, 8, 0, 9).await.expect("subtrees").len(), 2);
        for table in ["ledger_heads", "ledger_subtrees", "proxy_calls WHERE seq = 300"] {
            test.by_hand(&format!("DELETE FROM {table}")).await;
        }
        let error = tree_of(store, NODE).await.expect_err("one is missing").to_string();
        assert!(error.contains("no row 300"), "{error}");
    }

    pub(super) async fn a_tree_grows_from_what_it_was_only(test: &TestStore) {
        let store = &test.store;
        record(store, NODE, 0..3).await;
        let mut growth = crate::store::ledger::Growth::of(tree_of(store, NODE).await.expect("the tree"));
        growth.push([1; 32]);
        store.grow_ledger(NODE, &growth).await.expect("grows");
        // Another process of the same node has been at it: neither this nor the first leaf of all is taken.
        store.grow_ledger(NODE, &growth).await.expect_err("it is larger by now");
        let mut first = crate::store::ledger::Growth::default();
        first.push([1; 32]);
        store.grow_ledger(NODE, &first).await.expect_err("it is there");
        assert_eq!(store.ledger_head(NODE).await.expect("reads").size(), 4);
    }

    pub(super) async fn what_is_recorded_is_signed_for_and_brought_to_every_place(test: &TestStore) {
        let (sealing, store) = (Sealing::new(test), &test.store);
        let mut running = sealing.start(&[1]);
        running.tell(store).await;
        let mut sizes = Vec::new();
        for numbers in [0..1, 1..400, 400..2_000] {
            record(store, NODE, numbers).await;
            let size = running.tell(store).await;
            running.sealed(size).await;
            sizes.push(size);
        }
        let state = running.handle.view.now();
        let key = state.key.expect("a key");
        assert_eq!((state.sealed.size, key.name()), (2_000, ORIGIN));
        // Rows that came last are signed for at the end.
        record(store, NODE, 2_000..2_007).await;
        running.tell(store).await;
        let received = running.end().await;
        let last = Note::parse(received.last().expect("notes")).expect("a note");
        let last = last.verified_by(&key).expect("signed").clone();
        assert_eq!((last.size, last.root), (2_007, tree_of(store, NODE).await.expect("the tree").root()));
        let stored = store.checkpoints(NODE, 0, 100).await.expect("checkpoints");
        sizes.push(2_007);
        assert_eq!(stored.iter().map(|row| row.size).collect::<Vec<_>>(), sizes);
        let reader = TreeReader::open(store, NODE).await.expect("opens");
        for row in &stored {
            let said = Note::parse(&row.note).expect("a note").verified_by(&key).expect("signed").clone();
            assert_eq!((said.size, said.root), (row.size, reader.frontier(row.size).await.expect("a root").root()));
        }
        assert_eq!(store.witnesses(NODE).await.expect("witnesses")[0].size, 2_007);
        // The next start goes on, and sends nothing twice.
        let mut running = sealing.start(&[1]);
        running.tell(store).await;
        running.sealed(2_007).await;
        record(store, NODE, 2_007..2_010).await;
        let size = running.tell(store).await;
        running.sealed(size).await;
        let received = running.end().await;
        assert_eq!(received.len(), 1);
        assert_eq!(store.ledger_keys(NODE).await.expect("keys").len(), 1);
    }

    pub(super) async fn a_new_key_is_named_by_the_one_before(test: &TestStore) {
        let (sealing, store) = (Sealing::new(test), &test.store);
        record(store, NODE, 0..5).await;
        let mut running = sealing.start(&[1]);
        running.tell(store).await;
        running.sealed(5).await;
        let first = running.handle.view.now().key.expect("a key");
        // While nothing new is there to be signed for.
        let second = running.handle.change_key(Box::new(|| Ok([2; 32]))).await.expect("takes over");
        // What names the second must stay, and there is one place for each size of the tree.
        let refused = running.handle.change_key(Box::new(|| panic!("one is made"))).await;
        assert!(matches!(&refused, Err(NotChanged::Refused(why)) if why.contains("since")), "{refused:?}");
        record(store, NODE, 5..6).await;
        running.tell(store).await;
        running.sealed(6).await;
        let received = running.end().await;
        let notes: Vec<Note> = received.iter().map(|note| Note::parse(note).expect("a note")).collect();
        let naming = notes.iter().find(|note| note.unverified().next_key.is_some()).expect("brought");
        for key in [&first, &second] {
            assert_eq!(naming.verified_by(key).expect("signed with both").next_key.as_ref(), Some(&second));
        }
        let last = notes.last().expect("notes");
        assert!(last.verified_by(&second).is_ok() && last.verified_by(&first).is_err());

        // A key that came while nothing ran is announced, too.
        let mut running = sealing.start(&[1, 2, 3]);
        running.tell(store).await;
        running.sealed(6).await;
        let mut announced = running.handle.view.now().key.expect("a key");
        for _ in 0..500 {
            if announced != second {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            announced = running.handle.view.now().key.expect("a key");
        }
        let received = running.end().await;
        let third = Note::parse(received.first().expect("brought")).expect("a note");
        assert_eq!(third.verified_by(&second).expect("named").next_key.as_ref(), Some(&announced));
        let keys = store.ledger_keys(NODE).await.expect("keys");
        let keys: Vec<_> = keys.iter().map(|row| VerifierKey::parse(&row.key).expect("a key")).collect();
        assert_eq!(keys, [first, second, announced]);
    }

    pub(super) async fn a_database_without_what_was_signed_is_not_signed_for(test: &TestStore) {
        let (sealing, store) = (Sealing::new(test), &test.store);
        record(store, NODE, 0..300).await;
        let mut running = sealing.start(&[1]);
        running.tell(store).await;
        running.sealed(300).await;
        running.end().await;
        let refused = async |why: &str| {
            let trouble = sealing.trouble(&[1]).await;
            assert!(trouble.contains("signed for 300 rows") && trouble.contains(why), "{trouble}");
        };
        // Somebody takes away the tail, checkpoints included, and everything else fits together again.
        test.by_hand("DELETE FROM proxy_calls").await;
        for table in ["ledger_heads", "ledger_subtrees", "ledger_checkpoints"] {
            test.by_hand(&format!("DELETE FROM {table}")).await;
        }
        record(store, NODE, 0..299).await;
        refused("299 leaves").await;
        // Somebody puts something else in its place.
        record(store, NODE, 1_000..1_100).await;
        refused("not what they were").await;
        assert_eq!(store.checkpoints(NODE, 0, 9).await.expect("checkpoints"), []);
    }

    pub(super) async fn a_database_from_before_a_key_is_not_signed_for(test: &TestStore) {
        let (sealing, store) = (Sealing::new(test), &test.store);
        record(store, NODE, 0..5).await;
        let mut running = sealing.start(&[1]);
        running.tell(store).await;
        running.sealed(5).await;
        running.handle.change_key(Box::new(|| Ok([2; 32]))).await.expect("takes over");
        record(store, NODE, 5..9).await;
        running.tell(store).await;
        running.sealed(9).await;
        running.end().await;
        for table in ["proxy_calls", "ledger_heads", "ledger_subtrees", "ledger_checkpoints"] {
            test.by_hand(&format!("DELETE FROM {table}")).await;
        }
        test.by_hand("DELETE FROM ledger_keys WHERE number = 2").await;
        record(store, NODE, 0..5).await;
        let trouble = sealing.trouble(&[1, 2]).await;
        assert!(trouble.contains("signed for 9 rows"), "{trouble}");
        assert_eq!(store.checkpoints(NODE, 0, 9).await.expect("checkpoints"), []);
    }

    pub(super) async fn rows_behind_what_was_signed_for_do_not_come_to_be_signed_for(test: &TestStore) {
        let (sealing, store) = (Sealing::new(test), &test.store);
        record(store, NODE, 0..3).await;
        let mut running = sealing.start(&[1]);
        running.tell(store).await;
        running.sealed(3).await;
        running.end().await;
        let mut row = row(NODE, 3);
        (row.seq, row.leaf_hash) = (4, crate::audit::canonical::leaf_hash(&row));
        let batch = crate::store::calls::DrainBatch { node: NODE, rows: vec![row], ..Default::default() };
        store.commit_drained(&batch).await.expect("written");
        let error = tree_of(store, NODE).await.expect_err("nobody recorded it").to_string();
        assert!(error.contains("behind the 3 of its tree"), "{error}");
        assert_eq!(store.ledger_head(NODE).await.expect("reads").size(), 3);
    }

    pub(super) async fn a_key_that_signed_must_not_be_missing(test: &TestStore) {
        let (sealing, store) = (Sealing::new(test), &test.store);
        record(store, NODE, 0..3).await;
        let mut running = sealing.start(&[1]);
        running.tell(store).await;
        running.sealed(3).await;
        let key = running.handle.view.now().key.expect("a key");
        running.end().await;
        assert!(sealing.trouble(&[2]).await.contains(&key.to_string()));
    }

    pub(super) async fn a_crash_before_it_is_remembered_what_was_signed_does_no_harm(test: &TestStore) {
        let (sealing, store) = (Sealing::new(test), &test.store);
        record(store, NODE, 0..3).await;
        sealing.run(&[1]).await;
        let remembered = std::fs::read(sealing.file()).expect("remembered");
        record(store, NODE, 3..5).await;
        sealing.run(&[1]).await;
        std::fs::write(sealing.file(), remembered).expect("written");
        // What is remembered holds, and is not signed for again what was.
        assert_eq!(sealing.run(&[1]).await.sealed, Sealed { size: 5, at: None });
        // Nor is it in the way once the rows it speaks of are gone.
        let reader = TreeReader::open(store, NODE).await.expect("opens");
        let prefix = Prefix { node: NODE, before: 0, tree: reader.frontier(4).await.expect("a tree") };
        store.remove_next(&prefix, 4, sealing.clock.wall()).await.expect("removed");
        assert_eq!(sealing.run(&[1]).await.sealed, Sealed { size: 5, at: None });
    }

    pub(super) async fn what_is_remembered_of_another_log_or_by_a_stranger_does_not_count(test: &TestStore) {
        let (sealing, store) = (Sealing::new(test), &test.store);
        record(store, NODE, 0..3).await;
        let remember = |origin: &str, seed| {
            let said = Checkpoint { origin: origin.to_owned(), size: 9, root: [7; 32], next_key: None };
            let note = said.signed(&[&Signer::new(origin, &[seed; 32]).expect("a name")]);
            std::fs::write(sealing.file(), note).expect("written");
        };
        // The data were copied for this node from another's.
        remember("gw.example/audit/6", 9);
        assert_eq!(sealing.run(&[1]).await.sealed.size, 3);
        // Whose it is cannot be told: it may be a key that signed for more.
        remember(ORIGIN, 9);
        let trouble = sealing.trouble(&[1]).await;
        assert!(trouble.contains("last-checkpoint") && trouble.contains("missing"), "{trouble}");
        // One that signed before is known by the database, though its secret half is gone.
        std::fs::remove_file(sealing.file()).expect("removed");
        sealing.run(&[1]).await;
        record(store, NODE, 3..4).await;
        sealing.run(&[1]).await;
        let by_the_first = std::fs::read(sealing.file()).expect("remembered");
        record(store, NODE, 4..5).await;
        sealing.run(&[1, 2]).await;
        std::fs::write(sealing.file(), by_the_first).expect("written");
        assert_eq!(sealing.run(&[2]).await.sealed.size, 5);
    }

    pub(super) async fn a_key_that_comes_too_soon_waits_and_sealing_goes_on(test: &TestStore) {
        let (sealing, store) = (Sealing::new(test), &test.store);
        record(store, NODE, 0..5).await;
        let mut running = sealing.start(&[1]);
        running.tell(store).await;
        running.sealed(5).await;
        let second = running.handle.change_key(Box::new(|| Ok([2; 32]))).await.expect("takes over");
        running.end().await;
        let mut running = sealing.start(&[1, 2, 3]);
        running.tell(store).await;
        running.sealed(5).await;
        record(store, NODE, 5..6).await;
        running.tell(store).await;
        running.sealed(6).await;
        let received = running.end().await;
        assert!(Note::parse(received.last().expect("brought")).expect("a note").verified_by(&second).is_ok());
    }

    pub(super) async fn a_key_that_could_not_be_entered_takes_over_once_it_can(test: &TestStore) {
        let (sealing, store) = (Sealing::new(test), &test.store);
        record(store, NODE, 0..5).await;
        let mut running = sealing.start(&[1]);
        running.tell(store).await;
        running.sealed(5).await;
        test.by_hand("ALTER TABLE ledger_keys RENAME TO away").await;
        let failed = running.handle.change_key(Box::new(|| Ok([2; 32]))).await;
        assert!(matches!(failed, Err(NotChanged::Failed(_))), "{failed:?}");
        test.by_hand("ALTER TABLE away RENAME TO ledger_keys").await;
        record(store, NODE, 5..6).await;
        running.tell(store).await;
        running.sealed(6).await;
        let received = running.end().await;
        let second = Signer::new(ORIGIN, &[2; 32]).expect("a name");
        let last = Note::parse(received.last().expect("brought")).expect("a note");
        assert!(last.verified_by(second.key()).is_ok(), "{received:?}");
        assert_eq!(store.ledger_keys(NODE).await.expect("keys").len(), 2);
    }

    pub(super) async fn a_log_keeps_its_name(test: &TestStore) {
        let (mut sealing, store) = (Sealing::new(test), &test.store);
        record(store, NODE, 0..3).await;
        sealing.run(&[1]).await;
        sealing.origin = "elsewhere.example/audit/5";
        record(store, NODE, 3..5).await;
        let state = sealing.run(&[1]).await;
        assert_eq!((state.key.expect("a key").name(), state.sealed.size), (ORIGIN, 5));
    }

    pub(super) async fn checkpoints_are_thinned_to_one_an_hour_but_for_those_that_name_keys(test: &TestStore) {
        let store = &test.store;
        let minute = 60_000_000;
        for n in 0..300_u64 {
            let row = crate::store::ledger::CheckpointRow {
                node_id: NODE,
                size: n + 1,
                root: [0; 32],
                signed_at: crate::clock::Timestamp(1_700_000_000_000_000 / (60 * minute) * (60 * minute))
                    .plus_micros(n.cast_signed() * minute),
                announces: n == 70,
                note: String::new(),
            };
            store.keep_checkpoint(&row).await.expect("kept");
        }
        let all = store.checkpoints(NODE, 0, 400).await.expect("checkpoints");
        store.thin_checkpoints(NODE, all[200].signed_at).await.expect("thinned");
        let left: Vec<u64> =
            store.checkpoints(NODE, 0, 400).await.expect("checkpoints").iter().map(|row| row.size).collect();
        assert_eq!(left, [vec![60, 71, 120, 180], (201..=300).collect()].concat());
    }
}
