//! What the tests share: a gateway of their own, agents that do as they are told, a client that shows every byte.

pub(crate) mod agent;
pub(crate) mod client;
pub(crate) mod gateway;
pub(crate) mod nodes;
pub(crate) mod person;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod redis;

use std::time::Duration;

use serde_json::{Value, json};

/// How long a test waits for what must happen; never how long it waits for what must not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for what must happen, and says what did not.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// A JSON-RPC request.
pub(crate) fn rpc(id: impl Into<Value>, method: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": {"message": {
        "messageId": "m-1", "role": "ROLE_USER", "parts": [{"text": "hello"}]}}})
}
