//! The control plane's routers as the listeners see them.

use axum::Router;
use http::Response;
use http_body_util::BodyExt as _;
use tower_service::Service as _;

use crate::server::{Api, ApiBody};

/// An entry to `router`.
pub(super) fn entry(router: Router) -> Api {
    std::sync::Arc::new(move |request, _peer| {
        let mut router = router.clone();
        Box::pin(async move {
            // A router is always ready and never fails.
            let Ok(response) = router.call(request).await;
            response.map(|body| -> ApiBody { body.map_err(Into::into).boxed_unsync() })
        }) as std::pin::Pin<Box<dyn Future<Output = Response<ApiBody>> + Send>>
    })
}
