//! Listeners, workers, TLS and drain: how connections reach the path of a call.
//!
//! One acceptor hands each connection to the worker with the fewest open calls; it stays there for its life. A worker is one thread
//! with a runtime of its own, which costs less than work stealing and keeps a call's state in one core's cache. Requests that are
//! not calls go to the control plane's runtime.

mod acceptor;
mod body;
pub mod operator;
mod patience;
mod streams;
pub mod tls;
mod worker;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::proxy::{self, Worker};

pub use body::{ApiBody, BodyError};
pub use patience::Patience;
use streams::Streams;
use tls::TlsReloader;

/// The control plane's entry: it answers whatever is not a call.
pub type Api =
    Arc<dyn Fn(Request<Incoming>, Peer) -> Pin<Box<dyn Future<Output = Response<ApiBody>> + Send>> + Send + Sync>;

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address, as the socket says.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
}

impl From<Peer> for proxy::Peer {
    fn from(peer: Peer) -> Self {
        Self { address: peer.address.ip(), scheme: if peer.tls { "https" } else { "http" } }
    }
}

/// What the listeners count.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections accepted on the public listener.
    pub accepted: AtomicU64,
    /// Those of them that are open.
    pub open: AtomicU64,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: AtomicU64,
}

/// What the listeners need to know.
#[derive(Clone)]
pub struct Settings {
    /// How long peers are waited for.
    pub patience: Patience,
    /// Bytes of a request head.
    pub max_header_bytes: usize,
    /// Fields of a request head.
    pub max_headers: usize,
    /// Connections at once, all workers together.
    pub max_connections: usize,
    /// How long open calls may take to end once the gateway stops; can change while it runs.
    pub drain_timeout: watch::Receiver<Duration>,
    /// Where connections are counted.
    pub counts: Arc<Counts>,
}

/// The public listener with its workers.
pub struct Server {
    stop: watch::Sender<bool>,
    acceptor: tokio::task::JoinHandle<()>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Starts a thread per worker and begins to accept. Must be called on the control plane's runtime.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        listener: TcpListener,
        workers: Vec<Arc<Worker>>,
        api: Api,
        tls: Option<Arc<TlsReloader>>,
        settings: &Settings,
    ) -> std::io::Result<Self> {
        let (stop, stopping) = watch::channel(false);
        let mut threads = Vec::with_capacity(workers.len());
        let mut doors = Vec::with_capacity(workers.len());
        for (number, worker) in workers.into_iter().enumerate() {
            let (sender, receiver) = mpsc::unbounded_channel();
            let open_calls = Arc::clone(worker.open_calls());
            doors.push(acceptor::Door { sender, open_calls, connections: Arc::default() });
            let station = Arc::new(worker::Station {
                worker,
                api: Arc::clone(&api),
                control: Handle::current(),
                tls: tls.clone(),
                settings: settings.clone(),
                streams: Streams::default(),
            });
            let stopping = stopping.clone();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                runtime.block_on(worker::run(station, receiver, stopping));
                // Not for as long as a name that does not resolve may take: the drain has a hard deadline.
                runtime.shutdown_timeout(Duration::from_millis(100));
            })?;
            threads.push(thread);
        }
        let acceptor = tokio::spawn(acceptor::run(listener, doors, settings.max_connections, stopping));
        Ok(Self { stop, acceptor, threads })
    }

    /// Stops accepting, lets calls end within the drain time, ends the rest, and returns when every outcome is in the journal.
    pub async fn shutdown(self) {
        let _ = self.stop.send(true);
        let _ = self.acceptor.await;
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a worker ended by a panic");
                }
            }
        });
        let _ = joined.await;
    }
}
