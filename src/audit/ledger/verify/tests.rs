//! Whatever is done to a log is found, on both databases; a log to which nothing was done is whole.

mod forged;

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use uuid::Uuid;

use super::tamper::{FLIPS, Hands};
use super::{Check, Collected, Content, Given, Kind, Leaf, LogReport, verify_database};
use crate::audit::canonical;
use crate::audit::ledger::note::{Note, Signer};
use crate::audit::ledger::testing::{record, row};
use crate::audit::ledger::tree::Frontier;
use crate::store::testing::{TestStore, on_each_database};

on_each_database!(
    whatever_is_done_to_a_log_is_found,
    a_key_counts_only_if_one_before_it_announced_it,
    what_others_signed_counts_for_nothing,
    erased_rows_are_counted_and_no_hole,
    a_row_that_is_there_twice_is_found_wherever_it_is,
    removed_rows_are_proved_by_their_root,
    what_is_written_otherwise_than_the_gateway_does_is_found,
    kept_roots_tell_the_block,
    logs_that_are_gone_altogether_are_missed,
);

/// A log that was recorded, and what was signed of it.
struct Recorded<'a> {
    hands: Hands<'a>,
    signer: Signer,
    size: u64,
    notes: Vec<Note>,
}

fn signer(node: Uuid, seed: u8) -> Signer {
    Signer::new(&format!("gw.example/audit/{node}"), &[seed; 32]).expect("a name")
}

impl<'a> Recorded<'a> {
    /// Rows in these commits, each sealed.
    async fn new(test: &'a TestStore, commits: &[u64]) -> Self {
        let node = Uuid::new_v4();
        let hands = Hands { test, node };
        let (signer, mut size, mut notes) = (signer(node, 1), 0, Vec::new());
        for rows in commits {
            record(&test.store, node, size..size + rows).await;
            size += rows;
            notes.push(hands.seal(&[&signer]).await);
        }
        Self { hands, signer, size, notes }
    }

    fn elsewhere(&self) -> Vec<Collected> {
        self.notes.iter().map(|note| Collected { note: note.clone(), from: "elsewhere".to_owned() }).collect()
    }

    async fn verify(&self, checkpoints: Vec<Collected>) -> LogReport {
        let keys = vec![self.signer.key().clone()];
        let given = Given { keys, checkpoints, node: Some(self.hands.node) };
        let verified = verify_database(&self.hands.test.store, &given, |_| {}).await.expect("it can be read");
        verified.logs.into_iter().next().expect("a log")
    }

    /// The rows between the checkpoints around `seq`.
    fn between(&self, seq: u64) -> (u64, u64) {
        let sizes = || self.notes.iter().map(|note| note.unverified().size);
        let before = sizes().filter(|size| *size < seq).max().unwrap_or(0);
        (before + 1, sizes().filter(|size| *size >= seq).min().expect("sealed"))
    }
}

#[derive(Clone, Copy, Debug)]
enum Tampering {
    Nothing,
    Flip { which: usize, at: usize },
    Rewrite,
    RewriteAndRegrow,
    Delete { more: u64 },
    DeleteAndCloseUp,
    Swap { other: prop::sample::Index },
    Insert,
    InsertBetween,
    MoveToAnotherNode,
    Truncate,
    TruncateAndSign,
    RewriteAndSign,
}

fn tamperings() -> impl Strategy<Value = Tampering> {
    prop_oneof![
        1 => Just(Tampering::Nothing),
        12 => (0..FLIPS, any::<usize>()).prop_map(|(which, at)| Tampering::Flip { which, at }),
        2 => Just(Tampering::Rewrite),
        2 => Just(Tampering::RewriteAndRegrow),
        2 => (0..40_u64).prop_map(|more| Tampering::Delete { more }),
        1 => Just(Tampering::DeleteAndCloseUp),
        2 => any::<prop::sample::Index>().prop_map(|other| Tampering::Swap { other }),
        1 => Just(Tampering::Insert),
        1 => Just(Tampering::InsertBetween),
        1 => Just(Tampering::MoveToAnotherNode),
        1 => Just(Tampering::Truncate),
        2 => Just(Tampering::TruncateAndSign),
        2 => Just(Tampering::RewriteAndSign),
    ]
}

async fn add_row(hands: &Hands<'_>, seq: u64) {
    let mut row = row(hands.node, 1_000_000);
    row.leaf_hash = canonical::leaf_hash(&row);
    row.seq = seq.cast_signed();
    let batch = crate::store::calls::DrainBatch { node: hands.node, rows: vec![row], ..Default::default() };
    hands.test.store.commit_drained(&batch).await.expect("written");
}

/// Does it, and holds what is found against what was done.
async fn tampered_is_found(log: &Recorded<'_>, what: Tampering, at: u64) {
    let (hands, size) = (&log.hands, log.size);
    let (from, to) = log.between(at);
    let within = |report: &LogReport, first: u64, last: u64| {
        let found = &report.integrity.findings[0];
        assert!(first <= found.first && found.first <= found.last && found.last <= last, "{first}-{last}: {report:#?}");
        assert!((found.first..=found.last).contains(&at), "{report:#?}");
    };
    let only = |found: &super::Findings, kind: Kind| assert_eq!(found.kinds(), BTreeSet::from([kind]), "{found:#?}");
    match what {
        Tampering::Nothing => {
            let report = log.verify(log.elsewhere()).await;
            assert!(report.is_whole() && report.integrity.first_bad.is_none(), "{report:#?}");
            let sizes: BTreeSet<u64> = log.notes.iter().map(|note| note.unverified().size).collect();
            assert_eq!((report.rows, report.signed, report.unsealed), (size, size, 0));
            assert_eq!((report.checkpoints, report.unproven), (sizes.len() as u64, 0));
        }
        Tampering::Flip { which, at: bit } => {
            let done = hands.flip(at, which, bit).await;
            let report = log.verify(Vec::new()).await;
            assert_eq!(report.integrity.first_bad, Some(at), "{done}: {report:#?}");
            assert!(report.completeness.holds, "{done}: {report:#?}");
            assert_eq!(report.integrity.findings.len(), 1, "{done}: {report:#?}");
        }
        Tampering::Rewrite => {
            hands.rewrite(at).await;
            let report = log.verify(Vec::new()).await;
            only(&report.integrity, Kind::NotAsSigned);
            let block = (at - 1) / 256;
            match (block + 1) * 256 <= size {
                // Between two checkpoints that hold, and in one block.
                true => within(&report, from.min(block * 256 + 1), to.max((block + 1) * 256)),
                false => within(&report, from, to),
            }
            let found = &report.integrity.findings[0];
            assert!(found.last - found.first < 256.max(to - from + 1), "{report:#?}");
            assert!(report.completeness.holds, "{report:#?}");
        }
        Tampering::RewriteAndRegrow => {
            hands.rewrite(at).await;
            hands.regrow().await;
            let report = log.verify(Vec::new()).await;
            only(&report.integrity, Kind::NotAsSigned);
            within(&report, from, to);
            assert_eq!(report.unproven, size - to);
        }
        Tampering::Delete { more } => {
            let last = (at + more).min(size);
            hands.delete(at, last).await;
            let report = log.verify(Vec::new()).await;
            only(&report.completeness, Kind::Missing);
            assert_eq!(report.completeness.first_bad, Some(at), "{report:#?}");
            assert_eq!(report.completeness.findings[0].last, last, "{report:#?}");
            assert!(report.integrity.holds || last == size && at == 1, "{report:#?}");
        }
        Tampering::DeleteAndCloseUp => {
            hands.delete(at, at).await;
            hands.renumber(at + 1, size, -1).await;
            let report = log.verify(Vec::new()).await;
            assert_eq!(report.completeness.first_bad, Some(size), "{report:#?}");
            let unproven = size - 1 - report.signed;
            assert!(
                at == size || report.integrity.first_bad.is_some_and(|bad| bad <= at) || report.unproven == unproven,
                "{report:#?}"
            );
        }
        Tampering::Swap { other } => {
            let other = other.index(usize::try_from(size).expect("small")) as u64 + 1;
            if other == at {
                return;
            }
            hands.swap(at, other).await;
            let report = log.verify(Vec::new()).await;
            only(&report.integrity, Kind::NotAsSigned);
            assert!(report.integrity.first_bad.is_some_and(|bad| bad <= at.min(other)), "{report:#?}");
            assert!(report.completeness.holds, "{report:#?}");
        }
        Tampering::Insert => {
            add_row(hands, size + 1).await;
            let report = log.verify(Vec::new()).await;
            only(&report.integrity, Kind::Inserted);
            assert_eq!((report.integrity.first_bad, report.integrity.findings.len()), (Some(size + 1), 1));
        }
        Tampering::InsertBetween => {
            hands.renumber(at, size, 1).await;
            add_row(hands, at).await;
            hands.regrow().await;
            let report = log.verify(Vec::new()).await;
            only(&report.integrity, Kind::NotAsSigned);
            within(&report, from, to);
        }
        Tampering::MoveToAnotherNode => {
            let elsewhere = Uuid::new_v4();
            let node = hands.node;
            hands
                .run(&format!("UPDATE proxy_calls SET node_id = '{elsewhere}' WHERE node_id = '{node}' AND seq = {at}"))
                .await;
            let report = log.verify(Vec::new()).await;
            assert_eq!(report.completeness.first_bad, Some(at), "{report:#?}");
            hands.run(&format!("DELETE FROM proxy_calls WHERE node_id = '{elsewhere}'")).await;
        }
        Tampering::Truncate => {
            hands.delete(at, size).await;
            let report = log.verify(Vec::new()).await;
            only(&report.completeness, Kind::Missing);
            if at == 1 {
                // Nothing of it would be left: that is another test.
                return;
            }
            // Nothing in the database says that there was more.
            hands.forget_checkpoints(at - 1).await;
            hands.regrow().await;
            let report = log.verify(log.elsewhere()).await;
            only(&report.completeness, Kind::Missing);
            assert_eq!(report.completeness.first_bad, Some(at), "{report:#?}");
        }
        Tampering::TruncateAndSign => {
            hands.delete(at, size).await;
            hands.forget_checkpoints(at - 1).await;
            hands.regrow().await;
            record(&hands.test.store, hands.node, 500_000..500_000 + size - at + 2).await;
            hands.seal(&[&log.signer]).await;
            assert!(log.verify(Vec::new()).await.is_whole());
            let report = log.verify(log.elsewhere()).await;
            assert!(report.integrity.kinds().contains(&Kind::SignedAnew), "{report:#?}");
            within(&report, from, to);
        }
        Tampering::RewriteAndSign => {
            hands.rewrite(at).await;
            hands.regrow().await;
            hands.forget_checkpoints(at - 1).await;
            hands.seal(&[&log.signer]).await;
            assert!(log.verify(Vec::new()).await.is_whole());
            let report = log.verify(log.elsewhere()).await;
            only(&report.integrity, Kind::SignedAnew);
            within(&report, from, to);
        }
    }
}

mod suite {
    use super::*;

    pub(super) async fn whatever_is_done_to_a_log_is_found(test: &TestStore) {
        let mut random = TestRunner::new(Config::default());
        let logs = (prop::collection::vec(1..400_u64, 1..5), tamperings(), any::<prop::sample::Index>());
        for _ in 0..(random.config().cases / 10).max(8) {
            let (commits, what, at) = logs.new_tree(&mut random).expect("a case").current();
            let log = Recorded::new(test, &commits).await;
            let at = at.index(usize::try_from(log.size).expect("small")) as u64 + 1;
            #[allow(clippy::print_stdout)] // shown with a failure: the case it is of
            {
                println!("{commits:?} {what:?} at {at}");
            }
            tampered_is_found(&log, what, at).await;
        }
    }

    pub(super) async fn a_key_counts_only_if_one_before_it_announced_it(test: &TestStore) {
        let log = Recorded::new(test, &[5]).await;
        let (hands, store) = (&log.hands, &test.store);
        let (second, third) = (signer(hands.node, 2), signer(hands.node, 3));
        hands.seal(&[&log.signer, &second]).await;
        record(store, hands.node, 5..9).await;
        hands.seal(&[&second]).await;
        record(store, hands.node, 9..12).await;
        hands.seal(&[&second, &third]).await;
        record(store, hands.node, 12..13).await;
        hands.seal(&[&third]).await;
        let report = log.verify(log.elsewhere()).await;
        assert!(report.is_whole(), "{report:#?}");
        assert_eq!(report.keys, [log.signer.key(), second.key(), third.key()].map(ToString::to_string));
        assert_eq!((report.signed, report.checkpoints), (13, 4));
        // The first key has nothing to say any more.
        record(store, hands.node, 13..14).await;
        hands.seal(&[&log.signer]).await;
        let report = log.verify(Vec::new()).await;
        assert_eq!(report.integrity.kinds(), BTreeSet::from([Kind::Untrusted]), "{report:#?}");
        assert_eq!(report.integrity.first_bad, Some(14));
    }

    pub(super) async fn what_others_signed_counts_for_nothing(test: &TestStore) {
        let log = Recorded::new(test, &[300, 30]).await;
        let stranger = signer(log.hands.node, 9);
        record(&test.store, log.hands.node, 330..340).await;
        log.hands.seal(&[&stranger]).await;
        let report = log.verify(Vec::new()).await;
        assert_eq!(report.integrity.kinds(), BTreeSet::from([Kind::Untrusted]), "{report:#?}");
        assert_eq!((report.signed, report.unsealed), (330, 10));
        // It names itself a successor, and the database's keys say so, too.
        log.hands.seal(&[&stranger, &signer(log.hands.node, 8)]).await;
        let report = log.verify(Vec::new()).await;
        assert_eq!(report.integrity.kinds(), BTreeSet::from([Kind::Untrusted]), "{report:#?}");
        // All is signed anew with another key.
        log.hands.forget_checkpoints(0).await;
        log.hands.seal(&[&stranger]).await;
        let report = log.verify(Vec::new()).await;
        assert!(!report.integrity.holds && report.signed == 0, "{report:#?}");
        // A signature that was changed.
        log.hands.seal(&[&log.signer]).await;
        let node = log.hands.node;
        test.by_hand(&format!(
            "UPDATE ledger_checkpoints SET note = replace(note, '\n340\n', '\n341\n') WHERE node_id = '{node}'"
        ))
        .await;
        let report = log.verify(Vec::new()).await;
        assert!(report.integrity.kinds().contains(&Kind::Untrusted), "{report:#?}");
    }

    pub(super) async fn erased_rows_are_counted_and_no_hole(test: &TestStore) {
        let log = Recorded::new(test, &[300]).await;
        let row = log.hands.row(7).await;
        let (Some(salt), Some(ip)) = (row.personal_salt, row.client_ip) else { panic!("it has an address") };
        let hex: String = canonical::commitment(&salt, &ip).iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes = if test.store.is_shared() { format!("'\\x{hex}'") } else { format!("x'{hex}'") };
        log.hands
            .run(&format!(
                "UPDATE proxy_calls SET client_ip = NULL, personal_salt = NULL, client_ip_commitment = {bytes} \
                 WHERE seq = 7 AND node_id = '{}'",
                log.hands.node
            ))
            .await;
        let report = log.verify(Vec::new()).await;
        assert!(report.is_whole(), "{report:#?}");
        assert_eq!((report.erased_addresses, report.erased_rows), (1, 0));
        let node = log.hands.node;
        let erase = |seq: u64, more: &str| {
            format!(
                "UPDATE proxy_calls SET erased_at = '2026-01-01T00:00:00.000000Z'{more} \
                 WHERE seq = {seq} AND node_id = '{node}'"
            )
        };
        // The eighth was refused.
        let gone = ", client_ip = NULL, personal_salt = NULL, method = NULL, rpc_id = NULL";
        log.hands.run(&erase(8, gone)).await;
        let report = log.verify(Vec::new()).await;
        assert!(report.is_whole() && report.erased_rows == 1, "{report:#?}");
        // Whoever says so of others takes all that they say out of the proof.
        for (seq, more) in [(9, gone), (15, "")] {
            log.hands.run(&erase(seq, more)).await;
            let report = log.verify(Vec::new()).await;
            let bad = report.integrity.findings.iter().find(|finding| finding.first == seq);
            assert_eq!(bad.map(|bad| bad.kind), Some(Kind::Unreadable), "{report:#?}");
        }
        // An address beside its commitment could be any.
        let sql = format!("UPDATE proxy_calls SET client_ip = 'x' WHERE seq = 7 AND node_id = '{}'", log.hands.node);
        log.hands.run(&sql).await;
        let report = log.verify(Vec::new()).await;
        let bad: Vec<u64> = report.integrity.findings.iter().map(|finding| finding.first).collect();
        assert_eq!(
            (report.integrity.kinds(), bad),
            (BTreeSet::from([Kind::Unreadable]), vec![7, 9, 15]),
            "{report:#?}"
        );
    }

    pub(super) async fn a_row_that_is_there_twice_is_found_wherever_it_is(test: &TestStore) {
        // Where each day is a table, nothing but us keeps a row from being in two of them.
        if !test.store.is_shared() {
            return;
        }
        for seq in [299, 300, 301, 600] {
            let log = Recorded::new(test, &[700]).await;
            let node = log.hands.node;
            log.hands
                .run(&format!(
                    "INSERT INTO proxy_calls SELECT (jsonb_populate_record(log, jsonb_build_object('sealed_on', \
                     sealed_on + 1))).* FROM proxy_calls AS log WHERE seq = {seq} AND node_id = '{node}'"
                ))
                .await;
            let report = log.verify(Vec::new()).await;
            assert_eq!(report.integrity.kinds(), BTreeSet::from([Kind::Inserted]), "{seq}: {report:#?}");
        }
    }

    pub(super) async fn kept_roots_tell_the_block(test: &TestStore) {
        let log = Recorded::new(test, &[700]).await;
        log.hands.rewrite(300).await;
        let report = log.verify(Vec::new()).await;
        let found = &report.integrity.findings[0];
        assert_eq!((found.first, found.last, report.integrity.findings.len()), (257, 512, 1), "{report:#?}");
        assert_eq!((report.signed, report.unproven), (700, 0));
        // They are believed only where they give what was signed.
        log.hands.regrow().await;
        let report = log.verify(Vec::new()).await;
        let found = &report.integrity.findings[0];
        assert_eq!((found.first, found.last, report.signed), (1, 700, 0), "{report:#?}");
    }

    pub(super) async fn what_is_written_otherwise_than_the_gateway_does_is_found(test: &TestStore) {
        // Where an id is a text, the same id can be written in several ways.
        if test.store.is_shared() {
            return;
        }
        let log = Recorded::new(test, &[20]).await;
        for (seq, change) in [(11, "id = upper(id)"), (5, "called_at = replace(called_at, 'T', 't')")] {
            let node = log.hands.node;
            log.hands.run(&format!("UPDATE proxy_calls SET {change} WHERE seq = {seq} AND node_id = '{node}'")).await;
            let report = log.verify(Vec::new()).await;
            assert_eq!(report.integrity.kinds(), BTreeSet::from([Kind::Unreadable]), "{report:#?}");
            assert_eq!(report.integrity.first_bad, Some(seq));
        }
    }

    pub(super) async fn removed_rows_are_proved_by_their_root(test: &TestStore) {
        let log = Recorded::new(test, &[300, 400, 300]).await;
        let reader = crate::audit::ledger::read::TreeReader::open(&test.store, log.hands.node).await.expect("opens");
        let tree = reader.frontier(300).await.expect("a tree");
        let frontier: String = tree.roots().concat().iter().map(|byte| format!("{byte:02x}")).collect();
        let frontier = if test.store.is_shared() { format!("'\\x{frontier}'") } else { format!("x'{frontier}'") };
        log.hands.delete(1, 300).await;
        let report = log.verify(Vec::new()).await;
        assert_eq!((report.completeness.findings[0].last, report.integrity.holds), (300, true), "{report:#?}");
        test.by_hand(&format!(
            "INSERT INTO ledger_dropped (node_id, size, frontier, dropped_at) \
             VALUES ('{}', 300, {frontier}, '2026-01-01T00:00:00.000000Z')",
            log.hands.node
        ))
        .await;
        let report = log.verify(Vec::new()).await;
        assert!(report.is_whole(), "{report:#?}");
        assert_eq!((report.before, report.rows, report.checkpoints), (300, 700, 3));
        log.hands.rewrite(301).await;
        let report = log.verify(Vec::new()).await;
        assert_eq!(report.integrity.findings[0].first, 301, "{report:#?}");
    }

    pub(super) async fn logs_that_are_gone_altogether_are_missed(test: &TestStore) {
        let (log, gone) = (Recorded::new(test, &[3]).await, Recorded::new(test, &[4]).await);
        let node = gone.hands.node;
        gone.hands.delete(1, 4).await;
        let given = Given {
            checkpoints: [log.elsewhere(), gone.elsewhere()].concat(),
            keys: vec![log.signer.key().clone(), gone.signer.key().clone()],
            node: None,
        };
        let verify = async || verify_database(&test.store, &given, |_| {}).await.expect("it can be read");
        let verified = verify().await;
        assert!(!verified.whole && verified.logs.len() == 2 && verified.absent.is_empty(), "{verified:#?}");
        for table in ["ledger_heads", "ledger_checkpoints"] {
            test.by_hand(&format!("DELETE FROM {table} WHERE node_id = '{node}'")).await;
        }
        let verified = verify().await;
        assert!(!verified.whole && verified.logs.len() == 1, "{verified:#?}");
        assert_eq!(verified.absent, [gone.signer.key().name()]);
        // Without a key, the database's own counts, and the report says so.
        let given = Given { node: Some(log.hands.node), ..Given::default() };
        let verified = verify_database(&test.store, &given, |_| {}).await.expect("it can be read");
        assert!(!verified.whole && !verified.logs[0].integrity.holds, "{verified:#?}");
    }
}

#[test]
fn a_row_far_out_is_no_reason_to_go_on_for_ever() {
    let leaf = |seq| Leaf { seq, stored: Some([1; 32]), content: Content::Erased, address_erased: false, gap: false };
    let mut check = Check::new(LogReport::new(Uuid::nil()), &Frontier::default(), u64::MAX, Vec::new());
    for seq in [1, i64::MAX - 1, i64::MAX] {
        check.row(&leaf(seq));
    }
    let report = check.finish(None, None);
    assert!(!report.completeness.holds && !report.integrity.holds, "{report:#?}");
    assert_eq!((report.rows, report.unproven, report.completeness.first_bad), (3, 1, Some(2)));
}
