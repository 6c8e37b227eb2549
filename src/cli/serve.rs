//! `serve`: starts everything and runs until told to stop.

use std::io::Write as _;

use super::Failure;
use crate::clock::Clock;
use crate::config::{Config, LoadSource};
use crate::gateway::{Gateway, Signals};
use crate::telemetry::{self, Telemetry};

/// Runs the gateway until it is told to stop. `source` is read again at a reload.
pub(super) fn serve(config: Config, source: LoadSource) -> Result<(), Failure> {
    let clock = Clock::system();
    let telemetry = telemetry::init(&config.log, clock.clone()).map_err(|error| Failure::Running(error.to_string()))?;
    let ran = super::control_runtime().and_then(|runtime| runtime.block_on(run(config, source, clock, &telemetry)));
    ran.map_err(|failure| {
        // Behind the log's lines, and with their patience: whoever reads them may have stopped reading.
        telemetry.last_words(&failure.text());
        Failure::Told(failure.code())
    })
}

async fn run(config: Config, source: LoadSource, clock: Clock, telemetry: &Telemetry) -> Result<(), Failure> {
    let signals =
        Signals::listen().map_err(|error| Failure::Running(format!("signals cannot be received: {error}")))?;
    let gateway = Gateway::start(config, clock).await.map_err(|error| Failure::Running(error.to_string()))?;
    announce(&gateway);
    gateway.until_stopped_with(signals, Some(source), Some(telemetry)).await;
    gateway.shutdown().await;
    Ok(())
}

/// What scripts wait for and people look for, on standard output; the rest is the log's, on standard error.
fn announce(gateway: &Gateway) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "public http{}://{}", secure(&gateway.public_url()), gateway.public_address());
    let _ = writeln!(out, "admin {}", gateway.admin_url());
    if let Some(token) = gateway.first_token() {
        let file = gateway.admin_token_file().display();
        let _ = writeln!(out, "operator token, shown this once and kept in {file}: {token}");
    }
    let _ = out.flush();
}

fn secure(url: &str) -> &'static str {
    if url.starts_with("https://") { "s" } else { "" }
}
