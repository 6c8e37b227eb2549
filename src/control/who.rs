//! Who asks, and with what: the one extractor of all handlers.
//!
//! Promises: exactly one credential, in a header; agent keys count on the public listener only, operator tokens on the
//! operator listener only; whatever is wrong with a credential, the answer is the same.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, Method, header};
use uuid::Uuid;

use super::body::{Members, Parameters};
use super::problem::Problem;
use super::{BODY_MAX, Control, Door, Entry};
use crate::registry::Actor;
use crate::registry::token::digest_of;
use crate::store::rows::{AdminState, AgentRow, ConnectionStatus, OperatorRole};

const AGENT_HINT: &str = "send one API key of the agent as Authorization: Bearer, or as X-API-Key";
const OPERATOR_HINT: &str = "send one operator token as Authorization: Bearer, or as X-API-Key";

/// A request to the API, after its credential was found good or absent.
pub(super) struct Asked {
    pub(super) control: Arc<Control>,
    pub(super) who: Actor,
    pub(super) parameters: Parameters,
    pub(super) headers: HeaderMap,
    body: Bytes,
}

impl FromRequest<Entry> for Asked {
    type Rejection = Problem;

    async fn from_request(request: Request, entry: &Entry) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        // The credential first: strangers do not get to send a megabyte to an operator's door.
        let who = identify(&head.headers, entry).await?;
        let changes = !matches!(head.method, Method::GET | Method::HEAD);
        if changes && matches!(who, Actor::Operator { role: OperatorRole::Auditor, .. }) {
            return Err(Problem::forbidden("auditors change nothing: use an admin's token"));
        }
        Ok(Self {
            control: Arc::clone(&entry.control),
            who,
            parameters: Parameters::parse(head.uri.query()),
            headers: head.headers,
            body: if changes { read(body).await? } else { Bytes::new() },
        })
    }
}

async fn read(body: Body) -> Result<Bytes, Problem> {
    to_bytes(body, BODY_MAX).await.map_err(|error| {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(inner) = cause {
            if inner.is::<http_body_util::LengthLimitError>() {
                return Problem::new(413, format!("the body is longer than {BODY_MAX} bytes"));
            }
            cause = inner.source();
        }
        Problem::bad_request("the body broke off")
    })
}

async fn identify(headers: &HeaderMap, entry: &Entry) -> Result<Actor, Problem> {
    let refuse = || {
        Problem::unauthorized(match entry.door {
            Door::Public => AGENT_HINT,
            Door::Operator => OPERATOR_HINT,
        })
    };
    let Some(token) = credential(headers).map_err(|several| if several { two() } else { refuse() })? else {
        return match entry.door {
            Door::Public => Ok(Actor::Anonymous),
            Door::Operator => Err(refuse()),
        };
    };
    let digest = digest_of(token);
    let store = &entry.control.store;
    let now = entry.control.registry.clock().wall();
    match entry.door {
        Door::Public => {
            let key = store.key_by_digest(&digest).await?.filter(|key| key.expires_at.is_none_or(|end| now < end));
            let key = key.ok_or_else(refuse)?;
            let agent = store.agent(key.agent_id).await?.ok_or_else(refuse)?;
            if agent.state == AdminState::Disabled {
                return Err(Problem::forbidden("this agent is disabled: ask an operator"));
            }
            Ok(Actor::Agent(agent.id))
        }
        Door::Operator => {
            let found = store.operator_by_digest(&digest).await?;
            let operator = found.filter(|row| row.expires_at.is_none_or(|end| now < end)).ok_or_else(refuse)?;
            Ok(Actor::Operator { name: operator.name, role: operator.role })
        }
    }
}

fn two() -> Problem {
    Problem::bad_request("more than one credential: send Authorization or X-API-Key, once")
}

/// The one credential; `Err(true)`: several, `Err(false)`: one that cannot be read.
fn credential(headers: &HeaderMap) -> Result<Option<&str>, bool> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter().map(|value| (true, value));
    let mut keys = headers.get_all("x-api-key").iter().map(|value| (false, value));
    let Some((bearer, value)) = all.next().or_else(|| keys.next()) else { return Ok(None) };
    if all.next().is_some() || keys.next().is_some() {
        return Err(true);
    }
    let text = value.to_str().map_err(|_| false)?.trim();
    let token = if bearer {
        let (scheme, token) = text.split_once(' ').ok_or(false)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(false);
        }
        token.trim()
    } else {
        text
    };
    if token.is_empty() { Err(false) } else { Ok(Some(token)) }
}

impl Asked {
    /// The agent or operator that asks; strangers are sent for a credential.
    pub(super) fn known(&self) -> Result<&Actor, Problem> {
        match &self.who {
            Actor::Anonymous => Err(Problem::unauthorized(AGENT_HINT)),
            known => Ok(known),
        }
    }

    pub(super) fn members(&self) -> Result<Members, Problem> {
        Members::parse(&self.body)
    }

    /// The agent named by id or slug.
    pub(super) async fn find_agent(&self, name: &str) -> Result<Option<AgentRow>, Problem> {
        Ok(match Uuid::parse_str(name) {
            Ok(id) => self.control.store.agent(id).await?,
            Err(_) => self.control.store.agent_by_slug(name).await?,
        })
    }

    /// The agent named by id or slug, if the asker may know of it.
    pub(super) async fn visible_agent(&self, name: &str) -> Result<AgentRow, Problem> {
        let agent = self.find_agent(name).await?;
        match agent {
            Some(agent) if self.sees(&agent).await? => Ok(agent),
            _ => Err(Problem::not_found("Agent not found")),
        }
    }

    async fn sees(&self, agent: &AgentRow) -> Result<bool, Problem> {
        if self.who.is_operator() || self.who.owns(agent.id) {
            return Ok(true);
        }
        if agent.state != AdminState::Active {
            return Ok(false);
        }
        if agent.listed {
            return Ok(true);
        }
        // An agent that is not listed is known to those it deals with.
        let Actor::Agent(asker) = &self.who else { return Ok(false) };
        let tie = self.control.store.connection_between(*asker, agent.id).await?;
        Ok(tie.is_some_and(|row| {
            let blocked = row.blocked_by_requester || row.blocked_by_target;
            let alive = matches!(
                row.status,
                ConnectionStatus::Pending | ConnectionStatus::Connected | ConnectionStatus::Paused
            );
            alive && !blocked
        }))
    }
}
