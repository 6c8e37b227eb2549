//! The operators' listener: plain hyper on the control plane's runtime. No call ever comes here.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use super::patience::{Activity, Patient};
use super::tls::TlsReloader;
use super::{Api, Peer, Settings};

/// Serves the operators' API until `stop` is true.
pub async fn serve(
    listener: TcpListener,
    api: Api,
    tls: Option<Arc<TlsReloader>>,
    settings: Settings,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stopping| *stopping) => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, address)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (api, tls, settings) = (Arc::clone(&api), tls.clone(), settings.clone());
        tokio::spawn(async move {
            let peer = Peer { address, tls: tls.is_some() };
            match tls {
                None => speak(stream, peer, api, &settings).await,
                Some(tls) => {
                    let handshake = tls.acceptor().accept(stream);
                    if let Ok(Ok(stream)) = timeout(settings.patience.head, handshake).await {
                        speak(stream, peer, api, &settings).await;
                    }
                }
            }
        });
    }
}

async fn speak<S>(stream: S, peer: Peer, api: Api, settings: &Settings)
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
    if let Err(error) = builder.serve_connection(io, service).await {
        tracing::debug!(peer = %peer.address, %error, "operator connection ended");
    }
}
