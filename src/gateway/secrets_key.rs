//! Changing the key that secrets are sealed under, while no gateway serves.

use super::StartError;
use super::database::Database;
use super::lock::Serving;
use crate::config::Config;
use crate::registry::vault_keys::{self, NewKey};
use crate::store::{ChangeListener, Store, StoreError};

/// Seals the secrets of the gateway with this configuration under a new key.
///
/// # Errors
/// When a gateway serves from the data directory or the database, or files or database cannot be read or written. Nothing is lost then, and it
/// can be run again.
pub async fn change_secrets_key(config: &Config) -> Result<NewKey, StartError> {
    let database = Database::existing(config)?;
    let _serving = Serving::take(&config.data_dir)?;
    let store = database.open().await?;
    let _stopped = all_stopped(&store, &database).await?;
    let done = vault_keys::change_key(&store, &config.keys_dir().join("secrets.key")).await;
    store.close().await;
    done.map_err(|error| StartError::Other(error.to_string()))
}

/// Holds every node of the database, so that none serves or starts meanwhile: it could not open what is sealed anew.
async fn all_stopped(store: &Store, database: &Database) -> Result<Vec<Option<ChangeListener>>, StartError> {
    let mut held = Vec::new();
    for node in store.nodes().await.map_err(|error| database.failed(error))? {
        match store.listen(node.id).await {
            Err(StoreError::Conflict(_)) => {
                return Err(StartError::Other(format!(
                    "node {} serves on this database: stop all of its nodes, run this on one of them, and copy its key \
                     directory to the others before they start again",
                    node.id
                )));
            }
            taken => held.push(taken.map_err(|error| database.failed(error))?),
        }
    }
    Ok(held)
}
