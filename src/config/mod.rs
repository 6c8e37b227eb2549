//! Every setting, its default, its check.
//!
//! A configuration is read from a file, then from environment variables, then checked as a whole. Promises: a name that does
//! not exist is refused and never ignored; all errors are told at once, each with its place and what to write instead; the one
//! secret here, the password in `limits.shared`, is not shown with the rest. Knows nothing of what the settings do: certificates, the policy and the database
//! are opened by those who use them.

mod check;
mod errors;
mod kinds;
mod outlets;
mod read;
mod sections;
mod server_url;
mod shared_url;
mod table;
mod units;
mod values;

use std::path::PathBuf;

pub use errors::{ConfigError, ConfigErrors, Place};
pub use kinds::{Addresses, Durability, LogFormat, LogLevel, PublicUrl, Registration, Roots, StoreUrl, TlsVersion};
pub use outlets::{Address, BATCH_MAX, Destination, Outlet, OutletRows, Webhook, WebhookEvent, Witness};
pub use read::{Fingerprint, LoadSource, fingerprint};
pub use sections::{
    Admin, Agents, Audit, Breaker, Directory, Health, Limits, Log, Policy, Server, Store, Tls, Upstream,
};
pub use server_url::ServerUrl;
pub use shared_url::SharedUrl;
pub use table::Takes;
pub use units::{DurationText, Size};

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Config {
    /// The directory below which everything is kept that the gateway writes.
    pub data_dir: PathBuf,
    /// Who is sent events.
    pub webhooks: Vec<Webhook>,
    /// The public listener.
    pub server: Server,
    /// The operators' listener.
    pub admin: Admin,
    /// The database.
    pub store: Store,
    /// What calls are decided from while the database cannot be reached.
    pub directory: Directory,
    /// How calls are recorded.
    pub audit: Audit,
    /// Who may register agents, and where they may be.
    pub agents: Agents,
    /// Connections to agents.
    pub upstream: Upstream,
    /// How agents are probed.
    pub health: Health,
    /// When calls to an agent that does not answer are refused at once.
    pub breaker: Breaker,
    /// What each trust level may do.
    pub policy: Policy,
    /// Whether limits are shared with other nodes.
    pub limits: Limits,
    /// Logs.
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("data"),
            webhooks: Vec::new(),
            server: Server::default(),
            admin: Admin::default(),
            store: Store::default(),
            directory: Directory::default(),
            audit: Audit::default(),
            agents: Agents::default(),
            upstream: Upstream::default(),
            health: Health::default(),
            breaker: Breaker::default(),
            policy: Policy::default(),
            limits: Limits::default(),
            log: Log::default(),
        }
    }
}

impl Config {
    /// Reads the file, then the environment, then checks the whole.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the file.
    pub fn load(source: LoadSource) -> Result<Self, ConfigErrors> {
        read::load(source)
    }

    /// What works but is probably not meant, for a log at start.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        check::warnings(self)
    }

    /// The address callers use: the setting, or the public listener's own.
    #[must_use]
    pub fn public_url(&self) -> PublicUrl {
        let own = || PublicUrl::of_listener(self.server.listen, self.server.tls.is_on());
        self.server.public_url.clone().unwrap_or_else(own)
    }

    /// The directory of the journal.
    #[must_use]
    pub fn journal_dir(&self) -> PathBuf {
        self.data_dir.join("journal")
    }

    /// The directory of key files.
    #[must_use]
    pub fn keys_dir(&self) -> PathBuf {
        self.data_dir.join("keys")
    }

    /// The file into which the first start writes the operators' first token.
    #[must_use]
    pub fn admin_token_file(&self) -> PathBuf {
        self.data_dir.join("admin-token")
    }

    /// The settings that differ from the defaults, as (name, TOML text), in the order of the example file. `(not set)` stands
    /// for a value taken back.
    #[must_use]
    pub fn non_default(&self) -> Vec<(&'static str, String)> {
        let default = Self::default();
        let changed = table::SETTINGS.iter().filter(|setting| (setting.written)(self) != (setting.written)(&default));
        changed
            .map(|setting| (setting.name, (setting.written)(self).unwrap_or_else(|| "(not set)".to_owned())))
            .collect()
    }

    /// The settings whose values differ between the two configurations, each with when the change takes effect.
    #[must_use]
    pub fn diff(&self, new: &Self) -> Vec<(&'static str, Takes)> {
        let switched = |name: &str| {
            // A listener that spoke plain HTTP has no TLS to give new files to, and the other way round.
            (name.starts_with("server.tls.") && self.server.tls.is_on() != new.server.tls.is_on())
                || (name.starts_with("admin.tls.") && self.admin.tls.is_on() != new.admin.tls.is_on())
        };
        let changed = table::SETTINGS.iter().filter(|setting| (setting.written)(self) != (setting.written)(new));
        changed.map(|s| (s.name, if switched(s.name) { Takes::Restart } else { s.takes })).collect()
    }

    /// The changed settings that take effect only at the next start.
    #[must_use]
    pub fn diff_reload(&self, new: &Self) -> Vec<&'static str> {
        self.diff(new).into_iter().filter(|(_, takes)| *takes == Takes::Restart).map(|(name, _)| name).collect()
    }

    /// What is in force once `new` has been reloaded: its values where a reload takes them, the running ones elsewhere.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Self {
        let mut result = self.clone();
        for (name, takes) in self.diff(new) {
            if let (Takes::Reload, Some(setting)) = (takes, table::find(name)) {
                (setting.copy)(&mut result, new);
            }
        }
        result
    }
}

#[cfg(test)]
mod tests;
