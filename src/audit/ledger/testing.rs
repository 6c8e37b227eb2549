//! Logs for tests: rows in a database, sealed as the drain seals them.

use uuid::Uuid;

use super::grow::tree_of;
use super::note::{Checkpoint, Signer};
use crate::audit::canonical;
use crate::audit::journal::entry::Draft;
use crate::clock::Timestamp;
use crate::store::Store;
use crate::store::calls::DrainBatch;
use crate::store::ledger::{CheckpointRow, Growth, LedgerKeyRow};
use crate::store::rows::CallRow;

pub(crate) const NODE: Uuid = Uuid::from_u128(5);
pub(crate) const ORIGIN: &str = "gw.example/audit/5";

/// A row that differs from every other.
pub(crate) fn row(node: Uuid, n: u64) -> CallRow {
    let refused = n.is_multiple_of(7);
    CallRow {
        id: Uuid::from_u128((u128::from(n) << 64) | 1),
        called_at: Timestamp(1_700_000_000_000_000 + n.cast_signed() * 1_000),
        target_agent_id: Some(Uuid::from_u128(u128::from(n % 3) + 100)),
        caller_agent_id: (!n.is_multiple_of(5)).then(|| Uuid::from_u128(u128::from(n % 4) + 200)),
        auth_method: "api_key".to_owned(),
        client_ip: Some(format!("198.51.{}.0/24", n % 200)),
        personal_salt: Some([u8::try_from(n % 250).expect("small"); 16]),
        trust_level: "connected".to_owned(),
        binding: "jsonrpc".to_owned(),
        method: Some(format!("méthode \"{n}\", or\nso")),
        operation: "SendMessage".to_owned(),
        rpc_id: Some(n.to_string()),
        decision: if refused { "refused" } else { "allowed" }.to_owned(),
        reason: refused.then(|| "rate_limited".to_owned()),
        outcome: if refused { "refused" } else { "completed" }.to_owned(),
        status_code: if refused { 429 } else { 200 },
        calls: if refused { 3 } else { 1 },
        ..Draft::new(node).row
    }
}

/// Adds rows with these numbers to the log of `node`, in one commit, as the drain does.
pub(crate) async fn record(store: &Store, node: Uuid, numbers: std::ops::Range<u64>) {
    record_rows(store, node, numbers.map(|n| row(node, n))).await;
}

/// Adds these rows.
pub(crate) async fn record_rows(store: &Store, node: Uuid, rows: impl Iterator<Item = CallRow>) {
    let mut growth = Growth::of(tree_of(store, node).await.expect("the tree"));
    let rows = rows.map(|mut row| {
        row.node_id = node;
        row.leaf_hash = canonical::leaf_hash(&row);
        growth.push(row.leaf_hash);
        row.seq = growth.frontier.size().cast_signed();
        row
    });
    let rows = rows.collect();
    store.commit_drained(&DrainBatch { node, rows, growth, ..DrainBatch::default() }).await.expect("committed");
}

/// Signs for all there is of `node`, as the sealer does.
pub(crate) async fn sign(store: &Store, node: Uuid) {
    let signer = Signer::new(ORIGIN, &[1; 32]).expect("a key");
    let tree = tree_of(store, node).await.expect("the tree");
    let key = LedgerKeyRow { number: 1, key: signer.key().to_string(), size: 0, added_at: Timestamp(0) };
    store.keep_ledger_key(node, &key).await.expect("kept");
    let said = Checkpoint { origin: ORIGIN.to_owned(), size: tree.size(), root: tree.root(), next_key: None };
    let checkpoint = CheckpointRow {
        node_id: node,
        size: tree.size(),
        root: tree.root(),
        signed_at: Timestamp(0),
        announces: false,
        note: said.signed(&[&signer]),
    };
    store.keep_checkpoint(&checkpoint).await.expect("kept");
}
