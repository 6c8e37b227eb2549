//! The doors: what runs in the background, then the operators' listener, then the workers that answer calls.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::control_plane::ControlPlane;
use super::listeners::Listeners;
use super::path::CallPath;
use super::state::State;
use super::{StartError, other};
use crate::clock::Clock;
use crate::config::Config;
use crate::control;
use crate::gateway::entry;
use crate::gateway::peers::Peers;
use crate::gateway::upkeep::Upkeep;
use crate::limit::shared::Keeper;
use crate::server::{self, Patience, Server};
use crate::store::NodeRow;

/// How long a connection may be without a call.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// What runs, and how it is stopped.
pub(super) struct Doors {
    pub(super) server: Server,
    pub(super) operators: JoinHandle<()>,
    /// Stops the operators' listener.
    pub(super) stop: watch::Sender<bool>,
    pub(super) tasks: Vec<JoinHandle<()>>,
    pub(super) drain_timeout: watch::Sender<Duration>,
}

impl Doors {
    /// Opens them; when it returns, calls are answered.
    ///
    /// # Errors
    /// When the node cannot be entered in the database, or the workers cannot be started.
    pub(super) async fn open(
        config: &Config,
        clock: &Clock,
        listeners: Listeners,
        state: &mut State,
        path: &CallPath,
        plane: &ControlPlane,
    ) -> Result<Self, StartError> {
        let (drain_timeout, drain_timeout_seen) = watch::channel(config.server.drain_timeout);
        let settings = server::Settings {
            patience: Patience {
                head: config.server.header_timeout,
                idle: KEEP_ALIVE,
                stall: config.server.stall_timeout,
            },
            max_header_bytes: config.server.max_header_bytes.as_usize(),
            max_headers: config.server.max_headers,
            max_connections: config.server.max_connections,
            drain_timeout: drain_timeout_seen,
            counts: Arc::clone(&plane.counts),
        };
        let tasks = background(clock, &listeners, state, path, plane).await?;
        let (stop, stopping) = watch::channel(false);
        let operators = tokio::spawn(server::operator::serve(
            listeners.admin,
            entry::entry(control::operator(Arc::clone(&plane.control)), Arc::clone(&path.settings)),
            listeners.admin_tls,
            settings.clone(),
            stopping,
        ));
        let api = entry::entry(control::public(Arc::clone(&plane.control)), Arc::clone(&path.settings));
        let server = Server::start(listeners.public, path.workers.clone(), api, listeners.public_tls, &settings)
            .map_err(|error| other(format!("the workers cannot be started: {error}")))?;
        Ok(Self { server, operators, stop, tasks, drain_timeout })
    }
}

/// What goes on beside calls, for as long as the gateway runs.
async fn background(
    clock: &Clock,
    listeners: &Listeners,
    state: &mut State,
    path: &CallPath,
    plane: &ControlPlane,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let upkeep = Upkeep {
        world: Arc::clone(&path.world),
        registry: Arc::clone(&plane.registry),
        limits: Arc::clone(&path.limits),
        certificates: listeners.public_tls.iter().chain(&listeners.admin_tls).map(Arc::clone).collect(),
    };
    let node = NodeRow {
        id: state.node_id,
        instance: Some(path.journal.instance()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        started_at: Some(clock.wall()),
        seen_at: Some(clock.wall()),
    };
    state.store.keep_node(&node).await.map_err(|error| state.failed(error))?;
    let (world, store) = (Arc::clone(&path.world), state.store.clone());
    let peers = Peers { world, store, node, listener: state.listener.take() };
    let health = Arc::clone(&plane.health);
    let mut tasks =
        vec![tokio::spawn(async move { health.run().await }), tokio::spawn(upkeep.run()), tokio::spawn(peers.run())];
    tasks.extend(path.sharing.as_ref().map(|node| {
        let keeper = Keeper::new(Arc::clone(node), Arc::clone(&path.limits));
        tokio::spawn(keeper.run())
    }));
    Ok(tasks)
}
