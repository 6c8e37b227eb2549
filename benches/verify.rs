//! How fast a log is verified: `cargo bench --bench verify [-- ROWS]`, a million unless said.
//!
//! Out of a SQLite database, out of an export in JSONL and one in CSV; also how fast those are written.

#![allow(clippy::print_stdout)] // its output

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use futures_util::StreamExt as _;
use trust_gateway::audit::canonical;
use trust_gateway::audit::ledger::export::{ExportedRow, Format, Range, export, header, verify_file};
use trust_gateway::audit::ledger::note::{Checkpoint, Signer};
use trust_gateway::audit::ledger::tree::Frontier;
use trust_gateway::audit::ledger::verify::{Given, verify_database};
use trust_gateway::clock::Timestamp;
use trust_gateway::store::Store;
use trust_gateway::store::calls::DrainBatch;
use trust_gateway::store::ledger::{CheckpointRow, Growth};
use trust_gateway::store::rows::CallRow;
use uuid::Uuid;

const COMMIT: u64 = 5_000;

fn main() {
    let rows = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(rows));
}

/// As many fields as a call through two registered agents has.
fn row() -> CallRow {
    let row = serde_json::json!({
        "seq": 1, "leaf_hash": "00".repeat(32), "id": Uuid::nil(), "called_at": "2026-01-01T00:00:00.000000Z",
        "target_agent_id": Uuid::from_u128(1 << 100), "caller_agent_id": Uuid::from_u128(1 << 101),
        "credential_id": Uuid::from_u128(1 << 102), "auth_method": "api_key", "client_ip": "203.0.113.0/24",
        "personal_salt": "0f".repeat(16), "trust_level": "connected", "connection_id": Uuid::from_u128(1 << 103),
        "binding": "jsonrpc", "protocol_version": "1.0", "method": "SendMessage", "operation": "SendMessage",
        "rpc_id": "\"0197d1c5-7f2e-7c61-9d55-3f1c5f1f2a11\"", "task_id": "0197d1c5-7f2e-7c61-9d55-3f1c5f1f2a12",
        "context_id": "0197d1c5-7f2e-7c61-9d55-3f1c5f1f2a13", "message_id": "0197d1c5-7f2e-7c61-9d55-3f1c5f1f2a14",
        "decision": "allowed", "policy_rule": "tier.connected", "policy_digest": "9f86d081884c7d65", "units": 1,
        "outcome": "completed", "status_code": 200, "upstream_status": 200, "task_state": "TASK_STATE_COMPLETED",
        "request_bytes": 412, "response_bytes": 733, "ttfb_ms": 12, "latency_ms": 13, "calls": 1,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "limit_name": "connection.rate", "limit_left": 299,
    });
    let row: ExportedRow = serde_json::from_value(row).expect("a row");
    row.into_scanned().row.expect("a row")
}

async fn record(store: &Store, node: Uuid, rows: u64) -> Frontier {
    let mut tree = Frontier::default();
    while tree.size() < rows {
        let mut growth = Growth::of(tree);
        let rows = (0..COMMIT.min(rows - growth.before)).map(|_| {
            let mut row = CallRow { id: Uuid::now_v7(), node_id: node, ..row() };
            row.called_at = row.called_at.plus_micros(growth.frontier.size().cast_signed() * 100);
            row.leaf_hash = canonical::leaf_hash(&row);
            growth.push(row.leaf_hash);
            row.seq = growth.frontier.size().cast_signed();
            row
        });
        let rows = rows.collect();
        tree = growth.frontier.clone();
        store.commit_drained(&DrainBatch { node, rows, growth, ..DrainBatch::default() }).await.expect("committed");
    }
    tree
}

async fn write(store: &Store, node: Uuid, format: Format, file: &Path) {
    let header = header(store, node, &Range::default()).await.expect("rows");
    let proof = format!("{}.proof.json", file.display());
    std::fs::write(proof, serde_json::to_string(&header).expect("JSON")).expect("written");
    let mut out = File::create(file).expect("a file");
    let mut pieces = std::pin::pin!(export(store.clone(), &header, format).expect("begins"));
    while let Some(piece) = pieces.next().await {
        out.write_all(&piece.expect("rows")).expect("written");
    }
}

async fn measure(rows: u64) {
    let dir = tempfile::tempdir_in("target").expect("a directory");
    let node = Uuid::from_u128(7);
    let signer = Signer::new(&format!("bench/audit/{node}"), &[1; 32]).expect("a name");
    let store = Store::open_sqlite(&dir.path().join("gateway.db")).await.expect("opens");
    let tree = record(&store, node, rows).await;
    let origin = signer.key().name().to_owned();
    let checkpoint = Checkpoint { origin, size: tree.size(), root: tree.root(), next_key: None };
    let note = checkpoint.signed(&[&signer]);
    let (size, root, signed_at) = (tree.size(), tree.root(), Timestamp::default());
    let kept = CheckpointRow { node_id: node, size, root, signed_at, announces: false, note };
    store.keep_checkpoint(&kept).await.expect("kept");
    let given = Given { keys: vec![signer.key().clone()], ..Given::default() };
    let told = |what: &str, begun: Instant| {
        let took = begun.elapsed().as_secs_f64();
        println!("{what:<28} {rows} rows in {took:6.2} s: {:9.0} rows/s", rows as f64 / took);
    };

    let begun = Instant::now();
    let verified = verify_database(&store, &given, |_| {}).await.expect("read");
    assert!(verified.whole, "{verified:?}");
    told("verify, SQLite", begun);
    for (name, format) in [("JSONL", Format::Jsonl), ("CSV", Format::Csv)] {
        let file = dir.path().join(name);
        let begun = Instant::now();
        write(&store, node, format, &file).await;
        told(&format!("export, {name}"), begun);
        let begun = Instant::now();
        let report = verify_file(&file, &given, |_| {}).expect("an export");
        assert!(report.is_whole(), "{report:?}");
        told(&format!("verify, {name}"), begun);
    }
    store.close().await;
}
