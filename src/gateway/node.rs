//! Who this node is: the id under which its calls are numbered, kept in its data directory.
//!
//! Not in the database: several nodes share one, and a copy of it, restored elsewhere, must not go on counting where the
//! original does.

use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::time::Duration;

use tracing::info;
use uuid::Uuid;

use super::StartError;
use super::database::Database;
use crate::audit::drain::Drain;
use crate::store::{ChangeListener, Store, StoreError};

/// The name of the file with the id.
pub(super) const FILE: &str = "node-id";
/// How often it is tried to become the node, four times a second.
const PATIENCE: u32 = 40;

/// The id of the node whose data directory this is; drawn at the first start.
///
/// # Errors
/// When the file cannot be read or written, or holds something else.
pub(super) async fn identity(data_dir: &Path, store: &Store, database: &Database) -> Result<Uuid, StartError> {
    let path = data_dir.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| {
            StartError::Other(format!(
                "{} does not hold the id of a node; without the file, this becomes a new node at the next start",
                path.display()
            ))
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let known = store.nodes().await.map_err(|error| database.failed(error))?;
            // Before there were several nodes, the database said which it belongs to.
            let id = match &known[..] {
                [only] if only.instance.is_none() => only.id,
                _ => Uuid::new_v4(),
            };
            write(&path, id).map_err(|error| StartError::File(path.clone(), error))?;
            info!(node = %id, "this data directory has become a node");
            Ok(id)
        }
        Err(error) => Err(StartError::File(path, error)),
    }
}

/// Makes this process the only one that is `node`, for as long as the listener lives that hears of others' changes. A process
/// that was just killed may still be known to the server: it is given a moment.
///
/// # Errors
/// When another process is this node.
pub(super) async fn take(
    store: &Store,
    node: Uuid,
    data_dir: &Path,
    journal: &Path,
    database: &Database,
) -> Result<Option<ChangeListener>, StartError> {
    let mut left = PATIENCE;
    while left > 0 {
        match store.listen(node).await {
            Err(StoreError::Conflict(_)) => tokio::time::sleep(Duration::from_millis(250)).await,
            taken => return taken.map_err(|error| database.failed(error)),
        }
        // A predecessor here that is ending its calls is waited for as long as it takes: it has a time limit of its own.
        left -= u32::from(!Drain::held_elsewhere(journal));
    }
    Err(StartError::Other(format!(
        "{} names this node {node}, and another gateway is serving as that node on the same database: stop it; or, if this \
         data directory is a copy, make a node of its own of it with trust-gateway new-node",
        data_dir.join(FILE).display()
    )))
}

/// Written whole or not at all, and on the disk before any call is numbered under it.
pub(super) fn write(path: &Path, id: Uuid) -> std::io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = std::fs::File::create(&draft)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NodeRow;

    async fn store(dir: &Path) -> (Store, Database) {
        let file = dir.join("gateway.db");
        (Store::open_sqlite(&file).await.expect("opens"), Database::File(file))
    }

    #[tokio::test]
    async fn a_node_keeps_its_id_and_a_copy_of_its_database_does_not_have_it() {
        let (dir, elsewhere) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let (store, database) = store(dir.path()).await;
        let id = identity(dir.path(), &store, &database).await.expect("drawn");
        let node = NodeRow { id, instance: Some(Uuid::from_u128(1)), version: None, started_at: None, seen_at: None };
        store.keep_node(&node).await.expect("kept");
        assert_eq!(identity(dir.path(), &store, &database).await.expect("read"), id);
        assert_ne!(identity(elsewhere.path(), &store, &database).await.expect("drawn"), id);
    }

    #[tokio::test]
    async fn the_node_of_a_database_from_before_goes_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, database) = store(dir.path()).await;
        let id = Uuid::from_u128(7);
        let node = NodeRow { id, instance: None, version: None, started_at: None, seen_at: None };
        store.keep_node(&node).await.expect("kept");
        assert_eq!(identity(dir.path(), &store, &database).await.expect("adopted"), id);
    }

    #[tokio::test]
    async fn what_is_no_id_is_not_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, database) = store(dir.path()).await;
        std::fs::write(dir.path().join(FILE), "something else\n").expect("written");
        let refused = identity(dir.path(), &store, &database).await.expect_err("no id").to_string();
        assert!(refused.contains("does not hold the id of a node"), "{refused}");
    }
}
