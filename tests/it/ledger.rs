//! The ledger of the running gateway: what it records is signed for, and what it signed leaves.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use trust_gateway::audit::ledger::note::{Note, VerifierKey};
use trust_gateway::audit::ledger::tree::Frontier;
use trust_gateway::clock::Clock;
use trust_gateway::config::{Config, Destination, Witness};
use trust_gateway::store::Store;

use crate::support::agent::Agent;
use crate::support::gateway::TestGateway;
use crate::support::rpc;

fn witnessed(file: &Path) -> impl FnOnce(&mut Config) + use<> {
    let witness = Witness { name: "worm".to_owned(), destination: Destination::File(file.to_owned()) };
    move |config| config.audit.witnesses = vec![witness]
}

/// The notes in a file that they were appended to.
fn notes(file: &Path) -> Vec<Note> {
    let text = std::fs::read_to_string(file).expect("it was written");
    let whole: Vec<&str> = text.split("\n\n").filter(|part| !part.is_empty()).collect();
    whole.chunks(2).map(|note| Note::parse(&format!("{}\n\n{}\n", note[0], note[1])).expect("a note")).collect()
}

async fn ledger(gateway: &TestGateway) -> Value {
    gateway.operate("GET", "/api/status", None).await.json()["ledger"].clone()
}

/// Waits until every row is signed for, and the witness has it.
async fn settled(gateway: &TestGateway, rows: u64) -> Value {
    for _ in 0..500 {
        let told = ledger(gateway).await;
        if told["sealed_rows"] == rows && told["unwitnessed_rows"] == 0 {
            return told;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not settled: {}", ledger(gateway).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_recorded_is_signed_for_and_leaves_also_over_restarts_and_with_a_new_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("checkpoints.txt");
    let agent = Agent::echo().await;
    let gateway = TestGateway::with(Clock::system(), witnessed(&file)).await;
    let told = ledger(&gateway).await;
    assert_eq!((&told["state"], &told["rows"]), (&json!("unwitnessed"), &json!(0)));
    let (target, planner) = (gateway.register("target", &agent).await, gateway.register_client("planner").await);
    gateway.connect(&planner, &target).await;
    let key = Some(planner.key.as_str());
    for n in 0..3 {
        gateway.call("target", key, &rpc(n, "SendMessage")).await;
    }
    let told = settled(&gateway, 3).await;
    assert_eq!((&told["state"], &told["witnesses"][0]["name"]), (&json!("witnessed"), &json!("worm")));
    let first = VerifierKey::parse(told["key"].as_str().expect("a key")).expect("a key");
    let public = gateway.gateway.public_address().to_string();
    assert!(first.name().starts_with(&format!("{public}/audit/")), "{}", first.name());

    let rotated = gateway.operate("POST", "/api/audit/rotate-key", None).await;
    assert_eq!(rotated.status, 200, "{}", rotated.text());
    let second = VerifierKey::parse(rotated.json()["key"].as_str().expect("a key")).expect("a key");
    let events = gateway.operate("GET", "/api/events?action=audit.rotate_key", None).await.json();
    assert_eq!(events["events"].as_array().map(Vec::len), Some(1), "{events}");
    gateway.call("target", key, &rpc(4, "SendMessage")).await;

    // The last row is signed for before the gateway is gone. The next start is at another port, and the log keeps its name.
    let gateway = gateway.restart(Clock::system(), witnessed(&file)).await;
    gateway.call("target", key, &rpc(5, "SendMessage")).await;
    let told = settled(&gateway, 5).await;
    assert_eq!(told["key"], second.to_string());
    let newest = gateway.operate("GET", "/api/audit/checkpoint", None).await.json();
    assert_eq!(newest["checkpoints"][0]["size"], 5, "{newest}");
    assert_eq!(newest["checkpoints"][0]["key"], second.to_string());
    let listed = gateway.operate("GET", "/api/audit/checkpoints?from=4", None).await.json();
    assert_eq!(listed["checkpoints"][0]["size"], 4, "{listed}");
    let metrics = gateway.operate("GET", "/metrics", None).await.text();
    for line in
        ["trust_gateway_ledger_rows 5", "trust_gateway_ledger_unwitnessed_rows 0", "trust_gateway_ledger_signing 1"]
    {
        assert!(metrics.contains(line), "{line}");
    }
    let store = Store::open_sqlite(&gateway.data_dir().join("gateway.db")).await.expect("opens");
    let node = store.ledger_nodes().await.expect("nodes")[0];
    let leaves = store.leaf_hashes(node, 0, 100).await.expect("leaves");
    gateway.stop().await;
    store.close().await;

    let notes = notes(&file);
    let sizes: Vec<u64> = notes.iter().map(|note| note.unverified().size).collect();
    assert!(sizes.is_sorted() && sizes.last() == Some(&5) && sizes.contains(&4), "{sizes:?}");
    let naming = notes.iter().find(|note| note.unverified().next_key.is_some()).expect("it left");
    assert_eq!(naming.verified_by(&first).expect("signed").next_key.as_ref(), Some(&second));
    for note in &notes {
        let said = note.unverified();
        let by_old = note.verified_by(&first).is_ok();
        assert!(if said.size <= 3 { by_old } else { note.verified_by(&second).is_ok() && !by_old }, "{said:?}");
        let mut tree = Frontier::default();
        leaves
            .iter()
            .take(usize::try_from(said.size).expect("small"))
            .for_each(|(_, leaf)| tree.push(*leaf, |_, _| {}));
        assert_eq!(tree.root(), said.root);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_end_was_taken_away_is_not_signed_for_and_calls_go_on() {
    let agent = Agent::echo().await;
    let gateway = TestGateway::start().await;
    let (target, planner) = (gateway.register("target", &agent).await, gateway.register_client("planner").await);
    gateway.connect(&planner, &target).await;
    let key = Some(planner.key.as_str());
    for n in 0..3 {
        gateway.call("target", key, &rpc(n, "SendMessage")).await;
    }
    let gateway = gateway
        .restart_after(Clock::system(), |data| {
            // Whoever has the database takes the last row away, and everything in it that knows of the row.
            let take = "DELETE FROM proxy_calls WHERE seq = 3; \
                DELETE FROM ledger_heads; DELETE FROM ledger_checkpoints;";
            let done = std::process::Command::new("python3")
                .args(["-c", "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])"])
                .arg(data.join("gateway.db"))
                .arg(take)
                .status();
            assert!(done.expect("python3 runs").success());
        })
        .await;
    let answer = gateway.call("target", key, &rpc(4, "SendMessage")).await;
    assert_eq!(answer.status, 200);
    for _ in 0..500 {
        let status = gateway.operate("GET", "/api/status", None).await.json();
        let warnings = status["warnings"].to_string();
        if warnings.contains("signed for 3 rows") && warnings.contains("new-node") {
            assert_eq!(status["ledger"]["sealed_rows"], 0, "{status}");
            gateway.stop().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing was said");
}
