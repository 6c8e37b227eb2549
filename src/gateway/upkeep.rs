//! What needs a look now and then while the gateway runs. All of it on the control plane's runtime, nothing on a call's path.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::world::World;
use crate::limit::Limits;
use crate::registry::Registry;
use crate::server::tls::TlsReloader;

/// What is looked after.
pub(super) struct Upkeep {
    pub(super) world: Arc<World>,
    pub(super) registry: Arc<Registry>,
    pub(super) limits: Arc<Limits>,
    pub(super) certificates: Vec<Arc<TlsReloader>>,
}

impl Upkeep {
    /// Goes on until it is dropped.
    pub(super) async fn run(self) {
        let [mut second, mut turn, mut minute] = [1, 10, 60].map(|seconds| {
            let mut interval = interval(Duration::from_secs(seconds));
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        loop {
            tokio::select! {
                _ = second.tick() => self.second().await,
                _ = turn.tick() => self.certificates(),
                _ = minute.tick() => self.minute().await,
            }
        }
    }

    async fn second(&self) {
        self.world.catch_up().await;
        if let Err(error) = self.registry.activate_due_secrets().await {
            warn!(%error, "signing secrets whose time has come could not be put into force; it will be tried again");
        }
        for (key, used_at) in self.world.used_successors() {
            if let Err(error) = self.registry.finish_rotation(key, used_at).await {
                warn!(%error, "a key that was replaced could not be given its end; it will be tried again");
            }
        }
        self.world.cut();
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
