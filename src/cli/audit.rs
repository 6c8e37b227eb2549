//! `audit`: the call log as evidence.

use clap::Subcommand;

use super::failure::Failure;
use super::keeping::{self, Keeping};
use super::session::Session;

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    #[command(flatten)]
    Keeping(Keeping),
}

pub(super) async fn run(command: Audit, session: &Session) -> Result<(), Failure> {
    match command {
        Audit::Keeping(command) => keeping::run(command, session).await,
    }
}
