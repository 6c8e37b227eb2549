//! The operators' listener: plain hyper on the control plane's runtime. No call ever comes here.
//!
//! Promises: a bounded number of connections; once it is to stop, no new ones, and what was begun is answered.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::patience::{Activity, Patient};
use super::tls::TlsReloader;
use super::{Api, Peer, Settings};

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// How long what was begun may take once the gateway stops.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves the operators' API until `stop` is true and what was begun is answered.
pub async fn serve(
    listener: TcpListener,
    api: Api,
    tls: Option<Arc<TlsReloader>>,
    settings: Settings,
    mut stop: watch::Receiver<bool>,
) {
    let open = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stopping| *stopping) => break,
            accepted = super::acceptor::accept(&listener, &places) => accepted,
        };
        let Ok((stream, address, place)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (api, tls, settings, watcher) = (Arc::clone(&api), tls.clone(), settings.clone(), open.watcher());
        tokio::spawn(async move {
            let _place = place;
            let peer = Peer { address, tls: tls.is_some() };
            match tls {
                None => speak(stream, peer, api, &settings, watcher).await,
                Some(tls) => {
                    let handshake = tls.acceptor().accept(stream);
                    if let Ok(Ok(stream)) = timeout(settings.patience.head, handshake).await {
                        speak(stream, peer, api, &settings, watcher).await;
                    }
                }
            }
        });
    }
    drop(listener);
    if timeout(FAREWELL, open.shutdown()).await.is_err() {
        tracing::warn!("an operator's request was still open when the gateway stopped");
    }
}

async fn speak<S>(stream: S, peer: Peer, api: Api, settings: &Settings, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::default());
    let io = TokioIo::new(Patient::new(stream, Arc::clone(&activity), settings.patience));
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let busy = activity.begin(request.version() == http::Version::HTTP_2);
        let answer = api(request, peer);
        async move {
            let answer = answer.await;
            drop(busy);
            Ok::<_, Infallible>(answer)
        }
    });
    let builder = super::worker::builder(TokioExecutor::new(), settings);
    if let Err(error) = watcher.watch(builder.serve_connection(io, service)).await {
        tracing::debug!(peer = %peer.address, %error, "operator connection ended");
    }
}
