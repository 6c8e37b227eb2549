//! Backing a gateway up, and making one of a backup: database, journal and keys.
//!
//! Promises: a backup holds every call that was recorded before it began, also while the gateway serves (the journal is copied
//! first and the database afterwards: what is no longer in the one is in the other by then). What is made of it is a node of
//! its own: it never numbers calls that the original numbers.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::database::Database;
use super::lock::Serving;
use super::{StartError, node};
use crate::config::Config;
use crate::store::copy_sqlite;

/// The name of the database in a backup.
const DATABASE: &str = "gateway.db";

/// What was copied.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// The database's size in bytes; `None`: it is on a server, which is backed up by its own means.
    pub database: Option<u64>,
    /// Key files.
    pub keys: usize,
    /// Files of the journal.
    pub journal: usize,
}

/// Copies everything that a gateway needs into the new directory `to`. The gateway may be serving.
///
/// # Errors
/// When `to` is not empty, or something cannot be read or written.
pub async fn back_up(config: &Config, to: &Path) -> Result<Copied, StartError> {
    let database = Database::existing(config)?;
    make_empty(to)?;
    let journal = copy_tree(&config.journal_dir(), &to.join("journal"))?;
    let keys = copy_tree(&config.keys_dir(), &to.join("keys"))?;
    let size = match &database {
        Database::Server(_) => None,
        Database::File(file) => {
            let copy = to.join(DATABASE);
            copy_sqlite(file, &copy).await.map_err(|error| database.failed(error))?;
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).map_err(failed(&copy))?;
            sync(&copy)?;
            Some(fs::metadata(&copy).map_err(failed(&copy))?.len())
        }
    };
    sync(to)?;
    Ok(Copied { database: size, keys, journal })
}

/// Puts a backup where the configuration says that a gateway's data is. Nothing that is there is overwritten.
///
/// # Errors
/// When there is something already, `from` is no backup, or something cannot be read or written.
pub async fn restore(config: &Config, from: &Path) -> Result<Copied, StartError> {
    let database = Database::of(config)?;
    let whole = match &database {
        Database::File(_) => from.join(DATABASE).is_file(),
        Database::Server(_) => true,
    };
    if !whole || !from.join("keys").is_dir() {
        return Err(StartError::Other(format!(
            "{} is not a backup: one has the directory keys{}",
            from.display(),
            if whole { "" } else { " and the file gateway.db" }
        )));
    }
    private_dir(&config.data_dir)?;
    let _serving = Serving::take(&config.data_dir)?;
    let mut taken = vec![config.keys_dir(), config.journal_dir(), config.data_dir.join(node::FILE)];
    if let Database::File(file) = &database {
        taken.push(file.clone());
    }
    if let Some(there) = taken.iter().find(|path| path.exists()) {
        return Err(StartError::Other(format!(
            "{} is there already, and nothing is overwritten: move it away, or set another data_dir",
            there.display()
        )));
    }
    let keys = copy_tree(&from.join("keys"), &config.keys_dir())?;
    let journal = copy_tree(&from.join("journal"), &config.journal_dir())?;
    // Drawn here and not at the first start: a database from before there were nodes would say that it is the original.
    let id = config.data_dir.join(node::FILE);
    node::write(&id, uuid::Uuid::new_v4()).map_err(failed(&id))?;
    let size = match &database {
        Database::Server(_) => None,
        Database::File(file) => {
            // Last: without it there is no gateway.
            let draft = file.with_extension("restoring");
            let size = fs::copy(from.join(DATABASE), &draft).map_err(failed(&draft))?;
            sync(&draft)?;
            fs::rename(&draft, file).map_err(failed(file))?;
            Some(size)
        }
    };
    sync(&config.data_dir)?;
    Ok(Copied { database: size, keys, journal })
}

/// Makes a node of its own of a data directory that is a copy of another's. Its journal, whose calls the original records, is put
/// aside; gives where.
///
/// # Errors
/// When a gateway serves from it, or something cannot be moved.
pub fn become_new_node(config: &Config) -> Result<Option<PathBuf>, StartError> {
    let id = config.data_dir.join(node::FILE);
    if !id.exists() {
        return Err(StartError::Other(format!(
            "{} is not there: this data directory becomes a node of its own at its first start anyway",
            id.display()
        )));
    }
    let _serving = Serving::take(&config.data_dir)?;
    let journal = config.journal_dir();
    let aside = journal.exists().then(|| config.data_dir.join(format!("journal.{}", uuid::Uuid::now_v7())));
    if let Some(aside) = &aside {
        fs::rename(&journal, aside).map_err(failed(&journal))?;
    }
    node::write(&id, uuid::Uuid::new_v4()).map_err(failed(&id))?;
    Ok(aside)
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> StartError {
    move |error| StartError::File(path.to_owned(), error)
}

fn private_dir(path: &Path) -> Result<(), StartError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))
}

fn make_empty(to: &Path) -> Result<(), StartError> {
    match fs::read_dir(to).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(StartError::Other(format!("{} is not empty: name a directory that is new", to.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => private_dir(to),
        Err(error) => Err(StartError::File(to.to_owned(), error)),
    }
}

/// Copies the files below `from`; how many. What goes away meanwhile is no longer needed: a segment whose calls are rows.
fn copy_tree(from: &Path, to: &Path) -> Result<usize, StartError> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(failed(from))?,
    };
    private_dir(to)?;
    let mut count = 0;
    for entry in entries {
        let entry = entry.map_err(failed(from))?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().map_err(failed(&path))?.is_dir() {
            count += copy_tree(&path, &copy)?;
            continue;
        }
        match fs::copy(&path, &copy) {
            Ok(_) => {
                sync(&copy)?;
                count += 1;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(StartError::File(path, error)),
        }
    }
    sync(to)?;
    Ok(count)
}

fn sync(path: &Path) -> Result<(), StartError> {
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(failed(path))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::store::NodeRow;

    #[tokio::test]
    async fn what_is_restored_is_another_node_also_when_the_backup_is_from_before_there_were_nodes() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = |name: &str| Config { data_dir: dir.path().join(name), ..Config::default() };
        let (original, restored, backup) = (config("original"), config("restored"), dir.path().join("backup"));
        private_dir(&original.keys_dir()).expect("made");
        let store = Database::of(&original).expect("a file").open().await.expect("opens");
        let id = Uuid::from_u128(7);
        // As the schema from before becomes today's.
        let node = NodeRow { id, instance: None, version: None, started_at: None, seen_at: None };
        store.keep_node(&node).await.expect("kept");
        store.close().await;
        back_up(&original, &backup).await.expect("backed up");
        restore(&restored, &backup).await.expect("restored");
        become_new_node(&restored).expect("again another");
        let database = Database::of(&restored).expect("a file");
        let store = database.open().await.expect("opens");
        assert_ne!(node::identity(&restored.data_dir, &store, &database).await.expect("read"), id);
        store.close().await;
    }
}
