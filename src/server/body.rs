//! What a connection sends: an answer to a call or one of the control plane, and the knowledge that it is busy until then.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use super::patience::Busy;
use crate::proxy;

/// An error of either kind of body; hyper only needs to know that there was one.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body of the control plane.
pub type ApiBody = UnsyncBoxBody<Bytes, BodyError>;

/// Whose answer it is.
pub(super) enum Kind {
    /// An answer to a call.
    Call(proxy::Body),
    /// An answer of the control plane.
    Api(ApiBody),
}

/// A body on its way out.
pub(super) struct Body {
    kind: Kind,
    _busy: Busy,
}

impl Body {
    pub(super) fn new(kind: Kind, busy: Busy) -> Self {
        Self { kind, _busy: busy }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().kind {
            Kind::Call(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Kind::Api(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Call(body) => body.is_end_stream(),
            Kind::Api(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Call(body) => body.size_hint(),
            Kind::Api(body) => body.size_hint(),
        }
    }
}
