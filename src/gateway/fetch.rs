//! The HTTP client of probes, and of whatever else the gateway asks by itself: the same guarded dialling as calls, one answer of
//! bounded size, no redirects, no second try.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::proxy::UpstreamTls;
use crate::proxy::dial::{DialError, Dialer};
use crate::registry::health::{Fetch, FetchError, FetchRequest, FetchResponse};
use crate::registry::network::{AllowedNetworks, NetworkRules};

/// A fetcher with these roots; `allow_networks` as in the configuration.
pub(super) fn fetcher(tls: UpstreamTls, allow_networks: AllowedNetworks) -> Fetch {
    Arc::new(move |request| {
        let network =
            NetworkRules { private_allowed: request.private_allowed, allowed: allow_networks.load().as_ref().clone() };
        let dialer = Dialer {
            network,
            timeout: request.timeout,
            tls: Arc::clone(if request.http2 { &tls.http2 } else { &tls.http1 }),
        };
        Box::pin(async move {
            let timeout = request.timeout;
            tokio::time::timeout(timeout, fetch(dialer, request)).await.unwrap_or(Err(FetchError::Timeout))
        })
    })
}

async fn fetch(dialer: Dialer, request: FetchRequest) -> Result<FetchResponse, FetchError> {
    let mut outgoing = Request::new(Full::default());
    *outgoing.uri_mut() = request.url.as_str().parse().map_err(|_| invalid())?;
    *outgoing.headers_mut() = request.headers;
    exchange(dialer, request.http2, outgoing, request.max_bytes).await
}

/// Sends one request and reads its answer, of at most so many bytes.
pub(super) async fn exchange(
    dialer: Dialer,
    http2: bool,
    request: Request<Full<Bytes>>,
    max_bytes: usize,
) -> Result<FetchResponse, FetchError> {
    // A client of its own for each request: nothing is kept open between them.
    let client: Client<Dialer, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).http2_only(http2).build(dialer);
    let response = client.request(request).await.map_err(|error| classify(&error))?;
    let (parts, body) = response.into_parts();
    let body = match Limited::new(body, max_bytes).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => return Err(FetchError::TooLarge),
        Err(_) => return Err(invalid()),
    };
    Ok(FetchResponse { status: parts.status.as_u16(), headers: parts.headers, body })
}

fn invalid() -> FetchError {
    FetchError::Connect("no valid answer".to_owned())
}

fn classify(error: &hyper_util::client::legacy::Error) -> FetchError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(dial) = cause.downcast_ref::<DialError>() {
            return match dial {
                DialError::Forbidden => FetchError::Forbidden,
                DialError::Timeout => FetchError::Timeout,
                DialError::Tls(_) => FetchError::Tls,
                other => FetchError::Connect(other.to_string()),
            };
        }
        source = cause.source();
    }
    FetchError::Connect(error.to_string())
}
