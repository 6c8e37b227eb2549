//! Connecting to an agent: resolve, check every address, connect to a checked one, speak TLS where the URL says so.
//!
//! The check is made on the address that is dialled, at every connect, so a name that later resolves elsewhere gains nothing.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::registry::network::{self, NetworkRules};

/// Why no connection stands.
#[derive(Debug)]
pub enum DialError {
    /// The name does not resolve.
    Resolve(io::Error),
    /// Every address is in a network that may not be dialled for this agent.
    Forbidden,
    /// No address answered.
    Connect(io::Error),
    /// Not within the time limit.
    Timeout,
    /// TLS failed: certificate, name, version.
    Tls(io::Error),
    /// The URL has no host, or a scheme other than `http` and `https`.
    Url,
}

impl std::fmt::Display for DialError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Resolve(error) => write!(f, "its host name does not resolve: {error}"),
            Self::Forbidden => f.write_str("its address is in a network that may not be dialled"),
            Self::Connect(error) => write!(f, "no connection: {error}"),
            Self::Timeout => f.write_str("no connection within the time limit"),
            Self::Tls(error) => write!(f, "TLS failed: {error}"),
            Self::Url => f.write_str("its URL has no host or is neither http nor https"),
        }
    }
}

impl std::error::Error for DialError {}

/// How connections of one kind are made: to one agent, or for probes.
#[derive(Clone)]
pub struct Dialer {
    /// Which addresses are allowed.
    pub network: NetworkRules,
    /// Time until the connection stands, name resolution and TLS included.
    pub timeout: Duration,
    /// Roots and versions; ALPN as the agent's protocol demands.
    pub tls: Arc<rustls::ClientConfig>,
}

impl Dialer {
    async fn dial(self, uri: Uri) -> Result<Wire, DialError> {
        timeout(self.timeout, self.connect(&uri)).await.unwrap_or(Err(DialError::Timeout))
    }

    async fn connect(&self, uri: &Uri) -> Result<Wire, DialError> {
        let host = uri.host().ok_or(DialError::Url)?.trim_start_matches('[').trim_end_matches(']');
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(DialError::Url),
        };
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let stream = self.connect_tcp(host, port).await?;
        if !tls {
            return Ok(Wire::Plain(TokioIo::new(stream)));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| DialError::Url)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, stream).await.map_err(DialError::Tls)?;
        Ok(Wire::Tls(Box::new(TokioIo::new(stream))))
    }

    async fn connect_tcp(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host((host, port)).await.map_err(DialError::Resolve)?.collect();
        let mut failure = DialError::Forbidden;
        for address in addresses {
            if network::check(address.ip(), &self.network).is_err() {
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // An event must not wait for the acknowledgement of the one before.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => failure = DialError::Connect(error),
            }
        }
        Err(failure)
    }
}

impl tower_service::Service<Uri> for Dialer {
    type Response = Wire;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Wire, DialError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial(uri))
    }
}

/// A connection to an agent.
pub enum Wire {
    /// TCP.
    Plain(TokioIo<TcpStream>),
    /// TLS over TCP; boxed, its state is large.
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        match self {
            Self::Plain(_) => Connected::new(),
            Self::Tls(stream) => {
                let (_, session) = stream.inner().get_ref();
                if session.alpn_protocol() == Some(b"h2") { Connected::new().negotiated_h2() } else { Connected::new() }
            }
        }
    }
}

macro_rules! either {
    ($wire:expr, $io:ident => $call:expr) => {
        match $wire.get_mut() {
            Wire::Plain(io) => {
                let $io = Pin::new(io);
                $call
            }
            Wire::Tls(io) => {
                let $io = Pin::new(&mut **io);
                $call
            }
        }
    };
}

impl Read for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_read(cx, buf))
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, io => io.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, io => io.poll_write_vectored(cx, bufs))
    }
}
