//! The start, in the order that the promises need: each step takes what the ones before it made.

mod control_plane;
mod doors;
mod listeners;
mod outlets;
mod path;
mod state;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::{info, warn};

use super::ledger::Ledger;
use super::reload::Reloadable;
use super::{Gateway, StartError, post, witnesses};
use crate::audit::ledger::retention::{Retention, RetentionSettings};
use crate::clock::Clock;
use crate::conditions::Conditions;
use crate::config::Config;
use control_plane::{Beside, ControlPlane};
use doors::Doors;
use listeners::Listeners;
use outlets::Outlets;
use path::CallPath;
use state::State;

pub(super) async fn start(config: Config, clock: Clock) -> Result<Gateway, StartError> {
    for warning in config.warnings() {
        warn!("{warning}");
    }
    state::private_dir(&config.data_dir)?;

    // A second gateway on the same data, or on the same ports, stops here, before it touches anything.
    let serving = super::lock::Serving::take(&config.data_dir)?;
    let listeners = Listeners::bind(&config).await?;
    let policy = Arc::new(ArcSwap::new(super::reload::policy(&config).map_err(StartError::Other)?));

    let conditions = Conditions::new(clock.clone());
    let mut state = State::open(&config, &clock).await?;
    let path = CallPath::build(&config, &clock, &listeners, &policy, &state).await?;
    let witnesses = witnesses::places(&config.audit.witnesses, &post::poster(&path.upstream_tls));
    let (tree, url) = (path.drain.tree(), &path.public_url);
    let ledger = Ledger::start(&config, &clock, &state.store, state.node_id, url, witnesses, tree)?;
    let retention = Retention::new(state.store.clone(), clock.clone(), retention_settings(&config));
    let outlets = Outlets::build(&config, &clock, &conditions, &state, &path);
    let beside = Beside { ledger: &ledger, retention: &retention, outlets: &outlets };
    let plane = ControlPlane::build(&config, &clock, &listeners, &state, &path, &beside).await?;
    let admin_url = listeners.admin_url();
    let (public_tls, admin_tls) = (listeners.public_tls.clone(), listeners.admin_tls.clone());
    let addresses = (listeners.public_address, listeners.admin_address);
    let mut doors = Doors::open(&config, &clock, listeners, &mut state, &path, &outlets, &plane).await?;
    doors.tasks.push(tokio::spawn(retention.run()));
    info!(
        public = %path.public_url.as_str(), operators = %admin_url, workers = path.workers.len(), node = %state.node_id,
        "serving"
    );

    let public_url = path.public_url.as_str().to_owned();
    let reloadable = Reloadable {
        running: tokio::sync::Mutex::new(config.clone()),
        public_url: public_url.clone(),
        vault: state.vault,
        limits: path.limits,
        policy,
        settings: path.settings,
        world: path.world,
        networks: path.networks,
        drain_timeout: doors.drain_timeout,
        public_tls,
        admin_tls,
        control: plane.control,
    };
    Ok(Gateway {
        public: addresses.0,
        admin: addresses.1,
        public_url,
        admin_url,
        data_dir: config.data_dir.clone(),
        admin_token_file: config.admin_token_file(),
        first_token: plane.first_token,
        store: state.store,
        journal: path.journal,
        drain: path.drain,
        ledger,
        serving,
        server: doors.server,
        reloadable: Arc::new(reloadable),
        lost_lines: plane.lost_lines,
        closing: plane.closing,
        stop: doors.stop,
        operators: doors.operators,
        tasks: doors.tasks,
    })
}

fn retention_settings(config: &Config) -> RetentionSettings {
    let audit = &config.audit;
    RetentionSettings { keep: audit.keep, addresses: audit.keep_addresses, refused: audit.keep_refused }
}

/// An error that is in words already.
fn other(error: impl std::fmt::Display) -> StartError {
    StartError::Other(error.to_string())
}
