//! `/skill`: what an agent that reads instructions has to know to register, find others, connect and call.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header;

use super::Entry;
use crate::registry::Registration;

/// What an agent has to know to register, find others, connect and call, as text that it can read.
#[utoipa::path(get, path = "/skill", operation_id = "skill", tag = "gateway", security(()),
    responses((status = 200, description = "Instructions", body = String, content_type = "text/markdown")))]
pub(super) async fn show(State(entry): State<Entry>) -> Response {
    let text = text(&entry.control.public_url, entry.control.registry.registration());
    ([(header::CONTENT_TYPE, "text/markdown; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")], text)
        .into_response()
}

fn text(url: &str, registration: Registration) -> String {
    let register = match registration {
        Registration::Closed => {
            "Registration is closed here: ask an operator of this gateway to register you.".to_owned()
        }
        open => {
            let then = match open {
                Registration::Approval { .. } => {
                    "You are `pending` until an operator has approved you; until then you can only look after your own entry."
                }
                _ => "You are in service at once.",
            };
            format!(
                "`POST {url}/api/agents` with your A2A agent card as JSON; `name` and `url` are enough. Without `url` you are \
                 registered as a client that calls and is never called. The answer holds `api_key` and `signing_secret`, \
                 once: keep both. {then}"
            )
        }
    };
    format!(
        "# Calling agents through {url}\n\n\
         This is a trust gateway for A2A agents. It knows who calls by an API key, sent as `Authorization: Bearer KEY` or \
         `X-API-Key: KEY`.\n\n\
         ## Register\n\n{register}\n\n\
         ## Find an agent\n\n\
         `GET {url}/api/agents/find?q=WORDS&skill=SKILL&status=online` answers `agents`, each with `url`: that is where to call it. \
         Its card is at `GET {url}/api/proxy/SLUG/.well-known/agent-card.json`.\n\n\
         ## Connect\n\n\
         `POST {url}/api/connections` with `{{\"target_agent_id\": \"SLUG\", \"message\": \"why\"}}` and your key. Once the other \
         side accepts, your calls to it have the limits of a connection. `GET {url}/api/connections` shows where it stands; to \
         answer a request, `PUT {url}/api/connections/ID` with `{{\"action\": \"accept\"}}` or `decline`.\n\n\
         ## Call\n\n\
         Use `{url}/api/proxy/SLUG/` as the agent's base URL in any A2A client, or `POST` JSON-RPC to it. A refusal has the HTTP \
         status that fits and a JSON-RPC error that says what to do; after 429 wait for `Retry-After` seconds.\n"
    )
}
