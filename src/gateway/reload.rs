//! What a running gateway takes over of a changed configuration: all of it that can be, or nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};

use super::world::World;
use crate::config::{Config, Registration};
use crate::control::Control;
use crate::directory::{Builder, Defaults, Timeouts};
use crate::identity::TrustedProxies;
use crate::limit::Limits;
use crate::policy::Policy;
use crate::proxy::{self, BodyLimits};
use crate::registry::vault::Vault;
use crate::registry::{self, network::AllowedNetworks};
use crate::server::tls::{TlsFiles, TlsReloader};
use crate::vitals::BreakerSettings;

/// Why nothing was reloaded.
#[derive(Debug)]
pub struct ReloadError(String);

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ReloadError {}

/// What a reload did.
#[derive(Debug, Default)]
pub struct Reloaded {
    /// Settings now in force.
    pub changed: Vec<&'static str>,
    /// Settings that wait for the next start.
    pub needs_restart: Vec<&'static str>,
}

/// Everything a reload reaches.
pub(super) struct Reloadable {
    pub(super) running: Mutex<Config>,
    pub(super) public_url: String,
    pub(super) vault: Arc<Vault>,
    pub(super) limits: Arc<Limits>,
    pub(super) policy: Arc<ArcSwap<Policy>>,
    pub(super) settings: Arc<ArcSwap<proxy::Settings>>,
    pub(super) world: Arc<World>,
    pub(super) networks: AllowedNetworks,
    pub(super) drain_timeout: watch::Sender<Duration>,
    pub(super) public_tls: Option<Arc<TlsReloader>>,
    pub(super) admin_tls: Option<Arc<TlsReloader>>,
    pub(super) control: Arc<Control>,
}

impl Reloadable {
    /// First everything that can fail, then everything that cannot.
    pub(super) async fn reload(&self, new: Config) -> Result<Reloaded, ReloadError> {
        let mut running = self.running.lock().await;
        let next = running.reloaded(&new);
        let policy = policy(&next).map_err(ReloadError)?;
        for files in [TlsFiles::of(&next.server.tls), TlsFiles::of(&next.admin.tls)].into_iter().flatten() {
            files.load().map_err(|error| ReloadError(error.to_string()))?;
        }

        let other_rules = self.policy.load().digest != policy.digest;
        self.limits.set_policy(Arc::clone(&policy));
        self.limits.set_max_in_flight(max_in_flight(&next));
        self.policy.store(policy);
        self.settings.store(Arc::new(proxy_settings(&next)));
        self.networks.store(Arc::new(next.agents.allow_networks.clone()));
        let _ = self.drain_timeout.send(next.server.drain_timeout);
        for (tls, files) in
            [(&self.public_tls, TlsFiles::of(&next.server.tls)), (&self.admin_tls, TlsFiles::of(&next.admin.tls))]
        {
            if let (Some(tls), Some(files)) = (tls, files) {
                // Loaded a moment ago; what fails between is told and the old pair stays.
                tls.set_files(files).map_err(|error| ReloadError(error.to_string()))?;
            }
        }
        self.control.registry.set_registration(registration(&next));
        self.world.set_builder(builder(
            &next,
            &self.public_url,
            &self.vault,
            &self.limits,
            &self.policy.load(),
            &self.networks,
        ));
        self.world.rebuild().await;

        let diff = running.diff(&new);
        let needs_restart = running.diff_reload(&new);
        let mut changed: Vec<_> =
            diff.iter().map(|(name, _)| *name).filter(|name| !needs_restart.contains(name)).collect();
        if other_rules && !changed.contains(&"policy.file") {
            changed.push("policy.file");
        }
        *running = next;
        Ok(Reloaded { changed, needs_restart })
    }
}

/// The policy that `config` names.
///
/// # Errors
/// What is wrong with the file, with its line.
pub fn policy(config: &Config) -> Result<Arc<Policy>, String> {
    let Some(file) = &config.policy.file else {
        return Ok(Arc::new(Policy::default()));
    };
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: cannot be read: {error}", file.display()))?;
    Policy::load(&text, &file.display().to_string()).map(Arc::new).map_err(|error| error.to_string())
}

pub(super) fn registration(config: &Config) -> registry::Registration {
    match config.agents.registration {
        Registration::Closed => registry::Registration::Closed,
        Registration::Approval => registry::Registration::Approval {
            max_pending: u32::try_from(config.agents.max_pending).unwrap_or(u32::MAX),
        },
        Registration::Open => registry::Registration::Open,
    }
}

pub(super) fn proxy_settings(config: &Config) -> proxy::Settings {
    proxy::Settings {
        trusted_proxies: TrustedProxies::new(config.server.trusted_proxies.clone()),
        body: BodyLimits {
            max_bytes: config.server.max_body.as_usize(),
            min_rate: u32::try_from(config.server.body_min_rate.bytes()).unwrap_or(u32::MAX),
            grace: config.server.body_grace,
        },
        pass_accept_encoding: config.upstream.pass_accept_encoding,
        x_ratelimit: config.server.x_ratelimit,
    }
}

/// Calls open at once in the whole gateway.
pub(super) fn max_in_flight(config: &Config) -> u32 {
    u32::try_from(config.server.max_in_flight).unwrap_or(u32::MAX)
}

pub(super) fn builder(
    config: &Config,
    public_url: &str,
    vault: &Arc<Vault>,
    limits: &Arc<Limits>,
    policy: &Policy,
    networks: &AllowedNetworks,
) -> Builder {
    Builder {
        vault: Arc::clone(vault),
        limits: Arc::clone(limits),
        defaults: Defaults {
            public_url: public_url.to_owned(),
            allow_networks: Arc::clone(networks),
            connect_timeout: config.upstream.connect,
            timeouts: Timeouts {
                first_byte: config.upstream.first_byte,
                read_first_byte: config.upstream.read_first_byte,
                idle: config.upstream.idle,
            },
            max_in_flight: u32::try_from(config.upstream.max_in_flight).unwrap_or(u32::MAX),
            breaker: BreakerSettings {
                failures: u32::try_from(config.breaker.failures).unwrap_or(u32::MAX),
                min_open: config.breaker.min_open,
                max_open: config.breaker.max_open,
            },
            anonymous_allowed: policy.admit_anonymous,
        },
    }
}
