//! A worker: one thread, one runtime, its own connections, its own pools and its own part of the journal.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::body::Body;
use super::patience::{Activity, Patient};
use super::streams::Streams;
use super::tls::TlsReloader;
use super::{Api, Counts, Peer, Settings};
use crate::proxy::{self, BodyUnread, Cut, Worker};

/// A connection on its way from the acceptor to a worker.
pub(super) struct Accepted {
    pub(super) stream: StdStream,
    pub(super) address: SocketAddr,
    /// Its place among the connections there may be.
    pub(super) place: OwnedSemaphorePermit,
    /// Its part of the load of its worker.
    pub(super) count: Count,
}

/// What a worker needs besides the path of a call.
pub(super) struct Station {
    pub(super) worker: Arc<Worker>,
    pub(super) api: Api,
    pub(super) control: Handle,
    pub(super) tls: Option<Arc<TlsReloader>>,
    pub(super) settings: Settings,
    pub(super) streams: Streams,
}

/// Serves connections until told to stop, then lets calls end for as long as the drain may take.
pub(super) async fn run(
    station: Arc<Station>,
    mut accepted: mpsc::UnboundedReceiver<Accepted>,
    mut stop: watch::Receiver<bool>,
) {
    let journal = Arc::clone(station.worker.journal());
    let flusher = tokio::spawn(Arc::clone(&journal).run_flusher());
    let link = station.worker.link().map(|link| tokio::spawn(Arc::clone(link).run()));
    let mut open = JoinSet::new();
    let told = stop.clone();
    loop {
        tokio::select! {
            biased;
            next = accepted.recv() => match next {
                Some(connection) => { open.spawn(serve(Arc::clone(&station), connection, told.clone())); }
                None => break,
            },
            _ = open.join_next(), if !open.is_empty() => {}
            _ = stop.wait_for(|stopping| *stopping) => break,
        }
    }
    accepted.close();
    while let Ok(late) = accepted.try_recv() {
        open.spawn(serve(Arc::clone(&station), late, told.clone()));
    }
    drain(&station, &mut open).await;
    station.streams.end().await;
    if let Some(link) = link {
        link.abort();
    }
    journal.shutdown();
    let _ = flusher.await;
}

/// Every step ends by itself or by its limit: calls that finish, then calls told to, then whatever is left.
async fn drain(station: &Station, open: &mut JoinSet<()>) {
    let limit = *station.settings.drain_timeout.borrow();
    if timeout(limit, finish(open)).await.is_ok() {
        return;
    }
    station.worker.live().cut_where(|_| Some(Cut::Draining));
    let _ = timeout(Duration::from_secs(1), finish(open)).await;
    open.abort_all();
    finish(open).await;
}

async fn finish(open: &mut JoinSet<()>) {
    while open.join_next().await.is_some() {}
}

async fn serve(station: Arc<Station>, accepted: Accepted, stop: watch::Receiver<bool>) {
    let Accepted { stream, address, place: _place, count: _count } = accepted;
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    // An event must not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let peer = Peer { address, tls: station.tls.is_some() };
    let counts = &station.settings.counts;
    counts.accepted.fetch_add(1, Ordering::Relaxed);
    let _open = Opened::enter(counts);
    match &station.tls {
        None => speak(&station, stream, peer, stop).await,
        Some(tls) => {
            let handshake = tls.acceptor().accept(stream);
            match timeout(station.settings.patience.head, handshake).await {
                Ok(Ok(stream)) => speak(&station, stream, peer, stop).await,
                _ => drop(counts.handshakes_failed.fetch_add(1, Ordering::Relaxed)),
            }
        }
    }
}

/// Counts a connection as open for as long as it lives.
struct Opened<'a>(&'a Counts);

impl<'a> Opened<'a> {
    fn enter(counts: &'a Counts) -> Self {
        counts.open.fetch_add(1, Ordering::Relaxed);
        Self(counts)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn speak<S>(station: &Arc<Station>, stream: S, peer: Peer, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::default());
    let io = TokioIo::new(Patient::new(stream, Arc::clone(&activity), station.settings.patience));
    let service = service_fn(|request| {
        let station = Arc::clone(station);
        let busy = activity.begin(request.version() == Version::HTTP_2);
        let activity = Arc::clone(&activity);
        async move {
            let answer = answer(&station, peer, request).await;
            if answer.extensions().get::<BodyUnread>().is_some() {
                activity.leave_unread();
            }
            Ok::<_, Infallible>(answer.map(|body| Body::new(body, busy)))
        }
    });
    let builder = builder(station.streams.clone(), &station.settings);
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => Some(ended),
        _ = stop.wait_for(|stopping| *stopping) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %peer.address, %error, "connection ended");
    }
}

async fn answer(station: &Station, peer: Peer, request: Request<Incoming>) -> Response<super::body::Kind> {
    if proxy::is_call(request.uri().path()) {
        return station.worker.serve(&peer.into(), request).await.map(super::body::Kind::Call);
    }
    // The control plane has a runtime of its own: its work never delays a call.
    let answer = (station.api)(request, peer);
    match station.control.spawn(answer).await {
        Ok(response) => response.map(super::body::Kind::Api),
        Err(_) => {
            let mut response = Response::new(super::body::Kind::Call(proxy::Body::Whole(bytes::Bytes::new())));
            *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

pub(super) fn builder<E>(streams: E, settings: &Settings) -> auto::Builder<E> {
    let mut builder = auto::Builder::new(streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(settings.max_header_bytes)
        .max_headers(settings.max_headers);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(128)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_header_list_size(u32::try_from(settings.max_header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(100)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// Counts a worker's connections.
pub(super) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(super) fn enter(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counter))
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
