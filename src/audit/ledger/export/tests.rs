//! Exports hold, whatever part of a log they are of and whatever is in the rows; a changed one does not.

mod crafted;

use std::path::{Path, PathBuf};

use futures_util::TryStreamExt as _;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use uuid::Uuid;

use super::read::proof_beside;
use super::row::{COLUMNS, ExportedRow, NUMBERS};
use super::{ExportError, Format, Range, consistency, csv, export, header, proof, verify_file};
use crate::audit::ledger::note::{Signer, VerifierKey};
use crate::audit::ledger::proof::check_consistency;
use crate::audit::ledger::read::TreeReader;
use crate::audit::ledger::testing::{record, row};
use crate::audit::ledger::verify::tamper::Hands;
use crate::audit::ledger::verify::{Given, LogReport};
use crate::clock::Timestamp;
use crate::store::calls::ScannedRow;
use crate::store::calls::remove::Prefix;
use crate::store::rows::CallRow;
use crate::store::testing::{TestStore, on_each_database};

on_each_database!(
    every_part_of_a_log_proves_itself,
    an_export_that_was_changed_is_found,
    a_call_is_proved_and_one_state_by_the_next,
    what_cannot_be_proved_is_not_exported,
);

const NODE: Uuid = Uuid::from_u128(5);

fn signer(seed: u8) -> Signer {
    Signer::new(&format!("gw.example/audit/{NODE}"), &[seed; 32]).expect("a name")
}

/// A log under two keys; the first.
async fn log(test: &TestStore) -> VerifierKey {
    let (first, second, hands) = (signer(1), signer(2), Hands { test, node: NODE });
    record(&test.store, NODE, 0..300).await;
    hands.seal(&[&first]).await;
    record(&test.store, NODE, 300..333).await;
    hands.seal(&[&first, &second]).await;
    record(&test.store, NODE, 333..411).await;
    hands.seal(&[&second]).await;
    first.key().clone()
}

async fn exported(test: &TestStore, range: &Range, format: Format, dir: &Path) -> PathBuf {
    let header = header(&test.store, NODE, range).await.expect("rows");
    let pieces: Vec<bytes::Bytes> =
        export(test.store.clone(), &header, format).expect("begins").try_collect().await.expect("whole");
    let file = dir.join("calls");
    std::fs::write(&file, pieces.concat()).expect("written");
    std::fs::write(proof_beside(&file), serde_json::to_string(&header).expect("JSON")).expect("written");
    file
}

fn verified(file: &Path, key: &VerifierKey) -> LogReport {
    let given = Given { keys: vec![key.clone()], ..Given::default() };
    verify_file(file, &given, |_| {}).expect("an export")
}

mod suite {
    use super::*;

    pub(super) async fn every_part_of_a_log_proves_itself(test: &TestStore) {
        let (key, dir) = (log(test).await, tempfile::tempdir().expect("a directory"));
        for (from, to) in [(1, 411), (1, 1), (411, 411), (2, 410), (257, 300), (256, 257), (100, 333)] {
            for format in [Format::Jsonl, Format::Csv] {
                let range = Range { from_seq: Some(from), to_seq: Some(to), ..Range::default() };
                let file = exported(test, &range, format, dir.path()).await;
                let report = verified(&file, &key);
                assert!(report.is_whole(), "{from}-{to} {format:?}: {report:#?}");
                assert_eq!((report.rows, report.before, report.signed), (to + 1 - from, from - 1, to));
                assert_eq!(report.keys.len(), 2);
                assert!(!verified(&file, signer(3).key()).is_whole());
                let own = verify_file(&file, &Given::default(), |_| {}).expect("an export");
                assert_eq!((own.is_whole(), own.key_unproven), (false, true), "{own:#?}");
            }
        }
        let (since, until) = (row(NODE, 99).called_at, row(NODE, 200).called_at);
        let range = Range { since: Some(since), until: Some(until), ..Range::default() };
        let header = header(&test.store, NODE, &range).await.expect("rows");
        assert_eq!((header.first_seq, header.last_seq), (100, 200));
    }

    pub(super) async fn an_export_that_was_changed_is_found(test: &TestStore) {
        let (key, dir) = (log(test).await, tempfile::tempdir().expect("a directory"));
        let mut random = TestRunner::new(Config::default());
        for format in [Format::Jsonl, Format::Csv] {
            let range = Range { from_seq: Some(200), to_seq: Some(333), ..Range::default() };
            let file = exported(test, &range, format, dir.path()).await;
            let text = std::fs::read_to_string(&file).expect("text");
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            let whole = |lines: &[&str]| {
                std::fs::write(&file, lines.concat()).expect("written");
                verify_file(&file, &Given { keys: vec![key.clone()], ..Given::default() }, |_| {})
                    .is_ok_and(|report| report.is_whole())
            };
            assert!(whole(&lines));
            // One line per row but for texts with line ends in CSV: any order of lines but this is wrong.
            let cases = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5_u8);
            for _ in 0..random.config().cases / 4 {
                let (a, b, what) = cases.new_tree(&mut random).expect("a case").current();
                let (a, b) = (a.index(lines.len() - 1) + 1, b.index(lines.len() - 1) + 1);
                let mut changed = lines.clone();
                let digit;
                match what {
                    0 => drop(changed.remove(a)),
                    1 => changed.swap(a, b),
                    2 => changed.insert(b, lines[a]),
                    3 => changed.truncate(a),
                    _ => {
                        digit = lines[a].chars().map(|c| if c == '7' { '3' } else { c }).collect::<String>();
                        changed[a] = &digit;
                    }
                }
                assert_eq!(whole(&changed), changed == lines, "{format:?} {what} {a} {b}");
            }
            // Rows that there cannot be.
            for last in ["0", "18446744073709551615"] {
                let header = lines[0].replace("\"last_seq\":333", &format!("\"last_seq\":{last}"));
                assert!(format == Format::Csv || header != lines[0]);
                assert_eq!(whole(&[&[header.as_str()], &lines[1..]].concat()), format == Format::Csv);
            }
            // Bytes that are missing at the end.
            let cut = text.len() - 2;
            assert!(!whole(&[&text[..cut]]));
        }
    }

    pub(super) async fn a_call_is_proved_and_one_state_by_the_next(test: &TestStore) {
        let (key, dir) = (log(test).await, tempfile::tempdir().expect("a directory"));
        let file = dir.path().join("proof.json");
        for n in [0, 299, 410] {
            let proof = proof(&test.store, row(NODE, n).id).await.expect("in the log");
            let text = serde_json::to_string_pretty(&proof).expect("JSON");
            let whole = |text: &str| {
                std::fs::write(&file, text).expect("written");
                verified(&file, &key).is_whole()
            };
            assert!(whole(&text));
            for (from, to) in
                [("\"status_code\": 2", "\"status_code\": 5"), ("\"status_code\": 4", "\"status_code\": 5")]
            {
                assert_eq!(whole(&text.replace(from, to)), !text.contains(from));
            }
            assert!(!whole(&text.replace("\"size\": 411", "\"size\": 410")));
            assert!(!whole(&text.replace("\"seq\": ", "\"seq\": 9")));
        }
        let none = proof(&test.store, Uuid::from_u128(1 << 120)).await;
        assert!(matches!(none, Err(ExportError::Absent(_))), "{none:?}");
        let proof = consistency(&test.store, NODE, 300, 411).await.expect("both");
        let held = check_consistency(300, &proof.from_root, 411, &proof.to_root, &proof.hashes);
        assert_eq!(held, Ok(()));
        assert!(consistency(&test.store, NODE, 300, 412).await.is_err());
    }

    pub(super) async fn what_cannot_be_proved_is_not_exported(test: &TestStore) {
        let range = Range::default();
        let none = header(&test.store, NODE, &range).await;
        assert!(matches!(none, Err(ExportError::Absent(_))), "{none:?}");
        log(test).await;
        record(&test.store, NODE, 411..413).await;
        assert_eq!(header(&test.store, NODE, &range).await.expect("rows").last_seq, 411);
        let lately = Range { since: Some(row(NODE, 400).called_at), ..range };
        let lately = header(&test.store, NODE, &lately).await.expect("rows");
        assert_eq!((lately.first_seq, lately.last_seq), (401, 411));
        let beyond = Range { to_seq: Some(412), ..range };
        assert!(header(&test.store, NODE, &beyond).await.is_err());
        assert!(header(&test.store, NODE, &Range { from_seq: Some(412), ..range }).await.is_err());
        let unsigned = proof(&test.store, row(NODE, 412).id).await;
        assert!(matches!(unsigned, Err(ExportError::Absent(_))), "{unsigned:?}");
        // Rows that retention has removed.
        let reader = TreeReader::open(&test.store, NODE).await.expect("opens");
        let prefix = Prefix { node: NODE, before: 0, tree: reader.frontier(4).await.expect("a tree") };
        test.store.remove_next(&prefix, 4, Timestamp(0)).await.expect("removed");
        assert_eq!(header(&test.store, NODE, &range).await.expect("rows").first_seq, 5);
        // A row that went missing ends the export with an error, and never with its last line.
        let header = header(&test.store, NODE, &range).await.expect("rows");
        Hands { test, node: NODE }.delete(100, 100).await;
        let pieces: Result<Vec<_>, _> =
            export(test.store.clone(), &header, Format::Jsonl).expect("begins").try_collect().await;
        assert!(pieces.is_err_and(|error| error.to_string().contains("row 100")));
    }
}

/// A row with whatever a text can hold in every column.
fn any_row() -> impl Strategy<Value = CallRow> {
    let text = || prop_oneof![Just(String::new()), "[ -~]{1,12}", any::<String>(), Just("a\"b,\r\nc\"".to_owned())];
    let some = move || prop::option::of(text());
    let number = || prop_oneof![any::<i64>(), Just(i64::MIN), Just(0)];
    let texts = prop::collection::vec(some(), 11);
    let ids = prop::collection::vec(prop::option::of(any::<u128>().prop_map(Uuid::from_u128)), 4);
    let numbers = (prop::collection::vec(number(), 6), prop::collection::vec(prop::option::of(number()), 5));
    let time = -62_135_596_800_000_000..253_402_207_200_000_000_i64;
    (texts, ids, numbers, time, prop::option::of(any::<[u8; 16]>()), text()).prop_map(
        |(texts, ids, (numbers, some), time, salt, text)| {
            let [protocol_version, method, rpc_id, task_id, context_id, message_id, reason, rule, digest, state, trace] =
                <[_; 11]>::try_from(texts).expect("eleven");
            CallRow {
                called_at: Timestamp(time),
                target_agent_id: ids[0],
                caller_agent_id: ids[1],
                credential_id: ids[2],
                connection_id: ids[3],
                client_ip: salt.map(|_| text.clone()),
                personal_salt: salt,
                client_ip_commitment: salt.is_none().then_some([7; 32]),
                auth_method: text.clone(),
                operation: text,
                protocol_version,
                method,
                rpc_id,
                task_id,
                context_id,
                message_id,
                reason,
                policy_rule: rule,
                policy_digest: digest,
                task_state: state,
                trace_id: trace,
                units: numbers[0],
                status_code: numbers[1],
                request_bytes: numbers[2],
                response_bytes: numbers[3],
                latency_ms: numbers[4],
                calls: numbers[5],
                upstream_status: some[0],
                rpc_error_code: some[1],
                stream_events: some[2],
                ttfb_ms: some[3],
                limit_left: some[4],
                ..row(Uuid::nil(), 3)
            }
        },
    )
}

proptest! {
    #[test]
    fn a_row_comes_back_from_either_form_as_it_was(row in any_row(), erased in any::<bool>()) {
        let leaf_hash = Some(row.leaf_hash);
        let exported = ExportedRow::try_from(ScannedRow { seq: row.seq, leaf_hash, row: Ok(row.clone()), erased });
        let exported = exported.expect("a row");
        let json = serde_json::to_string(&exported).expect("JSON");
        prop_assert_eq!(&serde_json::from_str::<ExportedRow>(&json).expect("a row"), &exported);
        let line = csv::line(&exported).expect("CSV");
        prop_assert_eq!(&csv::row(&line).expect("a row"), &exported);
        prop_assert_eq!(exported.into_scanned().row.expect("a row"), row);
    }
}

#[test]
fn the_columns_that_are_numbers_are_named() {
    let row = ExportedRow::try_from(ScannedRow {
        seq: 1,
        leaf_hash: Some([0; 32]),
        row: Ok(CallRow {
            upstream_status: Some(1),
            rpc_error_code: Some(1),
            stream_events: Some(1),
            ttfb_ms: Some(1),
            limit_left: Some(1),
            ..row(Uuid::nil(), 1)
        }),
        erased: true,
    });
    let row = serde_json::to_value(row.expect("a row")).expect("JSON");
    let row = row.as_object().expect("an object");
    let numbers: Vec<&str> =
        COLUMNS.iter().filter(|name| row.get(**name).is_some_and(|it| it.is_number())).copied().collect();
    assert_eq!(numbers, NUMBERS);
    assert!(row.keys().all(|name| COLUMNS.contains(&name.as_str())));
}
