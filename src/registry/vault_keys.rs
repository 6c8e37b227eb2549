//! The key files of the vault, and changing over to a new key.
//!
//! Promises: whenever the change-over is cut off, by a crash or a power cut, what is in the database opens with the key files
//! that are there, and running it again brings it to its end. Runs while no gateway serves: that is its caller's to see to.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::vault::{Purpose, Vault, VaultError, key_file};
use super::{RegistryError, key_match};
use crate::store::{SecretColumn, Store};

/// What a change-over did.
#[derive(Debug)]
pub struct NewKey {
    /// The file of the new key.
    pub file: PathBuf,
    /// How many secrets are sealed under it.
    pub secrets: usize,
    /// The files of the keys before, renamed: backups of the database made before need them.
    pub retired: Vec<PathBuf>,
}

/// The key files at `first` and beside it with their ids, in order.
pub(crate) fn files(first: &Path) -> Result<Vec<(u8, PathBuf)>, VaultError> {
    let failed = |error| VaultError::File { path: first.to_owned(), error };
    let mut files = Vec::new();
    for id in 1..=u8::MAX {
        let file = file_of(first, id);
        if file.try_exists().map_err(failed)? {
            files.push((id, file));
        }
    }
    Ok(files)
}

/// Where the key with this id is: `secrets.key`, `secrets-2.key`, ...
pub(crate) fn file_of(first: &Path, id: u8) -> PathBuf {
    if id == 1 {
        return first.to_owned();
    }
    let stem = first.file_stem().unwrap_or_default().to_string_lossy();
    first.with_file_name(format!("{stem}-{id}.key"))
}

fn retired(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!("{name}.retired"))
}

/// Seals every secret of `store` under a new key beside the one at `first`, and retires the keys before.
///
/// # Errors
/// When a file cannot be made or moved, a secret does not open, or the database cannot be written; all secrets can be opened
/// then with the key files that are there.
pub async fn change_key(store: &Store, first: &Path) -> Result<NewKey, RegistryError> {
    let (file, before) = make(first)?;
    let secrets = reseal(store, first).await?;
    if let Some(newest) = Vault::open(first)?.fingerprints().last() {
        key_match::change(store, "secrets", newest).await?;
    }
    let retired = retire(first, &before)?;
    Ok(NewKey { file, secrets, retired })
}

/// First step: a key with the next id. From now on there are two, and each opens what it sealed.
fn make(first: &Path) -> Result<(PathBuf, Vec<PathBuf>), VaultError> {
    let before = files(first)?;
    let newest = before.last().map_or(0, |(id, _)| *id);
    // An id that a retired key had would make its secrets look like the new key's.
    let next = (newest..u8::MAX).map(|id| id + 1).find(|id| !retired(&file_of(first, *id)).exists());
    let file = file_of(first, next.ok_or(VaultError::NoMoreKeys)?);
    key_file(&file)?;
    sync_directory(first)?;
    Ok((file, before.into_iter().map(|(_, file)| file).collect()))
}

/// Second step: all secrets under the newest key, in one transaction.
async fn reseal(store: &Store, first: &Path) -> Result<usize, RegistryError> {
    let vault = Vault::open(first)?;
    store
        .reseal_secrets(|sealed| {
            let purpose = match sealed.column {
                SecretColumn::Signing | SecretColumn::NextSigning => Purpose::SigningSecret,
                SecretColumn::Upstream => Purpose::UpstreamCredential,
            };
            let secret = vault.open_secret(purpose, sealed.agent, sealed.bytes)?;
            Ok::<_, RegistryError>(vault.seal(purpose, sealed.agent, &secret)?)
        })
        .await
}

/// Last step, when the database is on the disk: the keys before are renamed, which takes them out of use.
fn retire(first: &Path, before: &[PathBuf]) -> Result<Vec<PathBuf>, VaultError> {
    let mut moved = Vec::new();
    for file in before {
        let to = retired(file);
        fs::rename(file, &to).map_err(|error| VaultError::File { path: file.clone(), error })?;
        moved.push(to);
    }
    sync_directory(first)?;
    Ok(moved)
}

/// Makes names in the directory of `file` survive a power cut.
fn sync_directory(file: &Path) -> Result<(), VaultError> {
    let directory = file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced: io::Result<()> = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| VaultError::File { path: directory.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::registry::agents::AgentChanges;
    use crate::registry::credential::UpstreamCredential;
    use crate::registry::testing::{Bench, admin};
    use crate::registry::{Registry, Reload, Settings};

    /// A registry with three secrets, and its key file.
    async fn scene() -> (Bench, PathBuf) {
        let bench = Bench::new().await;
        let credential = UpstreamCredential { header: "x-key".to_owned(), value: "canary".to_owned() };
        let changes = AgentChanges {
            name: Some("a".to_owned()),
            endpoint_url: Some(Some("https://a.example".to_owned())),
            upstream_credential: Some(Some(credential)),
            ..AgentChanges::default()
        };
        let id = bench.registry.register(&admin(), changes).await.expect("registers").agent.id;
        bench.registry.rotate_signing_secret(&admin(), id, Duration::from_secs(60)).await.expect("rotates");
        let file = bench.dir.path().join("secrets.key");
        (bench, file)
    }

    /// A start: whether every secret opens with the key files that are there.
    async fn starts(bench: &Bench, file: &Path) -> bool {
        let reload: Reload = Arc::new(|| Box::pin(async {}));
        let vault = Arc::new(Vault::open(file).expect("opens"));
        let registry = Registry::new(bench.store.clone(), vault, bench.clock.clone(), Settings::default(), reload);
        registry.check_vault().await.is_ok()
    }

    #[tokio::test]
    async fn a_change_of_keys_that_is_cut_off_anywhere_leaves_everything_readable_and_can_be_run_again() {
        // Nothing done, a key made, secrets sealed under it, some keys retired.
        for steps in 0..4 {
            let (bench, first) = scene().await;
            if steps > 0 {
                let (_, before) = make(&first).expect("makes");
                if steps > 1 {
                    assert_eq!(reseal(&bench.store, &first).await.expect("seals"), 3);
                }
                if steps > 2 {
                    retire(&first, &before).expect("retires");
                }
            }
            assert!(starts(&bench, &first).await, "cut off after {steps} steps");
            let done = change_key(&bench.store, &first).await.expect("changes");
            assert_eq!(done.secrets, 3);
            assert_eq!(files(&first).expect("reads").len(), 1, "only the newest is in use");
            assert!(starts(&bench, &first).await);
            assert!(!first.exists() && done.file.exists());
        }
    }

    #[tokio::test]
    async fn a_secret_that_does_not_open_stops_the_change_and_nothing_is_lost() {
        let (bench, first) = scene().await;
        let id = bench.store.directory_rows().await.expect("reads").agents[0].id;
        let good = bench.store.agent(id).await.expect("reads").expect("there");
        let mut count = 0;
        let failed = bench.store.reseal_secrets(|_| {
            count += 1;
            if count < 3 { Ok(vec![9]) } else { Err(RegistryError::Vault(VaultError::Unreadable)) }
        });
        assert!(matches!(failed.await, Err(RegistryError::Vault(VaultError::Unreadable))));
        assert_eq!(bench.store.agent(id).await.expect("reads"), Some(good));
        assert!(starts(&bench, &first).await);
    }

    #[tokio::test]
    async fn ids_of_retired_keys_are_not_given_out_again() {
        let (bench, first) = scene().await;
        for expected in ["secrets-2.key", "secrets-3.key"] {
            let done = change_key(&bench.store, &first).await.expect("changes");
            assert!(done.file.ends_with(expected), "{:?}", done.file);
        }
        let names: Vec<PathBuf> =
            ["secrets.key", "secrets-2.key"].iter().map(|n| retired(&first.with_file_name(n))).collect();
        assert!(names.iter().all(|name| name.exists()));
        let newest = first.with_file_name("secrets-3.key");
        fs::rename(&newest, retired(&newest)).expect("renames");
        let (file, before) = make(&first).expect("makes");
        assert!(file.ends_with("secrets-4.key") && before.is_empty(), "{file:?}");
    }
}
