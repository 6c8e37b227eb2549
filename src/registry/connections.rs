//! Connections: asked for, answered, blocked, limited and ended.
//!
//! Promises: one connection per pair whoever asks and however many ask at once; what a side may do is in
//! [`super::transition`] and nowhere else.

use serde_json::{Value, json};
use uuid::Uuid;

use super::names::check_text;
use super::transition::{self, Action, Side};
use super::{Actor, Registry, RegistryError};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::rows::{AdminState, ConnectionLimits, ConnectionRow, ConnectionStatus};

/// 31 days: the longest period of a rate.
const LONGEST_PERIOD_MS: u64 = 31 * 86_400_000;

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
    /// What an operator fixes at once.
    pub terms: Terms,
}

/// What operators may fix for a connection. What is not said stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Its own limits.
    pub limits: Option<ConnectionLimits>,
    /// When it ends.
    pub ends_at: Option<Option<Timestamp>>,
}

impl Terms {
    fn is_empty(&self) -> bool {
        self.limits.is_none() && self.ends_at.is_none()
    }

    fn apply(&self, row: &mut ConnectionRow) -> Result<(), RegistryError> {
        if let Some(limits) = self.limits {
            let ConnectionLimits { rate, period_ms, burst, daily: _, streams: _ } = limits;
            if rate == Some(0) || burst == Some(0) || period_ms == Some(0) {
                return Err(RegistryError::invalid(
                    "limits",
                    "rate, period and burst must be at least 1: to let nothing pass, pause or block",
                ));
            }
            if rate.is_some() != period_ms.is_some() {
                return Err(RegistryError::invalid("limits", "rate and period belong together: send both or neither"));
            }
            if period_ms.is_some_and(|ms| ms > LONGEST_PERIOD_MS) {
                return Err(RegistryError::invalid("limits.period", "is longer than 31 days"));
            }
            row.limits = limits;
        }
        if let Some(ends_at) = self.ends_at {
            row.ends_at = ends_at;
        }
        Ok(())
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
        if !who.is_admin() && (wish.at_once == Some(Action::Accept) || !wish.terms.is_empty()) {
            return Err(RegistryError::Forbidden(
                "only an operator can accept at once, set limits or an end".to_owned(),
            ));
        }
        if wish.requester_id == wish.target_id {
            return Err(RegistryError::invalid("target_id", "must be another agent"));
        }
        let message = wish.message.as_deref().map(|text| check_text("message", text, 150, true)).transpose()?;
        let message = message.filter(|text| !text.is_empty());
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
            limits: ConnectionLimits::default(),
            ends_at: None,
            created_at: now,
            resolved_at: None,
        };
        if wish.at_once == Some(Action::Block) {
            // A block needs no agreement before it.
            let row =
                current.cloned().unwrap_or(ConnectionRow { status: ConnectionStatus::Ended, message: None, ..fresh });
            let side = if who.is_admin() { Side::Operator } else { side_of(&row, wish.requester_id) };
            return transition::apply(&row, Action::Block, side);
        }
        let mut row = match current {
            None => fresh,
            Some(row) if row.blocked_by_requester || row.blocked_by_target => {
                return Err(if who.is_admin() {
                    RegistryError::Connection {
                        problem: "the connection is blocked: unblock it first".to_owned(),
                        current: Box::new(row.clone()),
                    }
                } else {
                    RegistryError::Forbidden("the connection between the two agents is blocked".to_owned())
                });
            }
            Some(row) if matches!(row.status, ConnectionStatus::Ended | ConnectionStatus::Declined) => {
                // The same row again, as the new asker wants it. What operators fixed outlives the agreement, or ending
                // and asking anew would shake limits off.
                ConnectionRow { id: row.id, limits: row.limits, ends_at: row.ends_at, ..fresh }
            }
            Some(row)
                if who.is_admin()
                    && wish.at_once == Some(Action::Accept)
                    && row.status == ConnectionStatus::Pending =>
            {
                row.clone()
            }
            Some(row) => {
                return Err(RegistryError::Connection {
                    problem: "Connection already exists".to_owned(),
                    current: Box::new(row.clone()),
                });
            }
        };
        wish.terms.apply(&mut row)?;
        if auto || wish.at_once == Some(Action::Accept) {
            row.status = ConnectionStatus::Connected;
            row.resolved_at = Some(now);
        }
        Ok(row)
    }

    /// Does `action` with a connection, fixes `terms`, or both. An admin acts for both sides unless `side_for` names the
    /// agent to act for.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] for those who are no party to it, and as [`transition::apply`] says.
    pub async fn change_connection(
        &self,
        who: &Actor,
        id: Uuid,
        action: Option<Action>,
        side_for: Option<Uuid>,
        terms: Terms,
    ) -> Result<ConnectionRow, RegistryError> {
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
                if !terms.is_empty() && !who.is_admin() {
                    return Err(RegistryError::Forbidden("only an operator can set limits or an end".to_owned()));
                }
                let mut next = match action {
                    Some(action) => transition::apply(&row, action, side)?,
                    None => row.clone(),
                };
                terms.apply(&mut next)?;
                if next.status != row.status {
                    next.resolved_at = Some(self.clock.wall());
                }
                let word = format!("connection.{}", action.map_or("limits", Action::as_str));
                let event = self.event(who, &word, id, Some(snapshot(&row)), Some(snapshot(&next)));
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
}

fn side_of(row: &ConnectionRow, agent: Uuid) -> Side {
    if row.requester_id == agent { Side::Requester } else { Side::Target }
}

pub(super) fn snapshot(row: &ConnectionRow) -> Value {
    json!({
        "requester_id": row.requester_id, "target_id": row.target_id, "status": row.status.as_str(),
        "blocked_by_requester": row.blocked_by_requester, "blocked_by_target": row.blocked_by_target,
        "block_locked": row.block_locked, "message": row.message,
        "limits": {
            "rate": row.limits.rate, "period_ms": row.limits.period_ms, "burst": row.limits.burst,
            "daily": row.limits.daily, "streams": row.limits.streams,
        },
        "ends_at": row.ends_at,
    })
}
