//! The ledger of this node as it runs: its secret keys, the sealer that signs for the drain's tree, the witnesses that are
//! brought what was signed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::warn;
use uuid::Uuid;

use super::StartError;
use crate::audit::ledger::publish::{Place, PublishView, Publisher};
use crate::audit::ledger::seal::{SealHandle, Sealer, SealerSettings};
use crate::audit::ledger::tree::Frontier;
use crate::clock::Clock;
use crate::config::{Config, PublicUrl};
use crate::control::{LedgerTold, NewLedgerKey};
use crate::registry::vault::{self, VaultError};
use crate::registry::vault_keys;
use crate::store::Store;

/// The first key; later ones are beside it, with their numbers.
const KEY_FILE: &str = "ledger.key";
/// What was signed last, beside the database and not in it.
const SIGNED_FILE: &str = "last-checkpoint";
/// How long the last checkpoint may take at the end.
const END: Duration = Duration::from_secs(5);

/// The ledger at work.
pub(super) struct Ledger {
    seal: SealHandle,
    published: PublishView,
    tree: watch::Receiver<Option<Frontier>>,
    first_key: PathBuf,
    tasks: Vec<JoinHandle<()>>,
}

impl Ledger {
    /// Starts it: signs for what `tree` tells of, until that ends.
    ///
    /// # Errors
    /// When a key cannot be read or made.
    pub(super) fn start(
        config: &Config,
        clock: &Clock,
        store: &Store,
        node: Uuid,
        public_url: &PublicUrl,
        witnesses: Vec<Place>,
        tree: watch::Receiver<Option<Frontier>>,
    ) -> Result<Self, StartError> {
        let first_key = config.keys_dir().join(KEY_FILE);
        let settings = SealerSettings {
            node,
            origin: format!("{}/audit/{node}", host(public_url)),
            seeds: seeds(&first_key).map_err(|error| StartError::Other(error.to_string()))?,
            file: config.data_dir.join(SIGNED_FILE),
        };
        let (sealer, seal) = Sealer::new(store.clone(), clock.clone(), settings, tree.clone());
        let publisher = Publisher { store: store.clone(), node, clock: clock.clone(), places: witnesses };
        let published = publisher.view();
        let publishing = publisher.run(seal.sealed.clone(), published.clone());
        let tasks = vec![tokio::spawn(sealer.run()), tokio::spawn(publishing)];
        Ok(Self { seal, published, tree, first_key, tasks })
    }

    /// How it is, whenever it is asked.
    pub(super) fn told(&self) -> impl Fn() -> LedgerTold + Send + Sync + use<> {
        let (seal, published, tree) = (self.seal.view.clone(), self.published.clone(), self.tree.clone());
        move || {
            let rows = tree.borrow().as_ref().map_or(0, Frontier::size);
            LedgerTold { rows, seal: seal.now(), witnesses: published.now() }
        }
    }

    /// Makes a new key and lets it take over; the key, in its public form.
    pub(super) fn new_key(&self) -> NewLedgerKey {
        let (seal, first) = (self.seal.clone(), self.first_key.clone());
        Arc::new(move || {
            let (seal, first) = (seal.clone(), first.clone());
            Box::pin(async move {
                let make = Box::new(move || next_seed(&first).map_err(|error| error.to_string()));
                seal.change_key(make).await.map(|key| key.to_string())
            })
        })
    }

    /// Waits until the last rows are signed for and the last checkpoint has left; the drain has ended.
    pub(super) async fn finish(self) {
        let Self { seal, tasks, .. } = self;
        drop(seal);
        let all = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        if tokio::time::timeout(END, all).await.is_err() {
            warn!(
                "the last checkpoint could not be signed or brought to its witnesses in time; the next start does it"
            );
        }
    }
}

/// Host and port of the address that callers use.
fn host(url: &PublicUrl) -> &str {
    let rest = url.as_str().split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// The secret keys, oldest first; the first is made where there is none.
fn seeds(first: &Path) -> Result<Vec<[u8; 32]>, VaultError> {
    let files = vault_keys::files(first)?;
    if files.is_empty() {
        return Ok(vec![vault::key_file(first)?]);
    }
    files.iter().map(|(_, file)| vault::key_file(file)).collect()
}

/// A key that did not exist.
fn next_seed(first: &Path) -> Result<[u8; 32], VaultError> {
    let newest = vault_keys::files(first)?.last().map_or(0, |(id, _)| *id);
    let next = newest.checked_add(1).ok_or(VaultError::NoMoreKeys)?;
    vault::key_file(&vault_keys::file_of(first, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_named_after_the_address_that_callers_use() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("gw.toml");
        std::fs::write(&file, "[server]\npublic_url = \"https://gw.example:8443/under/path\"\n").expect("written");
        let config = Config::load(crate::config::LoadSource::process(Some(file))).expect("a configuration");
        assert_eq!(host(&config.server.public_url.expect("set")), "gw.example:8443");
    }

    #[test]
    fn the_newest_key_signs_and_a_next_one_is_new() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = dir.path().join(KEY_FILE);
        let one = seeds(&first).expect("made");
        let two = next_seed(&first).expect("made");
        assert_eq!(seeds(&first).expect("read"), [one[0], two]);
        assert_ne!(one[0], two);
    }
}
