//! The whole gateway, put together: what is started in which order, what a reload changes, how it stops.
//!
//! The order of the start is a promise: the journals of dead predecessors are rows before limits are rebuilt from them, limits
//! stand before the first snapshot is built, and the snapshot stands before the first connection is accepted.

mod backup;
mod database;
mod entry;
mod error;
mod fetch;
mod ledger;
mod lock;
mod lookout;
mod node;
mod peers;
mod post;
mod reload;
mod secrets_key;
mod shared_limits;
mod signals;
mod start;
mod upkeep;
mod witnesses;
mod world;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::audit::drain::Drain;
use crate::audit::journal::Journal;
use crate::clock::Clock;
use crate::config::{Config, Fingerprint, LoadSource, fingerprint};
use crate::server::Server;
use crate::store::Store;
use crate::telemetry::{LostLines, Telemetry};

pub use backup::{Copied, back_up, become_new_node, restore};
pub use database::{check_database, open_to_read};
pub use error::StartError;
use reload::Reloadable;
pub use reload::{ReloadError, Reloaded, policy};
pub use secrets_key::change_secrets_key;
pub use signals::Signals;
use signals::Told;

/// A running gateway.
pub struct Gateway {
    public: SocketAddr,
    admin: SocketAddr,
    public_url: String,
    admin_url: String,
    data_dir: PathBuf,
    admin_token_file: PathBuf,
    first_token: Option<String>,
    store: Store,
    journal: Arc<Journal>,
    drain: Drain,
    ledger: ledger::Ledger,
    serving: lock::Serving,
    server: Server,
    reloadable: Arc<Reloadable>,
    lost_lines: Arc<OnceLock<LostLines>>,
    /// Ends what would never end by itself.
    closing: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    operators: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Starts everything; when it returns, calls are answered.
    ///
    /// # Errors
    /// The first thing that stands in the way.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        start::start(config, clock).await
    }

    /// Where callers connect.
    #[must_use]
    pub fn public_address(&self) -> SocketAddr {
        self.public
    }

    /// Where operators connect.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The address callers use, without a trailing slash.
    #[must_use]
    pub fn public_url(&self) -> String {
        self.public_url.clone()
    }

    /// The address operators use, without a trailing slash.
    #[must_use]
    pub fn admin_url(&self) -> String {
        self.admin_url.clone()
    }

    /// Where everything it writes is.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The file that holds the first operator's token.
    #[must_use]
    pub fn admin_token_file(&self) -> &Path {
        &self.admin_token_file
    }

    /// The first operator's token, if this start made it; to be shown once.
    #[must_use]
    pub fn first_token(&self) -> Option<&str> {
        self.first_token.as_deref()
    }

    /// The first operator's token: this start's, or the one in the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn operator_token(&self) -> std::io::Result<String> {
        match &self.first_token {
            Some(token) => Ok(token.clone()),
            None => std::fs::read_to_string(&self.admin_token_file).map(|text| text.trim().to_owned()),
        }
    }

    /// Has `/metrics` tell how many log lines nobody could take.
    pub fn tell_lost_lines(&self, lost: LostLines) {
        // Told once, at the start.
        let _ = self.lost_lines.set(lost);
    }

    /// The journal, for those who want to know how it is.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Takes over what a running gateway can take over of `new`.
    ///
    /// # Errors
    /// When something in it cannot be used; then nothing has changed.
    pub async fn reload(&self, new: Config) -> Result<Reloaded, ReloadError> {
        self.reloadable.reload(new).await
    }

    /// Waits until the process is told to stop (SIGTERM, SIGINT), reloading the configuration on SIGHUP or when its file changes.
    pub async fn until_stopped_with(
        &self,
        mut signals: Signals,
        source: Option<LoadSource>,
        telemetry: Option<&Telemetry>,
    ) {
        let mut watched = self.fingerprint(source.as_ref()).await;
        let mut look = tokio::time::interval(Duration::from_secs(2));
        loop {
            tokio::select! {
                told = signals.told() => match told {
                    Told::Stop => break,
                    Told::Reload => self.reload_from(source.as_ref(), telemetry).await,
                },
                _ = look.tick() => {
                    let now = self.fingerprint(source.as_ref()).await;
                    if now != watched {
                        watched = now;
                        self.reload_from(source.as_ref(), telemetry).await;
                    }
                }
            }
        }
        info!("stopping: no new connections, open calls may end");
    }

    /// Something that differs once the configuration, or the policy it names, has been changed.
    async fn fingerprint(&self, source: Option<&LoadSource>) -> [Option<Fingerprint>; 2] {
        let policy = self.reloadable.running.lock().await.policy.file.clone();
        [source.and_then(LoadSource::fingerprint), policy.and_then(|file| fingerprint(&file))]
    }

    /// Waits until the process is told to stop.
    pub async fn until_stopped(&self, signals: Signals) {
        self.until_stopped_with(signals, None, None).await;
    }

    async fn reload_from(&self, source: Option<&LoadSource>, telemetry: Option<&Telemetry>) {
        let Some(source) = source else { return };
        let new = match Config::load(source.clone()) {
            Ok(new) => new,
            Err(errors) => {
                warn!("the configuration was not reloaded, the running one stays: {errors}");
                return;
            }
        };
        let log = new.log.clone();
        match self.reload(new).await {
            Ok(reloaded) => {
                if let Some(telemetry) = telemetry {
                    telemetry.set(&log);
                }
                info!(changed = reloaded.changed.join(", "), "configuration reloaded");
                if !reloaded.needs_restart.is_empty() {
                    warn!(settings = reloaded.needs_restart.join(", "), "these take effect at the next start");
                }
            }
            Err(error) => warn!(%error, "the configuration was not reloaded, the running one stays"),
        }
    }

    /// Stops: no new connections, open calls may end within the drain time, every record becomes a row.
    pub async fn shutdown(self) {
        drop(self.serving);
        let _ = self.closing.send(true);
        // Operators can look on while open calls end.
        self.server.shutdown().await;
        let _ = self.stop.send(true);
        let _ = self.operators.await;
        for task in self.tasks {
            // Each ends at its next turn; what a probe is waiting for is not worth waiting for.
            task.abort();
            let _ = task.await;
        }
        self.reloadable.world.keep_uses().await;
        // What the database does not take now stays in the journal for the next start.
        if tokio::time::timeout(Duration::from_secs(10), self.drain.finish()).await.is_err() {
            warn!("the database did not take the last rows in time; the next start writes them");
        }
        self.ledger.finish().await;
        self.store.close().await;
    }
}
