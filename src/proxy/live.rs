//! Calls that are being answered, and how they are ended from outside.
//!
//! What an agent sends passes through a [`Tap`]. Closing the tap drops the agent's connection at once, from any thread, whether
//! or not anybody is reading the answer: a reader that has stalled is never polled, so the cut cannot wait for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use dashmap::DashMap;
use foldhash::fast::RandomState;
use http_body::{Body as _, Frame};
use hyper::body::{Bytes, Incoming};
use uuid::Uuid;

use crate::a2a::Operation;
use crate::clock::Timestamp;
use crate::directory::Directory;
use crate::limit::Permit;
use crate::store::rows::AdminState;

/// Why the gateway ends a call that is being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// One side blocked the other, or the key was revoked, or the agent was taken out of service.
    Revoked,
    /// The gateway is shutting down.
    Draining,
    /// An operator ended this one call.
    Ended,
}

impl Cut {
    /// The word in the row's `reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Draining => "draining",
            Self::Ended => "ended_by_operator",
        }
    }
}

/// The one place an agent's answer comes through.
#[derive(Debug, Default)]
pub struct Tap(Mutex<TapState>);

#[derive(Debug, Default)]
struct TapState {
    upstream: Option<Incoming>,
    cut: Option<Cut>,
    waker: Option<Waker>,
    /// Its places are given back when the tap is closed: a reader that has stalled must not hold them after a cut.
    permit: Option<Permit>,
}

/// What came through the tap.
#[derive(Debug)]
pub enum Drawn {
    /// A frame, and whether the body is at its end with it.
    Frame(Frame<Bytes>, bool),
    /// The end.
    End,
    /// The agent broke off.
    Broken,
    /// The tap was closed from outside.
    Cut(Cut),
}

impl Tap {
    fn state(&self) -> MutexGuard<'_, TapState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets an answer flow, unless the tap has been closed meanwhile.
    pub fn attach(&self, upstream: Incoming) {
        let mut state = self.state();
        if state.cut.is_none() {
            state.upstream = Some(upstream);
        }
    }

    /// Closes the tap: the agent's connection is dropped now, and whoever waits for the answer is woken.
    pub fn cut(&self, why: Cut) {
        let (held, waker) = {
            let mut state = self.state();
            state.cut.get_or_insert(why);
            (state.let_go(), state.waker.take())
        };
        drop(held);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Lets go of the agent's connection and of the call's places.
    pub fn close(&self) {
        let held = self.state().let_go();
        drop(held);
    }

    /// Why the tap has been closed from outside, if it has.
    pub fn why_cut(&self) -> Option<Cut> {
        self.state().cut
    }

    /// Whether the tap has been closed; wakes the task when it is.
    pub fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<Cut> {
        let mut state = self.state();
        match state.cut {
            Some(cut) => Poll::Ready(cut),
            None => {
                state.remember(cx);
                Poll::Pending
            }
        }
    }

    /// The next frame of the answer.
    pub fn poll_draw(&self, cx: &mut Context<'_>) -> Poll<Drawn> {
        let mut state = self.state();
        if let Some(cut) = state.cut {
            return Poll::Ready(Drawn::Cut(cut));
        }
        let Some(upstream) = state.upstream.as_mut() else {
            return Poll::Ready(Drawn::End);
        };
        let drawn = match std::pin::Pin::new(&mut *upstream).poll_frame(cx) {
            Poll::Pending => {
                state.remember(cx);
                return Poll::Pending;
            }
            Poll::Ready(None) => Drawn::End,
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "agent broke off");
                Drawn::Broken
            }
            Poll::Ready(Some(Ok(frame))) => {
                // Nothing follows trailers, though not every kind of body knows.
                let last = upstream.is_end_stream() || frame.is_trailers();
                Drawn::Frame(frame, last)
            }
        };
        if !matches!(drawn, Drawn::Frame(_, false)) {
            state.upstream = None;
        }
        Poll::Ready(drawn)
    }
}

impl TapState {
    /// Takes out what is dropped once the state is no longer locked.
    fn let_go(&mut self) -> (Option<Incoming>, Option<Permit>) {
        (self.upstream.take(), self.permit.take())
    }

    fn remember(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

/// Who is in a call, so that a change in the directory finds it.
#[derive(Clone, Copy, Debug)]
pub struct Parties {
    /// The calling agent.
    pub caller: Option<Uuid>,
    /// Its key.
    pub credential: Option<Uuid>,
    /// The agent called.
    pub target: Uuid,
    /// The operation, where a connection let it in.
    pub connected_for: Option<Operation>,
}

/// Whether what a call between `parties` was allowed by is gone from `directory`, or over at `now`.
///
/// What a connection let in ends with it: once it is paused, ended, past its end or agreed for other operations, a caller
/// that would still be served as `verified` has to call anew, as what it is now.
#[must_use]
pub fn taken_back(directory: &Directory, parties: &Parties, now: Timestamp) -> Option<Cut> {
    let serves = directory.agent(parties.target).is_some_and(|agent| agent.state == AdminState::Active);
    let key_holds = parties.credential.is_none_or(|key| directory.key_holds(key, now));
    let idle = |id| directory.agent(id).is_some_and(|agent| agent.state != AdminState::Active);
    let connection = parties.caller.and_then(|caller| directory.connection(caller, parties.target));
    let blocked = connection.is_some_and(|connection| connection.blocked);
    let lost = parties.connected_for.is_some_and(|operation| {
        !connection.is_some_and(|connection| {
            let agreed = connection.operations_towards(parties.target);
            connection.in_force(now) && agreed.is_none_or(|agreed| agreed.allows(operation))
        })
    });
    (!serves || !key_holds || blocked || lost || parties.caller.is_some_and(idle)).then_some(Cut::Revoked)
}

/// The calls one worker is forwarding.
#[derive(Debug, Default)]
pub struct Live(DashMap<Uuid, (Parties, Arc<Tap>), RandomState>);

impl Live {
    /// Enters a call; it leaves when the guard is dropped. Its places are given back then, or when it is cut.
    #[must_use]
    pub fn enter(self: &Arc<Self>, request_id: Uuid, parties: Parties, permit: Permit) -> Entered {
        let tap = Arc::new(Tap(Mutex::new(TapState { permit: Some(permit), ..TapState::default() })));
        self.0.insert(request_id, (parties, Arc::clone(&tap)));
        Entered { live: Arc::clone(self), request_id, tap }
    }

    /// Cuts one call; whether it is among these.
    pub fn cut(&self, request_id: Uuid, why: Cut) -> bool {
        let tap = self.0.get(&request_id).map(|entry| Arc::clone(&entry.1));
        tap.map(|tap| tap.cut(why)).is_some()
    }

    /// Cuts every call for which `why` finds a reason.
    pub fn cut_where(&self, why: impl Fn(&Parties) -> Option<Cut>) {
        let doomed: Vec<(Arc<Tap>, Cut)> =
            self.0.iter().filter_map(|entry| why(&entry.0).map(|cut| (Arc::clone(&entry.1), cut))).collect();
        for (tap, cut) in doomed {
            tap.cut(cut);
        }
    }
}

/// A call's place among the live ones.
#[derive(Debug)]
pub struct Entered {
    live: Arc<Live>,
    request_id: Uuid,
    /// What its answer comes through.
    pub tap: Arc<Tap>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.tap.close();
        self.live.0.remove(&self.request_id);
    }
}
