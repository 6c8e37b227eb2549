//! `webhooks`: who is sent events.

use clap::Subcommand;
use serde_json::json;

use super::client::path;
use super::failure::Failure;
use super::session::Session;

#[derive(Debug, Subcommand)]
pub(super) enum Webhooks {
    /// Send a test to a webhook, and tell whether it was taken.
    Test {
        /// Its name in the configuration.
        name: String,
    },
}

pub(super) async fn run(command: Webhooks, session: &Session) -> Result<(), Failure> {
    let Webhooks::Test { name } = command;
    let answer = session.client.post(&path(&["webhooks", &name, "test"]), &json!({})).await?;
    session.done(&answer, &format!("{name} took it."))
}
