//! Reading a request's body: bounded in size, and in time by a floor on its rate.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use http::Version;
use http_body::Body as _;
use hyper::body::{Bytes, Incoming};
use tokio::time::{Instant, timeout_at};

use super::memory::Place;

/// How much of a body a refusal reads to echo its `id`.
const PEEK: usize = 64 * 1024;

/// How much room is made at once for a body on its announcement alone.
const TRUSTED_ANNOUNCEMENT: u64 = 1024 * 1024;

/// A body with its place in memory, which is given back with it.
#[derive(Debug)]
pub(super) struct WholeBody {
    pub(super) bytes: Bytes,
    /// Dropped when the agent has answered: the body has been sent by then.
    _place: Place,
}

/// What a body may cost.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Bytes at most.
    pub max_bytes: usize,
    /// Bytes per second it must reach once the grace time is over; 0 is no floor.
    pub min_rate: u32,
    /// How long it may take to get going.
    pub grace: Duration,
}

/// Why a body could not be read; never the agent's doing.
#[derive(Debug)]
pub enum BodyError {
    /// More bytes than allowed.
    TooLarge,
    /// Slower than the floor.
    TooSlow,
    /// Framing that cannot be read.
    Malformed,
    /// There is no memory for it now.
    NoRoom,
    /// Its caller has as much in hand as it may.
    TooMuchInHand,
    /// The caller hung up.
    CallerGone,
}

/// The whole body, kept in `place`.
///
/// # Errors
/// See [`BodyError`].
pub(super) async fn whole(
    body: &mut Incoming,
    version: Version,
    limits: &BodyLimits,
    mut place: Place,
) -> Result<WholeBody, BodyError> {
    let announced = body.size_hint();
    if announced.lower() > limits.max_bytes as u64 {
        return Err(BodyError::TooLarge);
    }
    let started = Instant::now();
    let mut gathered = Gathered::default();
    while !body.is_end_stream() {
        let frame = if limits.min_rate == 0 {
            next_frame(body).await
        } else {
            let earned = Duration::from_secs_f64(gathered.len() as f64 / f64::from(limits.min_rate));
            let deadline = started + limits.grace + earned;
            timeout_at(deadline, next_frame(body)).await.map_err(|_| BodyError::TooSlow)?
        };
        match frame {
            None => break,
            Some(Err(error)) => return Err(classify(version, &error)),
            Some(Ok(data)) => {
                if gathered.len() + data.len() > limits.max_bytes {
                    return Err(BodyError::TooLarge);
                }
                place.take(data.len())?;
                gathered.push(data, announced.exact());
            }
        }
    }
    Ok(WholeBody { bytes: gathered.into_bytes(), _place: place })
}

/// What has already arrived of a body, at most 64 KiB, without asking the caller for more. `None` when that is not all of it.
pub(super) async fn arrived(body: &mut Incoming) -> Option<Bytes> {
    let mut gathered = Gathered::default();
    let mut yields = 0;
    loop {
        if body.is_end_stream() {
            return Some(gathered.into_bytes());
        }
        match poll_fn(|cx| Poll::Ready(poll_data(body, cx))).await {
            Poll::Ready(Some(Ok(data))) if gathered.len() + data.len() <= PEEK => gathered.push(data, None),
            Poll::Ready(None) => return Some(gathered.into_bytes()),
            Poll::Ready(Some(_)) => return None,
            // The connection hands a body over only once it has been asked for: let its task run.
            Poll::Pending if yields < 2 => {
                yields += 1;
                crate::proxy::again().await;
            }
            Poll::Pending => return None,
        }
    }
}

/// Frames put together; a body that came in one frame is not copied.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    more: Vec<u8>,
}

impl Gathered {
    fn len(&self) -> usize {
        if self.more.is_empty() { self.first.len() } else { self.more.len() }
    }

    fn push(&mut self, data: Bytes, announced: Option<u64>) {
        if self.first.is_empty() && self.more.is_empty() {
            self.first = data;
            return;
        }
        if self.more.is_empty() {
            let announced = announced.map_or(0, |n| n.min(TRUSTED_ANNOUNCEMENT) as usize);
            self.more.reserve(announced.max(self.first.len() + data.len()));
            self.more.extend_from_slice(&self.first);
        }
        self.more.extend_from_slice(&data);
    }

    fn into_bytes(self) -> Bytes {
        if self.more.is_empty() { self.first } else { Bytes::from(self.more) }
    }
}

async fn next_frame(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    poll_fn(|cx| poll_data(body, cx)).await
}

/// The next data; trailers are passed over, requests have no use for them.
fn poll_data(body: &mut Incoming, cx: &mut std::task::Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
    loop {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Poll::Ready(Some(Ok(data)));
                }
            }
        }
    }
}

/// A body that ends too early is a caller that left; anything else is framing that cannot be read.
fn classify(version: Version, error: &hyper::Error) -> BodyError {
    // HTTP/2 frames are not the stream's business: bad ones end the connection, so a stream's error is its caller's reset.
    if version == Version::HTTP_2 {
        return BodyError::CallerGone;
    }
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::TimedOut => BodyError::CallerGone,
                _ => BodyError::Malformed,
            };
        }
        source = cause.source();
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return BodyError::CallerGone;
    }
    BodyError::Malformed
}
