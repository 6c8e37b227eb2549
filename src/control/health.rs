//! `/api/agents/{id}/probe` and `/api/agents/{id}/card/*`: looking at an agent now, and deciding on a card that is held.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::forms::CardChoice;
use super::problem::Problem;
use super::view;
use super::who::Asked;
use crate::a2a::card;
use crate::clock::Timestamp;
use crate::registry::cards::{CardDecision, digest};

/// What a probe found.
#[derive(Serialize, ToSchema)]
struct Probed {
    /// Which agent.
    id: Uuid,
    /// `unknown`, `online`, `degraded` or `offline`.
    health: &'static str,
    /// `online`, `offline` or `unknown`, as others are shown it.
    health_status: &'static str,
    /// The same under OpenAgora's other name.
    status: &'static str,
    /// Why.
    reason: Option<String>,
    /// When it was looked at.
    #[schema(value_type = Option<String>, format = DateTime)]
    checked_at: Option<Timestamp>,
    /// Its card.
    card: ProbedCard,
    /// What became of the credential the gateway shows it: `accepted`, `refused`, `none` or `unknown`.
    credential: &'static str,
    /// `closed`: calls pass; `open`: they are refused; `half_open`: one tries.
    breaker: Option<&'static str>,
}

/// The card as a probe found it.
#[derive(Serialize, ToSchema)]
struct ProbedCard {
    /// `none`, `current` or `held`.
    state: &'static str,
    /// Where it was found this time.
    url: Option<String>,
    /// When the one served was fetched.
    #[schema(value_type = Option<String>, format = DateTime)]
    fetched_at: Option<Timestamp>,
}

/// A card that waits, beside the one that is served.
#[derive(Serialize, ToSchema)]
struct Waiting {
    /// When it was first seen.
    #[schema(value_type = String, format = DateTime)]
    held_at: Timestamp,
    /// What about it was held.
    reason: String,
    /// Names this card; sent back with the decision, it makes sure that no other one is meant.
    hash: String,
    /// The card in force.
    #[schema(value_type = Option<Object>)]
    current: Value,
    /// The card that waits.
    #[schema(value_type = Option<Object>)]
    held: Value,
    /// What is different.
    changes: Differences,
}

/// What is different between two cards, in words.
#[derive(Serialize, ToSchema)]
struct Differences {
    /// What it was held for.
    held_for: Vec<String>,
    /// What would have passed by itself.
    other: Vec<String>,
}

/// Looks at an agent now: whether it answers, what its card is, and whether it accepts the gateway's credential.
#[utoipa::path(post, path = "/api/agents/{id}/probe", operation_id = "probe_agent", tag = "agents",
    params(("id" = String, Path, description = "Id or slug")),
    responses((status = 200, description = "What was found", body = Probed)))]
pub(super) async fn probe(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let row = asked.visible_agent(&name).await?;
    let found = asked.control.health.probe_now(&asked.who, row.id).await?;
    let breaker = asked.control.directory.load().agent(row.id).map(|agent| agent.vitals.breaker.state().as_str());
    let agent = &found.agent;
    let probed = Probed {
        id: agent.id,
        health: agent.health.as_str(),
        health_status: view::health(agent.health),
        status: view::health(agent.health),
        reason: agent.health_reason.clone(),
        checked_at: agent.health_checked_at,
        card: ProbedCard {
            state: view::card_state(agent),
            url: found.card_url.map(String::from),
            fetched_at: agent.card_fetched_at,
        },
        credential: found.credential.as_str(),
        breaker,
    };
    Ok(Json(probed).into_response())
}

/// The card that waits and the one in force, with what is different. For the agent itself and operators.
#[utoipa::path(get, path = "/api/agents/{id}/card/held", operation_id = "held_card", tag = "agents",
    params(("id" = String, Path, description = "Id or slug")),
    responses((status = 200, description = "Both cards", body = Waiting)))]
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
    let waiting = Waiting {
        held_at: held.at,
        reason: held.reason.clone(),
        hash: digest(&held.json),
        current: readable(served),
        held: readable(&held.json),
        changes: Differences { held_for: changes.grave, other: changes.harmless },
    };
    Ok(Json(waiting).into_response())
}

/// Serves the card that waits (admins).
#[utoipa::path(post, path = "/api/agents/{id}/card/accept", operation_id = "accept_card", tag = "agents",
    params(("id" = String, Path, description = "Id or slug")), request_body = CardChoice,
    responses((status = 200, description = "The agent", body = view::Agent),
        (status = 409, description = "Another card is held by now")))]
pub(super) async fn accept(path: Path<String>, asked: Asked) -> Result<Response, Problem> {
    decide(path, asked, CardDecision::Accept).await
}

/// Drops the card that waits; the same content is not held again (admins).
#[utoipa::path(post, path = "/api/agents/{id}/card/reject", operation_id = "reject_card", tag = "agents",
    params(("id" = String, Path, description = "Id or slug")), request_body = CardChoice,
    responses((status = 200, description = "The agent", body = view::Agent),
        (status = 409, description = "Another card is held by now")))]
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
