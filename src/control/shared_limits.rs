//! How limits are shared with other nodes, for operators: in `/metrics`, readiness and status.
//!
//! That they are not is a warning and never more: calls are served all the same, by each node for its part.

use std::fmt;

use super::metrics::{Families, label};
use crate::limit::shared::{BOUNDS_US, Cause, Counted, Node};

/// How limits are shared.
#[derive(Clone, Copy, Debug)]
pub struct SharedLimits {
    /// Why this node decides alone, if it does.
    alone: Option<Cause>,
    nodes: u32,
    counted: Counted,
}

impl SharedLimits {
    /// As it is now.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        Self { alone: (!node.is_shared()).then(|| node.cause()), nodes: node.nodes(), counted: node.counted() }
    }

    /// What is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        let told = |cause: Cause| {
            format!("{}: this node decides by its own counts, for its part of each limit", cause.explain())
        };
        self.alone.map_or(Ok(()), |cause| Err(told(cause)))
    }

    pub(super) fn families(&self, families: &mut Families<'_>) -> fmt::Result {
        let Counted { shared, alone, round_trips } = &self.counted;
        families.gauge("limits_shared", "1 while limits are shared", None, i64::from(self.alone.is_none()))?;
        families.gauge("limits_nodes", "Nodes that share them, as far as is known", None, i64::from(self.nodes))?;
        families.counter("limits_decided_shared", "Calls decided by the counts of all nodes", *shared)?;
        let causes = Cause::ALL.into_iter().zip(alone);
        let alone = causes.map(|(cause, n)| (vec![label("cause", cause.as_str())], *n as f64));
        families.counters("limits_decided_alone", "Calls decided by this node's own", None, alone)?;
        let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(round_trips.buckets).collect();
        let help = "What the server of shared limits took to answer a batch of calls";
        families.seconds("limits_round_trip", help, round_trips.sum_us as f64 / 1e6, &buckets)
    }
}
