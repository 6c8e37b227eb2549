//! Changing the key that secrets are sealed under, while no gateway serves.

use super::StartError;
use super::database::Database;
use super::lock::Serving;
use crate::config::Config;
use crate::registry::vault_keys::{self, NewKey};

/// Seals the secrets of the gateway with this configuration under a new key.
///
/// # Errors
/// When a gateway serves from the data directory, or files or database cannot be read or written. Nothing is lost then, and it
/// can be run again.
pub async fn change_secrets_key(config: &Config) -> Result<NewKey, StartError> {
    let database = Database::of(config)?;
    if let Database::File(file) = &database
        && !file.exists()
    {
        return Err(StartError::Other(format!(
            "there is no database at {}: name the configuration of the gateway with --config",
            file.display()
        )));
    }
    let _serving = Serving::take(&config.data_dir)?;
    let store = database.open().await?;
    let done = vault_keys::change_key(&store, &config.keys_dir().join("secrets.key")).await;
    store.close().await;
    done.map_err(|error| StartError::Other(error.to_string()))
}
