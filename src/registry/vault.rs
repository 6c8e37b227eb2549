//! Secrets that must be read back (signing secrets, upstream credentials), encrypted under a key that is not in the database.
//!
//! Promises: a stolen database reveals none of them, and none can be moved to another agent or used for another purpose:
//! both are bound into the encryption. Knows nothing of agents beyond their ids.
//!
//! A sealed secret is `version (1) | key id (1) | nonce (12) | ciphertext | tag (16)`, AES-256-GCM. The key with id 1 is in
//! `secrets.key`, later ones beside it in `secrets-2.key` and so on; the newest seals, each opens what it sealed.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use uuid::Uuid;

use super::key_match::fingerprint;

const VERSION: u8 = 1;
const KEY_LEN: usize = 32;
const HEAD: usize = 2 + NONCE_LEN;

/// What a secret is for. It opens for the purpose it was sealed for only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The key an agent's identity headers are signed with.
    SigningSecret,
    /// The credential the gateway shows to the agent.
    UpstreamCredential,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::SigningSecret => b"signing-secret",
            Self::UpstreamCredential => b"upstream-credential",
        }
    }
}

/// Why the key file or a secret cannot be used.
#[derive(Debug)]
pub enum VaultError {
    /// The key file cannot be read or made.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The key file has another length than 32 bytes.
    WrongLength(PathBuf),
    /// Others than the owner may read the key file.
    Exposed(PathBuf),
    /// There have been as many keys as there are ids for.
    NoMoreKeys,
    /// A sealed secret does not open: made with another key, for something else, or changed.
    Unreadable,
    /// The cryptographic library failed.
    Failed,
}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(f, "key file {}: {error}", path.display()),
            Self::WrongLength(path) => {
                write!(f, "key file {} is not {KEY_LEN} bytes long: restore it from the backup", path.display())
            }
            Self::Exposed(path) => {
                write!(f, "key file {0} can be read by others: run chmod 600 {0}", path.display())
            }
            Self::Unreadable => f.write_str(
                "a stored secret does not open with this key file: restore the key file that belongs to the database",
            ),
            Self::NoMoreKeys => f.write_str("the key has been changed 254 times, and there is no id for another one"),
            Self::Failed => f.write_str("the cryptographic library refused to work"),
        }
    }
}

impl std::error::Error for VaultError {}

/// The open vault.
pub struct Vault {
    /// By id, the newest last; never empty.
    keys: Vec<(u8, LessSafeKey)>,
    fingerprints: Vec<String>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

impl Vault {
    /// Opens the key file at `path` and those of later keys beside it, or makes one that only its owner can read.
    ///
    /// # Errors
    /// When the file cannot be read or made, others can read it, or it is no key.
    pub fn open(path: &Path) -> Result<Self, VaultError> {
        let mut files = super::vault_keys::files(path)?;
        if files.is_empty() {
            files.push((1, path.to_owned()));
        }
        let mut keys = Vec::with_capacity(files.len());
        let mut fingerprints = Vec::with_capacity(files.len());
        for (id, file) in files {
            let bytes = key_file(&file)?;
            fingerprints.push(fingerprint(&bytes));
            let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| VaultError::Failed)?;
            keys.push((id, LessSafeKey::new(key)));
        }
        Ok(Self { keys, fingerprints })
    }

    /// What tells its keys from others, the newest last.
    #[must_use]
    pub fn fingerprints(&self) -> &[String] {
        &self.fingerprints
    }

    /// Encrypts `secret` for one purpose of one agent.
    ///
    /// # Errors
    /// When no randomness can be had.
    pub fn seal(&self, purpose: Purpose, agent: Uuid, secret: &[u8]) -> Result<Vec<u8>, VaultError> {
        // Random nonces of 96 bits: safe for some 2^32 secrets under one key.
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| VaultError::Failed)?;
        let (id, key) = self.keys.last().ok_or(VaultError::Failed)?;
        let mut sealed = vec![VERSION, *id];
        sealed.extend_from_slice(&nonce);
        let mut body = secret.to_vec();
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context(purpose, agent)),
            &mut body,
        )
        .map_err(|_| VaultError::Failed)?;
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Decrypts what [`Vault::seal`] made for the same purpose and agent.
    ///
    /// # Errors
    /// [`VaultError::Unreadable`] for anything else.
    pub fn open_secret(&self, purpose: Purpose, agent: Uuid, sealed: &[u8]) -> Result<Vec<u8>, VaultError> {
        if sealed.len() < HEAD || sealed[0] != VERSION {
            return Err(VaultError::Unreadable);
        }
        let (_, key) = self.keys.iter().find(|(id, _)| *id == sealed[1]).ok_or(VaultError::Unreadable)?;
        let nonce = Nonce::try_assume_unique_for_key(&sealed[2..HEAD]).map_err(|_| VaultError::Unreadable)?;
        let mut body = sealed[HEAD..].to_vec();
        let plain = key.open_in_place(nonce, Aad::from(context(purpose, agent)), &mut body);
        let length = plain.map_err(|_| VaultError::Unreadable)?.len();
        body.truncate(length);
        Ok(body)
    }
}

fn context(purpose: Purpose, agent: Uuid) -> Vec<u8> {
    [purpose.label(), &[0], agent.as_bytes()].concat()
}

/// The 32 random bytes in the key file at `path`, which is made if it is not there.
///
/// # Errors
/// As [`Vault::open`].
pub fn key_file(path: &Path) -> Result<[u8; KEY_LEN], VaultError> {
    let failed = |error| VaultError::File { path: path.to_owned(), error };
    if !path.try_exists().map_err(failed)? {
        create(path)?;
    }
    let mut file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if meta.mode() & 0o077 != 0 {
        return Err(VaultError::Exposed(path.to_owned()));
    }
    if meta.len() != KEY_LEN as u64 {
        return Err(VaultError::WrongLength(path.to_owned()));
    }
    let mut bytes = [0; KEY_LEN];
    file.read_exact(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Makes the file whole or not at all: a crash must not leave half a key that later locks everybody out.
fn create(path: &Path) -> Result<(), VaultError> {
    let failed = |error| VaultError::File { path: path.to_owned(), error };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut bytes = [0; KEY_LEN];
    rand::fill(&mut bytes).map_err(|_| VaultError::Failed)?;
    let draft = path.with_extension(format!("new-{}", Uuid::new_v4()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        // A link, not a rename: where two processes start at once, the first key stays.
        .and_then(|()| fs::hard_link(&draft, path));
    let _ = fs::remove_file(&draft);
    match written {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn vault() -> (tempfile::TempDir, PathBuf, Vault) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keys/secrets.key");
        let vault = Vault::open(&path).expect("opens");
        (dir, path, vault)
    }

    #[test]
    fn a_secret_comes_back_after_a_restart() {
        let (_dir, path, vault) = vault();
        let agent = Uuid::now_v7();
        let sealed = vault.seal(Purpose::SigningSecret, agent, b"canary").expect("seals");
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
        let again = Vault::open(&path).expect("opens again");
        assert_eq!(again.open_secret(Purpose::SigningSecret, agent, &sealed).expect("opens"), b"canary");
    }

    #[test]
    fn a_secret_opens_only_for_its_agent_its_purpose_and_unchanged() {
        let (_dir, _, vault) = vault();
        let agent = Uuid::now_v7();
        let sealed = vault.seal(Purpose::SigningSecret, agent, b"canary").expect("seals");
        assert!(vault.open_secret(Purpose::UpstreamCredential, agent, &sealed).is_err());
        assert!(vault.open_secret(Purpose::SigningSecret, Uuid::now_v7(), &sealed).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(vault.open_secret(Purpose::SigningSecret, agent, &changed).is_err(), "byte {at}");
            assert!(vault.open_secret(Purpose::SigningSecret, agent, &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn another_key_file_opens_nothing() {
        let (_one, _, vault) = vault();
        let (_two, _, other) = self::vault();
        let agent = Uuid::now_v7();
        let sealed = vault.seal(Purpose::SigningSecret, agent, b"canary").expect("seals");
        assert!(matches!(other.open_secret(Purpose::SigningSecret, agent, &sealed), Err(VaultError::Unreadable)));
    }

    #[test]
    fn the_key_file_is_private_and_must_stay_so() {
        let (_dir, path, _vault) = vault();
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(matches!(Vault::open(&path), Err(VaultError::Exposed(_))));
    }

    #[test]
    fn a_key_file_of_another_length_is_refused() {
        let (_dir, path, _vault) = vault();
        for length in [0, 31, 33] {
            fs::write(&path, vec![0; length]).expect("writes");
            assert!(matches!(Vault::open(&path), Err(VaultError::WrongLength(_))), "{length}");
        }
    }
}
