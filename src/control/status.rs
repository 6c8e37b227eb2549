//! Whether the gateway lives, and whether it serves.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::problem::Problem;
use super::{Control, Door, Entry};

/// Longer than that, a database is as good as away.
const DATABASE_PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn live() -> Response {
    Json(json!({"status": "live"})).into_response()
}

async fn serves(control: &Control) -> Result<(), String> {
    (control.ready)()?;
    match tokio::time::timeout(DATABASE_PATIENCE, control.store.ping()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("the database cannot be read: {error}")),
        Err(_) => Err(format!("the database has not answered for {} s", DATABASE_PATIENCE.as_secs())),
    }
}

pub(super) async fn ready(State(entry): State<Entry>) -> Response {
    match serves(&entry.control).await {
        Ok(()) => Json(json!({"status": "ready"})).into_response(),
        // Why not is for those who can do something about it.
        Err(why) => match entry.door {
            Door::Operator => Problem::unavailable(why),
            Door::Public => Problem::unavailable("not ready"),
        }
        .into_response(),
    }
}
