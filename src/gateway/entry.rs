//! The control plane's routers as the listeners see them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use http::Response;
use http_body_util::BodyExt as _;
use tower_service::Service as _;

use crate::control::Source;
use crate::identity;
use crate::proxy;
use crate::server::{Api, ApiBody};

/// An entry to `router`; whose word about their clients is taken stands in `settings`.
pub(super) fn entry(router: Router, settings: Arc<ArcSwap<proxy::Settings>>) -> Api {
    Arc::new(move |mut request, peer| {
        let proxies = &settings.load().trusted_proxies;
        let source = identity::source_address(peer.address.ip(), request.headers(), proxies);
        request.extensions_mut().insert(Source(source));
        let mut router = router.clone();
        Box::pin(async move {
            // A router is always ready and never fails.
            let Ok(response) = router.call(request).await;
            response.map(|body| -> ApiBody { body.map_err(Into::into).boxed_unsync() })
        }) as std::pin::Pin<Box<dyn Future<Output = Response<ApiBody>> + Send>>
    })
}
