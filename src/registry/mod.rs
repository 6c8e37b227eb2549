//! The rules of the life of agents, keys and connections: who may change what, and what is acceptable.
//!
//! Promises: a change is in the database together with the event that says who made it, and when the call returns the
//! directory has been rebuilt from it, so that "done" means "in force". Knows the store, not HTTP.

mod admission;
mod agent_limits;
pub mod agents;
pub mod cards;
pub mod connections;
pub mod credential;
mod error;
pub mod health;
pub mod import;
pub mod key_match;
pub mod keys;
pub mod names;
pub mod network;
pub mod operators;
mod probe;
pub mod retention;
mod secret;
mod terms;
pub mod token;
pub mod transition;
pub mod vault;
pub mod vault_keys;
mod verdict;

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::Notify;
use uuid::Uuid;

pub use admission::Registration;
pub use error::RegistryError;
pub use secret::NewSecret;

use crate::clock::Clock;
use crate::store::Store;
use crate::store::rows::{AdminEvent, OperatorRole};
use vault::Vault;

/// Rebuilds the directory; done when the new one is in force.
pub type Reload = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Who asks for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// An operator, by name.
    Operator {
        /// Names it in the log of changes.
        name: String,
        /// What it may do.
        role: OperatorRole,
    },
    /// An agent, by one of its keys.
    Agent(Uuid),
    /// Nobody known: where registration is open.
    Anonymous,
}

impl Actor {
    /// Whether it may change everything.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        matches!(self, Self::Operator { role: OperatorRole::Admin, .. })
    }

    /// Whether it may see everything.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        matches!(self, Self::Operator { .. })
    }

    /// Whether it may see and change what belongs to `agent`.
    #[must_use]
    pub fn owns(&self, agent: Uuid) -> bool {
        self.is_admin() || *self == Self::Agent(agent)
    }

    /// Names it in the log of changes.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::Operator { name, .. } => format!("operator:{name}"),
            Self::Agent(id) => format!("agent:{id}"),
            Self::Anonymous => "anonymous".to_owned(),
        }
    }
}

/// What the configuration says about the registry.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How new API keys begin.
    pub key_prefix: String,
    /// Networks on which endpoints may live although they are private.
    pub allow_networks: network::AllowedNetworks,
    /// Who may register agents, to begin with.
    pub registration: Registration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            key_prefix: token::KEY_PREFIX.to_owned(),
            allow_networks: network::AllowedNetworks::default(),
            registration: Registration::default(),
        }
    }
}

/// The registry.
pub struct Registry {
    store: Store,
    vault: Arc<Vault>,
    clock: Clock,
    settings: Settings,
    reload: Reload,
    registration: ArcSwap<Registration>,
    /// Woken when an agent is there that was never probed.
    probe_wanted: Arc<Notify>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Registry {
    /// A registry over `store`, calling `reload` after every change.
    #[must_use]
    pub fn new(store: Store, vault: Arc<Vault>, clock: Clock, settings: Settings, reload: Reload) -> Self {
        let registration = ArcSwap::from_pointee(settings.registration);
        Self { store, vault, clock, settings, reload, registration, probe_wanted: Arc::new(Notify::new()) }
    }

    /// The time changes are dated by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Woken when an agent was registered or moved and should be probed at once.
    #[must_use]
    pub fn probe_wanted(&self) -> Arc<Notify> {
        Arc::clone(&self.probe_wanted)
    }

    /// The secret that `agent`'s identity headers are signed with.
    ///
    /// # Errors
    /// When it does not open with this key file.
    pub fn signing_secret(&self, agent: &crate::store::rows::AgentRow) -> Result<Vec<u8>, RegistryError> {
        Ok(self.vault.open_secret(vault::Purpose::SigningSecret, agent.id, &agent.signing_secret)?)
    }

    /// The header the gateway shows to `agent`, where there is one.
    ///
    /// # Errors
    /// When it does not open with this key file.
    pub fn upstream_credential(
        &self,
        agent: &crate::store::rows::AgentRow,
    ) -> Result<Option<credential::UpstreamCredential>, RegistryError> {
        credential::UpstreamCredential::open(&self.vault, agent)
    }

    /// Checks that the key file belongs to the database, by opening every secret: better found at start than at a call.
    ///
    /// # Errors
    /// When one does not open, or the database cannot be read.
    pub async fn check_vault(&self) -> Result<(), RegistryError> {
        for agent in self.store.directory_rows().await?.agents {
            self.signing_secret(&agent)?;
            if let Some((next, _)) = &agent.next_signing_secret {
                self.vault.open_secret(vault::Purpose::SigningSecret, agent.id, next)?;
            }
            self.upstream_credential(&agent)?;
        }
        Ok(())
    }

    async fn reload(&self) {
        (self.reload)().await;
    }

    /// Records that something was looked at which nobody looks at unseen.
    ///
    /// # Errors
    /// When it cannot be recorded; then it is not to be shown.
    pub async fn record_reading(&self, who: &Actor, action: &str, what: Value) -> Result<(), RegistryError> {
        let event =
            AdminEvent { subject: "calls".to_owned(), ..self.event(who, action, Uuid::nil(), None, Some(what)) };
        Ok(self.store.add_event(&event).await?)
    }

    /// Records that an operator ends the call `id`, which was what `call` says.
    ///
    /// # Errors
    /// When it cannot be recorded, or the reason is not acceptable; then the call is not to be ended.
    pub async fn record_ended_call(
        &self,
        who: &Actor,
        id: Uuid,
        call: Value,
        reason: Option<String>,
    ) -> Result<(), RegistryError> {
        let reason = admission::check_reason(reason.as_deref())?;
        let event = AdminEvent { reason, ..self.event(who, "call.end", id, Some(call), None) };
        Ok(self.store.add_event(&event).await?)
    }

    fn event(
        &self,
        who: &Actor,
        action: &str,
        subject: Uuid,
        before: Option<Value>,
        after: Option<Value>,
    ) -> AdminEvent {
        AdminEvent {
            id: Uuid::now_v7(),
            at: self.clock.wall(),
            actor: who.word(),
            action: action.to_owned(),
            subject: subject.to_string(),
            before: before.map(|value| value.to_string()),
            after: after.map(|value| value.to_string()),
            reason: None,
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A registry on a database of its own, and the agents tests need.

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::clock::Timestamp;
    use crate::store::testing::TestStore;

    pub(crate) struct Bench {
        pub(crate) registry: Arc<Registry>,
        pub(crate) store: Store,
        pub(crate) clock: Clock,
        pub(crate) vault: Arc<Vault>,
        pub(crate) reloads: Arc<AtomicUsize>,
        pub(crate) dir: tempfile::TempDir,
        pub(crate) database: TestStore,
    }

    impl Bench {
        pub(crate) async fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let database = TestStore::any().await;
            let store = database.store.clone();
            let vault = Arc::new(Vault::open(&dir.path().join("secrets.key")).expect("opens"));
            let clock = Clock::manual(Timestamp::parse("2026-01-01T00:00:00Z").expect("a time"));
            let reloads = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&reloads);
            let reload: Reload = Arc::new(move || {
                counter.fetch_add(1, Ordering::SeqCst);
                Box::pin(async {})
            });
            let settings = Settings::default();
            let registry = Arc::new(Registry::new(store.clone(), Arc::clone(&vault), clock.clone(), settings, reload));
            Self { registry, store, clock, vault, reloads, dir, database }
        }

        pub(crate) async fn events_of(&self, subject: &str) -> Result<Vec<AdminEvent>, crate::store::StoreError> {
            let filter = crate::store::EventFilter { subject: Some(subject.to_owned()), ..Default::default() };
            self.store.admin_events(&filter, &crate::store::EventPage::newest(100)).await
        }

        pub(crate) fn reloads(&self) -> usize {
            self.reloads.load(Ordering::SeqCst)
        }
    }

    pub(crate) fn admin() -> Actor {
        Actor::Operator { name: "root".to_owned(), role: OperatorRole::Admin }
    }

    pub(crate) fn auditor() -> Actor {
        Actor::Operator { name: "eve".to_owned(), role: OperatorRole::Auditor }
    }
}
