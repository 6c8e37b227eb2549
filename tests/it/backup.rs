//! A backup made while calls come in, a gateway made of it, and a copied data directory that becomes a node of its own.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::agent::Agent;
use crate::support::client::Client;
use crate::support::process::Process;
use crate::support::{rpc, within};

/// Runs the program in `dir`, whose data are in `data`.
async fn run(dir: &Path, line: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trust-gateway"));
    command.args(line).current_dir(dir).env("TRUST_GATEWAY__DATA_DIR", dir.join("data"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    within("the command ends", command.output()).await.expect("the program starts")
}

async fn does(dir: &Path, line: &[&str]) -> String {
    let output = run(dir, line).await;
    assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn fails(dir: &Path, line: &[&str]) -> String {
    let output = run(dir, line).await;
    assert_eq!(output.status.code(), Some(1), "{line:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A gateway with a connected caller and target, and the caller's key.
async fn at_work(dir: &Path, agent: &Agent) -> (Process, String) {
    let gateway = Process::start(dir, &[]).await;
    let target = gateway.register("target", Some(&agent.url())).await;
    let caller = gateway.register("caller", None).await;
    let limits = json!({"rate": 1_000_000, "period_ms": 1000, "burst": 1_000_000, "daily": 100_000_000});
    let connection =
        json!({"requester_id": caller.id, "target_id": target.id, "status": "connected", "limits": limits});
    gateway.operated("POST", "/api/connections", &connection).await;
    (gateway, caller.key)
}

async fn call(client: &mut Client, key: &str) -> (u16, String) {
    client.call("/api/proxy/target", Some(key), &rpc(1, "SendMessage")).await;
    let answer = client.answer().await;
    (answer.status, answer.header("x-openagora-request-id").expect("every answer has one").to_owned())
}

fn token_of(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("data")).expect("a directory");
    std::fs::copy(from.join("data/admin-token"), to.join("data/admin-token")).expect("copied");
}

async fn node_of(gateway: &Process) -> String {
    gateway.operated("GET", "/api/status", &Value::Null).await["node_id"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_holds_every_call_before_it_and_becomes_a_gateway_of_its_own() {
    let (here, there) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let agent = Agent::echo().await;
    let (gateway, key) = at_work(here.path(), &agent).await;
    let answered: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let load = tokio::spawn({
        let (answered, key, public) = (Arc::clone(&answered), key.clone(), gateway.public);
        async move {
            let mut client = Client::connect(public).await;
            loop {
                let (status, id) = call(&mut client, &key).await;
                assert_eq!(status, 200);
                answered.lock().expect("never poisoned").insert(id);
            }
        }
    });
    let some = async {
        while answered.lock().expect("never poisoned").len() < 300 {
            tokio::task::yield_now().await;
        }
    };
    within("calls come in", some).await;
    let before = answered.lock().expect("never poisoned").clone();
    let told = does(here.path(), &["backup", "copy"]).await;
    assert!(told.contains("database (") && told.contains("3 key files"), "{told}");
    assert!(fails(here.path(), &["backup", "copy"]).await.contains("is not empty"));
    load.abort();

    token_of(here.path(), there.path());
    let backup = here.path().join("copy").display().to_string();
    let told = does(there.path(), &["restore", &backup]).await;
    assert!(told.contains("It is a new node"), "{told}");
    let restored = Process::start(there.path(), &[]).await;
    let rows = restored.ids().await;
    let ids: BTreeSet<String> = rows.iter().cloned().collect();
    assert_eq!(rows.len(), ids.len(), "no row is there twice");
    let missing: Vec<_> = before.difference(&ids).collect();
    assert!(missing.is_empty(), "{} of {} calls from before are missing", missing.len(), before.len());
    assert_ne!(node_of(&restored).await, node_of(&gateway).await);
    let (status, id) = call(&mut Client::connect(restored.public).await, &key).await;
    assert_eq!(status, 200, "keys and sealed secrets work");
    assert!(restored.ids().await.contains(&id));
    restored.kill().await;
    let refused = fails(there.path(), &["restore", &backup]).await;
    assert!(refused.contains("nothing is overwritten"), "{refused}");
    gateway.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_journal_of_a_killed_gateway_holds_is_in_its_backup() {
    let (here, there) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let agent = Agent::echo().await;
    let (gateway, key) = at_work(here.path(), &agent).await;
    let mut client = Client::connect(gateway.public).await;
    let mut answered = Vec::new();
    for _ in 0..20 {
        answered.push(call(&mut client, &key).await.1);
    }
    // Before the drain has come to them.
    gateway.kill().await;
    does(here.path(), &["backup", "copy"]).await;
    token_of(here.path(), there.path());
    does(there.path(), &["restore", &here.path().join("copy").display().to_string()]).await;
    let restored = Process::start(there.path(), &[]).await;
    let rows = restored.ids().await;
    for id in &answered {
        assert_eq!(rows.iter().filter(|row| *row == id).count(), 1, "{id}");
    }
    restored.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_data_directory_becomes_a_node_of_its_own() {
    let (here, there) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let agent = Agent::echo().await;
    let (gateway, key) = at_work(here.path(), &agent).await;
    let node = node_of(&gateway).await;
    call(&mut Client::connect(gateway.public).await, &key).await;
    assert!(fails(here.path(), &["new-node"]).await.contains("serves from this directory already"));
    gateway.kill().await;

    let copied = Command::new("cp").arg("-a").arg(here.path().join("data")).arg(there.path()).status().await;
    assert!(copied.expect("cp is there").success());
    let told = does(there.path(), &["new-node"]).await;
    assert!(told.contains("the original records its calls"), "{told}");
    let copy = Process::start(there.path(), &[]).await;
    assert_ne!(node_of(&copy).await, node);
    call(&mut Client::connect(copy.public).await, &key).await;
    let mut nodes = BTreeSet::new();
    for row in copy.rows().await {
        nodes.insert(row["node_id"].as_str().map(str::to_owned));
    }
    assert!(nodes.contains(&Some(node_of(&copy).await)), "{nodes:?}");
    copy.kill().await;
    assert!(fails(&there.path().join("data"), &["new-node"]).await.contains("at its first start anyway"));
}

#[tokio::test]
async fn what_is_no_backup_is_not_restored() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("empty")).expect("a directory");
    let refused = fails(dir.path(), &["restore", "empty"]).await;
    assert!(refused.contains("is not a backup"), "{refused}");
    assert!(fails(dir.path(), &["backup", "copy"]).await.contains("there is no database"));
    assert!(!dir.path().join("copy").exists());
}
