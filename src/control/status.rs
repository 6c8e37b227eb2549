//! Whether the gateway lives, and whether it serves.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use super::{Control, Door, Entry};

/// Longer than that, a database is as good as away.
const DATABASE_PATIENCE: Duration = Duration::from_secs(2);

/// A word on how the gateway is.
#[derive(Serialize, ToSchema)]
struct Word {
    /// `live` or `ready`.
    status: &'static str,
}

/// Whether the process lives; asks nothing.
#[utoipa::path(get, path = "/livez", operation_id = "live", tag = "gateway", security(()),
    responses((status = 200, description = "It lives", body = Word)))]
pub(super) async fn live() -> Response {
    Json(Word { status: "live" }).into_response()
}

async fn serves(control: &Control) -> Result<(), String> {
    (control.ready)()?;
    match tokio::time::timeout(DATABASE_PATIENCE, control.store.ping()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("the database cannot be read: {error}")),
        Err(_) => Err(format!("the database has not answered for {} s", DATABASE_PATIENCE.as_secs())),
    }
}

/// Whether calls are served, which they are only while they can be recorded.
#[utoipa::path(get, path = "/readyz", operation_id = "ready", tag = "gateway", security(()),
    responses((status = 200, description = "It serves", body = Word),
        (status = 503, description = "It does not; operators are told why")))]
pub(super) async fn ready(State(entry): State<Entry>) -> Response {
    match serves(&entry.control).await {
        Ok(()) => Json(Word { status: "ready" }).into_response(),
        // Why not is for those who can do something about it.
        Err(why) => match entry.door {
            Door::Operator => Problem::unavailable(why),
            Door::Public => Problem::unavailable("not ready"),
        }
        .into_response(),
    }
}
