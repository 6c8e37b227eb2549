//! Files that somebody made, and checkpoints that come from outside.

use super::*;
use crate::audit::ledger::note::{Checkpoint, Note};
use crate::audit::ledger::verify::{Collected, Kind};

/// A file with rows 200 to 333, and its lines.
async fn middle(test: &TestStore, format: Format, dir: &Path) -> (PathBuf, Vec<String>) {
    let range = Range { from_seq: Some(200), to_seq: Some(333), ..Range::default() };
    let file = exported(test, &range, format, dir).await;
    let text = std::fs::read_to_string(&file).expect("text");
    (file, text.split_inclusive('\n').map(str::to_owned).collect())
}

#[tokio::test]
async fn a_header_that_cannot_be_is_no_export() {
    let (test, dir) = (TestStore::sqlite().await, tempfile::tempdir().expect("a directory"));
    let key = log(&test).await;
    let (file, lines) = middle(&test, Format::Jsonl, dir.path()).await;
    let given = Given { keys: vec![key], ..Given::default() };
    for (from, to) in [
        ("\"version\":1", "\"version\":2"),
        ("trust-gateway-export", "trust-gateway-exporu"),
        ("\"first_seq\":200", "\"first_seq\":0"),
        ("\"first_seq\":200", "\"first_seq\":334"),
        ("\"last_seq\":333", "\"last_seq\":9223372036854775808"),
    ] {
        let header = lines[0].replace(from, to);
        assert_ne!(header, lines[0], "{from}");
        std::fs::write(&file, header + &lines[1..].concat()).expect("written");
        assert!(verify_file(&file, &given, |_| {}).is_err(), "{to}");
    }
    std::fs::write(&file, lines.concat() + &"x".repeat(5 << 20)).expect("written");
    let error = verify_file(&file, &given, |_| {}).expect_err("too long").to_string();
    assert!(error.contains("longer than any"), "{error}");
    test.end().await;
}

#[tokio::test]
async fn an_export_ends_once_and_says_how_many_rows_it_has() {
    let (test, dir) = (TestStore::sqlite().await, tempfile::tempdir().expect("a directory"));
    let key = log(&test).await;
    let (file, lines) = middle(&test, Format::Jsonl, dir.path()).await;
    let last = lines.last().expect("lines");
    let changed = |with: &str| {
        std::fs::write(&file, lines[..lines.len() - 1].concat() + with).expect("written");
        verified(&file, &key)
    };
    assert!(changed(last).is_whole());
    for wrong in [last.replace("134", "133"), last.replace("true", "false")] {
        assert_ne!(&wrong, last);
        assert_eq!(changed(&wrong).completeness.kinds(), [Kind::CutOff].into(), "{wrong}");
    }
    assert_eq!(changed(&last.repeat(2)).integrity.kinds(), [Kind::Inserted].into());
    // Of rows that are there nothing is wrong because others are not.
    let range = Range { from_seq: Some(200), to_seq: Some(320), ..Range::default() };
    let file = exported(&test, &range, Format::Csv, dir.path()).await;
    let text = std::fs::read_to_string(&file).expect("text");
    let cut = text.find("\n320,").expect("the last row") + 1;
    std::fs::write(&file, &text[..cut]).expect("written");
    let report = verified(&file, &key);
    assert_eq!((report.integrity.holds, report.completeness.first_bad), (true, Some(320)), "{report:#?}");
    test.end().await;
}

#[tokio::test]
async fn a_file_does_not_say_whose_log_it_is_of() {
    let (test, dir) = (TestStore::sqlite().await, tempfile::tempdir().expect("a directory"));
    let key = log(&test).await;
    let (file, lines) = middle(&test, Format::Jsonl, dir.path()).await;
    let own = lines[0].replace("\"keys\":[]", &format!("\"keys\":[\"{key}\"]"));
    let of_another =
        |header: &str| header.replace(&format!("\"node_id\":\"{NODE}\""), &format!("\"node_id\":\"{}\"", Uuid::nil()));
    for (header, whole) in [(own.clone(), true), (of_another(&own), false)] {
        std::fs::write(&file, header + &lines[1..].concat()).expect("written");
        let by_its_own = verify_file(&file, &Given::default(), |_| {}).expect("an export");
        assert_eq!((by_its_own.is_whole(), by_its_own.key_unproven), (whole, true), "{by_its_own:#?}");
        assert_eq!(verified(&file, &key).is_whole(), whole);
    }
    std::fs::write(&file, lines.concat().replace("\"origin\":\"gw.", "\"origin\":\"gx.")).expect("written");
    assert!(!verified(&file, &key).is_whole());
    test.end().await;
}

#[tokio::test]
async fn checkpoints_from_outside_are_held_against_a_file() {
    let (test, dir) = (TestStore::sqlite().await, tempfile::tempdir().expect("a directory"));
    let key = log(&test).await;
    let range = Range { from_seq: Some(200), ..Range::default() };
    let whole = exported(&test, &range, Format::Jsonl, dir.path()).await;
    let collected = |note: &str| Collected { note: Note::parse(note).expect("a note"), from: "elsewhere".to_owned() };
    let stored: Vec<Collected> =
        test.store.checkpoints(NODE, 0, 9).await.expect("checkpoints").iter().map(|row| collected(&row.note)).collect();
    let forged = |size, by: u8| {
        let origin = key.name().to_owned();
        vec![collected(&Checkpoint { origin, size, root: [7; 32], next_key: None }.signed(&[&signer(by)]))]
    };
    let verify = |file: &Path, checkpoints| {
        let given = Given { keys: vec![key.clone()], checkpoints, ..Given::default() };
        verify_file(file, &given, |_| {}).expect("an export")
    };
    let report = verify(&whole, stored);
    assert!(report.is_whole(), "{report:#?}");
    // That of 300 rows the file does not have.
    assert_eq!((report.checkpoints, verify(&whole, Vec::new()).checkpoints), (3, 2));
    for (size, by, wrong) in [(300, 1, Kind::SignedAnew), (411, 2, Kind::SignedAnew)] {
        let report = verify(&whole, forged(size, by));
        assert_eq!(report.integrity.kinds(), [wrong].into(), "{size}: {report:#?}");
    }
    // Strangers say nothing, and what lies behind the rows of a file is no part of it.
    assert!(verify(&whole, forged(300, 9)).is_whole());
    let (middle, _) = middle(&test, Format::Jsonl, dir.path()).await;
    assert!(verify(&middle, forged(350, 2)).is_whole());
    // But for the checkpoint that proves it.
    let report = verify(&middle, forged(411, 2));
    assert_eq!(report.integrity.kinds(), [Kind::SignedAnew].into(), "{report:#?}");
    test.end().await;
}
