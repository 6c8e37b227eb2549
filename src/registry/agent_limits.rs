//! The limits an agent has of its own: who may set them, and which make no sense.

use super::terms::check_limits;
use super::{Actor, RegistryError};
use crate::store::rows::{AgentLimits, AgentRow};

/// Puts `limits` into `row`. They are the operators' to set: they hold for everybody who calls the agent.
pub(super) fn apply(who: &Actor, row: &mut AgentRow, limits: AgentLimits) -> Result<(), RegistryError> {
    if limits == row.limits {
        return Ok(());
    }
    if !who.is_admin() {
        return Err(RegistryError::Forbidden("limits: only an operator can change them".to_owned()));
    }
    for (level, own) in limits.levels() {
        check_limits(&format!("limits.{level}"), own.shared)?;
        if own.in_flight == Some(0) {
            return Err(RegistryError::invalid(&*format!("limits.{level}.in_flight"), "must be at least 1"));
        }
    }
    row.limits = limits;
    Ok(())
}
