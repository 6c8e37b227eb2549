//! Who may register agents, and what becomes of those that ask.
//!
//! Promises: what strangers may leave here is bounded; an agent that waits for approval is in service for nobody.

use super::names::check_text;
use super::{Actor, Registry, RegistryError};
use crate::store::rows::AdminState;

/// Who may register agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Registration {
    /// Operators.
    #[default]
    Closed,
    /// Anybody may ask; an operator decides.
    Approval {
        /// How many may wait at once.
        max_pending: u32,
    },
    /// Anybody, and what is registered is in service at once.
    Open,
}

impl Registration {
    /// The word it has in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Approval { .. } => "approval",
            Self::Open => "open",
        }
    }
}

/// How an agent comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// In service at once.
    Active,
    /// To wait among at most so many.
    Pending(u32),
}

impl Registry {
    /// Who may register agents now.
    #[must_use]
    pub fn registration(&self) -> Registration {
        **self.registration.load()
    }

    /// Who may register agents from now on. Those that wait go on waiting.
    pub fn set_registration(&self, registration: Registration) {
        self.registration.store(std::sync::Arc::new(registration));
    }

    /// How what `who` registers comes in.
    ///
    /// # Errors
    /// [`RegistryError::Forbidden`] where registration is closed, and for auditors.
    pub(super) fn admission(&self, who: &Actor) -> Result<Admission, RegistryError> {
        if who.is_admin() {
            return Ok(Admission::Active);
        }
        if who.is_operator() {
            return Err(RegistryError::Forbidden("auditors change nothing: use an admin's token".to_owned()));
        }
        match self.registration() {
            Registration::Open => Ok(Admission::Active),
            Registration::Approval { max_pending } => Ok(Admission::Pending(max_pending)),
            Registration::Closed => Err(RegistryError::Forbidden(
                "registration is closed: ask an operator of this gateway to register the agent".to_owned(),
            )),
        }
    }
}

/// Whether `who` may bring an agent from one state to another.
pub(super) fn check_state(who: &Actor, from: AdminState, to: AdminState) -> Result<(), RegistryError> {
    match to {
        AdminState::Deleted => Err(RegistryError::invalid("state", "use DELETE to delete an agent")),
        _ if from == to || who.is_admin() => Ok(()),
        // Or those that wait could make room for more of them.
        AdminState::Disabled if from == AdminState::Pending => Err(RegistryError::Forbidden(
            "state: the agent is waiting for an operator's approval; delete it if it is not wanted".to_owned(),
        )),
        // Its owner may take it out of service; whether it comes back is for operators, who may have had their reasons.
        AdminState::Disabled => Ok(()),
        AdminState::Pending | AdminState::Active => {
            Err(RegistryError::Forbidden("state: only an operator can put an agent into service".to_owned()))
        }
    }
}

/// What a change of state is called in the log of changes.
pub(super) fn action(from: AdminState, to: AdminState) -> &'static str {
    match (from, to) {
        (AdminState::Pending, AdminState::Active) => "agent.approve",
        _ => "agent.update",
    }
}

/// The reason somebody gives for a change.
pub(super) fn check_reason(reason: Option<&str>) -> Result<Option<String>, RegistryError> {
    let reason = reason.map(|text| check_text("reason", text, 500, true)).transpose()?;
    Ok(reason.filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::registry::testing::admin;
    use AdminState::{Active, Deleted, Disabled, Pending};

    #[test]
    fn owners_may_take_an_agent_out_of_service_and_operators_put_it_into_it() {
        let owner = Actor::Agent(Uuid::nil());
        for from in [Pending, Active, Disabled] {
            for to in [Pending, Active, Disabled] {
                assert!(check_state(&admin(), from, to).is_ok(), "{from:?} to {to:?}");
                let may = from == to || (from, to) == (Active, Disabled);
                assert_eq!(check_state(&owner, from, to).is_ok(), may, "{from:?} to {to:?}");
            }
            for who in [&owner, &admin()] {
                let deleted = check_state(who, from, Deleted);
                assert!(matches!(deleted, Err(RegistryError::Invalid { .. })), "deleting is more than a state");
            }
        }
    }

    #[test]
    fn a_reason_is_bounded_and_an_empty_one_is_none() {
        let reason = |length: usize| check_reason(Some("x".repeat(length).as_str())).ok();
        assert_eq!((reason(0), check_reason(None).ok()), (Some(None), Some(None)));
        assert_eq!(reason(500), Some(Some("x".repeat(500))));
        assert_eq!(reason(501), None);
    }
}
