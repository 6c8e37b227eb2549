//! `/api/agents`: registering, finding, reading, changing and deleting agents.

use std::collections::HashMap;

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::agent_form;
use super::cursor;
use super::forms::{AgentForm, SecretChange};
use super::problem::Problem;
use super::view;
use super::who::Asked;
use crate::clock::Timestamp;
use crate::limit::Abuse;
use crate::registry::agents::AgentChanges;
use crate::registry::{Actor, Registration};
use crate::store::rows::{AdminState, AgentRow, HealthStatus};
use crate::store::{AgentFilter, AgentPage};

/// What an agent that asked to be registered is told with its key.
const WAITING: &str = "Keep api_key and signing_secret now: neither is shown again. The agent is waiting for an operator's \
    approval: until then it is in no list, is not called and cannot call.";

/// The longest text to look for.
const WANTED_MAX: usize = 500;

/// A text to look for. Bounded, because the database gives up on long ones, and strangers may ask.
fn wanted(asked: &Asked, names: &[&str]) -> Result<Option<String>, Problem> {
    match asked.parameters.text(names) {
        Some(text) if text.len() > WANTED_MAX => {
            Err(Problem::invalid(names[0], format!("is longer than {WANTED_MAX} bytes: look for less")))
        }
        found => Ok(found.map(str::to_owned)),
    }
}

fn filter(asked: &Asked) -> Result<AgentFilter, Problem> {
    let health = |word: &str| HealthStatus::from_word(word).filter(|status| *status != HealthStatus::Degraded);
    Ok(AgentFilter {
        text: wanted(asked, &["q", "search"])?,
        skill: wanted(asked, &["skill"])?,
        health: asked.parameters.word("status", "online, offline or unknown", health)?,
        tag: wanted(asked, &["tag"])?,
        // What a state is to those who see active agents only, nobody need know.
        state: match asked.who.is_operator() {
            true => asked.parameters.word("state", "pending, active or disabled", AdminState::from_word)?,
            false => None,
        },
        provider: wanted(asked, &["provider"])?,
        public_only: !asked.who.is_operator(),
    })
}

/// A page of agents.
#[derive(Serialize, ToSchema)]
struct AgentList {
    /// The agents of this page.
    agents: Vec<view::Agent>,
    /// How many there are on all pages.
    total: i64,
    /// Which page this is, from 1.
    page: u32,
    /// How many agents a page has.
    limit: u32,
    /// Send it back as `next` for the next page; null: there is none.
    next: Option<String>,
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
    /// A tag of a skill.
    tag: Option<String>,
    /// Health.
    status: Option<&'static str>,
    /// The organisation.
    provider: Option<String>,
    /// How many.
    limit: u32,
}

/// The page that is asked for: after the agent that `next` names, else by its number.
fn page(asked: &Asked, limit: u32) -> Result<(u32, AgentPage), Problem> {
    let page = asked.parameters.count("page", 1, 1_000_000)?;
    let after = asked.parameters.word("next", "the next of the page before", cursor::read)?;
    let offset = AgentPage::Offset((page - 1) * limit);
    Ok((page, after.map_or(offset, |(at, id)| AgentPage::After(at, id))))
}

async fn shown(asked: &Asked, row: &AgentRow) -> Result<view::Agent, Problem> {
    let connections = asked.control.store.connected_count(row.id).await?;
    Ok(view::agent(row, &asked.who, &asked.control.public_url, connections))
}

/// Finds agents, a page at a time. Strangers see what is listed, operators see all.
#[utoipa::path(get, path = "/api/agents", operation_id = "list_agents", tag = "agents", security(()),
    params(("q" = Option<String>, Query, description = "Words that are all in name, description, slug or skills"),
        ("search" = Option<String>, Query, description = "The same"),
        ("skill" = Option<String>, Query, description = "A skill it has"),
        ("tag" = Option<String>, Query, description = "A tag of one of its skills"),
        ("status" = Option<String>, Query, description = "`online`, `offline` or `unknown`"),
        ("provider" = Option<String>, Query, description = "The organisation behind it"),
        ("state" = Option<String>, Query, description = "For operators: `pending`, `active` or `disabled`"),
        ("page" = Option<u32>, Query, description = "From 1", minimum = 1),
        ("next" = Option<String>, Query, description = "The `next` of the page before, instead of a page"),
        ("limit" = Option<u32>, Query, description = "At most 50; 20 unless said", minimum = 1)),
    responses((status = 200, description = "A page", body = AgentList)))]
pub(super) async fn list(asked: Asked) -> Result<Response, Problem> {
    let limit = asked.parameters.count("limit", 20, 50)?;
    let (number, page) = page(&asked, limit)?;
    // One more than is shown tells whether there is a next page.
    let (mut rows, total) = asked.control.store.agents(&filter(&asked)?, limit + 1, page).await?;
    let next = cursor::page(&mut rows, limit, |row| (row.created_at, row.id));
    let counts = counts(&asked, &rows).await?;
    let show = |row: &AgentRow| view::agent(row, &asked.who, &asked.control.public_url, count(&counts, row));
    Ok(Json(AgentList { agents: rows.iter().map(show).collect(), total, page: number, limit, next }).into_response())
}

async fn counts(asked: &Asked, rows: &[AgentRow]) -> Result<HashMap<Uuid, i64>, Problem> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    Ok(asked.control.store.connected_counts(&ids).await?)
}

fn count(counts: &HashMap<Uuid, i64>, row: &AgentRow) -> i64 {
    counts.get(&row.id).copied().unwrap_or(0)
}

/// Finds agents for a caller that wants one: OpenAgora's short form.
#[utoipa::path(get, path = "/api/agents/find", operation_id = "find_agents", tag = "agents", security(()),
    params(("q" = Option<String>, Query, description = "Words that are all in name, description, slug or skills"),
        ("search" = Option<String>, Query, description = "The same"),
        ("skill" = Option<String>, Query, description = "A skill it has"),
        ("tag" = Option<String>, Query, description = "A tag of one of its skills"),
        ("status" = Option<String>, Query, description = "`online`, `offline` or `unknown`"),
        ("provider" = Option<String>, Query, description = "The organisation behind it"),
        ("limit" = Option<u32>, Query, description = "At most 20; 5 unless said", minimum = 1)),
    responses((status = 200, description = "What was found", body = FoundAgents)))]
pub(super) async fn find(asked: Asked) -> Result<Response, Problem> {
    let limit = asked.parameters.count("limit", 5, 20)?;
    let filter = AgentFilter { public_only: true, ..filter(&asked)? };
    let (rows, total) = asked.control.store.agents(&filter, limit, AgentPage::Offset(0)).await?;
    let counts = counts(&asked, &rows).await?;
    let show = |row: &AgentRow| view::found_agent(row, &asked.control.public_url, count(&counts, row));
    let agents = rows.iter().map(show).collect();
    let query = FindQuery {
        q: filter.text,
        skill: filter.skill,
        tag: filter.tag,
        status: filter.health.map(view::health),
        provider: filter.provider,
        limit,
    };
    Ok(Json(FoundAgents { agents, total, query }).into_response())
}

/// What is to be registered or changed, as far as the policy in force allows it.
fn form(asked: &Asked, current: Option<&AgentRow>) -> Result<AgentChanges, Problem> {
    let changes = agent_form::read(&asked.members()?, current, &asked.control.public_url)?;
    if let Some(limits) = &changes.limits {
        asked.control.limits.check(limits).map_err(|problem| Problem::invalid("limits.costs", problem))?;
    }
    Ok(changes)
}

/// Registers an agent; key and signing secret are in the answer and are not shown again.
#[utoipa::path(post, path = "/api/agents", operation_id = "create_agent", tag = "agents", security(()),
    request_body = AgentForm,
    responses((status = 201, description = "Registered", body = view::NewAgent),
        (status = 409, description = "Slug or address are taken")))]
pub(super) async fn create(asked: Asked) -> Result<Response, Problem> {
    if !asked.who.is_operator() && asked.control.registry.registration() != Registration::Closed {
        asked.limited(Abuse::Registration)?;
    }
    let changes = form(&asked, None)?;
    let made = asked.control.registry.register(&asked.who, changes).await?;
    let body = view::NewAgent {
        agent: view::agent(&made.agent, &Actor::Agent(made.agent.id), &asked.control.public_url, 0),
        api_key: made.api_key.text,
        api_key_id: made.key.id,
        signing_secret: made.signing_secret,
        warning: match made.agent.state {
            AdminState::Pending => WAITING,
            _ => "Keep api_key and signing_secret now: neither is shown again.",
        },
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
    let row = match asked.visible_agent(&name).await {
        // The log goes on naming agents that are gone.
        Err(gone) if asked.who.is_operator() => asked.control.store.deleted_agent(&name).await?.ok_or(gone)?,
        found => found?,
    };
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
    let changes = form(&asked, Some(&row))?;
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
    let said = asked.optional_members()?.plain_text("reason")?;
    let reason = said.as_deref().or_else(|| asked.parameters.text(&["reason"]));
    asked.control.registry.delete_agent(&asked.who, row.id, reason).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A signing secret that was just made.
#[derive(Serialize, ToSchema)]
struct NewSecret {
    /// Shown this once.
    signing_secret: String,
    /// It signs from then on; until then the one before does.
    #[schema(value_type = String, format = DateTime)]
    active_from: Timestamp,
    /// What to do now.
    warning: &'static str,
}

/// Makes another signing secret, which takes over at once or after a while, so that the agent can be told in between.
#[utoipa::path(post, path = "/api/agents/{id}/signing-secret", operation_id = "rotate_signing_secret", tag = "agents",
    params(("id" = String, Path, description = "The agent's id or slug")), request_body = SecretChange,
    responses((status = 200, description = "The new secret", body = NewSecret)))]
pub(super) async fn signing_secret(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let row = asked.visible_agent(&name).await?;
    let wait = asked.optional_members()?.duration("activate_after")?.flatten().unwrap_or_default();
    let made = asked.control.registry.rotate_signing_secret(&asked.who, row.id, wait).await?;
    let body = NewSecret {
        signing_secret: made.signing_secret,
        active_from: made.active_from,
        warning: "Keep the signing secret now: it is not shown again. Until active_from the one before signs.",
    };
    Ok((no_store(), Json(body)).into_response())
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

/// The same where OpenAgora has it, too.
#[utoipa::path(get, path = "/agents/{id}/agent-card.json", operation_id = "show_agent_card_too", tag = "agents",
    security(()),
    params(("id" = String, Path, description = "The agent's id or slug")),
    responses((status = 200, description = "The card", body = Object),
        (status = 304, description = "The card that If-None-Match names is the current one")))]
pub(super) async fn card_without_prefix(path: Path<String>, asked: Asked) -> Result<Response, Problem> {
    card(path, asked).await
}
