//! `/api/agents/{id}/probe` and `/api/agents/{id}/card/*`: looking at an agent now, and deciding on a card that is held.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::problem::Problem;
use super::view;
use super::who::Asked;
use crate::a2a::card;
use crate::registry::cards::{CardDecision, digest};

pub(super) async fn probe(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let row = asked.visible_agent(&name).await?;
    let found = asked.control.health.probe_now(&asked.who, row.id).await?;
    let breaker = asked.control.directory.load().agent(row.id).map(|agent| agent.vitals.breaker.state().as_str());
    let agent = &found.agent;
    Ok(Json(json!({
        "id": agent.id,
        "health": agent.health.as_str(),
        "health_status": view::health(agent.health),
        "status": view::health(agent.health),
        "reason": agent.health_reason,
        "checked_at": agent.health_checked_at,
        "card": {
            "state": view::card_state(agent),
            "url": found.card_url.map(String::from),
            "fetched_at": agent.card_fetched_at,
        },
        "credential": found.credential.as_str(),
        "breaker": breaker,
    }))
    .into_response())
}

/// The card in force and the one that waits, with what is different.
pub(super) async fn held(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let row = asked.visible_agent(&name).await?;
    if !(asked.who.is_operator() || asked.who.owns(row.id)) {
        return Err(Problem::forbidden("only the agent itself or an operator can see its held card"));
    }
    let held = row.held_card.as_ref().ok_or_else(|| Problem::not_found("no card of this agent is held"))?;
    let served = row.card_json.as_deref().unwrap_or_default();
    let endpoint = row.endpoint_url.as_deref().and_then(|text| url::Url::parse(text).ok());
    let changes = card::changes(served, &held.json, endpoint.as_ref());
    let readable = |card: &[u8]| serde_json::from_slice::<Value>(card).unwrap_or(Value::Null);
    Ok(Json(json!({
        "held_at": held.at,
        "reason": held.reason,
        "hash": digest(&held.json),
        "current": readable(served),
        "held": readable(&held.json),
        "changes": {"held_for": changes.grave, "other": changes.harmless},
    }))
    .into_response())
}

pub(super) async fn accept(path: Path<String>, asked: Asked) -> Result<Response, Problem> {
    decide(path, asked, CardDecision::Accept).await
}

pub(super) async fn reject(path: Path<String>, asked: Asked) -> Result<Response, Problem> {
    decide(path, asked, CardDecision::Reject).await
}

async fn decide(Path(name): Path<String>, asked: Asked, decision: CardDecision) -> Result<Response, Problem> {
    asked.known()?;
    let row = asked.visible_agent(&name).await?;
    let members = asked.optional_members()?;
    let (seen, reason) = (members.plain_text("hash")?, members.plain_text("reason")?);
    let row = asked.control.registry.decide_card(&asked.who, row.id, decision, seen.as_deref(), reason).await?;
    let connections = asked.control.store.connected_count(row.id).await?;
    Ok(Json(view::agent(&row, &asked.who, &asked.control.public_url, connections)).into_response())
}
