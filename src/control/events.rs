//! `/api/events`: what was changed, by whom, from what to what, and why; newest first, for operators.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::cursor;
use super::problem::Problem;
use super::view;
use super::who::Asked;
use crate::store::{EventFilter, EventPage};

/// A page of the log of changes.
#[derive(Serialize, ToSchema)]
struct EventList {
    /// Newest first.
    events: Vec<view::Event>,
    /// Send it back as `next` for the next page; null: there is none.
    next: Option<String>,
}

/// What was changed, by whom and why, newest first.
#[utoipa::path(get, path = "/api/events", operation_id = "list_events", tag = "events",
    params(("actor" = Option<String>, Query, description = "Such as `operator:NAME`"),
        ("action" = Option<String>, Query, description = "Such as `agent.create`, or `agent` for all of its kind"),
        ("subject" = Option<String>, Query, description = "The id of what was changed; an agent's slug"),
        ("since" = Option<String>, Query, description = "A time", format = DateTime),
        ("until" = Option<String>, Query, description = "A time", format = DateTime),
        ("next" = Option<String>, Query, description = "The `next` of the page before"),
        ("limit" = Option<u32>, Query, description = "At most 200; 50 unless said", minimum = 1)),
    responses((status = 200, description = "A page", body = EventList)))]
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
    let events = events.iter().map(view::event).collect();
    Ok(Json(EventList { events, next }).into_response())
}
