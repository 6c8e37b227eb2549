//! The start, in the order that the promises need.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::{info, warn};

use super::database::Database;
use super::peers::Peers;
use super::reload::Reloadable;
use super::upkeep::Upkeep;
use super::world::World;
use super::{Gateway, StartError, entry, fetch, node};
use crate::audit::drain::{Drain, Recovered};
use crate::audit::journal::{Durability, Journal, JournalConfig, JournalHealth};
use crate::audit::ledger::retention::{Eraser, Retention, RetentionSettings};
use crate::clock::Clock;
use crate::config::{self, Addresses, Config, PublicUrl};
use crate::control::{self, Control, Gauges, SharedLimits};
use crate::directory::{self, Directory, LastConfirmed};
use crate::limit::shared::Keeper;
use crate::limit::{Limits, Seed};
use crate::proxy::{self, UpstreamTls, Worker};
use crate::registry::health::{Calls, Health, HealthSettings};
use crate::registry::network::AllowedNetworks;
use crate::registry::vault::{self, Vault};
use crate::registry::{self, Registry, key_match};
use crate::server::tls::{TlsFiles, TlsReloader};
use crate::server::{self, Patience, Server};
use crate::store::NodeRow;
use crate::telemetry::LostLines;

/// How long a connection may be without a call.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

pub(super) async fn start(config: Config, clock: Clock) -> Result<Gateway, StartError> {
    for warning in config.warnings() {
        warn!("{warning}");
    }
    private_dir(&config.data_dir)?;

    // A second gateway on the same data, or on the same ports, stops here, before it touches anything.
    let serving = super::lock::Serving::take(&config.data_dir)?;
    let public = listen("server.listen", config.server.listen).await?;
    let admin = listen("admin.listen", config.admin.listen).await?;
    let addresses = (address(&public, "server.listen")?, address(&admin, "admin.listen")?);
    let public_tls = tls(TlsFiles::of(&config.server.tls))?;
    let admin_tls = tls(TlsFiles::of(&config.admin.tls))?;
    let policy = Arc::new(ArcSwap::new(super::reload::policy(&config).map_err(StartError::Other)?));

    // State: the database, the keys, and what the journals of dead predecessors still hold.
    let database = Database::of(&config)?;
    let store = database.open().await?;
    let stored = |error| database.failed(error);
    let keys = config.keys_dir();
    let vault = Arc::new(Vault::open(&keys.join("secrets.key")).map_err(other)?);
    let limit_secret = vault::key_file(&keys.join("limits.key")).map_err(other)?;
    for (kind, fingerprints) in
        [("secrets", vault.fingerprints()), ("limits", &[key_match::fingerprint(&limit_secret)][..])]
    {
        if !key_match::matches(&store, kind, fingerprints).await.map_err(stored)? {
            return Err(StartError::ForeignKeys { keys, kind, database: database.to_string() });
        }
    }
    let node_id = node::identity(&config.data_dir, &store, &database).await?;
    let journal_dir = config.journal_dir();
    let listener = node::take(&store, node_id, &config.data_dir, &journal_dir, &database).await?;
    let recovered = Drain::recover(&store, node_id, &journal_dir).await.map_err(other)?;
    if recovered.journals > 0 || recovered.left_alone > 0 {
        let Recovered { journals, rows, left_alone } = recovered;
        info!(journals, rows, left_alone, "the journals of earlier runs are in the database now");
    }

    // Limits, from what is left of the days and periods before.
    let state = store.limit_state(clock.wall()).await.map_err(stored)?;
    let seeds = state
        .iter()
        .map(|row| Seed {
            key: row.key,
            day: row.day,
            used: u32::try_from(row.used).unwrap_or(u32::MAX),
            tat_us: row.tat_us,
        })
        .collect();
    let count = match config.server.workers {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        n => n,
    };
    let sharing = super::shared_limits::node(&config.limits, count, &clock)?;
    let limits = Limits::new(clock.clone(), policy.load_full(), limit_secret, seeds);
    let limits = Arc::new(match &sharing {
        Some(node) => limits.shared_by(Arc::clone(node)),
        None => limits,
    });
    limits.set_max_in_flight(super::reload::max_in_flight(&config));

    // The path of calls.
    let public_url = config.server.public_url.clone();
    let public_url = public_url.unwrap_or_else(|| PublicUrl::of_listener(addresses.0, public_tls.is_some()));
    let directory = Arc::new(ArcSwap::from_pointee(Directory::default()));
    let confirmed = Arc::new(LastConfirmed::now(clock.clone(), config.directory.max_stale));
    let settings = Arc::new(ArcSwap::from_pointee(super::reload::proxy_settings(&config)));
    let shared = Arc::new(proxy::Shared {
        directory: Arc::clone(&directory),
        confirmed: Arc::clone(&confirmed),
        limits: Arc::clone(&limits),
        policy: Arc::clone(&policy),
        clock: clock.clone(),
        settings: Arc::clone(&settings),
        body_memory: proxy::BodyMemory::new(
            config.server.body_memory.as_usize(),
            config.server.body_memory_per_caller.as_usize(),
        ),
        pseudonym: format!("trust-gateway-{}", &node_id.as_simple().to_string()[..12]),
    });
    let journal_config = JournalConfig {
        dir: journal_dir.clone(),
        durability: match config.audit.durability {
            config::Durability::Process => Durability::Process,
            config::Durability::Disk => Durability::Disk,
        },
        segment_bytes: config.audit.segment.bytes(),
        full_addresses: config.audit.addresses == Addresses::Full,
        node_id,
    };
    let journal = Journal::create(journal_config, count, clock.clone());
    let journal = Arc::new(journal.map_err(|error| StartError::File(journal_dir, error))?);
    let upstream_tls = upstream_tls(&config)?;
    let workers: Vec<Arc<Worker>> = (0..count)
        .map(|n| {
            let (shared, tls) = (Arc::clone(&shared), upstream_tls.clone());
            let link = sharing.as_ref().map(|node| node.link(n));
            Arc::new(Worker::new(shared, journal.worker(n), tls, config.upstream.pool_idle, link))
        })
        .collect();
    let drain = Drain::start(store.clone(), &journal, clock.clone());

    // The directory, and what keeps it true.
    let networks: AllowedNetworks = Arc::new(ArcSwap::from_pointee(config.agents.allow_networks.clone()));
    let builder = super::reload::builder(&config, public_url.as_str(), &vault, &limits, &policy.load(), &networks);
    let (current, workers_of) = (Arc::clone(&directory), workers.clone());
    let world = Arc::new(World::new(store.clone(), builder, current, workers_of, clock.clone(), confirmed));
    // Before the first snapshot: secrets whose time came while nothing ran.
    store.activate_signing_secrets(clock.wall()).await.map_err(stored)?;
    world.rebuild().await;

    // The control plane.
    let registry_settings = registry::Settings {
        key_prefix: config.agents.key_prefix.clone(),
        allow_networks: Arc::clone(&networks),
        registration: super::reload::registration(&config),
    };
    let registry = Registry::new(store.clone(), Arc::clone(&vault), clock.clone(), registry_settings, world.reload());
    let registry = Arc::new(registry);
    let token_file = config.admin_token_file();
    let first_token = registry::operators::ensure_first(&store, &clock, &token_file).await.map_err(other)?;
    let flusher = drain.handle();
    let (for_active, for_ready) = (Arc::clone(&journal), Arc::clone(&journal));
    let fetch = fetch::fetcher(upstream_tls.clone(), Arc::clone(&networks));
    let health = HealthSettings {
        interval: config.health.interval,
        timeout: config.health.timeout,
        concurrency: config.health.concurrency,
    };
    let health = Arc::new(Health::new(Arc::clone(&registry), fetch, health, calls(&directory)));
    let retention_settings = RetentionSettings {
        keep: config.audit.keep,
        addresses: config.audit.keep_addresses,
        refused: config.audit.keep_refused,
    };
    let retention = Retention::new(store.clone(), clock.clone(), retention_settings);
    let counts = Arc::new(server::Counts::default());
    let lost_lines: Arc<OnceLock<LostLines>> = Arc::default();
    let gauges = {
        let (drain, world, clock) = (drain.handle(), Arc::clone(&world), clock.clone());
        let (counts, lost) = (Arc::clone(&counts), Arc::clone(&lost_lines));
        let sharing = sharing.clone();
        move || Gauges {
            shared_limits: sharing.as_deref().map(SharedLimits::of),
            drain: drain.lag(&clock),
            directory: world.freshness(),
            connections_accepted: counts.accepted.load(Ordering::Relaxed),
            connections_open: counts.open.load(Ordering::Relaxed),
            handshakes_failed: counts.handshakes_failed.load(Ordering::Relaxed),
            log_lines_lost: lost.get().map_or(0, LostLines::count),
        }
    };
    let control = Arc::new(Control {
        registry: Arc::clone(&registry),
        health: Arc::clone(&health),
        store: store.clone(),
        directory,
        limits: Arc::clone(&limits),
        public_url: public_url.as_str().to_owned(),
        active_calls: Arc::new(move || for_active.active()),
        drain_flush: Some(Arc::new(move || {
            let flusher = flusher.clone();
            // With the database away the log shows what it has.
            Box::pin(async move { drop(tokio::time::timeout(Duration::from_secs(2), flusher.flush()).await) })
        })),
        meters: workers.iter().map(|worker| Arc::clone(worker.meter())).collect(),
        gauges: Arc::new(gauges),
        about: control::About { node_id, started_at: clock.wall(), public: addresses.0, admin: addresses.1 },
        readings: Default::default(),
        retention: control::RetentionHandle {
            settings: retention_settings,
            view: retention.view(),
            eraser: Eraser::new(store.clone(), clock.clone()),
        },
        ready: Arc::new(move || match for_ready.health() {
            JournalHealth::Healthy => Ok(()),
            JournalHealth::Down { since, why } => Err(format!("calls cannot be recorded since {since}: {why}")),
        }),
    });

    // The doors.
    let (drain_timeout, drain_timeout_seen) = watch::channel(config.server.drain_timeout);
    let server_settings = server::Settings {
        patience: Patience { head: config.server.header_timeout, idle: KEEP_ALIVE, stall: config.server.stall_timeout },
        max_header_bytes: config.server.max_header_bytes.as_usize(),
        max_headers: config.server.max_headers,
        max_connections: config.server.max_connections,
        drain_timeout: drain_timeout_seen,
        counts,
    };
    let (stop, stopping) = watch::channel(false);
    let admin_url = PublicUrl::of_listener(addresses.1, admin_tls.is_some()).as_str().to_owned();
    let upkeep = Upkeep {
        world: Arc::clone(&world),
        registry: Arc::clone(&registry),
        limits: Arc::clone(&limits),
        certificates: public_tls.iter().chain(&admin_tls).map(Arc::clone).collect(),
    };
    let node = NodeRow {
        id: node_id,
        instance: Some(journal.instance()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        started_at: Some(clock.wall()),
        seen_at: Some(clock.wall()),
    };
    store.keep_node(&node).await.map_err(stored)?;
    let peers = Peers { world: Arc::clone(&world), store: store.clone(), node, listener };
    let mut tasks =
        vec![tokio::spawn(async move { health.run().await }), tokio::spawn(upkeep.run()), tokio::spawn(peers.run())];
    tasks.push(tokio::spawn(retention.run()));
    tasks.extend(sharing.as_ref().map(|node| {
        let keeper = Keeper::new(Arc::clone(node), Arc::clone(&limits));
        tokio::spawn(keeper.run())
    }));
    let operators = tokio::spawn(server::operator::serve(
        admin,
        entry::entry(control::operator(Arc::clone(&control)), Arc::clone(&settings)),
        admin_tls.clone(),
        server_settings.clone(),
        stopping,
    ));
    let api = entry::entry(control::public(Arc::clone(&control)), Arc::clone(&settings));
    let server = Server::start(public, workers, api, public_tls.clone(), &server_settings)
        .map_err(|error| StartError::Other(format!("the workers cannot be started: {error}")))?;
    info!(public = %public_url.as_str(), operators = %admin_url, workers = count, node = %node_id, "serving");

    let reloadable = Reloadable {
        running: tokio::sync::Mutex::new(config.clone()),
        public_url: public_url.as_str().to_owned(),
        vault,
        limits,
        policy,
        settings,
        world,
        networks,
        drain_timeout,
        public_tls,
        admin_tls,
        control,
    };
    Ok(Gateway {
        public: addresses.0,
        admin: addresses.1,
        public_url: public_url.as_str().to_owned(),
        admin_url,
        data_dir: config.data_dir.clone(),
        admin_token_file: token_file,
        first_token,
        store,
        journal,
        drain,
        serving,
        server,
        reloadable: Arc::new(reloadable),
        lost_lines,
        stop,
        operators,
        tasks,
    })
}

/// What calls show of agents, by the directory in force.
fn calls(directory: &directory::Current) -> Calls {
    let (all, of) = (Arc::clone(directory), Arc::clone(directory));
    Calls {
        all: Arc::new(move || all.load().agents().map(|agent| (agent.id, Arc::clone(&agent.vitals))).collect()),
        of: Arc::new(move |id| of.load().agent(id).map(|agent| Arc::clone(&agent.vitals))),
    }
}

fn other(error: impl std::fmt::Display) -> StartError {
    StartError::Other(error.to_string())
}

/// A directory only its owner can look into: it holds keys and the log. One that is there already keeps its mode: somebody
/// may have chosen it.
fn private_dir(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let failed = |error| StartError::File(path.to_owned(), error);
    match std::fs::metadata(path) {
        Ok(there) if !there.is_dir() => {
            let text =
                format!("data_dir: {} is not a directory; move it away, or set another data_dir", path.display());
            return Err(StartError::Other(text));
        }
        Ok(there) if there.permissions().mode() & 0o077 != 0 => {
            warn!(
                "{path}: others on this machine can look into it; chmod 700 {path} keeps them out",
                path = path.display()
            );
        }
        _ => {}
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)
}

async fn listen(setting: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen(setting, address, error))
}

fn address(listener: &TcpListener, setting: &'static str) -> Result<SocketAddr, StartError> {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    listener.local_addr().map_err(|error| StartError::Listen(setting, unknown, error))
}

fn tls(files: Option<TlsFiles>) -> Result<Option<Arc<TlsReloader>>, StartError> {
    files.map(|files| TlsReloader::load(files).map(Arc::new).map_err(other)).transpose()
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
