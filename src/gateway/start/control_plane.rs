//! The control plane: the rules of the registry, probes, and the API over both; with the first operator's token.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::listeners::Listeners;
use super::outlets::Outlets;
use super::path::CallPath;
use super::state::State;
use super::{StartError, other};
use crate::audit::journal::JournalHealth;
use crate::audit::ledger::retention::{Eraser, Retention};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::Config;
use crate::control::{self, Control, Flush, Follow, Gauges, SharedLimits};
use crate::directory;
use crate::gateway::ledger::Ledger;
use crate::gateway::{fetch, reload};
use crate::proxy::Cut;
use crate::registry::health::{Calls, Health, HealthSettings};
use crate::registry::{self, Registry};
use crate::server;
use crate::telemetry::LostLines;

/// What goes on beside calls, and is told of by the API.
pub(super) struct Beside<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) retention: &'a Retention,
    pub(super) outlets: &'a Outlets,
}

/// What the API works on, and what counts for it.
pub(super) struct ControlPlane {
    pub(super) registry: Arc<Registry>,
    pub(super) health: Arc<Health>,
    pub(super) control: Arc<Control>,
    /// What the public listener counts.
    pub(super) counts: Arc<server::Counts>,
    pub(super) lost_lines: Arc<OnceLock<LostLines>>,
    /// Ends answers that would never end by themselves.
    pub(super) closing: watch::Sender<bool>,
    pub(super) first_token: Option<String>,
}

impl ControlPlane {
    /// Builds it; nobody is let in yet.
    ///
    /// # Errors
    /// When the first operator's token cannot be made.
    pub(super) async fn build(
        config: &Config,
        clock: &Clock,
        listeners: &Listeners,
        state: &State,
        path: &CallPath,
        beside: &Beside<'_>,
    ) -> Result<Self, StartError> {
        let Beside { ledger, retention, outlets } = beside;
        let registry_settings = registry::Settings {
            key_prefix: config.agents.key_prefix.clone(),
            allow_networks: Arc::clone(&path.networks),
            registration: reload::registration(config),
        };
        let (store, vault, rebuild) = (state.store.clone(), Arc::clone(&state.vault), path.world.reload());
        let registry = Arc::new(Registry::new(store, vault, clock.clone(), registry_settings, rebuild));
        let token_file = config.admin_token_file();
        let first_token = registry::operators::ensure_first(&state.store, clock, &token_file).await.map_err(other)?;
        let fetch = fetch::fetcher(path.upstream_tls.clone(), Arc::clone(&path.networks));
        let health = HealthSettings {
            interval: config.health.interval,
            timeout: config.health.timeout,
            concurrency: config.health.concurrency,
        };
        let health = Arc::new(Health::new(Arc::clone(&registry), fetch, health, calls(&path.directory)));
        let counts = Arc::new(server::Counts::default());
        let lost_lines: Arc<OnceLock<LostLines>> = Arc::default();
        let (ending, (closing, closing_seen)) = (path.workers.clone(), watch::channel(false));
        let (for_active, for_ready) = (Arc::clone(&path.journal), Arc::clone(&path.journal));
        let control = Arc::new(Control {
            registry: Arc::clone(&registry),
            health: Arc::clone(&health),
            store: state.store.clone(),
            directory: Arc::clone(&path.directory),
            limits: Arc::clone(&path.limits),
            public_url: path.public_url.as_str().to_owned(),
            active_calls: Arc::new(move || for_active.active()),
            end_call: Arc::new(move |id| ending.iter().any(|worker| worker.live().cut(id, Cut::Ended))),
            follow: Arc::new(Follow::until(closing_seen)),
            drain_flush: Some(flush(path)),
            meters: path.workers.iter().map(|worker| Arc::clone(worker.meter())).collect(),
            gauges: gauges(clock, path, ledger, &counts, &lost_lines),
            new_ledger_key: ledger.new_key(),
            about: control::About {
                node_id: state.node_id,
                started_at: clock.wall(),
                public: listeners.public_address,
                admin: listeners.admin_address,
            },
            exports: control::Exports::new(&state.store),
            readings: Default::default(),
            retention: control::RetentionHandle {
                settings: super::retention_settings(config),
                view: retention.view(),
                eraser: Eraser::new(state.store.clone(), clock.clone()),
            },
            conditions: outlets.conditions.clone(),
            outlets: outlets.rows.clone(),
            webhooks: Arc::clone(&outlets.webhooks),
            ready: Arc::new(move || match for_ready.health() {
                JournalHealth::Healthy => Ok(()),
                JournalHealth::Down { since, why } => Err(format!("calls cannot be recorded since {since}: {why}")),
            }),
        });
        Ok(Self { registry, health, control, counts, lost_lines, closing, first_token })
    }
}

/// What calls show of agents, by the directory in force.
fn calls(directory: &directory::Current) -> Calls {
    let (all, of) = (Arc::clone(directory), Arc::clone(directory));
    Calls {
        all: Arc::new(move || all.load().agents().map(|agent| (agent.id, Arc::clone(&agent.vitals))).collect()),
        of: Arc::new(move |id| of.load().agent(id).map(|agent| Arc::clone(&agent.vitals))),
    }
}

/// Has the drain write what it holds, before the log is read.
fn flush(path: &CallPath) -> Flush {
    let flusher = path.drain.handle();
    Arc::new(move || {
        let flusher = flusher.clone();
        // With the database away the log shows what it has.
        Box::pin(async move { drop(tokio::time::timeout(Duration::from_secs(2), flusher.flush()).await) })
    })
}

fn gauges(
    clock: &Clock,
    path: &CallPath,
    ledger: &Ledger,
    counts: &Arc<server::Counts>,
    lost: &Arc<OnceLock<LostLines>>,
) -> Arc<dyn Fn() -> Gauges + Send + Sync> {
    let (drain, world, clock) = (path.drain.handle(), Arc::clone(&path.world), clock.clone());
    let (counts, lost, sharing) = (Arc::clone(counts), Arc::clone(lost), path.sharing.clone());
    let ledger = ledger.told();
    let journal = Arc::clone(&path.journal);
    Arc::new(move || Gauges {
        journal: journal.room(),
        ledger: ledger(),
        shared_limits: sharing.as_deref().map(SharedLimits::of),
        drain: drain.lag(&clock),
        directory: world.freshness(),
        connections_accepted: counts.accepted.load(Ordering::Relaxed),
        connections_open: counts.open.load(Ordering::Relaxed),
        handshakes_failed: counts.handshakes_failed.load(Ordering::Relaxed),
        log_lines_lost: lost.get().map_or(0, LostLines::count),
    })
}
