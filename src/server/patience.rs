//! A connection whose peer is waited for only so long.
//!
//! hyper's own header limit starts late (after the protocol is known) and also ends idle keep-alive connections, so the limits
//! are kept here, under it: time for a head to arrive once it has begun, time for the first byte, time without any call, time
//! without taking anything of an answer.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a peer is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the first byte of a head (or the start of the connection) to its end.
    pub head: Duration,
    /// Between calls.
    pub idle: Duration,
    /// Until something more of an answer could be sent.
    pub stall: Duration,
}

/// What the service knows of a connection and the stream below needs.
#[derive(Debug, Default)]
pub(super) struct Activity {
    open: AtomicU32,
    /// Heads that have arrived, modulo 2^32.
    begun: AtomicU32,
    http2: AtomicBool,
    /// The peer may be sending a body that nobody reads.
    unread: AtomicBool,
}

impl Activity {
    /// A request's head has arrived; the connection is busy until the guard is dropped.
    #[must_use]
    pub(super) fn begin(self: &Arc<Self>, http2: bool) -> Busy {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.unread.store(false, Ordering::Relaxed);
        if http2 {
            self.http2.store(true, Ordering::Relaxed);
        }
        Busy(Arc::clone(self))
    }

    /// The request was answered although its body had not been read to its end.
    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }
}

/// The most bytes that are read and thrown away so that a peer sees its answer: more than any body may have by default.
const LINGER_BYTES: usize = 16 << 20;

/// A request being served.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream with patience.
pub(super) struct Patient<S> {
    inner: S,
    activity: Arc<Activity>,
    patience: Patience,
    /// Heads that had arrived at the last look.
    seen: u32,
    since: Instant,
    phase: Phase,
    timer: Pin<Box<Sleep>>,
    /// Bytes thrown away since our side was closed.
    lingering: Option<usize>,
    /// Since when nothing could be sent that is to be sent.
    blocked: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waiting for a head, or in the middle of one.
    Head,
    /// Serving.
    Busy,
    /// Between calls.
    Idle,
}

impl<S> Patient<S> {
    /// Wraps `inner`; the wait for the first head begins now.
    pub(super) fn new(inner: S, activity: Arc<Activity>, patience: Patience) -> Self {
        let since = Instant::now();
        let timer = Box::pin(tokio::time::sleep_until(since + patience.head));
        Self { inner, activity, patience, seen: 0, since, phase: Phase::Head, timer, lingering: None, blocked: None }
    }

    /// Follows the service: which phase the connection is in.
    fn observe(&mut self) {
        let busy = self.activity.open.load(Ordering::Relaxed) > 0;
        let begun = self.activity.begun.load(Ordering::Relaxed);
        // A call may have come and gone between two looks.
        let served = std::mem::replace(&mut self.seen, begun) != begun;
        match self.phase {
            Phase::Busy if busy => {}
            _ if busy => self.enter(Phase::Busy),
            Phase::Busy => self.enter(Phase::Idle),
            Phase::Head | Phase::Idle if served => self.enter(Phase::Idle),
            Phase::Head | Phase::Idle => {}
        }
    }

    fn enter(&mut self, next: Phase) {
        self.phase = next;
        self.since = Instant::now();
    }

    fn is_http2(&self) -> bool {
        self.activity.http2.load(Ordering::Relaxed)
    }

    fn limit(&self) -> Duration {
        match self.phase {
            Phase::Head => self.patience.head,
            Phase::Idle => self.patience.idle,
            // How often a look is taken; what calls may take has limits of its own.
            Phase::Busy => self.patience.head.min(self.patience.stall),
        }
    }

    /// Takes note of whether the peer takes what is sent.
    fn sent<T>(&mut self, sent: Poll<T>) -> Poll<T> {
        self.blocked = if sent.is_ready() { None } else { self.blocked.or_else(|| Some(Instant::now())) };
        sent
    }

    /// A peer that has stopped reading holds an agent's connection, a slot and a record: not for ever.
    fn is_stalled(&self, now: Instant) -> bool {
        self.blocked.is_some_and(|since| since + self.patience.stall <= now)
    }

    /// Ready when the peer has been waited for long enough.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            // Set again only when it would fire too late: most waits end before they matter.
            let due = self.since + self.limit();
            if self.timer.deadline() > due {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
            self.observe();
            let now = Instant::now();
            let due = self.since + self.limit();
            if self.phase == Phase::Busy && !self.is_stalled(now) {
                self.since = now;
                let look = now + self.limit();
                self.timer.as_mut().reset(look);
            } else if due <= now {
                return Poll::Ready(io::Error::from(io::ErrorKind::TimedOut));
            } else {
                self.timer.as_mut().reset(due);
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.observe();
        let before = buf.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Ready(result) => {
                // On HTTP/1 bytes between calls begin a head; on HTTP/2 they may be anything.
                if this.phase == Phase::Idle && buf.filled().len() > before && !this.is_http2() {
                    this.enter(Phase::Head);
                }
                Poll::Ready(result)
            }
            Poll::Pending => this.poll_patience(cx).map(Err),
        }
    }
}

impl<S: AsyncRead + Unpin> Patient<S> {
    /// Reads what the peer still sends, for a while: closing with bytes unread is a reset, which would take the answer away from
    /// a peer that reads it only when all is sent.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scrap = [0; 16 * 1024];
        while self.timer.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut scrap);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => break,
            }
            let read = self.lingering.get_or_insert(0);
            *read += buf.filled().len();
            if *read > LINGER_BYTES {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.sent(sent)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.inner).poll_flush(cx);
        this.sent(sent)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            if !this.activity.unread.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            this.lingering = Some(0);
            this.timer.as_mut().reset(Instant::now() + this.patience.head);
        }
        this.poll_linger(cx).map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.sent(sent)
    }
}
