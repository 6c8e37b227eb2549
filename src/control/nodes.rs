//! The nodes that share a database, for operators: who is there, and what they should agree on.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::NodeRow;

/// A node that has said nothing for so long is not there.
const SILENT_US: i64 = 30_000_000;

/// One node.
#[derive(Serialize, ToSchema)]
pub(super) struct Node {
    /// Names it in rows of the log.
    id: Uuid,
    /// The program's version at its last start.
    version: Option<String>,
    /// When that was.
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    /// When it last said that it lives.
    #[schema(value_type = Option<String>, format = DateTime)]
    seen_at: Option<Timestamp>,
}

/// The nodes that are there at `now`, `this` one among them.
pub(super) fn present(rows: Vec<NodeRow>, this: Uuid, now: Timestamp) -> Vec<Node> {
    rows.into_iter()
        .filter(|row| row.id == this || row.seen_at.is_some_and(|at| at.plus_micros(SILENT_US) > now))
        .map(|NodeRow { id, version, started_at, seen_at, .. }| Node { id, version, started_at, seen_at })
        .collect()
}

/// What does not go together among the nodes that are there.
pub(super) fn warnings(nodes: &[Node], limits_are_shared: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    let count = nodes.len();
    if count > 1 && !limits_are_shared {
        warnings
            .push(format!("{count} nodes serve, and each grants all of every limit: set limits.shared on all of them"));
    }
    if nodes.iter().any(|node| node.version != nodes[0].version) {
        warnings.push("the nodes do not all run the same version of the program".to_owned());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u128, version: &str, seen_at: i64) -> NodeRow {
        NodeRow {
            id: Uuid::from_u128(id),
            instance: None,
            version: Some(version.to_owned()),
            started_at: None,
            seen_at: Some(Timestamp(seen_at)),
        }
    }

    #[test]
    fn nodes_that_are_gone_are_not_counted_and_this_one_always_is() {
        let rows = || vec![row(1, "1", 0), row(2, "1", 5_000_000), row(3, "1", 40_000_000)];
        let ids = |this| {
            let there = present(rows(), Uuid::from_u128(this), Timestamp(40_000_000));
            there.iter().map(|node| node.id.as_u128()).collect::<Vec<_>>()
        };
        assert_eq!((ids(3), ids(1)), (vec![3], vec![1, 3]));
    }

    #[test]
    fn nodes_that_count_for_themselves_or_differ_are_warned_about() {
        let nodes = |rows| present(rows, Uuid::from_u128(1), Timestamp(1));
        let (one, two) = (nodes(vec![row(1, "1", 0)]), nodes(vec![row(1, "1", 0), row(2, "1", 0)]));
        assert!(warnings(&one, false).is_empty() && warnings(&two, true).is_empty());
        assert!(warnings(&two, false)[0].starts_with("2 nodes serve"));
        assert_eq!(warnings(&nodes(vec![row(1, "1", 0), row(2, "2", 0)]), true).len(), 1);
    }
}
