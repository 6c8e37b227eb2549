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

use super::body::{Body, Kind};
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
            // Busy until the last byte: an export takes as long as it takes.
            Ok::<_, Infallible>(answer.await.map(|body| Body::new(Kind::Api(body), busy)))
        }
    });
    let builder = super::worker::builder(TokioExecutor::new(), settings);
    if let Err(error) = watcher.watch(builder.serve_connection(io, service)).await {
        tracing::debug!(peer = %peer.address, %error, "operator connection ended");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::server::{Counts, Patience};

    #[tokio::test]
    async fn an_answer_may_take_longer_than_a_connection_may_be_idle() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let idle = Duration::from_millis(50);
        let api: Api = Arc::new(move |_, _| {
            let pieces = futures_util::stream::unfold(0, move |n| async move {
                tokio::time::sleep(idle).await;
                (n < 6).then(|| (Ok(Frame::data(Bytes::from(format!("{n} ")))), n + 1))
            });
            Box::pin(async { http::Response::new(StreamBody::new(pieces).boxed_unsync()) })
        });
        let (_drain, drain_timeout) = watch::channel(Duration::ZERO);
        let second = Duration::from_secs(1);
        let settings = Settings {
            patience: Patience { head: second, idle, stall: second },
            max_header_bytes: 8 << 10,
            max_headers: 20,
            max_connections: 10,
            drain_timeout,
            counts: Arc::new(Counts::default()),
        };
        let (_stop, stopping) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, api, None, settings, stopping));
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("sent");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.contains("5 ") && answer.ends_with("0\r\n\r\n"), "{answer}");
        serving.abort();
    }
}
