//! Which authorities may vouch for agents reached over https.
//!
//! The public ones are compiled in: a container without a certificate store works. A file adds those of a private network.
//! Nothing here switches the check of certificates off.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::config::Roots;

/// Why a file of authorities cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootsError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it and what to do.
    pub message: String,
}

impl fmt::Display for RootsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.message)
    }
}

impl std::error::Error for RootsError {}

/// The TLS of connections to agents: TLS 1.2 and 1.3, no client certificate. No protocol is offered: whoever wants HTTP/2 with
/// an agent sets `alpn_protocols` in a clone.
///
/// # Errors
/// When the file cannot be read, or holds no certificate, or one that cannot be an authority.
pub fn client_config(roots: &Roots) -> Result<Arc<ClientConfig>, RootsError> {
    let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = roots.file() {
        add(&mut store, file).map_err(|message| RootsError { file: file.to_owned(), message })?;
    }
    // Named, not found: with a second provider among the dependencies the automatic choice panics.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("this provider has cipher suites for both versions")
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn add(store: &mut RootCertStore, file: &Path) -> Result<(), String> {
    let text =
        std::fs::read(file).map_err(|error| format!("cannot be read: {error}; write \"bundled\" or a PEM file"))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        count += 1;
        let certificate =
            certificate.map_err(|error| format!("certificate {count} is broken PEM: {error}; copy it anew"))?;
        // One that is left out in silence would be missed only when an agent behind it fails.
        store
            .add(certificate)
            .map_err(|error| format!("certificate {count} cannot be an authority: {error}; take it out"))?;
    }
    if count == 0 {
        return Err("there is no certificate in it; write PEM, \"-----BEGIN CERTIFICATE-----\"".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    /// An authority's certificate (PEM), and a server for `localhost` that it vouches for.
    fn authority() -> (String, TlsAcceptor) {
        let ca_key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).expect("a certificate");
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
        let leaf = leaf.signed_by(&key, &Issuer::new(params, ca_key)).expect("a certificate");
        let der = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], der)
            .expect("a pair");
        (ca.pem(), TlsAcceptor::from(Arc::new(server)))
    }

    async fn trusted(config: Arc<ClientConfig>, server: TlsAcceptor) -> bool {
        let (near, far) = tokio::io::duplex(16 << 10);
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(config);
        let (client, _server) = tokio::join!(connector.connect(name, near), server.accept(far));
        client.is_ok()
    }

    fn with_file(text: &str) -> Result<Arc<ClientConfig>, RootsError> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("ca.pem");
        fs::write(&file, text).expect("write");
        client_config(&Roots::WithFile(file))
    }

    #[tokio::test]
    async fn an_authority_from_the_file_is_trusted_and_a_strange_one_is_not() {
        let (ca, server) = authority();
        assert!(trusted(with_file(&ca).expect("a good file"), server.clone()).await);
        assert!(!trusted(client_config(&Roots::Bundled).expect("compiled in"), server.clone()).await);
        let (strange, _) = authority();
        assert!(!trusted(with_file(&strange).expect("a good file"), server).await);
    }

    #[test]
    fn a_wrong_file_is_told_apart() {
        let broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let (ca, _) = authority();
        for (text, part) in [
            (String::new(), "there is no certificate in it"),
            (broken.to_owned(), "certificate 1 cannot be an authority"),
            (ca.clone() + broken, "certificate 2 cannot be an authority"),
            (ca[..ca.len() - 20].to_owned(), "certificate 1 is broken PEM"),
        ] {
            let error = with_file(&text).expect_err(part);
            assert!(error.message.contains(part), "{error}");
        }
        let missing = client_config(&Roots::WithFile("no/such/ca.pem".into())).expect_err("missing");
        assert!(missing.to_string().starts_with("no/such/ca.pem: cannot be read"), "{missing}");
    }
}
