//! `/api/operators`: who may use this door.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::agents::no_store;
use super::problem::Problem;
use super::view;
use super::who::Asked;
use crate::registry::token::NewToken;
use crate::store::rows::{OperatorRole, OperatorRow};

const WARNING: &str = "Keep the token now: it is not shown again.";

fn with_token(row: &OperatorRow, token: &NewToken) -> Value {
    let mut body = view::operator(row);
    body["token"] = json!(token.text);
    body["warning"] = json!(WARNING);
    body
}

/// The operator with this id or name.
async fn named(asked: &Asked, name: &str) -> Result<OperatorRow, Problem> {
    let all = asked.control.registry.operators(&asked.who).await?;
    let found = all.into_iter().find(|row| row.name == name || row.id.to_string() == name);
    found.ok_or_else(|| Problem::not_found("Operator not found"))
}

pub(super) async fn list(asked: Asked) -> Result<Response, Problem> {
    let rows = asked.control.registry.operators(&asked.who).await?;
    Ok(Json(json!({"operators": rows.iter().map(view::operator).collect::<Vec<Value>>()})).into_response())
}

pub(super) async fn create(asked: Asked) -> Result<Response, Problem> {
    let members = asked.members()?;
    let name = members.plain_text("name")?.ok_or_else(|| Problem::invalid("name", "is missing"))?;
    let role = members.word("role", "admin or auditor", OperatorRole::from_word)?;
    let role = role.ok_or_else(|| Problem::invalid("role", "is missing: send admin or auditor"))?;
    let expires_at = members.time("expires_at")?.flatten();
    let (row, token) = asked.control.registry.create_operator(&asked.who, &name, role, expires_at).await?;
    Ok((StatusCode::CREATED, no_store(), Json(with_token(&row, &token))).into_response())
}

pub(super) async fn remove(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    let row = named(&asked, &name).await?;
    asked.control.registry.remove_operator(&asked.who, row.id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn rotate(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    let row = named(&asked, &name).await?;
    let (row, token) = asked.control.registry.rotate_operator(&asked.who, row.id).await?;
    Ok((no_store(), Json(with_token(&row, &token))).into_response())
}
