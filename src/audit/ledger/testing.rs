//! Logs for tests: rows in a database, sealed as the drain seals them.

use uuid::Uuid;

use super::grow::tree_of;
use crate::audit::canonical;
use crate::audit::journal::entry::Draft;
use crate::clock::Timestamp;
use crate::store::Store;
use crate::store::calls::DrainBatch;
use crate::store::ledger::Growth;
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

/// Adds rows `from` to before `to` to the log of `node`, in one commit, as the drain does.
pub(crate) async fn record(store: &Store, node: Uuid, numbers: std::ops::Range<u64>) {
    let mut growth = Growth::of(tree_of(store, node).await.expect("the tree"));
    let rows = numbers.map(|n| {
        let mut row = row(node, n);
        row.leaf_hash = canonical::leaf_hash(&row);
        growth.push(row.leaf_hash);
        row.seq = growth.frontier.size().cast_signed();
        row
    });
    let rows = rows.collect();
    store.commit_drained(&DrainBatch { node, rows, growth, ..DrainBatch::default() }).await.expect("committed");
}
