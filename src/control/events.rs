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

/// A page of changes.
#[derive(Serialize, ToSchema)]
struct EventList {
    /// Newest first.
    events: Vec<view::Event>,
    /// Continues the list as `next`; null at its end.
    next: Option<String>,
}

/// What was changed, by whom, from what to what, and why; and who read the call log.
#[utoipa::path(get, path = "/api/events", operation_id = "list_events", tag = "operators",
    params(("subject" = Option<String>, Query, description = "The id of what was changed, or the slug of an agent"),
        ("actor" = Option<String>, Query, description = "`operator:NAME`, `agent:ID`, `anonymous` or `gateway`"),
        ("action" = Option<String>, Query, description = "`connection.block`, or `connection` for all of that kind"),
        ("since" = Option<String>, Query, description = "Not before this time (RFC 3339)"),
        ("until" = Option<String>, Query, description = "Before this time (RFC 3339)"),
        ("limit" = Option<u32>, Query, description = "At most so many, up to 200", minimum = 1),
        ("next" = Option<String>, Query, description = "The `next` of the page before")),
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
    Ok(Json(EventList { events: events.iter().map(view::event).collect(), next }).into_response())
}
