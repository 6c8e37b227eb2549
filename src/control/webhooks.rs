//! `/api/webhooks`: sends a test.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use super::who::Asked;
use crate::outlets::TestFailure;

/// A test that was taken.
#[derive(Serialize, ToSchema)]
struct Taken {
    /// The webhook.
    webhook: String,
    /// Always true: a test that is not taken is a problem.
    taken: bool,
}

/// Sends an event of type `webhook.test` to a webhook, once, and says whether it was taken.
#[utoipa::path(post, path = "/api/webhooks/{name}/test", operation_id = "test_webhook", tag = "gateway",
    params(("name" = String, Path, description = "Its name in the configuration")),
    responses((status = 200, description = "It was taken", body = Taken),
        (status = 404, description = "There is no such webhook in the configuration"),
        (status = 502, description = "It was not taken; the detail says why")))]
pub(super) async fn test(Path(name): Path<String>, asked: Asked) -> Result<Response, Problem> {
    match asked.control.webhooks.test(&name).await {
        Ok(()) => Ok(Json(Taken { webhook: name, taken: true }).into_response()),
        Err(TestFailure::Unknown) => {
            Err(Problem::not_found("Webhook not found: [[webhooks]] in the configuration names them"))
        }
        Err(TestFailure::Failed(why)) => Err(Problem::new(502, format!("the webhook did not take it: {why}"))),
    }
}
