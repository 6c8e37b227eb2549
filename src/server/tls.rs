//! TLS on a listener: a certificate and key from files, taken anew when the files change.
//!
//! Promises: a broken new pair never replaces a working old one; connections that are open keep what they began with; every
//! error names the file and what to do. Knows no configuration file and no timer: somebody calls [`TlsReloader::reload_if_changed`].

use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{InconsistentKeys, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::{Tls, TlsVersion};

/// The protocols offered on a listener, the preferred one first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Far above any chain or key; keeps a wrong path (`/dev/zero`, a core dump) from filling the memory.
const MOST_BYTES: u64 = 1 << 20;

/// What a listener needs for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, PEM, the listener's own certificate first.
    pub cert: PathBuf,
    /// The private key, PEM, not encrypted.
    pub key: PathBuf,
    /// The oldest version spoken.
    pub min_version: TlsVersion,
}

/// Why a certificate and key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    /// The file at fault.
    pub file: PathBuf,
    /// What is wrong with it and what to do.
    pub message: String,
}

impl TlsError {
    fn new(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), message: message.into() }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.message)
    }
}

impl std::error::Error for TlsError {}

impl TlsFiles {
    /// The files of a `tls` section; none where the listener speaks plain HTTP.
    #[must_use]
    pub fn of(tls: &Tls) -> Option<Self> {
        let (cert, key) = (tls.cert.clone()?, tls.key.clone()?);
        Some(Self { cert, key, min_version: tls.min_version })
    }

    /// Reads and checks both files.
    ///
    /// # Errors
    /// When a file is missing or holds something else, or the key does not belong to the certificate.
    pub fn load(&self) -> Result<ServerConfig, TlsError> {
        let chain = self.chain()?;
        let key = self.private_key()?;
        let both: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
        let versions = match self.min_version {
            TlsVersion::V1_2 => both,
            TlsVersion::V1_3 => &both[..1],
        };
        // Named, not found: with a second provider among the dependencies the automatic choice panics.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| TlsError::new(&self.cert, error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| self.unusable(&error))?;
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
        Ok(config)
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let text = read(&self.cert)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let chain =
            chain.map_err(|error| TlsError::new(&self.cert, format!("broken PEM: {error}; copy the file anew")))?;
        if chain.is_empty() {
            let hint =
                if contains(&text, "PRIVATE KEY") { "it holds a private key; are cert and key swapped?" } else { "" };
            let advice = "there is no certificate in it; write the PEM chain, \"-----BEGIN CERTIFICATE-----\"";
            return Err(TlsError::new(&self.cert, [advice, hint].join(" ").trim_end()));
        }
        Ok(chain)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let text = read(&self.key)?;
        // Both encrypted forms look like something else to the parser: PKCS#8 is a section it skips, the older one is a key
        // section with headers, which it takes for broken base64.
        if contains(&text, "BEGIN ENCRYPTED PRIVATE KEY") || contains(&text, "Proc-Type: 4,ENCRYPTED") {
            let advice = "the private key is encrypted, and nobody is there to type its passphrase; write it decrypted \
                          (openssl pkey -in KEY -out NEW), readable by the gateway alone";
            return Err(TlsError::new(&self.key, advice));
        }
        PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
            pem::Error::NoItemsFound => {
                let hint = if contains(&text, "BEGIN CERTIFICATE") {
                    "it holds a certificate; are cert and key swapped?"
                } else {
                    ""
                };
                let advice = "there is no private key in it; write the PEM key, \"-----BEGIN PRIVATE KEY-----\"";
                TlsError::new(&self.key, [advice, hint].join(" ").trim_end())
            }
            // The text of some parser errors quotes the line, and this file's lines are secret.
            _ => TlsError::new(&self.key, "broken PEM; copy the file anew"),
        })
    }

    fn unusable(&self, error: &rustls::Error) -> TlsError {
        match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let advice = "the private key does not belong to the first certificate of the chain in";
                TlsError::new(
                    &self.key,
                    format!("{advice} {}; write the pair that was issued together", self.cert.display()),
                )
            }
            rustls::Error::InvalidCertificate(error) => {
                TlsError::new(&self.cert, format!("the first certificate cannot be used: {error}"))
            }
            error => TlsError::new(
                &self.key,
                format!("the private key cannot be used: {error}; write an ECDSA, Ed25519 or RSA key"),
            ),
        }
    }

    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.cert, &self.key].map(|file| Stamp::of(file))
    }
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let length = std::fs::metadata(file).map(|meta| if meta.is_file() { meta.len() } else { u64::MAX });
    match length {
        Ok(length) if length > MOST_BYTES => {
            Err(TlsError::new(file, "this is not a PEM file: it is no plain file, or over 1 MiB"))
        }
        Ok(_) => std::fs::read(file).map_err(|error| unreadable(file, &error)),
        Err(error) => Err(unreadable(file, &error)),
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> TlsError {
    let advice = match error.kind() {
        ErrorKind::NotFound => {
            "there is no such file; relative paths start from the directory the gateway is started in"
        }
        ErrorKind::PermissionDenied => "the gateway may not read this file; give its user the right to",
        _ => return TlsError::new(file, format!("cannot be read: {error}")),
    };
    TlsError::new(file, advice)
}

/// What tells one content of a path from another without reading it. The inode notices a swapped symlink between files of the
/// same age and size, the change time a permission that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let meta = std::fs::metadata(file).ok()?;
        Some(Self {
            inode: meta.ino(),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// The TLS of one listener: what new connections get, and when to look for newer files.
#[derive(Debug)]
pub struct TlsReloader {
    current: ArcSwap<ServerConfig>,
    watched: Mutex<Watched>,
}

#[derive(Debug)]
struct Watched {
    files: TlsFiles,
    /// As the files were just before they were last read.
    stamps: [Option<Stamp>; 2],
    /// What was wrong with them then.
    error: Option<TlsError>,
}

impl TlsReloader {
    /// Reads both files for the first time.
    ///
    /// # Errors
    /// As [`TlsFiles::load`].
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let stamps = files.stamps();
        let current = ArcSwap::from_pointee(files.load()?);
        Ok(Self { current, watched: Mutex::new(Watched { files, stamps, error: None }) })
    }

    /// Takes over the files if they have changed; says whether it did. Broken ones are read again at the next call, and their
    /// error is returned once, not each time: until then the answer is `Ok(false)`.
    ///
    /// # Errors
    /// As [`TlsFiles::load`]; what was in force stays.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        // Before reading: a change that comes in between is then seen by the next call.
        let stamps = watched.files.stamps();
        if stamps == watched.stamps && watched.error.is_none() {
            return Ok(false);
        }
        watched.stamps = stamps;
        self.take(&mut watched)
    }

    /// Takes over other files, as a reloaded configuration names them, and watches them from now on.
    ///
    /// # Errors
    /// As [`TlsFiles::load`]; what was in force stays until these files are good.
    pub fn set_files(&self, files: TlsFiles) -> Result<bool, TlsError> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if files != watched.files {
            *watched = Watched { stamps: files.stamps(), files, error: None };
            return self.take(&mut watched);
        }
        drop(watched);
        self.reload_if_changed()
    }

    fn take(&self, watched: &mut Watched) -> Result<bool, TlsError> {
        match watched.files.load() {
            Ok(config) => {
                watched.error = None;
                self.current.store(Arc::new(config));
                Ok(true)
            }
            Err(error) if watched.error.as_ref() == Some(&error) => Ok(false),
            Err(error) => {
                watched.error = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Why the files as they are now cannot be used, while older ones are in force.
    #[must_use]
    pub fn error(&self) -> Option<TlsError> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).error.clone()
    }

    /// An acceptor with what is in force now; take one per connection.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

#[cfg(test)]
mod tests;
