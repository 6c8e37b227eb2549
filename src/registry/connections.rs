//! Connections: asked for, answered, blocked, limited and ended.
//!
//! Promises: one connection per pair whoever asks and however many ask at once; what a side may do is in
//! [`super::transition`], who may fix which terms in [`Terms`], and nowhere else; every change leaves an event from which the
//! connection can be read as it was after it.

use serde_json::{Value, json};
use uuid::Uuid;

use super::names::check_text;
use super::terms::{Hand, TEXT_MAX};
use super::transition::{self, Action, Side};
use super::{Actor, Registry, RegistryError};
use crate::store::StoreError;
use crate::store::rows::{AdminEvent, AdminState, ConnectionLimits, ConnectionRow, ConnectionStatus};

pub use super::terms::Terms;

/// A wish for a connection.
#[derive(Clone, Debug)]
pub struct NewConnection {
    /// Who asks.
    pub requester_id: Uuid,
    /// Who is asked.
    pub target_id: Uuid,
    /// Shown to the one who is asked.
    pub message: Option<String>,
    /// What an operator, or a side that wants to block, does at once: [`Action::Accept`] or [`Action::Block`].
    pub at_once: Option<Action>,
    /// What the requester wants, or an operator fixes at once.
    pub terms: Terms,
    /// Why, for the history.
    pub reason: Option<String>,
}

/// What somebody wants changed about a connection.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// What is to become of it.
    pub action: Option<Action>,
    /// The agent that an operator acts for; `None`: for both sides.
    pub side_for: Option<Uuid>,
    /// What is to be fixed.
    pub terms: Terms,
    /// Why, for the history.
    pub reason: Option<String>,
}

impl From<Action> for Change {
    fn from(action: Action) -> Self {
        Self { action: Some(action), ..Self::default() }
    }
}

impl Registry {
    /// Asks for a connection, or settles one at once where the asker may.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] for an unknown target, [`RegistryError::Connection`] when the two have one,
    /// [`RegistryError::Forbidden`] when it is blocked.
    pub async fn request_connection(&self, who: &Actor, wish: NewConnection) -> Result<ConnectionRow, RegistryError> {
        if !who.owns(wish.requester_id) {
            return Err(RegistryError::Forbidden("an agent asks for connections of its own only".to_owned()));
        }
        if !who.is_admin() && wish.at_once == Some(Action::Accept) {
            return Err(RegistryError::Forbidden("only an operator can accept at once".to_owned()));
        }
        if wish.requester_id == wish.target_id {
            return Err(RegistryError::invalid("target_id", "must be another agent"));
        }
        let message = wish.message.as_deref().map(|text| check_text("message", text, 150, true)).transpose()?;
        let message = message.filter(|text| !text.is_empty());
        let reason = check_reason(wish.reason.as_deref())?;
        for (member, id) in [("requester", wish.requester_id), ("target", wish.target_id)] {
            let agent = self.store.agent(id).await?;
            let waits = agent.as_ref().is_some_and(|agent| agent.state == AdminState::Pending);
            if waits && *who == Actor::Agent(id) {
                return Err(RegistryError::Forbidden(
                    "the agent is waiting for approval: it can ask for connections once an operator has approved it"
                        .to_owned(),
                ));
            }
            let usable = agent.as_ref().is_some_and(|agent| who.is_admin() || agent.state == AdminState::Active);
            if !usable {
                return Err(RegistryError::NotFound(if member == "target" {
                    "target agent"
                } else {
                    "requester agent"
                }));
            }
        }
        let auto = self.store.agent(wish.target_id).await?.is_some_and(|agent| agent.auto_accept_connections);

        let row = self
            .store
            .settle_pair(wish.requester_id, wish.target_id, |current| {
                let next = self.settle_request(who, &wish, message, auto, current.as_ref())?;
                let action = match wish.at_once {
                    Some(action) => format!("connection.{}", action.as_str()),
                    None => "connection.request".to_owned(),
                };
                let event = self.event(who, &action, next.id, current.as_ref().map(snapshot), Some(snapshot(&next)));
                let event = AdminEvent { reason, ..event };
                Ok::<_, RegistryError>((next, event))
            })
            .await?;
        self.reload().await;
        Ok(row)
    }

    fn settle_request(
        &self,
        who: &Actor,
        wish: &NewConnection,
        message: Option<String>,
        auto: bool,
        current: Option<&ConnectionRow>,
    ) -> Result<ConnectionRow, RegistryError> {
        let now = self.clock.wall();
        let fresh = ConnectionRow {
            id: Uuid::now_v7(),
            requester_id: wish.requester_id,
            target_id: wish.target_id,
            status: ConnectionStatus::Pending,
            blocked_by_requester: false,
            blocked_by_target: false,
            block_locked: false,
            message,
            purpose: None,
            operations: None,
            operations_fixed: false,
            limits: ConnectionLimits::default(),
            ends_at: None,
            review_at: None,
            created_at: now,
            resolved_at: None,
        };
        if wish.at_once == Some(Action::Block) {
            // A block needs no agreement before it.
            let row =
                current.cloned().unwrap_or(ConnectionRow { status: ConnectionStatus::Ended, message: None, ..fresh });
            let side = if who.is_admin() { Side::Operator } else { side_of(&row, wish.requester_id) };
            let mut next = transition::apply(&row, Action::Block, side)?;
            if next.status != row.status {
                next.resolved_at = Some(now);
            }
            return Ok(next);
        }
        let mut row = match current {
            None => fresh,
            Some(row)
                if who.is_admin()
                    && wish.at_once == Some(Action::Accept)
                    && row.status == ConnectionStatus::Pending =>
            {
                row.clone()
            }
            Some(row) => {
                let side = if who.is_admin() { Side::Operator } else { side_of(row, wish.requester_id) };
                transition::ask(row, side, now)?;
                // The same row again, as the new asker wants it. What operators fixed outlives the agreement, or ending
                // and asking anew would shake it off.
                let fixed = row.operations_fixed && row.requester_id == wish.requester_id;
                ConnectionRow {
                    id: row.id,
                    limits: row.limits,
                    ends_at: row.ends_at,
                    review_at: row.review_at,
                    operations: row.operations.filter(|_| fixed),
                    operations_fixed: fixed,
                    ..fresh
                }
            }
        };
        wish.terms.apply(&mut row, if who.is_admin() { Hand::Operator } else { Hand::Asking })?;
        if auto || wish.at_once == Some(Action::Accept) {
            row.status = ConnectionStatus::Connected;
            row.resolved_at = Some(now);
        }
        Ok(row)
    }

    /// Changes a connection: does an action, fixes terms, or both.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] for those who are no party to it, [`RegistryError::Forbidden`] for terms that are not theirs
    /// to fix, and as [`transition::apply`] says.
    pub async fn change_connection(
        &self,
        who: &Actor,
        id: Uuid,
        change: impl Into<Change>,
    ) -> Result<ConnectionRow, RegistryError> {
        let Change { action, side_for, terms, reason } = change.into();
        let reason = check_reason(reason.as_deref())?;
        let done = self
            .store
            .settle_connection(id, |row| {
                let side = match who {
                    Actor::Agent(agent) if *agent == row.requester_id || *agent == row.target_id => {
                        side_of(&row, *agent)
                    }
                    actor if actor.is_admin() => match side_for {
                        Some(agent) if agent == row.requester_id || agent == row.target_id => side_of(&row, agent),
                        Some(_) => return Err(RegistryError::invalid("agent_id", "is no party to this connection")),
                        None => Side::Operator,
                    },
                    actor if actor.is_operator() => {
                        return Err(RegistryError::Forbidden(
                            "auditors change nothing: use an admin's token".to_owned(),
                        ));
                    }
                    _ => return Err(RegistryError::NotFound("connection")),
                };
                let mut next = match action {
                    Some(action) => transition::apply(&row, action, side)?,
                    None => row.clone(),
                };
                terms.apply(&mut next, if who.is_admin() { Hand::Operator } else { Hand::Party(side) })?;
                if next.status != row.status {
                    next.resolved_at = Some(self.clock.wall());
                }
                let word = format!("connection.{}", action.map_or("terms", Action::as_str));
                let event = self.event(who, &word, id, Some(snapshot(&row)), Some(snapshot(&next)));
                let event = AdminEvent { reason, ..event };
                Ok((next, event))
            })
            .await;
        let row = match done {
            Err(RegistryError::Store(StoreError::NotFound)) => return Err(RegistryError::NotFound("connection")),
            other => other?,
        };
        self.reload().await;
        Ok(row)
    }

    /// A connection as it is after one of its agents was deleted, with the event that says so.
    pub(super) fn end_with_agent(&self, who: &Actor, row: &ConnectionRow) -> (ConnectionRow, AdminEvent) {
        let ended =
            ConnectionRow { status: ConnectionStatus::Ended, resolved_at: Some(self.clock.wall()), ..row.clone() };
        let event = self.event(who, "connection.end", row.id, Some(snapshot(row)), Some(snapshot(&ended)));
        (ended, AdminEvent { reason: Some("one of the two agents was deleted".to_owned()), ..event })
    }
}

fn side_of(row: &ConnectionRow, agent: Uuid) -> Side {
    if row.requester_id == agent { Side::Requester } else { Side::Target }
}

fn check_reason(reason: Option<&str>) -> Result<Option<String>, RegistryError> {
    let reason = reason.map(|text| check_text("reason", text, TEXT_MAX, true)).transpose()?;
    Ok(reason.filter(|text| !text.is_empty()))
}

/// Everything about a connection that can change, as events keep it.
pub(super) fn snapshot(row: &ConnectionRow) -> Value {
    json!({
        "requester_id": row.requester_id, "target_id": row.target_id, "status": row.status.as_str(),
        "blocked_by_requester": row.blocked_by_requester, "blocked_by_target": row.blocked_by_target,
        "block_locked": row.block_locked, "message": row.message, "purpose": row.purpose,
        "operations": row.operations.map(|set| set.names().collect::<Vec<_>>()),
        "operations_fixed": row.operations_fixed,
        "limits": {
            "rate": row.limits.rate, "period_ms": row.limits.period_ms, "burst": row.limits.burst,
            "daily": row.limits.daily, "streams": row.limits.streams,
        },
        "ends_at": row.ends_at, "review_at": row.review_at, "created_at": row.created_at, "resolved_at": row.resolved_at,
    })
}

#[cfg(test)]
mod tests;
