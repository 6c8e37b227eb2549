//! `/api/agents`: registering, finding, reading, changing and deleting agents.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::agent_form;
use super::forms::AgentForm;
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

/// A page of agents.
#[derive(Serialize, ToSchema)]
struct AgentPage {
    /// The agents of this page.
    agents: Vec<view::Agent>,
    /// How many there are on all pages.
    total: i64,
    /// Which page this is, from 1.
    page: u32,
    /// How many agents a page has.
    limit: u32,
}

/// What `/api/agents/find` found.
#[derive(Serialize, ToSchema)]
struct FoundAgents {
    /// The first of them.
    agents: Vec<view::FoundAgent>,
    /// How many there are.
    total: i64,
    /// What was asked for, as it was understood.
    query: FindQuery,
}

/// What was asked for.
#[derive(Serialize, ToSchema)]
struct FindQuery {
    /// Words.
    q: Option<String>,
    /// A skill.
    skill: Option<String>,
    /// Health.
    status: Option<&'static str>,
    /// The organisation.
    provider: Option<String>,
    /// How many.
    limit: u32,
}

async fn shown(asked: &Asked, row: &AgentRow) -> Result<view::Agent, Problem> {
    let connections = asked.control.store.connected_count(row.id).await?;
    Ok(view::agent(row, &asked.who, &asked.control.public_url, connections))
}

/// Finds agents, a page at a time. Strangers see what is listed, operators see all.
#[utoipa::path(get, path = "/api/agents", operation_id = "list_agents", tag = "agents", security(()),
    params(("q" = Option<String>, Query, description = "Words in name, description or slug"),
        ("search" = Option<String>, Query, description = "The same"),
        ("skill" = Option<String>, Query, description = "A skill it has"),
        ("status" = Option<String>, Query, description = "`online`, `offline` or `unknown`"),
        ("provider" = Option<String>, Query, description = "The organisation behind it"),
        ("page" = Option<u32>, Query, description = "From 1", minimum = 1),
        ("limit" = Option<u32>, Query, description = "At most 50; 20 unless said", minimum = 1)),
    responses((status = 200, description = "A page", body = AgentPage)))]
pub(super) async fn list(asked: Asked) -> Result<Response, Problem> {
    let limit = asked.parameters.count("limit", 20, 50)?;
    let page = asked.parameters.count("page", 1, 1_000_000)?;
    let (rows, total) = asked.control.store.agents(&filter(&asked)?, limit, (page - 1) * limit).await?;
    let mut agents = Vec::with_capacity(rows.len());
    for row in &rows {
        agents.push(shown(&asked, row).await?);
    }
    Ok(Json(AgentPage { agents, total, page, limit }).into_response())
}

/// Finds agents for a caller that wants one: OpenAgora's short form.
#[utoipa::path(get, path = "/api/agents/find", operation_id = "find_agents", tag = "agents", security(()),
    params(("q" = Option<String>, Query, description = "Words in name, description or slug"),
        ("search" = Option<String>, Query, description = "The same"),
        ("skill" = Option<String>, Query, description = "A skill it has"),
        ("status" = Option<String>, Query, description = "`online`, `offline` or `unknown`"),
        ("provider" = Option<String>, Query, description = "The organisation behind it"),
        ("limit" = Option<u32>, Query, description = "At most 20; 5 unless said", minimum = 1)),
    responses((status = 200, description = "What was found", body = FoundAgents)))]
pub(super) async fn find(asked: Asked) -> Result<Response, Problem> {
    let limit = asked.parameters.count("limit", 5, 20)?;
    let filter = AgentFilter { public_only: true, ..filter(&asked)? };
    let (rows, total) = asked.control.store.agents(&filter, limit, 0).await?;
    let mut agents = Vec::with_capacity(rows.len());
    for row in &rows {
        let connections = asked.control.store.connected_count(row.id).await?;
        agents.push(view::found_agent(row, &asked.control.public_url, connections));
    }
    let query = FindQuery {
        q: filter.text,
        skill: filter.skill,
        status: filter.health.map(view::health),
        provider: filter.provider,
        limit,
    };
    Ok(Json(FoundAgents { agents, total, query }).into_response())
}

/// Registers an agent; key and signing secret are in the answer and are not shown again.
#[utoipa::path(post, path = "/api/agents", operation_id = "create_agent", tag = "agents", security(()),
    request_body = AgentForm,
    responses((status = 201, description = "Registered", body = view::NewAgent),
        (status = 409, description = "Slug or address are taken")))]
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
    let body = view::NewAgent {
        agent: view::agent(&made.agent, &Actor::Agent(made.agent.id), &asked.control.public_url, 0),
        api_key: made.api_key.text,
        api_key_id: made.key.id,
        signing_secret: made.signing_secret,
        warning: "Keep api_key and signing_secret now: neither is shown again.",
    };
    let location = format!("/api/agents/{}", made.agent.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], no_store(), Json(body)).into_response())
}

/// For answers that hold a secret.
pub(super) fn no_store() -> [(header::HeaderName, HeaderValue); 1] {
    [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))]
}

/// One agent.
#[utoipa::path(get, path = "/api/agents/{id}", operation_id = "show_agent", tag = "agents", security(()),
    params(("id" = String, Path, description = "The agent's id or slug")),
    responses((status = 200, description = "The agent", body = view::Agent)))]
pub(super) async fn show(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    let row = asked.visible_agent(&name).await?;
    Ok(Json(shown(&asked, &row).await?).into_response())
}

/// Changes what is sent and keeps the rest; by the agent itself or an admin.
#[utoipa::path(method(put, patch), path = "/api/agents/{id}", operation_id = "update_agent", tag = "agents",
    params(("id" = String, Path, description = "The agent's id or slug")), request_body = AgentForm,
    responses((status = 200, description = "The agent as it is now", body = view::Agent),
        (status = 409, description = "Slug or address are taken")))]
pub(super) async fn update(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let row = asked.visible_agent(&name).await?;
    let changes = agent_form::read(&asked.members()?, Some(&row), &asked.control.public_url)?;
    let row = asked.control.registry.update_agent(&asked.who, row.id, changes).await?;
    Ok(Json(shown(&asked, &row).await?).into_response())
}

/// Takes an agent away; the call log keeps its name.
#[utoipa::path(delete, path = "/api/agents/{id}", operation_id = "delete_agent", tag = "agents",
    params(("id" = String, Path, description = "The agent's id or slug")),
    responses((status = 204, description = "Gone")))]
pub(super) async fn delete(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let row = asked.visible_agent(&name).await?;
    asked.control.registry.delete_agent(&asked.who, row.id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The agent's card as the gateway serves it.
#[utoipa::path(get, path = "/api/agents/{id}/agent-card.json", operation_id = "show_agent_card", tag = "agents",
    security(()),
    params(("id" = String, Path, description = "The agent's id or slug")),
    responses((status = 200, description = "The card", body = Object),
        (status = 304, description = "The card that If-None-Match names is the current one")))]
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
