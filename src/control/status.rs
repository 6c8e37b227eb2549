//! Whether the gateway lives, and whether it serves.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::problem::Problem;
use super::{Door, Entry};

pub(super) async fn live() -> Response {
    Json(json!({"status": "live"})).into_response()
}

pub(super) async fn ready(State(entry): State<Entry>) -> Response {
    match (entry.control.ready)() {
        Ok(()) => Json(json!({"status": "ready"})).into_response(),
        // Why not is for those who can do something about it.
        Err(why) => match entry.door {
            Door::Operator => Problem::new(503, why),
            Door::Public => Problem::new(503, "not ready"),
        }
        .into_response(),
    }
}
