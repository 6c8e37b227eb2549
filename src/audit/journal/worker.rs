//! Appending to the journal: what a worker does on the path of a call. No waiting, no allocation that is not reused; only a
//! rotation touches the disk, once in many thousand calls.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use tokio::sync::Notify;
use uuid::Uuid;

use super::entry::{self, ENTRY_MAX, Kind, OUTCOME_MAX, Opened};
use super::flush::{Chunk, Pending};
use super::fold::{Folds, Place, RefusalKind};
use super::group::{Group, JournalDown, Written};
use super::open_record::OpenRecord;
use super::segment::{FIRST, HEADER, Header, Segment};
use super::{Common, JournalFull, SegmentEnd};
use crate::audit::record::{Intent, Outcome};
use crate::clock::Timestamp;
use crate::trust::TrustLevel;

/// How long a failed attempt to make a segment is not repeated.
const RETRY_NANOS: u64 = 250_000_000;
/// How much of a segment may be taken up by what is carried into it: as much again is left free.
const ROOM_FACTOR: u64 = 2;

/// The journal of one worker.
pub struct WorkerJournal {
    pub(super) common: Arc<Common>,
    worker: u32,
    pub(super) state: Mutex<State>,
    /// Held while a turn is written, so that turns reach the file in order. Always taken before `state`.
    pub(super) turn: Mutex<()>,
    /// The segments that can be read, oldest first.
    pub(super) segments: Mutex<Vec<SegmentEnd>>,
    pub(super) appended: Notify,
    /// To the thread that syncs, with [`super::Durability::Disk`].
    pub(super) syncer: Option<mpsc::Sender<Pending>>,
}

/// The segment that is appended to.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) segment: Arc<Segment>,
    /// Where in it the buffer begins.
    pub(super) offset: u64,
}

#[derive(Debug)]
pub(super) struct Down {
    pub(super) since: Timestamp,
    pub(super) why: String,
    /// No attempt before this reading of the clock.
    pub(super) retry_at: u64,
}

pub(super) struct State {
    /// `None` after a failed write: nothing may be appended to what may be half there.
    pub(super) current: Option<Current>,
    pub(super) next_number: u64,
    /// How many calls were begun: those that a later segment's header counts. What was given up is not among them.
    pub(super) begun: u64,
    /// As many of them can be read.
    pub(super) published: u64,
    /// What will be written at the end of `current`.
    pub(super) buffer: Vec<u8>,
    /// What will be written before that, to segments already left.
    pub(super) sealed: Vec<Chunk>,
    /// An empty buffer with room in it.
    pub(super) spare: Vec<u8>,
    /// Those who wait for the turn being gathered.
    pub(super) group: Option<Arc<Group>>,
    /// The calls that are open, by slot.
    pub(super) calls: Vec<Option<Opened>>,
    free: Vec<u32>,
    pub(super) folds: Folds,
    /// Raised when a write fails: whatever was under way then has failed with it.
    pub(super) epoch: u64,
    /// Turns that have been taken and not yet resolved.
    pub(super) in_flight: usize,
    /// Segments that may hold more than can be read yet.
    pub(super) unpublished: Vec<Arc<Segment>>,
    /// Segments to be cut back to what can be read, before anything is written again.
    pub(super) broken: Vec<Arc<Segment>>,
    pub(super) down: Option<Down>,
    pub(super) stopped: bool,
}

impl State {
    fn new() -> Self {
        Self {
            current: None,
            next_number: FIRST,
            begun: 0,
            published: 0,
            buffer: Vec::new(),
            sealed: Vec::new(),
            spare: Vec::new(),
            group: None,
            calls: Vec::new(),
            free: Vec::new(),
            folds: Folds::new(),
            epoch: 0,
            in_flight: 0,
            unpublished: Vec::new(),
            broken: Vec::new(),
            down: None,
            stopped: false,
        }
    }

    fn open_calls(&self) -> usize {
        self.calls.len() - self.free.len()
    }

    /// Whether the buffer and the outcomes of `calls` open calls have room in the segment.
    fn fits(&self, calls: usize) -> bool {
        self.current.as_ref().is_some_and(|current| {
            let taken = self.buffer.len() + calls * OUTCOME_MAX;
            current.offset + taken as u64 <= current.segment.capacity
        })
    }

    fn insert(&mut self, opened: Opened) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.calls[slot as usize] = Some(opened);
            return slot;
        }
        self.calls.push(Some(opened));
        u32::try_from(self.calls.len() - 1).expect("fewer calls are open than there are file descriptors")
    }

    fn remove(&mut self, slot: u32) -> Option<Opened> {
        let opened = self.calls.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        Some(opened)
    }

    /// The group of the turn being gathered, and whether this append is its first.
    fn join(&mut self) -> (Arc<Group>, bool) {
        match &self.group {
            Some(group) => (Arc::clone(group), false),
            None => (Arc::clone(self.group.insert(Arc::default())), true),
        }
    }
}

impl WorkerJournal {
    pub(super) fn create(common: Arc<Common>, worker: u32) -> io::Result<Arc<Self>> {
        let (syncer, syncs) = common.disk().then(mpsc::channel).unzip();
        let this = Arc::new(Self {
            common,
            worker,
            state: Mutex::new(State::new()),
            turn: Mutex::new(()),
            segments: Mutex::new(Vec::new()),
            appended: Notify::new(),
            syncer,
        });
        if let Some(syncs) = syncs {
            super::flush::spawn_syncer(&this, syncs)?;
        }
        this.try_rotate(&mut this.lock())?;
        this.lock().join();
        this.flush();
        Ok(this)
    }

    /// Whether there is room for calls of this level.
    ///
    /// # Errors
    /// When what is left is kept for others: the call is to be refused.
    pub fn admits(&self, level: TrustLevel) -> Result<(), JournalFull> {
        self.common.budget.admits(level)
    }

    /// Appends an intent, without waiting. `request_bytes` is what the row will say if the call never ends properly.
    ///
    /// # Errors
    /// When the journal cannot take it and the room for its outcome: the call must not be let through.
    pub fn open(self: &Arc<Self>, intent: Intent, request_bytes: u64) -> Result<OpenRecord, JournalDown> {
        let opened = Opened::new(intent, request_bytes, self.common.config.full_addresses);
        let request_id = opened.intent.request_id;
        let mut state = self.lock();
        let outcomes = state.open_calls() + 1;
        self.append(&mut state, outcomes, |buffer| entry::write_intent(buffer, Kind::Intent, &opened))?;
        let slot = state.insert(opened);
        state.begun += 1;
        let group = self.appended(state);
        Ok(OpenRecord { journal: Arc::clone(self), slot: Some(slot), request_id, group })
    }

    /// Appends a refusal, intent and outcome at once. Under a flood it may share the entry of another one, whose request id is
    /// then the one to answer with: it finds the row.
    ///
    /// # Errors
    /// When the journal cannot take it, or has no room for refusals of this level: the call may only be answered with 503.
    pub fn refuse(self: &Arc<Self>, intent: Intent, outcome: Outcome) -> Result<Refused, JournalDown> {
        if !self.common.budget.records(intent.trust_level) {
            return Err(JournalDown);
        }
        let opened = Opened::new(intent, outcome.request_bytes, self.common.config.full_addresses);
        let kind = RefusalKind {
            source: opened.address,
            target: opened.intent.target_agent_id,
            caller: opened.intent.caller_agent_id,
            reason: outcome.reason.or(opened.intent.reason),
        };
        let second = self.common.clock.nanos() / 1_000_000_000;
        let mut state = self.lock();
        let place = state.folds.place(second, &kind, outcome.calls);
        let mut request_id = opened.intent.request_id;
        match place {
            Place::Joined(id) => request_id = id,
            Place::Own | Place::Share => {
                let outcomes = state.open_calls();
                let start =
                    self.append(&mut state, outcomes, |buffer| entry::write_whole(buffer, &opened, &outcome))?;
                if place == Place::Share {
                    let end = state.buffer.len();
                    state.folds.share(&kind, request_id, start, end, outcome.calls);
                }
            }
        }
        state.begun += u64::from(outcome.calls);
        let group = self.appended(state);
        Ok(Refused { request_id, written: Written::of(group) })
    }

    /// Ends the flusher after everything appended so far is written. Calls that are still open can be closed afterwards; new
    /// ones are refused.
    pub fn shutdown(&self) {
        self.lock().stopped = true;
        self.appended.notify_one();
    }

    pub(super) fn close(&self, slot: u32, request_id: Uuid, outcome: &Outcome) -> Written {
        let mut state = self.lock();
        if state.remove(slot).is_none() || state.current.is_none() {
            // The next segment does not carry the call, which is how the drain learns that it was given up.
            return Written::failed();
        }
        // The room was reserved by the intent.
        entry::write_outcome(&mut state.buffer, request_id, outcome);
        Written::of(self.appended(state))
    }

    /// Appends an entry if afterwards there is room for `outcomes` outcomes, in a new segment if need be; returns where in the
    /// buffer it starts.
    fn append(&self, state: &mut State, outcomes: usize, write: impl Fn(&mut Vec<u8>)) -> Result<usize, JournalDown> {
        if state.stopped {
            return Err(JournalDown);
        }
        for rotated in [false, true] {
            let start = state.buffer.len();
            if state.current.is_some() {
                write(&mut state.buffer);
                if state.fits(outcomes) {
                    return Ok(start);
                }
                state.buffer.truncate(start);
            }
            if !rotated {
                self.rotate(state)?;
            }
        }
        Err(JournalDown)
    }

    /// After an append: whoever waits does so in this group; the first one wakes the flusher.
    fn appended(&self, mut state: MutexGuard<'_, State>) -> Arc<Group> {
        let (group, first) = state.join();
        let stopped = state.stopped;
        drop(state);
        if stopped {
            // The flusher may have gone.
            self.flush();
        } else if first {
            self.appended.notify_one();
        }
        group
    }

    fn rotate(&self, state: &mut State) -> Result<(), JournalDown> {
        let now = self.common.clock.nanos();
        if state.down.as_ref().is_some_and(|down| now < down.retry_at) {
            return Err(JournalDown);
        }
        match self.try_rotate(state) {
            Ok(()) => {
                if let Some(down) = state.down.take() {
                    tracing::info!(worker = self.worker, since = %down.since, "the journal can be written again");
                }
                Ok(())
            }
            Err(error) => {
                self.mark_down(state, &error);
                Err(JournalDown)
            }
        }
    }

    /// Makes a new segment if the journal is down and it is time to try again.
    pub(super) fn mend(&self) {
        let mut state = self.lock();
        if state.down.is_some() && !state.stopped {
            // A failure is the answer to whoever asks next.
            let _ = self.rotate(&mut state);
        }
    }

    pub(super) fn mark_down(&self, state: &mut State, error: &io::Error) {
        let since = state.down.as_ref().map(|down| down.since);
        if since.is_none() {
            let dir = self.common.dir.display();
            tracing::error!(worker = self.worker, %error, "the journal in {dir} cannot be written: calls are refused");
        }
        state.down = Some(Down {
            since: since.unwrap_or_else(|| self.common.clock.wall()),
            why: format!("{}: {error}", self.common.dir.display()),
            retry_at: self.common.clock.nanos().saturating_add(RETRY_NANOS),
        });
    }

    /// Makes a new segment the current one, with every open call carried into it.
    fn try_rotate(&self, state: &mut State) -> io::Result<()> {
        if state.current.is_none() {
            self.repair(state)?;
        }
        let open = state.open_calls();
        let header = Header {
            instance: self.common.instance,
            node_id: self.common.config.node_id,
            worker: self.worker,
            number: state.next_number,
            carried: u32::try_from(open).map_err(io::Error::other)?,
            begun: Some(state.begun),
        };
        let mut head = std::mem::take(&mut state.spare);
        head.clear();
        head.extend_from_slice(&header.to_bytes());
        for opened in state.calls.iter().flatten() {
            entry::write_intent(&mut head, Kind::Carried, opened);
        }
        let taken = (head.len() + (open + 1) * OUTCOME_MAX + ENTRY_MAX) as u64;
        let capacity = self.common.config.segment_bytes.max(taken * ROOM_FACTOR).max(HEADER as u64);
        let segment = Arc::new(self.make(header.number, capacity)?);
        state.next_number += 1;
        self.seal(state);
        state.buffer = head;
        state.unpublished.push(Arc::clone(&segment));
        state.current = Some(Current { segment, offset: 0 });
        Ok(())
    }

    /// Makes a segment of `capacity` bytes, within the budget.
    fn make(&self, number: u64, capacity: u64) -> io::Result<Segment> {
        let Common { budget, dir, .. } = &*self.common;
        // Without its first one a worker could do nothing, and a gateway that starts where everything is full would stay so.
        match number {
            FIRST => budget.take_first(capacity),
            _ => budget.take(capacity)?,
        }
        #[cfg(test)]
        self.common.faults.on_create().inspect_err(|_| budget.give_back(capacity))?;
        Segment::create(dir, self.worker, number, capacity, self.common.disk())
            .inspect_err(|_| budget.give_back(capacity))
    }

    /// Puts the buffer among what is to be written.
    pub(super) fn seal(&self, state: &mut State) {
        let State { buffer, folds, current, sealed, spare, .. } = state;
        folds.seal(buffer);
        if let Some(current) = current
            && !buffer.is_empty()
        {
            let bytes = std::mem::replace(buffer, std::mem::take(spare));
            buffer.clear();
            let offset = current.offset;
            current.offset += bytes.len() as u64;
            sealed.push(Chunk { segment: Arc::clone(&current.segment), offset, bytes });
        }
    }

    /// Leaves segment `number` for a fresh one: it is damaged. Its calls that are open are carried over, and the header of the
    /// fresh one says how many there must have been.
    pub(super) fn leave(&self, number: u64) {
        let mut state = self.lock();
        if state.current.as_ref().is_some_and(|current| current.segment.number == number)
            && !state.stopped
            && self.rotate(&mut state).is_ok()
        {
            drop(self.appended(state));
        }
    }

    pub(super) fn active(&self) -> Vec<Intent> {
        self.lock().calls.iter().flatten().map(|opened| opened.intent.clone()).collect()
    }

    pub(super) fn down(&self) -> Option<(Timestamp, String)> {
        self.lock().down.as_ref().map(|down| (down.since, down.why.clone()))
    }

    pub(super) fn number(&self) -> u32 {
        self.worker
    }

    pub(super) fn ended(&self) -> bool {
        let state = self.lock();
        state.stopped && state.open_calls() == 0 && state.group.is_none() && state.in_flight == 0
    }

    pub(super) fn segments(&self) -> Vec<SegmentEnd> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn forget(&self, number: u64) {
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in segments.extract_if(.., |segment| segment.number == number) {
            self.common.budget.give_back(gone.room);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for WorkerJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerJournal").field("worker", &self.worker).finish_non_exhaustive()
    }
}

/// A refusal that was appended.
#[derive(Debug)]
pub struct Refused {
    /// The request id of the row.
    pub request_id: Uuid,
    /// When it is durable.
    pub written: Written,
}
