//! `/api/connections`: asking for, answering, blocking, limiting and ending connections.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::{Members, whole_millis};
use super::cursor;
use super::forms::{ConnectionChange, ConnectionForm};
use super::history;
use super::problem::Problem;
use super::view;
use super::who::Asked;
use crate::a2a::OperationSet;
use crate::registry::Actor;
use crate::registry::connections::{Change, NewConnection, Terms};
use crate::registry::transition::Action;
use crate::store::ConnectionFilter;
use crate::store::rows::{ConnectionLimits, ConnectionRow, ConnectionStatus};

const ACTIONS: &str = "one of accept, decline, block, unblock, pause, resume, end";

/// A page of connections.
#[derive(Serialize, ToSchema)]
struct ConnectionPage {
    /// The connections of this page.
    connections: Vec<view::Connection>,
    /// Which page this is, from 1.
    page: u32,
    /// How many connections a page has.
    limit: u32,
    /// Send it back as `next` for the next page; null: there is none.
    next: Option<String>,
}

pub(super) async fn shown(asked: &Asked, row: &ConnectionRow) -> Result<view::Connection, Problem> {
    let requester = asked.control.store.agent(row.requester_id).await?;
    let target = asked.control.store.agent(row.target_id).await?;
    let now = asked.control.registry.clock().wall();
    Ok(view::connection(row, requester.as_ref(), target.as_ref(), now))
}

/// The row, for its two sides and operators; to others it does not exist.
async fn visible(asked: &Asked, id: &str) -> Result<ConnectionRow, Problem> {
    let who = asked.known()?;
    let row = match Uuid::parse_str(id) {
        Ok(id) => asked.control.store.connection(id).await?,
        Err(_) => None,
    };
    row.filter(|row| who.is_operator() || who.owns(row.requester_id) || who.owns(row.target_id))
        .ok_or_else(|| Problem::not_found("Connection not found"))
}

/// What is to be done: OpenAgora's `action` or `status`, whichever is sent.
fn action(members: &Members) -> Result<Option<Action>, Problem> {
    let action = members.word("action", ACTIONS, Action::from_word)?;
    let status = members.word("status", ACTIONS, Action::from_word)?;
    if action.is_some() && status.is_some() && action != status {
        return Err(Problem::invalid("status", "says something else than action: send one of them"));
    }
    Ok(action.or(status))
}

fn terms(members: &Members) -> Result<Terms, Problem> {
    let limits = match members.object("limits")? {
        None => None,
        Some(None) => Some(ConnectionLimits::default()),
        Some(Some(members)) => Some(self::limits(&members)?),
    };
    let operations = match members.get("operations") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(_) => {
            let names = members.texts("operations")?.unwrap_or_default();
            let set = OperationSet::from_names(&names).map_err(|error| Problem::invalid("operations", error))?;
            Some(Some(set))
        }
    };
    let purpose = members.text("purpose")?;
    Ok(Terms { limits, ends_at: members.time("ends_at")?, operations, purpose, review_at: members.time("review_at")? })
}

/// Limits of a connection's own, or of an agent's.
pub(super) fn limits(members: &Members) -> Result<ConnectionLimits, Problem> {
    Ok(ConnectionLimits {
        rate: members.number("rate")?.flatten(),
        period_ms: period(members)?,
        burst: members.number("burst")?.flatten(),
        daily: members.number("daily")?.flatten(),
        streams: members.number("streams")?.flatten(),
    })
}

/// `period_ms`, or `period` as a duration.
fn period(limits: &Members) -> Result<Option<u64>, Problem> {
    match limits.number("period_ms")? {
        Some(ms) => Ok(ms.map(u64::from)),
        None => Ok(limits.duration("period")?.flatten().map(whole_millis)),
    }
}

/// Asks an agent for a connection, or blocks it.
#[utoipa::path(post, path = "/api/connections", operation_id = "create_connection", tag = "connections",
    request_body = ConnectionForm,
    responses((status = 201, description = "Asked for", body = view::NewConnection),
        (status = 404, description = "There is no such agent"),
        (status = 409, description = "There is a connection between the two already")))]
pub(super) async fn create(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let members = asked.members()?;
    let at_once = match action(&members)? {
        None => members.flag("accept")?.filter(|yes| *yes).map(|_| Action::Accept),
        Some(Action::Accept | Action::Block) if members.get("accept").is_none() => action(&members)?,
        Some(_) => return Err(Problem::invalid("status", "must be connected or blocked, or not be sent")),
    };
    let target = members.plain_text("target_id")?.or(members.plain_text("target_agent_id")?);
    let target = target.ok_or_else(|| Problem::invalid("target_agent_id", "is missing"))?;
    let requester_id = match (&asked.who, members.plain_text("requester_id")?) {
        (Actor::Agent(own), None) => *own,
        (_, Some(name)) => asked.visible_agent(&name).await?.id,
        (_, None) => return Err(Problem::invalid("requester_id", "is missing")),
    };
    // Whoever is called by an agent that is not listed knows its id from the call, and must be able to block it.
    let by_id = Uuid::parse_str(&target).is_ok() && at_once == Some(Action::Block);
    let target = if by_id {
        asked.find_agent(&target).await?.ok_or_else(|| Problem::not_found("Agent not found"))?
    } else {
        asked.visible_agent(&target).await?
    };
    let wish = NewConnection {
        requester_id,
        target_id: target.id,
        message: members.plain_text("message")?,
        at_once,
        terms: terms(&members)?,
        reason: members.plain_text("reason")?,
    };
    let row = asked.control.registry.request_connection(&asked.who, wish).await?;
    let auto_accepted = row.status == ConnectionStatus::Connected && at_once.is_none();
    let body = view::NewConnection { connection: shown(&asked, &row).await?, auto_accepted };
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// The connections of an agent, or all of them for operators.
#[utoipa::path(get, path = "/api/connections", operation_id = "list_connections", tag = "connections",
    params(("agent_id" = Option<String>, Query, description = "Id or slug of either side"),
        ("status" = Option<String>, Query,
            description = "`open` (unless said), `all`, `blocked`, `pending`, `connected`, `declined`, `paused` or `ended`"),
        ("page" = Option<u32>, Query, description = "From 1", minimum = 1),
        ("limit" = Option<u32>, Query, description = "At most 500; 100 unless said", minimum = 1)),
    responses((status = 200, description = "A page", body = ConnectionPage),
        (status = 404, description = "There is no such agent")))]
pub(super) async fn list(asked: Asked) -> Result<Response, Problem> {
    let named = asked.parameters.text(&["agent_id"]);
    let agent = match (asked.known()?, named) {
        (Actor::Agent(own), None) => Some(*own),
        (_, Some(name)) => Some(asked.visible_agent(name).await?.id),
        _ => None,
    };
    if agent.is_some_and(|agent| !asked.who.is_operator() && !asked.who.owns(agent)) {
        return Err(Problem::forbidden("an agent sees its own connections only"));
    }
    let limit = asked.parameters.count("limit", 100, 500)?;
    let page = asked.parameters.count("page", 1, 1_000_000)?;
    let status = asked.parameters.text(&["status"]).unwrap_or("open");
    if !["open", "all", "blocked"].contains(&status) && ConnectionStatus::from_word(status).is_none() {
        return Err(Problem::invalid("status", "must be pending, connected, declined, paused, ended, blocked or all"));
    }
    let review_due = asked.parameters.word("review_due", "true or false", |text| text.parse::<bool>().ok())?;
    let filter = ConnectionFilter {
        agent,
        status,
        review_by: review_due.filter(|due| *due).map(|_| asked.control.registry.clock().wall()),
        ..ConnectionFilter::default()
    };
    let after = asked.parameters.word("next", "the next of the page before", cursor::read)?;
    // A cursor says where the page begins; its number, sent along, says nothing more.
    let offset = if after.is_some() { 0 } else { (page - 1) * limit };
    // One more than is shown tells whether there is another page.
    let mut rows = asked.control.store.connections(&filter, after, limit + 1, offset).await?;
    let next = cursor::page(&mut rows, limit, |row| (row.created_at, row.id));
    let mut connections = Vec::with_capacity(rows.len());
    for row in &rows {
        connections.push(shown(&asked, row).await?);
    }
    Ok(Json(ConnectionPage { connections, page, limit, next }).into_response())
}

/// One connection, for its two sides and operators.
#[utoipa::path(get, path = "/api/connections/{id}", operation_id = "show_connection", tag = "connections",
    params(("id" = String, Path, description = "The connection's id")),
    responses((status = 200, description = "The connection", body = view::Connection)))]
pub(super) async fn show(Path(id): Path<String>, asked: Asked) -> Result<Response, Problem> {
    let row = visible(&asked, &id).await?;
    Ok(Json(shown(&asked, &row).await?).into_response())
}

/// Answers, rests, resumes, blocks, limits or ends a connection.
#[utoipa::path(method(put, patch), path = "/api/connections/{id}", operation_id = "update_connection",
    tag = "connections", params(("id" = String, Path, description = "The connection's id")), request_body = ConnectionChange,
    responses((status = 200, description = "The connection as it is now", body = view::Connection),
        (status = 409, description = "It cannot be done to a connection in this state")))]
pub(super) async fn update(Path(id): Path<String>, asked: Asked) -> Result<Response, Problem> {
    let row = visible(&asked, &id).await?;
    let members = asked.members()?;
    let action = action(&members)?;
    let terms = terms(&members)?;
    if action.is_none() && terms.is_empty() {
        let problem = format!("is missing: send {ACTIONS}, or terms: limits, operations, purpose, review_at, ends_at");
        return Err(Problem::invalid("action", problem));
    }
    let side_for = match members.plain_text("agent_id")? {
        Some(name) => Some(asked.visible_agent(&name).await?.id),
        None => None,
    };
    let change = Change { action, side_for, terms, reason: members.plain_text("reason")? };
    let row = asked.control.registry.change_connection(&asked.who, row.id, change).await?;
    Ok(Json(shown(&asked, &row).await?).into_response())
}

/// Ends a connection.
#[utoipa::path(delete, path = "/api/connections/{id}", operation_id = "end_connection", tag = "connections",
    params(("id" = String, Path, description = "The connection's id"),
        ("reason" = Option<String>, Query, description = "Kept in the history")),
    responses((status = 204, description = "Over"),
        (status = 409, description = "It cannot be ended in this state")))]
pub(super) async fn end(Path(id): Path<String>, asked: Asked) -> Result<Response, Problem> {
    let row = visible(&asked, &id).await?;
    let reason = asked.parameters.text(&["reason"]).map(str::to_owned);
    let change = Change { reason, ..Action::End.into() };
    asked.control.registry.change_connection(&asked.who, row.id, change).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Every change of a connection, newest first: who, when, why, before and after. For its two sides and operators.
#[utoipa::path(get, path = "/api/connections/{id}/history", operation_id = "connection_history", tag = "connections",
    params(("id" = String, Path, description = "The connection's id"),
        ("limit" = Option<u32>, Query, description = "At most 200; 50 unless said", minimum = 1),
        ("next" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, description = "A page", body = history::History)))]
pub(super) async fn history(Path(id): Path<String>, asked: Asked) -> Result<Response, Problem> {
    let row = visible(&asked, &id).await?;
    history::answer(&asked, row.id).await
}
