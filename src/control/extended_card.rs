//! `/api/agents/{id}/extended-card`: the card for callers the gateway knows, with what the two are to each other.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::HeaderValue;
use serde_json::{Value, json};

use super::agents::no_store;
use super::problem::Problem;
use super::view;
use super::who::Asked;
use crate::registry::Actor;
use crate::store::rows::AdminState;

const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Bearer realm=\"trust-gateway\", scope=\"extended_agent_card\"");

fn refused(detail: &str, level: &str) -> Problem {
    Problem::forbidden(detail)
        .with("message", json!(detail))
        .with("your_trust_level", json!(level))
        .with("required", json!("verified"))
}

/// The card for callers that are known here, with what the two are to each other.
#[utoipa::path(get, path = "/api/agents/{id}/extended-card", operation_id = "show_extended_card", tag = "agents",
    params(("id" = String, Path, description = "The agent's id or slug")),
    responses((status = 200, description = "The card, with `x-openagora` in it", body = Object)))]
pub(super) async fn show(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    if asked.who == Actor::Anonymous {
        return Err(
            Problem::unauthorized("send an API key of the calling agent as Authorization: Bearer").challenge(CHALLENGE)
        );
    }
    let row = asked.visible_agent(&name).await?;
    let directory = asked.control.directory.load();
    let now = asked.control.registry.clock().wall();
    let mut level = None;
    let mut tie = Value::Null;
    if let Actor::Agent(own) = &asked.who {
        if directory.agent(*own).is_none_or(|agent| agent.state != AdminState::Active) {
            return Err(refused("the calling agent is waiting for an operator's approval", "unverified"));
        }
        let connection = directory.connection(*own, row.id);
        level = Some("verified");
        if let Some(connection) = connection {
            if connection.blocked {
                return Err(refused("one of the two agents has blocked the other", "blocked"));
            }
            if connection.in_force(now) {
                level = Some("connected");
            }
            tie = json!({"id": connection.id, "status": connection.status.as_str()});
        }
    }
    let served = directory.agent(row.id).and_then(|agent| agent.card.clone());
    let served = served.ok_or_else(|| Problem::not_found("this agent has no card: it is a client"))?;
    let mut card: Value = serde_json::from_slice(&served.json).unwrap_or_default();
    card["x-openagora"] = json!({
        "agent_id": row.id,
        "health_status": view::health(row.health),
        "payment_schemes": view::payment(&row, "payment_schemes"),
        "trust_level": level,
        "connection": tie,
        "gateway_url": format!("{}/api/proxy/{}", asked.control.public_url, row.slug),
        "retrieved_at": now,
    });
    Ok((no_store(), Json(card)).into_response())
}
