//! The limits of an agent's own, as they are sent: what operations cost there, and what each level's callers may do.

use std::collections::BTreeMap;

use super::body::Members;
use super::connections;
use super::problem::Problem;
use crate::a2a::Operation;
use crate::store::rows::{AgentLimits, AgentRow, LevelLimits};

/// Reads them; a member that is not sent stays as it is, `null` is the policy's again.
pub(super) fn read(members: &Members, current: Option<&AgentRow>) -> Result<Option<AgentLimits>, Problem> {
    let Some(said) = members.object("limits")? else { return Ok(None) };
    let Some(said) = said else { return Ok(Some(AgentLimits::default())) };
    let mut limits = current.map(|row| row.limits.clone()).unwrap_or_default();
    if let Some(costs) = said.object("costs")? {
        limits.costs = costs.map(|costs| read_costs(&costs)).transpose()?.unwrap_or_default();
    }
    for (name, place) in [
        ("connected", &mut limits.connected),
        ("verified", &mut limits.verified),
        ("unverified", &mut limits.unverified),
    ] {
        if let Some(level) = said.object(name)? {
            *place = level.map(|level| read_level(&level)).transpose()?.unwrap_or_default();
        }
    }
    Ok(Some(limits))
}

fn read_costs(costs: &Members) -> Result<BTreeMap<Operation, u32>, Problem> {
    let mut read = BTreeMap::new();
    for name in costs.names() {
        let operation = Operation::from_name(name).ok_or_else(|| {
            Problem::invalid(
                "limits.costs",
                format!("{name:?} is no operation: write names of A2A 1.0, such as SendMessage"),
            )
        })?;
        if let Some(units) = costs.number(name)?.flatten() {
            read.insert(operation, units);
        }
    }
    Ok(read)
}

fn read_level(level: &Members) -> Result<LevelLimits, Problem> {
    Ok(LevelLimits { shared: connections::limits(level)?, in_flight: level.number("in_flight")?.flatten() })
}
