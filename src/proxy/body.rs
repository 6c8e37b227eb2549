//! The agent's answer on its way to the caller: frame by frame, byte for byte, and never whole before its record is.
//!
//! Nothing is held back but the end: the frame with which a body of known length is complete, or the end itself where the length
//! is not known, waits until the outcome is in the journal. An event never waits.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::call::OpenCall;
use super::headers;
use super::live::{Cut, Drawn};
use crate::a2a::EventScanner;
use crate::a2a::answer::notice_unary;
use crate::audit::journal::{JournalDown, Written};
use crate::audit::record::Ending;
use crate::vitals::{Ailment, Shown};

/// Unary answers up to this size are looked at.
const NOTICED: usize = 64 * 1024;

/// Why an answer was cut that was whole.
const UNRECORDED: &str = "its record could not be written";

/// What a caller is answered with.
pub enum Body {
    /// All of it, already recorded.
    Whole(Bytes),
    /// An answer still flowing.
    Flowing(Box<Answer>),
}

/// The answer was cut: the connection ends in a way that cannot be mistaken for a whole answer.
#[derive(Debug)]
pub struct CutShort(pub &'static str);

impl std::fmt::Display for CutShort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the answer was cut short: {}", self.0)
    }
}

impl std::error::Error for CutShort {}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Flowing(answer) => answer.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Flowing(answer) => answer.early.is_none() && matches!(answer.state, State::Over),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Flowing(answer) => answer.remaining.map(SizeHint::with_exact).unwrap_or_default(),
        }
    }
}

/// What is noticed in the bytes that pass.
pub enum Notice {
    /// Nothing: too large, or not JSON.
    Nothing,
    /// A JSON answer, gathered to be looked at when it is whole.
    Unary(BytesMut),
    /// An event stream.
    Events(EventScanner),
}

/// Renders the event that tells the reader of a stream why the gateway ends it.
/// `None` where the stream is not A2A's.
pub(super) type Farewell = Box<dyn Fn(Option<Cut>) -> Option<Bytes> + Send + Sync>;

/// An answer that flows.
pub struct Answer {
    call: OpenCall,
    notice: Notice,
    /// Bytes still to come, where the agent said how many.
    remaining: Option<u64>,
    /// Only event streams have one.
    farewell: Option<Farewell>,
    idle: Duration,
    idle_at: Pin<Box<Sleep>>,
    last_frame: Instant,
    /// Drawn before the head was returned; goes out first, whatever has become of the rest meanwhile.
    early: Option<Frame<Bytes>>,
    state: State,
}

enum State {
    /// Frames pass.
    Flowing,
    /// The outcome is on its way into the journal; the last frame waits for it.
    Settling(Option<Frame<Bytes>>, Written),
    /// What follows is the cut, once what has passed is on its way: an error right behind a frame would take it back.
    Cutting {
        /// For the log.
        why: &'static str,
        /// The connection has had its turn to send.
        sent: bool,
        /// The outcome on its way into the journal: a cut that is seen has its record.
        written: Option<Written>,
    },
    /// Nothing follows.
    Over,
}

impl Answer {
    /// An answer that comes through the tap of `call`.
    #[must_use]
    pub fn new(
        call: OpenCall,
        notice: Notice,
        length: Option<u64>,
        idle: Duration,
        farewell: Option<Farewell>,
    ) -> Self {
        Self {
            call,
            notice,
            remaining: length,
            farewell,
            idle,
            idle_at: Box::pin(tokio::time::sleep(idle)),
            last_frame: Instant::now(),
            early: None,
            state: State::Flowing,
        }
    }

    /// Looks whether the answer is already whole; if so it is recorded and comes back as one piece, so that head and body leave
    /// together.
    ///
    /// # Errors
    /// When it is whole and could not be recorded. The head must not leave either: an answer may have nothing but a head.
    pub async fn settle(mut self: Box<Self>) -> Result<Body, JournalDown> {
        for _ in 0..3 {
            match poll_fn(|cx| Poll::Ready(self.poll_next(cx))).await {
                Poll::Ready(next) => return self.begin(next),
                Poll::Pending if matches!(self.state, State::Settling(..)) => {
                    let next = poll_fn(|cx| self.poll_next(cx)).await;
                    return self.begin(next);
                }
                // The connection to the agent hands a body over only once it has been asked for: let its task run.
                Poll::Pending if self.remaining.is_some() => super::again().await,
                Poll::Pending => break,
            }
        }
        if let State::Cutting { sent, .. } = &mut self.state {
            // The head has not left yet.
            *sent = false;
        }
        Ok(Body::Flowing(self))
    }

    /// The body that begins with what was drawn before the head left.
    fn begin(mut self: Box<Self>, next: Option<Result<Frame<Bytes>, CutShort>>) -> Result<Body, JournalDown> {
        match next {
            None => return Ok(Body::Whole(Bytes::new())),
            Some(Err(CutShort(UNRECORDED))) => return Err(JournalDown),
            Some(Err(cut)) => self.state = State::Cutting { why: cut.0, sent: false, written: None },
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if matches!(self.state, State::Over) => return Ok(Body::Whole(data)),
                Ok(data) => self.unread(Frame::data(data)),
                Err(trailers) => self.unread(trailers),
            },
        }
        Ok(Body::Flowing(self))
    }

    /// Puts a frame back that was drawn too early.
    fn unread(&mut self, frame: Frame<Bytes>) {
        if let (Some(remaining), Some(data)) = (self.remaining.as_mut(), frame.data_ref()) {
            *remaining += data.len() as u64;
        }
        self.early = Some(frame);
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        if let Some(frame) = self.early.take() {
            self.spend(&frame);
            return Poll::Ready(Some(Ok(frame)));
        }
        loop {
            match &mut self.state {
                State::Over => return Poll::Ready(None),
                State::Cutting { sent, .. } if !*sent => {
                    *sent = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                State::Cutting { why, written, .. } => {
                    if let Some(written) = written {
                        // A journal that is down cannot make a cut any worse.
                        let _ = ready!(Pin::new(written).poll(cx));
                    }
                    let why = *why;
                    self.state = State::Over;
                    return Poll::Ready(Some(Err(CutShort(why))));
                }
                State::Settling(held, written) => {
                    let recorded = ready!(Pin::new(written).poll(cx));
                    let held = held.take();
                    self.state = State::Over;
                    return Poll::Ready(match recorded {
                        Ok(()) => held.map(Ok),
                        Err(JournalDown) => Some(Err(CutShort(UNRECORDED))),
                    });
                }
                State::Flowing => {
                    if let Some(next) = ready!(self.poll_flow(cx)) {
                        return Poll::Ready(Some(next));
                    }
                }
            }
        }
    }

    /// One step of the flow: a frame to pass on, or `None` when the state has changed.
    fn poll_flow(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let Some(tap) = self.call.entered.as_ref().map(|entered| &entered.tap) else {
            // Closed, so there is nothing left to end properly.
            self.state = State::Cutting { why: "its record is closed", sent: false, written: None };
            return Poll::Ready(None);
        };
        match tap.poll_draw(cx) {
            Poll::Pending => {
                ready!(self.poll_idle(cx));
                Poll::Ready(self.end_here(Ending::Timeout, None, "the agent was silent for too long"))
            }
            Poll::Ready(Drawn::Frame(mut frame, last)) => {
                self.last_frame = Instant::now();
                if let Some(trailers) = frame.trailers_mut() {
                    headers::clean_answer(trailers);
                }
                if let Some(data) = frame.data_ref() {
                    self.notice(data);
                }
                self.spend(&frame);
                // HTTP/2 may tell the end only after the last byte; to the caller the last byte is the end.
                if last || self.remaining == Some(0) {
                    self.settle_with(Some(frame));
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Drawn::End) => {
                self.settle_with(None);
                Poll::Ready(None)
            }
            Poll::Ready(Drawn::Broken) => {
                // Passed on as the cut it is: a clean end would make a truncated task look finished.
                self.call.outcome.reason = Some("agent_broke_off");
                if let Some(vitals) = &self.call.vitals {
                    vitals.note(Shown::Erred(Ailment::BrokeOff));
                }
                let written = self.call.close(Ending::AgentGone);
                self.state = State::Cutting { why: "the agent broke off", sent: false, written };
                Poll::Ready(None)
            }
            Poll::Ready(Drawn::Cut(cut)) => Poll::Ready(self.end_here(Ending::Interrupted, Some(cut), cut.as_str())),
        }
    }

    /// The answer is complete: its outcome goes to the journal, and `held` goes out after it.
    fn settle_with(&mut self, held: Option<Frame<Bytes>>) {
        if let Notice::Unary(gathered) = &self.notice {
            notice_unary(gathered, &mut self.call.noticed);
        }
        let ending = self.call.whole_ending();
        self.state = match self.call.close(ending) {
            Some(written) => State::Settling(held, written),
            None => State::Cutting { why: UNRECORDED, sent: false, written: None },
        };
    }

    /// The gateway ends the answer: the agent's connection goes now; an event stream at an event boundary is told why.
    fn end_here(
        &mut self,
        ending: Ending,
        cut: Option<Cut>,
        why: &'static str,
    ) -> Option<Result<Frame<Bytes>, CutShort>> {
        let at_boundary = matches!(&self.notice, Notice::Events(events) if events.at_boundary());
        let farewell = self.farewell.as_ref().filter(|_| at_boundary).and_then(|render| render(cut));
        self.call.outcome.reason = Some(cut.map_or("silent_agent", Cut::as_str));
        let written = self.call.close(ending);
        self.state = State::Cutting { why, sent: false, written };
        farewell.map(|event| Ok(Frame::data(event)))
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The timer is set again only when it fires: frames are more frequent than silences.
        loop {
            ready!(self.idle_at.as_mut().poll(cx));
            let due = self.last_frame + self.idle;
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            self.idle_at.as_mut().reset(due);
        }
    }

    fn notice(&mut self, data: &Bytes) {
        self.call.outcome.response_bytes += data.len() as u64;
        match &mut self.notice {
            Notice::Nothing => {}
            Notice::Unary(gathered) if gathered.len() + data.len() <= NOTICED => gathered.extend_from_slice(data),
            Notice::Unary(_) => self.notice = Notice::Nothing,
            Notice::Events(events) => {
                events.feed(data, &mut self.call.noticed);
                self.call.outcome.stream_events = Some(events.events());
            }
        }
    }

    fn spend(&mut self, frame: &Frame<Bytes>) {
        if let (Some(remaining), Some(data)) = (self.remaining.as_mut(), frame.data_ref()) {
            *remaining = remaining.saturating_sub(data.len() as u64);
        }
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
