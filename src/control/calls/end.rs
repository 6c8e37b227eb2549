//! `/api/calls/active/{id}/end`: an operator ends a call that is open.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::control::forms::EndForm;
use crate::control::problem::Problem;
use crate::control::view;
use crate::control::who::Asked;
use crate::store::call_query::{CallFilter, CallPage};

/// A call that was ended.
#[derive(Serialize, ToSchema)]
struct EndedCall {
    /// As it was open.
    call: view::ActiveCall,
}

/// Ends a call that is open at this node: the agent's connection is dropped at once, the caller is told, the row says
/// `interrupted` for the reason `ended_by_operator`.
#[utoipa::path(post, path = "/api/calls/active/{id}/end", operation_id = "end_call", tag = "calls",
    params(("id" = String, Path, description = "The request id")),
    request_body = EndForm,
    responses((status = 200, description = "It is ended", body = EndedCall),
        (status = 404, description = "No such call is open at this node")))]
pub(in crate::control) async fn end(Path(id): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let reason = asked.optional_members()?.plain_text("reason")?;
    let id = Uuid::parse_str(&id)
        .map_err(|_| Problem::invalid("id", "must be a request id, as `/api/calls/active` lists them"))?;
    let control = &asked.control;
    let open = (control.active_calls)().into_iter().find(|call| call.request_id == id);
    let Some(call) = open else { return Err(not_open(&asked, id).await?) };
    let what = json!({"called_at": call.called_at, "caller_agent_id": call.caller_agent_id,
        "target_agent_id": call.target_agent_id, "operation": call.operation.as_str()});
    // Written down first: nothing is ended that nobody is seen to have ended.
    control.registry.record_ended_call(&asked.who, id, what, reason).await?;
    if !(control.end_call)(id) {
        return Err(not_open(&asked, id).await?);
    }
    let names = super::names(&asked, [call.caller_agent_id, call.target_agent_id].into_iter()).await?;
    Ok(Json(EndedCall { call: view::active_call(&call, &asked.who, &names) }).into_response())
}

/// Why a call that is not open here is not: it is over, or it is another node's.
async fn not_open(asked: &Asked, id: Uuid) -> Result<Problem, Problem> {
    let control = &asked.control;
    if let Some(flush) = &control.drain_flush {
        flush().await;
    }
    let filter = CallFilter { id: Some(id), ..CallFilter::default() };
    let over = control.store.calls(&filter, &CallPage { limit: 1, ..CallPage::default() }).await?;
    if let Some(row) = over.first() {
        return Ok(Problem::not_found(format!("this call is over: it ended as {}", row.outcome)));
    }
    let node = control.about.node_id;
    Ok(Problem::not_found(match control.store.is_shared() {
        false => "no call with this id is open: /api/calls/active lists those that are".to_owned(),
        true => format!(
            "no call with this id is open at this node ({node}): open calls are known to the node that serves them alone, \
             look in /api/calls/active of the others"
        ),
    }))
}
