//! What is made to look right in one place, and is not in another.

use super::super::claims;
use super::*;
use crate::audit::ledger::note::Checkpoint;
use crate::audit::ledger::read::TreeReader;
use crate::clock::Timestamp;
use crate::store::calls::remove::Prefix;
use crate::store::ledger::LedgerKeyRow;

on_each_database!(
    rows_that_have_no_place_in_the_tree_are_found,
    rows_nobody_signed_for_are_held_against_the_tree_they_are_in,
    a_kept_root_that_was_changed_is_found_and_the_others_still_tell_the_block,
    rows_of_nodes_that_are_none_are_found,
    rows_that_retention_removes_meanwhile_are_no_hole,
    what_is_signed_for_is_whole_without_what_else_is_kept,
);

mod suite {
    use super::*;

    pub(super) async fn rows_that_have_no_place_in_the_tree_are_found(test: &TestStore) {
        for seq in [0, 22] {
            let log = Recorded::new(test, &[20]).await;
            add_row(&log.hands, seq).await;
            let report = log.verify(Vec::new()).await;
            assert_eq!(report.integrity.kinds(), BTreeSet::from([Kind::Inserted]), "{report:#?}");
            assert_eq!((report.integrity.first_bad, report.integrity.findings.len()), (Some(seq), 1));
        }
    }

    pub(super) async fn rows_nobody_signed_for_are_held_against_the_tree_they_are_in(test: &TestStore) {
        let log = Recorded::new(test, &[20]).await;
        record(&test.store, log.hands.node, 20..30).await;
        let report = log.verify(Vec::new()).await;
        assert!(report.is_whole() && report.unsealed == 10, "{report:#?}");
        log.hands.rewrite(25).await;
        let report = log.verify(Vec::new()).await;
        assert_eq!(report.integrity.kinds(), BTreeSet::from([Kind::Kept]), "{report:#?}");
        assert_eq!(report.integrity.first_bad, Some(21));
        // Where there is no checkpoint at all, nothing shows anything.
        let log = Recorded::new(test, &[]).await;
        record(&test.store, log.hands.node, 0..20).await;
        let report = log.verify(Vec::new()).await;
        assert_eq!(report.integrity.kinds(), BTreeSet::from([Kind::Unsigned]), "{report:#?}");
    }

    pub(super) async fn a_kept_root_that_was_changed_is_found_and_the_others_still_tell_the_block(test: &TestStore) {
        let log = Recorded::new(test, &[700, 600]).await;
        let of = format!("node_id = '{}' AND level = 8 AND position", log.hands.node);
        let other = format!("(SELECT hash FROM ledger_subtrees WHERE {of} = 0)");
        test.by_hand(&format!("UPDATE ledger_subtrees SET hash = {other} WHERE {of} = 1")).await;
        let found = |report: &LogReport| -> Vec<(Kind, u64, u64)> {
            report.integrity.findings.iter().map(|found| (found.kind, found.first, found.last)).collect()
        };
        let report = log.verify(Vec::new()).await;
        assert_eq!((found(&report), report.signed), (vec![(Kind::Kept, 257, 512)], 1_300), "{report:#?}");
        // In a block that rows before it share, which are what was signed.
        log.hands.rewrite(730).await;
        let report = log.verify(Vec::new()).await;
        let both = vec![(Kind::Kept, 257, 512), (Kind::NotAsSigned, 701, 768)];
        assert_eq!((found(&report), report.signed), (both, 1_300), "{report:#?}");
        // Or in one before that of the root.
        let log = Recorded::new(test, &[700, 600]).await;
        let of = format!("node_id = '{}' AND level = 8 AND position", log.hands.node);
        let other = format!("(SELECT hash FROM ledger_subtrees WHERE {of} = 0)");
        test.by_hand(&format!("UPDATE ledger_subtrees SET hash = {other} WHERE {of} = 3")).await;
        log.hands.rewrite(100).await;
        let report = log.verify(Vec::new()).await;
        let both = vec![(Kind::NotAsSigned, 1, 256), (Kind::Kept, 769, 1_024)];
        assert_eq!((found(&report), report.signed), (both, 1_300), "{report:#?}");
    }

    pub(super) async fn rows_that_retention_removes_meanwhile_are_no_hole(test: &TestStore) {
        let log = Recorded::new(test, &[2_000]).await;
        let (store, node) = (&test.store, log.hands.node);
        let reader = TreeReader::open(store, node).await.expect("opens");
        let mut prefix = Some(Prefix { node, before: 0, tree: reader.frontier(1_990).await.expect("a tree") });
        let given = Given { keys: vec![log.signer.key().clone()], ..Given::default() };
        let verified = verify_database(store, &given, |_| {
            let Some(prefix) = prefix.take() else { return };
            let removed = async { store.remove_next(&prefix, 2_000, Timestamp(0)).await.expect("removed") };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(removed));
        });
        let verified = verified.await.expect("it can be read");
        assert!(verified.whole && verified.logs[0].before == 1_990, "{verified:#?}");
    }

    pub(super) async fn what_is_signed_for_is_whole_without_what_else_is_kept(test: &TestStore) {
        let log = Recorded::new(test, &[20]).await;
        let node = log.hands.node;
        test.by_hand(&format!("DELETE FROM ledger_heads WHERE node_id = '{node}'")).await;
        // The first of them is none of this log's.
        for (number, key) in [(1, signer(Uuid::nil(), 1).key().to_string()), (2, log.signer.key().to_string())] {
            let row = LedgerKeyRow { number, key, size: 0, added_at: Timestamp(0) };
            test.store.keep_ledger_key(node, &row).await.expect("kept");
        }
        let given = Given { node: Some(node), ..Given::default() };
        let verified = verify_database(&test.store, &given, |_| {}).await.expect("it can be read");
        assert!(verified.whole && verified.logs[0].key_unproven, "{verified:#?}");
    }

    pub(super) async fn rows_of_nodes_that_are_none_are_found(test: &TestStore) {
        // Elsewhere the database takes nothing but an id.
        if test.store.is_shared() {
            return;
        }
        let log = Recorded::new(test, &[20]).await;
        let node = log.hands.node;
        for (seq, name) in [(5, "'nobody'"), (6, "upper(node_id)")] {
            log.hands
                .run(&format!("UPDATE proxy_calls SET node_id = {name} WHERE seq = {seq} AND node_id = '{node}'"))
                .await;
        }
        let given = Given { keys: vec![log.signer.key().clone()], ..Given::default() };
        let verified = verify_database(&test.store, &given, |_| {}).await.expect("it can be read");
        assert!(!verified.whole);
        let strange: BTreeSet<String> = verified.strange.into_iter().collect();
        assert_eq!(strange, BTreeSet::from(["nobody".to_owned(), node.to_string().to_uppercase()]));
    }
}

#[test]
fn a_successor_counts_if_it_signs_itself_and_is_named_by_the_key_that_reigns() {
    let [a, b, c, stranger] = [1, 2, 3, 9].map(|seed| signer(Uuid::nil(), seed));
    let note = |size: u64, signers: &[&Signer], next: Option<&Signer>| {
        let (origin, next_key) = (a.key().name().to_owned(), next.map(|next| next.key().clone()));
        let said = Checkpoint { origin, size, root: [7; 32], next_key };
        Collected { note: Note::parse(&said.signed(signers)).expect("a note"), from: "a file".to_owned() }
    };
    let keys = |notes: &[Collected]| {
        let mut report = LogReport::new(Uuid::nil());
        let sizes: Vec<u64> = claims(a.key(), notes, &mut report).iter().map(|claim| claim.size).collect();
        (report.keys.len(), sizes, report.checkpoints_of_others, report.integrity.holds)
    };
    let first = note(5, &[&a, &b], Some(&b));
    assert_eq!(keys(std::slice::from_ref(&first)), (2, vec![5], 0, true));
    // The next has not signed that it is one.
    assert_eq!(keys(&[first.clone(), note(9, &[&b], Some(&c))]), (2, vec![5, 9], 0, true));
    // It was named when another reigned.
    assert_eq!(keys(&[first.clone(), note(3, &[&b, &c], Some(&c))]), (2, vec![5], 0, false));
    // One that was replaced does not come back.
    assert_eq!(keys(&[first.clone(), note(9, &[&b, &a], Some(&a))]), (2, vec![5, 9], 0, true));
    // A text that a signature was taken from.
    let mut changed = note(4, &[&a], None);
    let text = Checkpoint { size: 4, ..changed.note.unverified().clone() }.signed(&[&a]).replace("\n4\n", "\n3\n");
    changed.note = Note::parse(&text).expect("a note");
    assert_eq!(keys(&[first.clone(), changed]), (2, vec![5], 0, false));
    // What others signed says nothing, but behind the last that counts it may be what hides the rest.
    assert_eq!(keys(&[first.clone(), note(4, &[&stranger], None)]), (2, vec![5], 1, true));
    assert_eq!(keys(&[first, note(6, &[&stranger], None)]), (2, vec![5], 0, false));
}
