//! `/api/agents`: registering, finding, reading, changing and deleting agents.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use uuid::Uuid;

use super::agent_form;
use super::cursor;
use super::problem::Problem;
use super::view;
use super::who::Asked;
use crate::config::DurationText;
use crate::limit::Abuse;
use crate::registry::{Actor, Registration};
use crate::store::rows::{AdminState, AgentRow, HealthStatus};
use crate::store::{AgentFilter, AgentPage};

fn filter(asked: &Asked) -> Result<AgentFilter, Problem> {
    let health = |word: &str| HealthStatus::from_word(word).filter(|status| *status != HealthStatus::Degraded);
    Ok(AgentFilter {
        text: asked.parameters.text(&["q", "search"]).map(str::to_owned),
        skill: asked.parameters.text(&["skill"]).map(str::to_owned),
        health: asked.parameters.word("status", "online, offline or unknown", health)?,
        tag: asked.parameters.text(&["tag"]).map(str::to_owned),
        // What a state is to those who see active agents only, nobody need know.
        state: match asked.who.is_operator() {
            true => asked.parameters.word("state", "pending, active or disabled", AdminState::from_word)?,
            false => None,
        },
        provider: asked.parameters.text(&["provider"]).map(str::to_owned),
        public_only: !asked.who.is_operator(),
    })
}

/// The page that is asked for: after the agent that `next` names, else by its number.
fn page(asked: &Asked, limit: u32) -> Result<(u32, AgentPage), Problem> {
    let page = asked.parameters.count("page", 1, 1_000_000)?;
    let after = asked.parameters.word("next", "the next of the page before", cursor::read)?;
    let offset = AgentPage::Offset((page - 1) * limit);
    Ok((page, after.map_or(offset, |(at, id)| AgentPage::After(at, id))))
}

async fn shown(asked: &Asked, row: &AgentRow) -> Result<Value, Problem> {
    let connections = asked.control.store.connected_count(row.id).await?;
    Ok(view::agent(row, &asked.who, &asked.control.public_url, connections))
}

pub(super) async fn list(asked: Asked) -> Result<Response, Problem> {
    let limit = asked.parameters.count("limit", 20, 50)?;
    let (number, page) = page(&asked, limit)?;
    // One more than is shown tells whether there is a next page.
    let (mut rows, total) = asked.control.store.agents(&filter(&asked)?, limit + 1, page).await?;
    let next = cursor::page(&mut rows, limit, |row| (row.created_at, row.id));
    let counts = counts(&asked, &rows).await?;
    let show = |row: &AgentRow| view::agent(row, &asked.who, &asked.control.public_url, count(&counts, row));
    let agents: Vec<Value> = rows.iter().map(show).collect();
    Ok(Json(json!({"agents": agents, "total": total, "page": number, "limit": limit, "next": next})).into_response())
}

async fn counts(asked: &Asked, rows: &[AgentRow]) -> Result<HashMap<Uuid, i64>, Problem> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    Ok(asked.control.store.connected_counts(&ids).await?)
}

fn count(counts: &HashMap<Uuid, i64>, row: &AgentRow) -> i64 {
    counts.get(&row.id).copied().unwrap_or(0)
}

pub(super) async fn find(asked: Asked) -> Result<Response, Problem> {
    let limit = asked.parameters.count("limit", 5, 20)?;
    let filter = AgentFilter { public_only: true, ..filter(&asked)? };
    let (rows, total) = asked.control.store.agents(&filter, limit, AgentPage::Offset(0)).await?;
    let counts = counts(&asked, &rows).await?;
    let show = |row: &AgentRow| view::found_agent(row, &asked.control.public_url, count(&counts, row));
    let agents: Vec<Value> = rows.iter().map(show).collect();
    let query = json!({
        "q": filter.text, "skill": filter.skill, "tag": filter.tag, "status": filter.health.map(view::health),
        "provider": filter.provider, "limit": limit,
    });
    Ok(Json(json!({"agents": agents, "total": total, "query": query})).into_response())
}

pub(super) async fn create(asked: Asked) -> Result<Response, Problem> {
    if !asked.who.is_operator() && asked.control.registry.registration() != Registration::Closed {
        asked.limited(Abuse::Registration)?;
    }
    let changes = agent_form::read(&asked.members()?, None, &asked.control.public_url)?;
    let made = asked.control.registry.register(&asked.who, changes).await?;
    let mut body = view::agent(&made.agent, &Actor::Agent(made.agent.id), &asked.control.public_url, 0);
    body["api_key"] = json!(made.api_key.text);
    body["api_key_id"] = json!(made.key.id);
    body["signing_secret"] = json!(made.signing_secret);
    body["warning"] = json!(match made.agent.state {
        AdminState::Pending => {
            "Keep api_key and signing_secret now: neither is shown again. The agent is waiting for an operator's approval: \
             until then it is in no list, is not called and cannot call."
        }
        _ => "Keep api_key and signing_secret now: neither is shown again.",
    });
    let location = format!("/api/agents/{}", made.agent.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], no_store(), Json(body)).into_response())
}

/// For answers that hold a secret.
pub(super) fn no_store() -> [(header::HeaderName, HeaderValue); 1] {
    [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))]
}

pub(super) async fn show(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    let row = match asked.visible_agent(&name).await {
        // The log goes on naming agents that are gone.
        Err(gone) if asked.who.is_operator() => asked.control.store.deleted_agent(&name).await?.ok_or(gone)?,
        found => found?,
    };
    Ok(Json(shown(&asked, &row).await?).into_response())
}

pub(super) async fn update(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let row = asked.visible_agent(&name).await?;
    let changes = agent_form::read(&asked.members()?, Some(&row), &asked.control.public_url)?;
    let row = asked.control.registry.update_agent(&asked.who, row.id, changes).await?;
    Ok(Json(shown(&asked, &row).await?).into_response())
}

pub(super) async fn delete(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let row = asked.visible_agent(&name).await?;
    let said = asked.optional_members()?.plain_text("reason")?;
    let reason = said.as_deref().or_else(|| asked.parameters.text(&["reason"]));
    asked.control.registry.delete_agent(&asked.who, row.id, reason).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn signing_secret(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let row = asked.visible_agent(&name).await?;
    let wait = match asked.optional_members()?.plain_text("activate_after")? {
        None => Duration::ZERO,
        Some(text) => text.parse::<DurationText>().map_err(|why| Problem::invalid("activate_after", why))?.0,
    };
    let made = asked.control.registry.rotate_signing_secret(&asked.who, row.id, wait).await?;
    let body = json!({
        "signing_secret": made.signing_secret,
        "active_from": made.active_from,
        "warning": "Keep the signing secret now: it is not shown again. Until active_from the one before signs.",
    });
    Ok((no_store(), Json(body)).into_response())
}

pub(super) async fn card(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    let row = asked.visible_agent(&name).await?;
    let served = asked.control.directory.load().agent(row.id).and_then(|agent| agent.card.clone());
    let served = served.ok_or_else(|| Problem::not_found("this agent has no card: it is a client"))?;
    let etag = served.etag.to_str().unwrap_or_default().to_owned();
    let known = asked.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let current = known.is_some_and(|list| {
        list.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    });
    let caching = if row.listed { "public, max-age=300" } else { "private, max-age=300" };
    let headers = [
        (header::ETAG, etag),
        (header::CACHE_CONTROL, caching.to_owned()),
        (header::VARY, "Authorization, X-API-Key".to_owned()),
    ];
    if current {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    Ok((headers, [(header::CONTENT_TYPE, "application/json")], served.json.clone()).into_response())
}
