//! `/api/events`: what was changed, by whom, from what to what, and why; newest first, for operators.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::cursor;
use super::problem::Problem;
use super::view;
use super::who::Asked;
use crate::store::{EventFilter, EventPage};

pub(super) async fn list(asked: Asked) -> Result<Response, Problem> {
    let parameters = &asked.parameters;
    let text = |name: &str| parameters.text(&[name]).map(str::to_owned);
    let mut filter = EventFilter {
        subject: text("subject"),
        actor: text("actor"),
        action: text("action"),
        since: parameters.time("since")?,
        until: parameters.time("until")?,
    };
    // An agent may be named as everywhere else; the log knows ids.
    if let Some(name) = &filter.subject
        && let Some(agent) = asked.find_agent(name).await?
    {
        filter.subject = Some(agent.id.to_string());
    }
    let limit = parameters.count("limit", 50, 200)?;
    let after = parameters.word("next", "the next of the page before", cursor::read)?;
    let mut events = asked.control.store.admin_events(&filter, &EventPage { after, limit: limit + 1 }).await?;
    let next = cursor::page(&mut events, limit, |event| (event.at, event.id));
    let events: Vec<Value> = events.iter().map(view::event).collect();
    Ok(Json(json!({"events": events, "next": next})).into_response())
}
