//! The HTTP client of outlets and webhooks: to addresses an operator configured, over TLS by the authorities that vouch for
//! agents. One answer, no redirects, no second try.

use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Method, Request};

use super::fetch::exchange;
use crate::outlets::{Post, PostAnswer, PostRequest};
use crate::proxy::UpstreamTls;
use crate::proxy::dial::Dialer;
use crate::registry::health::FetchError;
use crate::registry::network::NetworkRules;

/// Nothing of an answer is of interest but that it ends.
const ANSWER_MAX: usize = 64 * 1024;

/// Posts with these roots.
pub(super) fn poster(tls: &UpstreamTls) -> Post {
    let tls = Arc::clone(&tls.http1);
    Arc::new(move |request| {
        // An operator wrote the address: a private one is meant.
        let network = NetworkRules { private_allowed: true, allowed: Vec::new() };
        let dialer = Dialer { network, timeout: request.timeout, tls: Arc::clone(&tls) };
        Box::pin(async move {
            let timeout = request.timeout;
            let answer = tokio::time::timeout(timeout, post(dialer, request)).await;
            answer.unwrap_or(Err(FetchError::Timeout)).map_err(|error| explain(&error, timeout))
        })
    })
}

async fn post(dialer: Dialer, request: PostRequest) -> Result<PostAnswer, FetchError> {
    let invalid = |_| FetchError::Connect("the address cannot be used".to_owned());
    let mut outgoing = Request::builder().method(Method::POST).uri(&request.url).body(request.body.into());
    if let Ok(outgoing) = &mut outgoing {
        *outgoing.headers_mut() = request.headers;
    }
    let answer = exchange(dialer, false, outgoing.map_err(invalid)?, ANSWER_MAX).await?;
    let seconds = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Ok(PostAnswer { status: answer.status, retry_after: seconds.map(Duration::from_secs) })
}

fn explain(error: &FetchError, timeout: Duration) -> String {
    match error {
        FetchError::Forbidden => "its address is one that is never dialled (link-local, metadata)".to_owned(),
        FetchError::Connect(why) => why.clone(),
        FetchError::Tls => {
            "TLS failed: no authority that is trusted vouches for it (upstream.roots), or not by this name".to_owned()
        }
        FetchError::Timeout => format!("it has not answered within {} s", timeout.as_secs()),
        FetchError::TooLarge => "its answer is too long".to_owned(),
    }
}
