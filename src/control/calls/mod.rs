//! `/api/calls`: the call log, newest first. Operators see all of it, an agent the calls it made or received.
//!
//! | file | what it is for |
//! |---|---|
//! | `filter` | which calls are asked for |
//! | `record` | how far the record was read |
//! | `stats` | the log in numbers |
//! | `live` | the log as it grows, as a stream of events |
//! | `follow` | the one look at the log that all live streams share |
//! | `end` | ending a call that is open |

pub(super) mod end;
mod filter;
pub(super) mod follow;
pub(super) mod live;
mod record;
pub(super) mod stats;

use std::collections::HashSet;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::cursor;
use super::problem::Problem;
use super::readings;
use super::view;
use super::who::Asked;
use crate::registry::Actor;
use crate::store::call_query::CallPage;
use crate::store::rows::{AgentName, CallRow, OperatorRole};
use crate::store::{Store, StoreError};
use record::RecordCursor;

/// A page of the call log.
#[derive(Serialize, ToSchema)]
struct CallList {
    /// The calls, newest first.
    calls: Vec<view::Call>,
    /// Send it back as `next` for the next page; null: there is none.
    next: Option<String>,
}

/// The calls that are open.
#[derive(Serialize, ToSchema)]
struct ActiveCalls {
    /// Newest first.
    calls: Vec<view::ActiveCall>,
}

/// What a cursor must be.
const NEXT: &str = "the next of the page before";

fn page(asked: &Asked) -> Result<CallPage, Problem> {
    Ok(CallPage {
        after: asked.parameters.word("next", NEXT, cursor::read)?,
        limit: asked.parameters.count("limit", 50, 200)?,
    })
}

/// The call log, newest first: all of it for operators, its own calls for an agent. What is not asked by agent, pair, request
/// id or time alone needs `since`, at most 31 days before `until`.
#[utoipa::path(get, path = "/api/calls", operation_id = "list_calls", tag = "calls",
    params(("agent" = Option<String>, Query, description = "Id or slug of caller or target"),
        ("target" = Option<String>, Query, description = "Id or slug"),
        ("caller" = Option<String>, Query, description = "Id or slug"),
        ("trust_level" = Option<String>, Query, description = "`blocked`, `unverified`, `verified` or `connected`"),
        ("outcome" = Option<String>, Query, description = "How it ended"),
        ("decision" = Option<String>, Query, description = "Whether it was let through: `allowed` or `refused`; `gap`: where calls are missing"),
        ("operation" = Option<String>, Query, description = "The A2A operation"),
        ("reason" = Option<String>, Query, description = "Why it was refused, or ended as it did"),
        ("pair" = Option<String>, Query, description = "Two agents by id or slug, as in `planner:weather`: calls either way round"),
        ("status" = Option<u16>, Query, description = "The HTTP status"),
        ("since" = Option<String>, Query, description = "A time", format = DateTime),
        ("until" = Option<String>, Query, description = "A time", format = DateTime),
        ("request_id" = Option<uuid::Uuid>, Query, description = "One call"),
        ("task_id" = Option<String>, Query, description = "The A2A task"),
        ("context_id" = Option<String>, Query, description = "The A2A context"),
        ("trace_id" = Option<String>, Query, description = "The W3C trace"),
        ("order" = Option<String>, Query, description = "`called` (newest first), or `recorded`: as they became rows, for those who follow the log; then there is always a `next`"),
        ("next" = Option<String>, Query, description = "The `next` of the page before"),
        ("limit" = Option<u32>, Query, description = "At most 200; 50 unless said", minimum = 1)),
    responses((status = 200, description = "A page", body = CallList)))]
pub(super) async fn list(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let order = |text: &str| ["called", "recorded"].into_iter().find(|order| *order == text);
    if asked.parameters.word("order", "called or recorded", order)? == Some("recorded") {
        return recorded(&asked).await;
    }
    let page = page(&asked)?;
    let filter = filter::read(&asked).await?;
    filter::bounded(&filter, asked.control.registry.clock().wall())?;
    if let Some(flush) = &asked.control.drain_flush {
        flush().await;
    }
    // One more than is shown tells whether there is another page.
    let mut rows = asked.control.store.calls(&filter, &CallPage { limit: page.limit + 1, ..page }).await?;
    let next = cursor::page(&mut rows, page.limit, |row| (row.called_at, row.id));
    readings::record(&asked, rows.len()).await?;
    let calls = shown(&asked, &rows).await?;
    Ok(Json(CallList { calls, next }).into_response())
}

/// The log as it grows, for those who follow it: rows in the order they were recorded in, which a long stream's late row
/// does not disturb. There is always a `next`.
async fn recorded(asked: &Asked) -> Result<Response, Problem> {
    let seen = asked.parameters.word("next", NEXT, RecordCursor::read)?;
    let limit = asked.parameters.count("limit", 50, 200)?;
    let filter = filter::read(asked).await?;
    if let Some(flush) = &asked.control.drain_flush {
        flush().await;
    }
    let after = seen.as_ref().map_or(&[][..], RecordCursor::after);
    let record = asked.control.store.recorded_calls(&filter, after, limit).await?;
    readings::record(asked, record.rows.len()).await?;
    let calls = shown(asked, &record.rows).await?;
    Ok(Json(CallList { calls, next: Some(RecordCursor(record.reached).write()) }).into_response())
}

async fn shown(asked: &Asked, rows: &[CallRow]) -> Result<Vec<view::Call>, Problem> {
    let names = names_in(&asked.control.store, rows).await?;
    Ok(rows.iter().map(|row| view::call(row, &asked.who, &names)).collect())
}

/// Rows as the log shows them to an auditor, each as one line of JSON: for those who are sent them.
///
/// # Errors
/// When the names of agents cannot be read.
pub async fn call_lines(store: &Store, rows: &[CallRow]) -> Result<Vec<String>, StoreError> {
    let names = names_in(store, rows).await?;
    let auditor = Actor::Operator { name: "outlet".to_owned(), role: OperatorRole::Auditor };
    let line = |row| serde_json::to_string(&view::call(row, &auditor, &names));
    rows.iter().map(line).collect::<Result<_, _>>().map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// The names of both sides of `rows`.
async fn names_in(store: &Store, rows: &[CallRow]) -> Result<view::Names, StoreError> {
    names_of(store, rows.iter().flat_map(|row| [row.caller_agent_id, row.target_agent_id])).await
}

/// The names of those of `agents` that are known: also of deleted ones, the log goes on naming them.
async fn names_of(store: &Store, agents: impl Iterator<Item = Option<Uuid>>) -> Result<view::Names, StoreError> {
    let ids: HashSet<Uuid> = agents.flatten().collect();
    let found = store.agent_names(&ids.into_iter().collect::<Vec<_>>()).await?;
    Ok(found.into_iter().map(|AgentName { id, slug, name }| (id, view::NamedAgent { id, slug, name })).collect())
}

/// As [`names_of`].
pub(super) async fn names(asked: &Asked, agents: impl Iterator<Item = Option<Uuid>>) -> Result<view::Names, Problem> {
    Ok(names_of(&asked.control.store, agents).await?)
}

/// The calls that are open now.
#[utoipa::path(get, path = "/api/calls/active", operation_id = "list_active_calls", tag = "calls",
    params(("agent" = Option<String>, Query, description = "Id or slug of caller or target"),
        ("target" = Option<String>, Query, description = "Id or slug"),
        ("caller" = Option<String>, Query, description = "Id or slug"),
        ("pair" = Option<String>, Query, description = "Two agents by id or slug, as in `planner:weather`: calls either way round")),
    responses((status = 200, description = "What is open", body = ActiveCalls)))]
pub(super) async fn active(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let query = filter::read(&asked).await?;
    let mut open = (asked.control.active_calls)();
    open.retain(|call| {
        let made = |agent: Option<Uuid>| agent.is_none_or(|agent| call.caller_agent_id == Some(agent));
        let received = |agent: Option<Uuid>| agent.is_none_or(|agent| call.target_agent_id == Some(agent));
        let between = |[one, other]: [Uuid; 2]| {
            (made(Some(one)) && received(Some(other))) || (made(Some(other)) && received(Some(one)))
        };
        (made(query.agent) || received(query.agent))
            && made(query.caller)
            && received(query.target)
            && query.pair.is_none_or(between)
    });
    open.sort_by_key(|call| std::cmp::Reverse((call.called_at, call.request_id)));
    let sides = open.iter().flat_map(|call| [call.caller_agent_id, call.target_agent_id]);
    let names = names(&asked, sides).await?;
    let calls = open.iter().map(|call| view::active_call(call, &asked.who, &names)).collect();
    Ok(Json(ActiveCalls { calls }).into_response())
}
