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
/// When a gateway serves from the data directory or the database, or files or database cannot be read or written. Nothing is lost
/// then, and it can be run again.
pub async fn change_secrets_key(config: &Config) -> Result<NewKey, StartError> {
    let database = Database::existing(config)?;
    let _serving = Serving::take(&config.data_dir)?;
    let store = database.open().await?;
    let _stopped = all_stopped(&store).await.map_err(|error| match error {
        StoreError::Conflict(node) => StartError::Other(format!(
            "{node}: stop all of the nodes of {database}, run this on one of them, and copy its key directory to the others \
             before they start again"
        )),
        error => database.failed(error),
    })?;
    let done = vault_keys::change_key(&store, &config.keys_dir().join("secrets.key")).await;
    store.close().await;
    done.map_err(|error| StartError::Other(error.to_string()))
}

/// Proves that no node serves from the database, and keeps each from starting while it is held: what one of them knows of keys
/// is read at its start.
async fn all_stopped(store: &Store) -> Result<Vec<ChangeListener>, StoreError> {
    let mut held = Vec::new();
    for node in store.nodes().await? {
        held.extend(store.listen(node.id).await?);
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::store::NodeRow;
    use crate::store::testing::TestStore;

    #[tokio::test]
    async fn the_key_is_not_changed_under_a_node_that_serves() {
        let test = TestStore::postgres().await;
        let other = test.again().await;
        for id in [Uuid::from_u128(1), Uuid::from_u128(2)] {
            let node = NodeRow { id, instance: None, version: None, started_at: None, seen_at: None };
            other.keep_node(&node).await.expect("kept");
        }
        let serving = other.listen(Uuid::from_u128(2)).await.expect("nobody is");
        let refused = all_stopped(&test.store).await.expect_err("one serves").to_string();
        assert!(refused.contains("00000000-0000-0000-0000-000000000002 is another process"), "{refused}");
        drop(serving);
        let stopped = async {
            while all_stopped(&test.store).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), stopped).await.expect("all are stopped");
        other.close().await;
        test.end().await;
    }
}
