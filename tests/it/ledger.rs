//! The ledger of the running gateway: what it records is signed for, and what it signed leaves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use trust_gateway::audit::ledger::note::{Note, VerifierKey};
use trust_gateway::audit::ledger::tree::Frontier;
use trust_gateway::clock::Clock;
use trust_gateway::config::{Config, Destination, Witness};
use trust_gateway::store::Store;

use crate::support::agent::{Agent, Conn};
use crate::support::client::Client;
use crate::support::gateway::TestGateway;
use crate::support::process::Process;
use crate::support::rpc;

fn witnessed(file: &Path) -> impl FnOnce(&mut Config) + use<> {
    let witness = Witness { name: "worm".to_owned(), destination: Destination::File(file.to_owned()) };
    move |config| config.audit.witnesses = vec![witness]
}

/// The notes in a file that they were appended to.
fn notes(file: &Path) -> Vec<Note> {
    let text = std::fs::read_to_string(file).expect("it was written");
    Note::parse_all(&text).into_iter().map(|(_, note)| note.expect("a note")).collect()
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
            let take = "INSERT INTO ledger_permits VALUES ('drop'); DELETE FROM proxy_calls WHERE seq = 3; \
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_that_is_away_is_told_of_and_gets_the_newest_checkpoint_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let token = dir.path().join("token");
    std::fs::write(&token, "s3cret\n").expect("written");
    let tries = Arc::new(AtomicUsize::new(0));
    let witness = {
        let tries = Arc::clone(&tries);
        Agent::start(move |mut conn: Conn| {
            let tries = Arc::clone(&tries);
            async move {
                while conn.request().await.is_some() {
                    let status = if tries.fetch_add(1, Ordering::SeqCst) < 2 { "500 Oh no" } else { "200 OK" };
                    conn.json(status, &json!({})).await;
                }
            }
        })
        .await
    };
    let agent = Agent::echo().await;
    let url = format!("{}checkpoints", witness.url());
    let settings = format!("[{{ name = \"far\", url = \"{url}\", token_file = \"{}\" }}]", token.display());
    let gateway = Process::start(dir.path(), &[("AUDIT__WITNESSES", &settings)]).await;
    let target = gateway.register("target", Some(&agent.url())).await;
    let planner = gateway.register("planner", None).await;
    gateway.connect(&planner, &target).await;
    let mut client = Client::connect(gateway.public).await;
    for n in 0..3 {
        client.call("/api/proxy/target", Some(&planner.key), &rpc(n, "SendMessage")).await;
        client.answer().await;
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }
    let mut failed = false;
    let mut left = Value::Null;
    for _ in 0..500 {
        left = gateway.operated("GET", "/api/status", &Value::Null).await["ledger"].clone();
        failed |= left["witnesses"][0]["error"].as_str().is_some_and(|error| error.contains("500"));
        if left["unwitnessed_rows"] == 0 && left["rows"] == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(left["unwitnessed_rows"], 0, "{left}");
    assert!(failed && left["witnesses"][0]["error"].is_null(), "{left}");
    let posts = witness.calls();
    assert!(posts.iter().all(|post| post.header("authorization") == Some("Bearer s3cret")));
    let key = VerifierKey::parse(left["key"].as_str().expect("a key")).expect("a key");
    let last = posts.last().expect("posts");
    let note = Note::parse(std::str::from_utf8(&last.body).expect("text")).expect("a note");
    assert_eq!(note.verified_by(&key).expect("signed").size, 3);
    gateway.kill().await;
}
