//! Certificates made on the spot, handshakes over pipes in memory.

use std::fs;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::duplex;
use tokio_rustls::TlsConnector;

use super::*;

/// A certificate for `localhost` with its key, both PEM, and the certificate alone.
fn issued() -> (String, String, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem(), made.cert.der().clone())
}

/// A directory with `cert.pem` and `key.pem` of these contents.
fn pair(cert: &str, key: &str) -> (TempDir, TlsFiles) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let files =
        TlsFiles { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem"), min_version: TlsVersion::V1_2 };
    put(&files.cert, cert);
    put(&files.key, key);
    (dir, files)
}

/// Writes as careful tools do: a new file, moved over the old one.
fn put(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("write");
    fs::rename(new, file).expect("rename");
}

/// A handshake of a client that offers `alpn` and these versions and trusts `root` alone: the protocol agreed on and the
/// certificate shown.
async fn handshake(
    acceptor: TlsAcceptor,
    root: &CertificateDer<'static>,
    alpn: &[&[u8]],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<(Option<Vec<u8>>, CertificateDer<'static>), std::io::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let (near, far) = duplex(16 << 10);
    let name = ServerName::try_from("localhost").expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    let (client, _server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    let client = client?;
    let session = client.get_ref().1;
    let shown = session.peer_certificates().and_then(|chain| chain.first()).expect("a certificate was shown");
    Ok((session.alpn_protocol().map(<[u8]>::to_vec), shown.clone().into_owned()))
}

fn message(cert: &str, key: &str) -> String {
    let (_dir, files) = pair(cert, key);
    files.load().expect_err("unusable").to_string()
}

#[tokio::test]
async fn a_good_pair_serves_http2_to_those_who_offer_it() {
    let (cert, key, der) = issued();
    let (_dir, files) = pair(&cert, &key);
    let tls = TlsReloader::load(files).expect("a good pair");
    for (offered, agreed) in [(&[b"http/1.1".as_slice(), b"h2"][..], b"h2".as_slice()), (&[b"http/1.1"], b"http/1.1")] {
        let (protocol, shown) =
            handshake(tls.acceptor(), &der, offered, rustls::ALL_VERSIONS).await.expect("a handshake");
        assert_eq!((protocol.as_deref(), &shown), (Some(agreed), &der));
    }
}

#[tokio::test]
async fn the_oldest_version_spoken_is_the_configured_one() {
    let (cert, key, der) = issued();
    let (_dir, mut files) = pair(&cert, &key);
    for (min_version, served) in [(TlsVersion::V1_2, true), (TlsVersion::V1_3, false)] {
        files.min_version = min_version;
        let tls = TlsReloader::load(files.clone()).expect("a good pair");
        let old = handshake(tls.acceptor(), &der, &[], &[&rustls::version::TLS12]).await;
        assert_eq!(old.is_ok(), served);
        handshake(tls.acceptor(), &der, &[], &[&rustls::version::TLS13]).await.expect("1.3 is always spoken");
    }
}

#[tokio::test]
async fn a_changed_pair_is_served_to_new_connections() {
    let (cert, key, _) = issued();
    let (_dir, files) = pair(&cert, &key);
    let tls = TlsReloader::load(files.clone()).expect("a good pair");
    assert_eq!(tls.reload_if_changed(), Ok(false));

    let (cert, key, der) = issued();
    put(&files.cert, &cert);
    put(&files.key, &key);
    assert_eq!(tls.reload_if_changed(), Ok(true));
    assert_eq!(tls.reload_if_changed(), Ok(false));
    let (_, shown) = handshake(tls.acceptor(), &der, &[], rustls::ALL_VERSIONS).await.expect("a handshake");
    assert_eq!(shown, der);
}

#[tokio::test]
async fn a_broken_new_pair_leaves_the_old_one_in_force_and_is_told_once() {
    let (cert, key, der) = issued();
    let (_dir, files) = pair(&cert, &key);
    let tls = TlsReloader::load(files.clone()).expect("a good pair");

    // Half of a rotation: the new certificate has come, its key has not.
    let (new_cert, new_key, new_der) = issued();
    put(&files.cert, &new_cert);
    let error = tls.reload_if_changed().expect_err("the key is that of the old certificate");
    assert!(error.message.contains("does not belong"), "{error}");
    assert_eq!((tls.reload_if_changed(), tls.error()), (Ok(false), Some(error)));
    handshake(tls.acceptor(), &der, &[], rustls::ALL_VERSIONS).await.expect("the old pair is in force");

    put(&files.key, &new_key);
    assert_eq!((tls.reload_if_changed(), tls.error()), (Ok(true), None));
    handshake(tls.acceptor(), &new_der, &[], rustls::ALL_VERSIONS).await.expect("the new pair is in force");
}

#[tokio::test]
async fn a_file_that_goes_and_comes_back_unchanged_is_taken_again() {
    let (cert, key, _) = issued();
    let (_dir, files) = pair(&cert, &key);
    let tls = TlsReloader::load(files.clone()).expect("a good pair");
    let away = files.key.with_extension("away");
    fs::rename(&files.key, &away).expect("rename");
    assert!(tls.reload_if_changed().is_err());
    fs::rename(&away, &files.key).expect("rename");
    assert_eq!((tls.reload_if_changed(), tls.error()), (Ok(true), None));
}

#[test]
fn a_pair_that_could_not_be_read_for_a_passing_reason_is_read_again() {
    let (cert, key, _) = issued();
    let (_dir, files) = pair(&cert, &key);
    let tls = TlsReloader::load(files.clone()).expect("a good pair");
    // As when the process had no file descriptor left: nothing about the files has changed since.
    tls.watched.lock().expect("not poisoned").error = Some(TlsError::new(&files.cert, "too many open files"));
    assert_eq!((tls.reload_if_changed(), tls.error()), (Ok(true), None));
}

#[tokio::test]
async fn other_files_are_taken_over_and_watched() {
    let (cert, key, _) = issued();
    let (_old, files) = pair(&cert, &key);
    let tls = TlsReloader::load(files).expect("a good pair");
    let (cert, key, der) = issued();
    let (_new, files) = pair(&cert, &key);
    assert_eq!((tls.set_files(files.clone()), tls.set_files(files.clone())), (Ok(true), Ok(false)));
    handshake(tls.acceptor(), &der, &[], rustls::ALL_VERSIONS).await.expect("the new pair is in force");
    put(&files.cert, "nothing");
    assert!(tls.reload_if_changed().is_err());
}

#[test]
fn a_missing_file_is_named() {
    let (cert, key, _) = issued();
    let (_dir, mut files) = pair(&cert, &key);
    files.key = PathBuf::from("no/such/key.pem");
    let error = files.load().expect_err("missing").to_string();
    assert!(error.starts_with("no/such/key.pem: there is no such file"), "{error}");
}

#[test]
fn every_kind_of_wrong_file_is_told_apart() {
    let (cert, key, _) = issued();
    let (_, other_key, _) = issued();
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let old_encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMIIB\n-----END RSA PRIVATE KEY-----\n";
    let not_a_cert = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let not_a_key = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n";
    for (cert, key, file, part) in [
        ("", key.as_str(), "cert.pem", "there is no certificate in it"),
        (&key, &cert, "cert.pem", "are cert and key swapped?"),
        (&cert, "", "key.pem", "there is no private key in it"),
        (&cert, &cert, "key.pem", "are cert and key swapped?"),
        (&cert, encrypted, "key.pem", "is encrypted"),
        (&cert, old_encrypted, "key.pem", "is encrypted"),
        (&cert, &other_key, "key.pem", "does not belong"),
        (not_a_cert, &key, "cert.pem", "the first certificate cannot be used"),
        (&cert, not_a_key, "key.pem", "the private key cannot be used"),
        (&cert, &key[..key.len() - 30], "key.pem", "broken PEM"),
        (&cert[..cert.len() - 30], &key, "cert.pem", "broken PEM"),
    ] {
        let message = message(cert, key);
        assert!(message.contains(&format!("{file}: ")) && message.contains(part), "expected {part:?}: {message}");
    }
}

#[test]
fn a_path_that_is_no_plain_file_is_refused_without_reading_it() {
    let (cert, key, _) = issued();
    let (_dir, mut files) = pair(&cert, &key);
    files.cert = PathBuf::from("/dev/zero");
    assert!(files.load().expect_err("endless").message.contains("not a PEM file"));
}
