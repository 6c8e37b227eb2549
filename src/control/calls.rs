//! `/api/calls`: the call log, newest first. Operators see all of it, an agent the calls it made or received.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use super::cursor;
use super::problem::Problem;
use super::readings;
use super::view;
use super::who::Asked;
use crate::registry::Actor;
use crate::store::call_query::{CallFilter, CallPage};

/// Which calls are asked for, and which part of them. `None`: names an agent that is unknown, whose calls are none.
async fn query(asked: &Asked) -> Result<Option<(CallFilter, CallPage)>, Problem> {
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
        status: parameters.status("status")?,
        since: parameters.time("since")?,
        until: parameters.time("until")?,
        id: parameters.id("request_id")?.or(parameters.id("id")?),
        task_id: text("task_id"),
        context_id: text("context_id"),
    };
    let page = CallPage {
        after: parameters.word("next", "the next of the page before", cursor::read)?,
        limit: parameters.count("limit", 50, 200)?,
    };
    Ok(Some((filter, page)))
}

pub(super) async fn list(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let Some((filter, page)) = query(&asked).await? else {
        return Ok(Json(json!({"calls": [], "next": null})).into_response());
    };
    if let Some(flush) = &asked.control.drain_flush {
        flush().await;
    }
    // One more than is shown tells whether there is another page.
    let mut rows = asked.control.store.calls(&filter, &CallPage { limit: page.limit + 1, ..page }).await?;
    let next = cursor::page(&mut rows, page.limit, |row| (row.called_at, row.id));
    readings::record(&asked, rows.len()).await?;
    let calls: Vec<Value> = rows.iter().map(|row| view::call(row, &asked.who)).collect();
    Ok(Json(json!({"calls": calls, "next": next})).into_response())
}

pub(super) async fn active(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let Some((query, _)) = query(&asked).await? else {
        return Ok(Json(json!({"calls": []})).into_response());
    };
    let mut open = (asked.control.active_calls)();
    open.retain(|call| {
        let made = |agent: Option<Uuid>| agent.is_none_or(|agent| call.caller_agent_id == Some(agent));
        let received = |agent: Option<Uuid>| agent.is_none_or(|agent| call.target_agent_id == Some(agent));
        (made(query.agent) || received(query.agent)) && made(query.caller) && received(query.target)
    });
    open.sort_by_key(|call| std::cmp::Reverse((call.called_at, call.request_id)));
    let calls: Vec<Value> = open.iter().map(|call| view::active_call(call, &asked.who)).collect();
    Ok(Json(json!({"calls": calls})).into_response())
}
