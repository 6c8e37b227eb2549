//! `/api/agents`: registering, finding, reading, changing and deleting agents.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::agent_form;
use super::problem::Problem;
use super::view;
use super::who::Asked;
use crate::limit::Abuse;
use crate::registry::Actor;
use crate::store::AgentFilter;
use crate::store::rows::{AgentRow, HealthStatus};

fn filter(asked: &Asked) -> Result<AgentFilter, Problem> {
    let health = |word: &str| HealthStatus::from_word(word).filter(|status| *status != HealthStatus::Degraded);
    Ok(AgentFilter {
        text: asked.parameters.text(&["q", "search"]).map(str::to_owned),
        skill: asked.parameters.text(&["skill"]).map(str::to_owned),
        health: asked.parameters.word("status", "online, offline or unknown", health)?,
        provider: asked.parameters.text(&["provider"]).map(str::to_owned),
        public_only: !asked.who.is_operator(),
    })
}

async fn shown(asked: &Asked, row: &AgentRow) -> Result<Value, Problem> {
    let connections = asked.control.store.connected_count(row.id).await?;
    Ok(view::agent(row, &asked.who, &asked.control.public_url, connections))
}

pub(super) async fn list(asked: Asked) -> Result<Response, Problem> {
    let limit = asked.parameters.count("limit", 20, 50)?;
    let page = asked.parameters.count("page", 1, 1_000_000)?;
    let (rows, total) = asked.control.store.agents(&filter(&asked)?, limit, (page - 1) * limit).await?;
    let mut agents = Vec::with_capacity(rows.len());
    for row in &rows {
        agents.push(shown(&asked, row).await?);
    }
    Ok(Json(json!({"agents": agents, "total": total, "page": page, "limit": limit})).into_response())
}

pub(super) async fn find(asked: Asked) -> Result<Response, Problem> {
    let limit = asked.parameters.count("limit", 5, 20)?;
    let filter = AgentFilter { public_only: true, ..filter(&asked)? };
    let (rows, total) = asked.control.store.agents(&filter, limit, 0).await?;
    let mut agents = Vec::with_capacity(rows.len());
    for row in &rows {
        let connections = asked.control.store.connected_count(row.id).await?;
        agents.push(view::found_agent(row, &asked.control.public_url, connections));
    }
    let query = json!({
        "q": filter.text, "skill": filter.skill, "status": filter.health.map(view::health), "provider": filter.provider,
        "limit": limit,
    });
    Ok(Json(json!({"agents": agents, "total": total, "query": query})).into_response())
}

pub(super) async fn create(asked: Asked) -> Result<Response, Problem> {
    if !asked.who.is_operator() {
        if !asked.control.open_registration.load(Ordering::Relaxed) {
            return Err(Problem::forbidden(
                "registration is closed: ask an operator of this gateway to register the agent",
            ));
        }
        asked.limited(Abuse::Registration)?;
    }
    let changes = agent_form::read(&asked.members()?, None, &asked.control.public_url)?;
    let made = asked.control.registry.register(&asked.who, changes).await?;
    let mut body = view::agent(&made.agent, &Actor::Agent(made.agent.id), &asked.control.public_url, 0);
    body["api_key"] = json!(made.api_key.text);
    body["api_key_id"] = json!(made.key.id);
    body["signing_secret"] = json!(made.signing_secret);
    body["warning"] = json!("Keep api_key and signing_secret now: neither is shown again.");
    let location = format!("/api/agents/{}", made.agent.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], no_store(), Json(body)).into_response())
}

/// For answers that hold a secret.
pub(super) fn no_store() -> [(header::HeaderName, HeaderValue); 1] {
    [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))]
}

pub(super) async fn show(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    let row = asked.visible_agent(&name).await?;
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
    asked.control.registry.delete_agent(&asked.who, row.id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
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
