//! The tree of a node as rows are to be added to it.

use uuid::Uuid;

use super::tree::Frontier;
use crate::store::ledger::Growth;
use crate::store::{Store, StoreError};

/// Leaves per commit.
const STEP: u32 = if cfg!(test) { 250 } else { 50_000 };

/// The tree of `node`. Rows from before there were trees are added to it first; rows that are missing from the end are not
/// made up for: the next is numbered behind them, and who verifies finds the hole.
///
/// # Errors
/// When the database cannot be read or written, or holds rows behind a tree that was signed for: rows are written together with
/// it, so nobody who recorded calls put them there, and they must not come to be signed for.
pub async fn tree_of(store: &Store, node: Uuid) -> Result<Frontier, StoreError> {
    let mut tree = store.ledger_head(node).await?;
    let last = store.last_seq(node).await?.cast_unsigned();
    if tree.size() < last {
        if store.last_checkpoint(node).await?.is_some() {
            return Err(StoreError::Corrupt(format!(
                "proxy_calls has rows of node {node} behind the {} of its tree, which no gateway recorded: run audit verify. \
                 Nothing is recorded until they are gone; to go on without that log, stop the gateway and run trust-gateway \
                 new-node",
                tree.size()
            )));
        }
        tracing::info!(%node, leaves = tree.size(), rows = last, "rows from before there were trees are added to the tree");
    }
    while tree.size() < last {
        let mut growth = Growth::of(tree);
        for (seq, leaf) in store.leaf_hashes(node, growth.before, STEP).await? {
            if seq != growth.frontier.size() + 1 {
                return Err(StoreError::Corrupt(format!(
                    "proxy_calls has no row {} of node {node}, which has no tree yet: one cannot be made",
                    growth.frontier.size() + 1
                )));
            }
            growth.push(leaf);
        }
        store.grow_ledger(node, &growth).await?;
        tree = growth.frontier;
        tracing::info!(%node, leaves = tree.size(), rows = last, "adding to the tree");
    }
    Ok(tree)
}
