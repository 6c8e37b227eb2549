//! The state: the database, the keys that belong to it, which node this is, and what the journals of dead predecessors still
//! hold.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};
use uuid::Uuid;

use super::{StartError, other};
use crate::audit::drain::{Drain, Recovered};
use crate::config::Config;
use crate::gateway::database::Database;
use crate::gateway::node;
use crate::registry::key_match;
use crate::registry::vault::{self, Vault};
use crate::store::{ChangeListener, Store, StoreError};

/// What outlives a process.
pub(super) struct State {
    pub(super) store: Store,
    pub(super) vault: Arc<Vault>,
    pub(super) limit_secret: [u8; 32],
    pub(super) node_id: Uuid,
    /// Hears of other nodes' changes, and keeps others from being this node.
    pub(super) listener: Option<ChangeListener>,
    pub(super) journal_dir: PathBuf,
    database: Database,
}

impl State {
    /// Opens it, and becomes the node it belongs to; the journals of earlier runs are rows then.
    ///
    /// # Errors
    /// When it cannot be opened, is another's, or does not fit together.
    pub(super) async fn open(config: &Config) -> Result<Self, StartError> {
        let database = Database::of(config)?;
        let store = database.open().await?;
        let keys = config.keys_dir();
        let vault = Arc::new(Vault::open(&keys.join("secrets.key")).map_err(other)?);
        let limit_secret = vault::key_file(&keys.join("limits.key")).map_err(other)?;
        for (kind, fingerprints) in
            [("secrets", vault.fingerprints()), ("limits", &[key_match::fingerprint(&limit_secret)][..])]
        {
            if !key_match::matches(&store, kind, fingerprints).await.map_err(|error| database.failed(error))? {
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
        Ok(Self { store, vault, limit_secret, node_id, listener, journal_dir, database })
    }

    /// A failure of the database, with where it is.
    pub(super) fn failed(&self, error: StoreError) -> StartError {
        self.database.failed(error)
    }
}

/// A directory only its owner can look into: it holds keys and the log. One that is there already keeps its mode: somebody
/// may have chosen it.
pub(super) fn private_dir(path: &Path) -> Result<(), StartError> {
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
