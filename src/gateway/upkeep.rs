//! What needs a look now and then while the gateway runs. All of it on the control plane's runtime, nothing on a call's path.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::world::World;
use crate::audit::journal::Journal;
use crate::limit::Limits;
use crate::registry::Registry;
use crate::server::tls::TlsReloader;

/// What is looked after.
pub(super) struct Upkeep {
    pub(super) world: Arc<World>,
    pub(super) registry: Arc<Registry>,
    pub(super) limits: Arc<Limits>,
    pub(super) journal: Arc<Journal>,
    pub(super) certificates: Vec<Arc<TlsReloader>>,
}

/// A turn every so many seconds; one that comes late is not made up for.
fn every(seconds: u64) -> Interval {
    let mut turn = interval(Duration::from_secs(seconds));
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turn
}

impl Upkeep {
    /// Goes on until it is dropped.
    pub(super) async fn run(self) {
        // Side by side: what waits for the database must not hold up what does not.
        tokio::join!(self.here(), self.stored());
    }

    /// What needs no database.
    async fn here(&self) {
        let (mut second, mut turn) = (every(1), every(10));
        loop {
            tokio::select! {
                _ = second.tick() => self.world.cut(),
                _ = turn.tick() => {
                    self.certificates();
                    self.survey().await;
                }
            }
        }
    }

    /// What is in the database.
    async fn stored(&self) {
        let (mut second, mut minute) = (every(1), every(60));
        loop {
            tokio::select! {
                _ = second.tick() => self.second().await,
                _ = minute.tick() => self.minute().await,
            }
        }
    }

    async fn second(&self) {
        if let Err(error) = self.registry.activate_due_secrets().await {
            warn!(%error, "signing secrets whose time has come could not be put into force; it will be tried again");
        }
        for (key, used_at) in self.world.used_successors() {
            if let Err(error) = self.registry.finish_rotation(key, used_at).await {
                warn!(%error, "a key that was replaced could not be given its end; it will be tried again");
            }
        }
    }

    fn certificates(&self) {
        for tls in &self.certificates {
            match tls.reload_if_changed() {
                Ok(true) => info!("the TLS certificate was reloaded"),
                Ok(false) => {}
                Err(error) => warn!(%error, "the changed TLS certificate cannot be used, the old one stays"),
            }
        }
    }

    /// What the journals of others take of the disk.
    async fn survey(&self) {
        let journal = Arc::clone(&self.journal);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || journal.survey()).await {
            warn!(%error, "the journal's directory cannot be read: what others have in it is not known");
        }
    }

    async fn minute(&self) {
        self.world.keep_uses().await;
        if let Err(error) = self.registry.tidy_keys().await {
            warn!(%error, "keys that expired long ago could not be removed; it will be tried again");
        }
        self.world.forget_pools();
        // A million keys are looked at: not on a thread that answers.
        let limits = Arc::clone(&self.limits);
        let _ = tokio::task::spawn_blocking(move || limits.sweep()).await;
    }
}
