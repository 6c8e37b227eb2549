//! `/api/operators`: who may use this door.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::agents::no_store;
use super::forms::OperatorForm;
use super::problem::Problem;
use super::view;
use super::who::Asked;
use crate::registry::token::NewToken;
use crate::store::rows::{OperatorRole, OperatorRow};

const WARNING: &str = "Keep the token now: it is not shown again.";

/// Who may use this door.
#[derive(Serialize, ToSchema)]
struct OperatorList {
    /// All of them, by name.
    operators: Vec<view::Operator>,
}

fn with_token(row: &OperatorRow, token: NewToken) -> view::NewToken {
    view::NewToken { row: view::operator(row), token: token.text, warning: WARNING }
}

/// The operator with this id or name.
async fn named(asked: &Asked, name: &str) -> Result<OperatorRow, Problem> {
    let all = asked.control.registry.operators(&asked.who).await?;
    let found = all.into_iter().find(|row| row.name == name || row.id.to_string() == name);
    found.ok_or_else(|| Problem::not_found("Operator not found"))
}

/// The operators, without their tokens.
#[utoipa::path(get, path = "/api/operators", operation_id = "list_operators", tag = "operators",
    responses((status = 200, description = "All of them", body = OperatorList)))]
pub(super) async fn list(asked: Asked) -> Result<Response, Problem> {
    let rows = asked.control.registry.operators(&asked.who).await?;
    Ok(Json(OperatorList { operators: rows.iter().map(view::operator).collect() }).into_response())
}

/// Makes an operator; the answer shows its token this once.
#[utoipa::path(post, path = "/api/operators", operation_id = "create_operator", tag = "operators",
    request_body = OperatorForm,
    responses((status = 201, description = "Made", body = view::NewToken),
        (status = 409, description = "There is one of this name")))]
pub(super) async fn create(asked: Asked) -> Result<Response, Problem> {
    let members = asked.members()?;
    let name = members.plain_text("name")?.ok_or_else(|| Problem::invalid("name", "is missing"))?;
    let role = members.word("role", "admin or auditor", OperatorRole::from_word)?;
    let role = role.ok_or_else(|| Problem::invalid("role", "is missing: send admin or auditor"))?;
    let expires_at = members.time("expires_at")?.flatten();
    let (row, token) = asked.control.registry.create_operator(&asked.who, &name, role, expires_at).await?;
    Ok((StatusCode::CREATED, no_store(), Json(with_token(&row, token))).into_response())
}

/// Takes an operator away; its token stops working at once. The last admin stays.
#[utoipa::path(delete, path = "/api/operators/{id}", operation_id = "remove_operator", tag = "operators",
    params(("id" = String, Path, description = "Id or name")),
    responses((status = 204, description = "Gone"), (status = 409, description = "It is the last admin")))]
pub(super) async fn remove(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    let row = named(&asked, &name).await?;
    asked.control.registry.remove_operator(&asked.who, row.id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Gives an operator a new token in place of the one it has, which stops working at once.
#[utoipa::path(post, path = "/api/operators/{id}/rotate", operation_id = "rotate_operator", tag = "operators",
    params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The new token", body = view::NewToken)))]
pub(super) async fn rotate(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    let row = named(&asked, &name).await?;
    let (row, token) = asked.control.registry.rotate_operator(&asked.who, row.id).await?;
    Ok((no_store(), Json(with_token(&row, token))).into_response())
}
