//! `/api/calls`: the call log, newest first. Operators see all of it, an agent the calls it made or received.

use std::collections::HashSet;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::cursor;
use super::problem::Problem;
use super::readings;
use super::view;
use super::who::Asked;
use crate::registry::Actor;
use crate::store::call_query::{CallFilter, CallPage};
use crate::store::rows::{AgentName, CallRow};

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

/// Which calls are asked for. `None`: names an agent that is unknown, whose calls are none.
async fn query(asked: &Asked) -> Result<Option<CallFilter>, Problem> {
    let parameters = &asked.parameters;
    let mut agents = [None, None, None];
    for (place, name) in agents.iter_mut().zip(["agent", "target", "caller"]) {
        let Some(text) = parameters.text(&[name, &format!("{name}_agent_id"), &format!("{name}_id")]) else { continue };
        // The log outlives the agents it names: an id need not be a living agent's.
        *place = match Uuid::parse_str(text) {
            Ok(id) => Some(id),
            Err(_) => match asked.find_agent(text).await? {
                Some(agent) => Some(agent.id),
                None => return Ok(None),
            },
        };
    }
    let [mut agent, target, caller] = agents;
    if let Actor::Agent(own) = asked.known()? {
        if agent.is_some_and(|agent| agent != *own) {
            return Err(Problem::forbidden(
                "an agent sees its own calls only: leave agent out, name a caller or a target",
            ));
        }
        agent = Some(*own);
    }
    let text = |name: &str| parameters.text(&[name]).map(str::to_owned);
    let filter = CallFilter {
        agent,
        target,
        caller,
        trust_level: text("trust_level"),
        outcome: text("outcome"),
        decision: text("decision"),
        operation: text("operation"),
        reason: text("reason"),
        status: parameters.status("status")?,
        since: parameters.time("since")?,
        until: parameters.time("until")?,
        id: parameters.id("request_id")?.or(parameters.id("id")?),
        task_id: text("task_id"),
        context_id: text("context_id"),
    };
    Ok(Some(filter))
}

fn page(asked: &Asked) -> Result<CallPage, Problem> {
    Ok(CallPage {
        after: asked.parameters.word("next", NEXT, cursor::read)?,
        limit: asked.parameters.count("limit", 50, 200)?,
    })
}

/// The call log, newest first: all of it for operators, its own calls for an agent.
#[utoipa::path(get, path = "/api/calls", operation_id = "list_calls", tag = "calls",
    params(("agent" = Option<String>, Query, description = "Id or slug of caller or target"),
        ("target" = Option<String>, Query, description = "Id or slug"),
        ("caller" = Option<String>, Query, description = "Id or slug"),
        ("trust_level" = Option<String>, Query, description = "`blocked`, `unverified`, `verified` or `connected`"),
        ("outcome" = Option<String>, Query, description = "How it ended"),
        ("decision" = Option<String>, Query, description = "Whether it was let through: `allowed` or `refused`; `gap`: where calls are missing"),
        ("operation" = Option<String>, Query, description = "The A2A operation"),
        ("reason" = Option<String>, Query, description = "Why it was refused, or ended as it did"),
        ("status" = Option<u16>, Query, description = "The HTTP status"),
        ("since" = Option<String>, Query, description = "A time", format = DateTime),
        ("until" = Option<String>, Query, description = "A time", format = DateTime),
        ("request_id" = Option<uuid::Uuid>, Query, description = "One call"),
        ("task_id" = Option<String>, Query, description = "The A2A task"),
        ("context_id" = Option<String>, Query, description = "The A2A context"),
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
    let Some(filter) = query(&asked).await? else {
        return Ok(Json(CallList { calls: Vec::new(), next: None }).into_response());
    };
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
    let mut seen = asked.parameters.word("next", NEXT, read_record_cursor)?.unwrap_or_default();
    let limit = asked.parameters.count("limit", 50, 200)?;
    let Some(filter) = query(asked).await? else {
        return Ok(Json(CallList { calls: Vec::new(), next: Some(record_cursor(&seen)) }).into_response());
    };
    if let Some(flush) = &asked.control.drain_flush {
        flush().await;
    }
    let rows = asked.control.store.recorded_calls(&filter, &seen, limit).await?;
    readings::record(asked, rows.len()).await?;
    for row in &rows {
        match seen.iter_mut().find(|(node, _)| *node == row.node_id) {
            Some((_, seq)) => *seq = row.seq,
            None => seen.push((row.node_id, row.seq)),
        }
    }
    let calls = shown(asked, &rows).await?;
    Ok(Json(CallList { calls, next: Some(record_cursor(&seen)) }).into_response())
}

async fn shown(asked: &Asked, rows: &[CallRow]) -> Result<Vec<view::Call>, Problem> {
    let sides = rows.iter().flat_map(|row| [row.caller_agent_id, row.target_agent_id]);
    let names = names(asked, sides).await?;
    Ok(rows.iter().map(|row| view::call(row, &asked.who, &names)).collect())
}

/// The names of those of `agents` that are known: also of deleted ones, the log goes on naming them.
pub(super) async fn names(asked: &Asked, agents: impl Iterator<Item = Option<Uuid>>) -> Result<view::Names, Problem> {
    let ids: HashSet<Uuid> = agents.flatten().collect();
    let found = asked.control.store.agent_names(&ids.into_iter().collect::<Vec<_>>()).await?;
    Ok(found.into_iter().map(|AgentName { id, slug, name }| (id, view::NamedAgent { id, slug, name })).collect())
}

/// How far each node's record was read.
fn record_cursor(seen: &[(Uuid, i64)]) -> String {
    // The first byte keeps it from being empty, which would count as not sent.
    let mut bytes = vec![b'r'];
    for (node, seq) in seen {
        bytes.extend_from_slice(node.as_bytes());
        bytes.extend_from_slice(&seq.to_be_bytes());
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_record_cursor(text: &str) -> Option<Vec<(Uuid, i64)>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (entries, []) = bytes.strip_prefix(b"r")?.as_chunks::<24>() else { return None };
    entries
        .iter()
        .map(|entry| {
            let (node, seq) = entry.split_at(16);
            Some((Uuid::from_slice(node).ok()?, i64::from_be_bytes(seq.try_into().ok()?)))
        })
        .collect()
}

/// The calls that are open now.
#[utoipa::path(get, path = "/api/calls/active", operation_id = "list_active_calls", tag = "calls",
    params(("agent" = Option<String>, Query, description = "Id or slug of caller or target"),
        ("target" = Option<String>, Query, description = "Id or slug"),
        ("caller" = Option<String>, Query, description = "Id or slug")),
    responses((status = 200, description = "What is open", body = ActiveCalls)))]
pub(super) async fn active(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let Some(query) = query(&asked).await? else {
        return Ok(Json(ActiveCalls { calls: Vec::new() }).into_response());
    };
    let mut open = (asked.control.active_calls)();
    open.retain(|call| {
        let made = |agent: Option<Uuid>| agent.is_none_or(|agent| call.caller_agent_id == Some(agent));
        let received = |agent: Option<Uuid>| agent.is_none_or(|agent| call.target_agent_id == Some(agent));
        (made(query.agent) || received(query.agent)) && made(query.caller) && received(query.target)
    });
    open.sort_by_key(|call| std::cmp::Reverse((call.called_at, call.request_id)));
    let sides = open.iter().flat_map(|call| [call.caller_agent_id, call.target_agent_id]);
    let names = names(&asked, sides).await?;
    let calls = open.iter().map(|call| view::active_call(call, &asked.who, &names)).collect();
    Ok(Json(ActiveCalls { calls }).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn a_record_cursor_reads_back_and_nonsense_does_not() {
        let id = Uuid::now_v7();
        for seen in [vec![], vec![(id, 1)], vec![(id, i64::MAX), (Uuid::nil(), 0)]] {
            assert_eq!(read_record_cursor(&record_cursor(&seen)), Some(seen));
        }
        for bad in ["", "x", "cg0", &cursor::write(Timestamp(1), id)] {
            assert_eq!(read_record_cursor(bad), None, "{bad}");
        }
    }
}
