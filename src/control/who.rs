//! Who asks, and with what: the one extractor of all handlers.
//!
//! Promises: exactly one credential, in a header; agent keys count on the public listener only, operator tokens on the
//! operator listener only; whatever is wrong with a credential, the answer is the same.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, Method};
use uuid::Uuid;

use super::body::{Members, Parameters};
use super::problem::Problem;
use super::{Control, Door, Entry, Source, body_max};
use crate::directory::Key;
use crate::identity::{self, Caller, CredentialError};
use crate::limit::Abuse;
use crate::registry::Actor;
use crate::registry::token::digest_of;
use crate::store::rows::{AdminState, AgentRow, ConnectionStatus, OperatorRole};

/// Uses of an operator's token this close together are noted once.
const USE_NOTED_US: i64 = 60_000_000;

const AGENT_HINT: &str = "send one API key of the agent as Authorization: Bearer, or as X-API-Key";
const OPERATOR_HINT: &str = "send one operator token as Authorization: Bearer, or as X-API-Key";

/// A request to the API, after its credential was found good or absent.
pub(super) struct Asked {
    pub(super) control: Arc<Control>,
    pub(super) who: Actor,
    /// The agent's key that was sent.
    pub(super) key: Option<Arc<Key>>,
    pub(super) parameters: Parameters,
    pub(super) headers: HeaderMap,
    source: IpAddr,
    body: Bytes,
    door: Door,
}

impl FromRequest<Entry> for Asked {
    type Rejection = Problem;

    async fn from_request(request: Request, entry: &Entry) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        // The credential first: strangers do not get to send a megabyte to an operator's door.
        // Without a source all share one allowance.
        let source = head.extensions.get::<Source>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |source| source.0);
        let (who, key) = identify(&head.headers, source, entry).await?;
        if matches!(who, Actor::Anonymous) {
            entry.control.limits.abuse(source, Abuse::Api)?;
        }
        let changes = !matches!(head.method, Method::GET | Method::HEAD);
        if changes && matches!(who, Actor::Operator { role: OperatorRole::Auditor, .. }) {
            return Err(Problem::forbidden("auditors change nothing: use an admin's token"));
        }
        Ok(Self {
            control: Arc::clone(&entry.control),
            who,
            key,
            parameters: Parameters::parse(head.uri.query()),
            headers: head.headers,
            source,
            door: entry.door,
            body: if changes { read(body, body_max(head.uri.path())).await? } else { Bytes::new() },
        })
    }
}

async fn read(body: Body, most: usize) -> Result<Bytes, Problem> {
    to_bytes(body, most).await.map_err(|error| {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(inner) = cause {
            if inner.is::<http_body_util::LengthLimitError>() {
                return Problem::new(413, format!("the body is longer than {most} bytes"));
            }
            cause = inner.source();
        }
        Problem::bad_request("the body broke off")
    })
}

/// Who the headers prove the asker to be at this door.
async fn identify(headers: &HeaderMap, source: IpAddr, entry: &Entry) -> Result<(Actor, Option<Arc<Key>>), Problem> {
    let control = &entry.control;
    let hint = match entry.door {
        Door::Public => AGENT_HINT,
        Door::Operator => OPERATOR_HINT,
    };
    // As on the path of a call: wrong credentials are counted, and whoever tries too many is told to wait.
    let wrong = |why: CredentialError| match control.limits.abuse(source, Abuse::Credential) {
        _ if why == CredentialError::Disabled => Problem::forbidden("this agent is disabled: ask an operator"),
        Err(too_many) => Problem::from(too_many),
        Ok(_) if why == CredentialError::Ambiguous => {
            Problem::bad_request("more than one credential: send Authorization or X-API-Key, once")
        }
        Ok(_) => Problem::unauthorized(hint),
    };
    let now = control.registry.clock().wall();
    match entry.door {
        // From the directory, as calls are: what is in force for a call is in force here, and no guess costs a query.
        Door::Public => match identity::prove(headers, &control.directory.load(), now).map_err(wrong)? {
            Caller::Anonymous => Ok((Actor::Anonymous, None)),
            Caller::Agent(key) if key.agent.state == AdminState::Disabled => Err(wrong(CredentialError::Disabled)),
            // One that waits for approval looks after itself: what it may not do for that is the registry's to say.
            Caller::Agent(key) => Ok((Actor::Agent(key.agent.id), Some(key))),
        },
        Door::Operator => {
            let token = identity::credential(headers).map_err(wrong)?.ok_or_else(|| Problem::unauthorized(hint))?;
            let found = control.store.operator_by_digest(&digest_of(token)).await?;
            let operator = found.filter(|row| row.expires_at.is_none_or(|end| now < end));
            let operator = operator.ok_or_else(|| wrong(CredentialError::Unknown))?;
            if operator.last_used_at.is_none_or(|at| now.0 - at.0 >= USE_NOTED_US) {
                let store = control.store.clone();
                // A note that cannot be taken is no reason to turn somebody away, nor to let them wait.
                tokio::spawn(async move { drop(store.touch_operator(operator.id, now).await) });
            }
            Ok((Actor::Operator { name: operator.name, role: operator.role }, None))
        }
    }
}

impl Asked {
    /// The agent or operator that asks; strangers are sent for a credential.
    pub(super) fn known(&self) -> Result<&Actor, Problem> {
        match &self.who {
            Actor::Anonymous => Err(Problem::unauthorized(AGENT_HINT)),
            known => Ok(known),
        }
    }

    /// Whether the credential is still good: for answers that take longer than a moment. A database that cannot say so says no.
    pub(super) async fn still_good(&self) -> bool {
        let now = self.control.registry.clock().wall();
        match (self.door, identity::credential(&self.headers)) {
            (Door::Public, _) => match identity::prove(&self.headers, &self.control.directory.load(), now) {
                Ok(Caller::Agent(key)) => key.agent.state != AdminState::Disabled,
                Ok(Caller::Anonymous) | Err(_) => false,
            },
            (Door::Operator, Ok(Some(token))) => {
                let found = self.control.store.operator_by_digest(&digest_of(token)).await;
                found.is_ok_and(|found| found.is_some_and(|row| row.expires_at.is_none_or(|end| now < end)))
            }
            (Door::Operator, _) => false,
        }
    }

    /// Counts what costs the asker nothing against where it comes from.
    pub(super) fn limited(&self, what: Abuse) -> Result<(), Problem> {
        self.control.limits.abuse(self.source, what).map(|_| ()).map_err(Problem::from)
    }

    pub(super) fn members(&self) -> Result<Members, Problem> {
        Members::parse(&self.body)
    }

    /// The members that were sent, if any were.
    pub(super) fn optional_members(&self) -> Result<Members, Problem> {
        if self.body.is_empty() { Members::parse(b"{}") } else { self.members() }
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
