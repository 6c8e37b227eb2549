//! The addresses and certificates, taken before anything else is touched; connections wait there until the doors open.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::{StartError, other};
use crate::config::{Config, PublicUrl};
use crate::server::tls::{TlsFiles, TlsReloader};

/// Both listeners.
pub(super) struct Listeners {
    pub(super) public: TcpListener,
    pub(super) public_address: SocketAddr,
    pub(super) public_tls: Option<Arc<TlsReloader>>,
    pub(super) admin: TcpListener,
    pub(super) admin_address: SocketAddr,
    pub(super) admin_tls: Option<Arc<TlsReloader>>,
}

impl Listeners {
    /// Takes both.
    ///
    /// # Errors
    /// When an address or a certificate cannot be had.
    pub(super) async fn bind(config: &Config) -> Result<Self, StartError> {
        let public = listen("server.listen", config.server.listen).await?;
        let admin = listen("admin.listen", config.admin.listen).await?;
        Ok(Self {
            public_address: address(&public, "server.listen")?,
            admin_address: address(&admin, "admin.listen")?,
            public_tls: tls(TlsFiles::of(&config.server.tls))?,
            admin_tls: tls(TlsFiles::of(&config.admin.tls))?,
            public,
            admin,
        })
    }

    /// The address callers use, where none is configured.
    pub(super) fn public_url(&self) -> PublicUrl {
        PublicUrl::of_listener(self.public_address, self.public_tls.is_some())
    }

    /// The address operators use, without a slash at the end.
    pub(super) fn admin_url(&self) -> String {
        PublicUrl::of_listener(self.admin_address, self.admin_tls.is_some()).as_str().to_owned()
    }
}

async fn listen(setting: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen(setting, address, error))
}

fn address(listener: &TcpListener, setting: &'static str) -> Result<SocketAddr, StartError> {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    listener.local_addr().map_err(|error| StartError::Listen(setting, unknown, error))
}

fn tls(files: Option<TlsFiles>) -> Result<Option<Arc<TlsReloader>>, StartError> {
    files.map(|files| TlsReloader::load(files).map(Arc::new).map_err(other)).transpose()
}
