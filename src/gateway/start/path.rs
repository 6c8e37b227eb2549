//! The path of calls: limits rebuilt from what is left of the days before, the journal, the workers, the drain; then the
//! directory that calls are decided from. Nothing is served yet.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::listeners::Listeners;
use super::state::State;
use super::{StartError, other};
use crate::audit::drain::Drain;
use crate::audit::journal::{Durability, Journal, JournalConfig};
use crate::clock::Clock;
use crate::config::{self, Addresses, Config, PublicUrl};
use crate::directory::{self, Directory, LastConfirmed};
use crate::gateway::world::World;
use crate::gateway::{reload, shared_limits};
use crate::limit::shared::Node;
use crate::limit::{Limits, Seed};
use crate::policy::Policy;
use crate::proxy::{self, UpstreamTls, Worker};
use crate::registry::network::AllowedNetworks;

/// Everything a call passes through, and what keeps it true.
pub(super) struct CallPath {
    pub(super) public_url: PublicUrl,
    pub(super) limits: Arc<Limits>,
    /// This node among those that share limits.
    pub(super) sharing: Option<Arc<Node>>,
    pub(super) settings: Arc<ArcSwap<proxy::Settings>>,
    pub(super) journal: Arc<Journal>,
    pub(super) upstream_tls: UpstreamTls,
    pub(super) workers: Vec<Arc<Worker>>,
    pub(super) drain: Drain,
    pub(super) networks: AllowedNetworks,
    pub(super) directory: directory::Current,
    pub(super) world: Arc<World>,
}

impl CallPath {
    /// Builds it, up to the first snapshot.
    ///
    /// # Errors
    /// When the database cannot be used, or a file that the configuration names.
    pub(super) async fn build(
        config: &Config,
        clock: &Clock,
        listeners: &Listeners,
        policy: &Arc<ArcSwap<Policy>>,
        state: &State,
    ) -> Result<Self, StartError> {
        let count = match config.server.workers {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            n => n,
        };
        let seeds = seeds(state, clock).await?;
        let sharing = shared_limits::node(&config.limits, count, clock)?;
        let limits = Limits::new(clock.clone(), policy.load_full(), state.limit_secret, seeds);
        let limits = Arc::new(match &sharing {
            Some(node) => limits.shared_by(Arc::clone(node)),
            None => limits,
        });
        limits.set_max_in_flight(reload::max_in_flight(config));

        let public_url = config.server.public_url.clone().unwrap_or_else(|| listeners.public_url());
        let directory = Arc::new(ArcSwap::from_pointee(Directory::default()));
        let confirmed = Arc::new(LastConfirmed::now(clock.clone(), config.directory.max_stale));
        let settings = Arc::new(ArcSwap::from_pointee(reload::proxy_settings(config)));
        let shared = Arc::new(proxy::Shared {
            directory: Arc::clone(&directory),
            confirmed: Arc::clone(&confirmed),
            limits: Arc::clone(&limits),
            policy: Arc::clone(policy),
            clock: clock.clone(),
            settings: Arc::clone(&settings),
            body_memory: proxy::BodyMemory::new(
                config.server.body_memory.as_usize(),
                config.server.body_memory_per_caller.as_usize(),
            ),
            pseudonym: format!("trust-gateway-{}", &state.node_id.as_simple().to_string()[..12]),
        });
        let journal = Journal::create(journal_config(config, state), count, clock.clone());
        let journal = Arc::new(journal.map_err(|error| StartError::File(state.journal_dir.clone(), error))?);
        let upstream_tls = upstream_tls(config)?;
        let workers: Vec<Arc<Worker>> = (0..count)
            .map(|n| {
                let (shared, tls) = (Arc::clone(&shared), upstream_tls.clone());
                let link = sharing.as_ref().map(|node| node.link(n));
                Arc::new(Worker::new(shared, journal.worker(n), tls, config.upstream.pool_idle, link))
            })
            .collect();
        let drain = Drain::start(state.store.clone(), &journal, clock.clone());

        // The directory, and what keeps it true.
        let networks: AllowedNetworks = Arc::new(ArcSwap::from_pointee(config.agents.allow_networks.clone()));
        let builder = reload::builder(config, public_url.as_str(), &state.vault, &limits, &policy.load(), &networks);
        let (store, current, workers_of) = (state.store.clone(), Arc::clone(&directory), workers.clone());
        let world = Arc::new(World::new(store, builder, current, workers_of, clock.clone(), confirmed));
        // Before the first snapshot: secrets whose time came while nothing ran.
        state.store.activate_signing_secrets(clock.wall()).await.map_err(|error| state.failed(error))?;
        world.rebuild().await;
        Ok(Self {
            public_url,
            limits,
            sharing,
            settings,
            journal,
            upstream_tls,
            workers,
            drain,
            networks,
            directory,
            world,
        })
    }
}

/// What is left of the days and periods before.
async fn seeds(state: &State, clock: &Clock) -> Result<Vec<Seed>, StartError> {
    let rows = state.store.limit_state(clock.wall()).await.map_err(|error| state.failed(error))?;
    let seeds = rows.iter().map(|row| Seed {
        key: row.key,
        day: row.day,
        used: u32::try_from(row.used).unwrap_or(u32::MAX),
        tat_us: row.tat_us,
    });
    Ok(seeds.collect())
}

fn journal_config(config: &Config, state: &State) -> JournalConfig {
    JournalConfig {
        dir: state.journal_dir.clone(),
        durability: match config.audit.durability {
            config::Durability::Process => Durability::Process,
            config::Durability::Disk => Durability::Disk,
        },
        segment_bytes: config.audit.segment.bytes(),
        full_addresses: config.audit.addresses == Addresses::Full,
        node_id: state.node_id,
    }
}

fn upstream_tls(config: &Config) -> Result<UpstreamTls, StartError> {
    let base = proxy::roots::client_config(&config.upstream.roots).map_err(other)?;
    let offering = |protocol: &[u8]| {
        let mut own = rustls::ClientConfig::clone(&base);
        own.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(own)
    };
    Ok(UpstreamTls { http1: offering(b"http/1.1"), http2: offering(b"h2") })
}
