//! Writing what was appended: one write per turn, one wake per turn, and with [`super::Durability::Disk`] one sync for as many
//! turns as gathered during the sync before.
//!
//! When a write or a sync fails, everything that was under way fails with it, the segments are cut back to what was durable
//! before, and the journal starts a fresh segment when it can. So nothing that a caller was told had failed is found later as
//! done. Only a crash between the failure and the cut can leave such an entry behind.

use std::fs::OpenOptions;
use std::io;
use std::sync::{Arc, PoisonError, Weak, mpsc};

use super::SegmentEnd;
use super::group::{Group, JournalDown};
use super::segment::Segment;
use super::worker::{State, WorkerJournal};

/// The largest buffer that is kept for reuse.
const SPARE_MAX: usize = 1 << 20;

/// Bytes and where they go.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

/// A turn: what was appended since the one before.
#[derive(Debug)]
pub(super) struct Pending {
    chunks: Vec<Chunk>,
    group: Arc<Group>,
    epoch: u64,
    /// How many calls were begun by its end.
    begun: u64,
}

impl WorkerJournal {
    /// Writes whatever is appended, until [`WorkerJournal::shutdown`]. Runs on the worker's own runtime: it yields once after
    /// it was woken, so that everybody who is ready joins the turn.
    pub async fn run_flusher(self: Arc<Self>) {
        loop {
            self.appended.notified().await;
            let stopped = self.lock().stopped;
            if !stopped {
                tokio::task::yield_now().await;
            }
            self.flush();
            if stopped {
                return;
            }
        }
    }

    /// Writes what was appended so far. What waits for it is told now, or after the sync.
    pub fn flush(&self) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pending) = self.take() else { return };
        let mut result = Ok(());
        for chunk in &pending.chunks {
            result = result.and_then(|()| self.write(chunk));
        }
        match &self.syncer {
            Some(syncer) if result.is_ok() => {
                if let Err(mpsc::SendError(pending)) = syncer.send(pending) {
                    self.resolve(pending, Err(io::Error::other("the thread that syncs the journal has died")));
                }
            }
            _ => self.resolve(pending, result),
        }
    }

    fn write(&self, chunk: &Chunk) -> io::Result<()> {
        #[cfg(test)]
        self.common.faults.on_write(chunk)?;
        chunk.segment.write(&chunk.bytes, chunk.offset)
    }

    fn take(&self) -> Option<Pending> {
        let mut state = self.lock();
        let group = state.group.take()?;
        self.seal(&mut state);
        state.in_flight += 1;
        let chunks = std::mem::take(&mut state.sealed);
        Some(Pending { chunks, group, epoch: state.epoch, begun: state.begun })
    }

    /// Ends a turn: its entries can be read from now on, or never.
    fn resolve(&self, mut pending: Pending, result: io::Result<()>) {
        let mut state = self.lock();
        state.in_flight -= 1;
        let abandoned = match result {
            // A turn before this one failed: this one continues what is not there.
            _ if pending.epoch != state.epoch => Some(None),
            Ok(()) => {
                self.publish(&mut state, &pending.chunks);
                state.published = pending.begun;
                None
            }
            Err(error) => Some(self.abandon(&mut state, &error)),
        };
        if let Some(chunk) = pending.chunks.pop()
            && state.spare.capacity() == 0
            && chunk.bytes.capacity() <= SPARE_MAX
        {
            state.spare = chunk.bytes;
            state.spare.clear();
        }
        drop(state);
        match abandoned {
            None => {
                pending.group.complete(Ok(()));
                self.common.readable.notify_one();
            }
            Some(gathering) => {
                pending.group.complete(Err(JournalDown));
                if let Some(group) = gathering {
                    group.complete(Err(JournalDown));
                }
            }
        }
    }

    fn publish(&self, state: &mut State, chunks: &[Chunk]) {
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in chunks {
            let (number, room) = (chunk.segment.number, chunk.segment.capacity);
            let end = chunk.offset + chunk.bytes.len() as u64;
            match segments.iter_mut().find(|segment| segment.number == number) {
                Some(segment) => segment.end = end,
                None => segments.push(SegmentEnd { number, end, room }),
            }
            state.unpublished.retain(|segment| segment.number >= number);
        }
    }

    /// Gives up everything under way; returns those who wait for the turn being gathered.
    fn abandon(&self, state: &mut State, error: &io::Error) -> Option<Arc<Group>> {
        state.epoch += 1;
        state.current = None;
        state.buffer.clear();
        state.sealed.clear();
        state.folds.forget();
        state.begun = state.published;
        let unpublished = std::mem::take(&mut state.unpublished);
        state.broken.extend(unpublished);
        self.mark_down(state, error);
        if let Err(error) = self.repair(state) {
            tracing::error!(worker = self.number(), %error, "a failed write cannot be undone yet");
        }
        state.group.take()
    }

    /// Cuts the segments that a failed write went to back to what can be read. Nothing is written before that.
    pub(super) fn repair(&self, state: &mut State) -> io::Result<()> {
        if state.in_flight > 0 {
            return Err(io::Error::other("writes that failed are still under way"));
        }
        while let Some(segment) = state.broken.last() {
            #[cfg(test)]
            self.common.faults.on_repair()?;
            let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
            match segments.iter_mut().find(|published| published.number == segment.number) {
                Some(published) => {
                    // Through a new handle: the old one may remember the failure of a sync.
                    let file = OpenOptions::new().write(true).open(&segment.path)?;
                    file.set_len(published.end)?;
                    if self.common.disk() {
                        file.sync_all()?;
                    }
                    self.common.budget.give_back(published.room.saturating_sub(published.end));
                    published.room = published.end;
                }
                None => match std::fs::remove_file(&segment.path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {
                        self.common.budget.give_back(segment.capacity);
                        // The next has its number: in what is left no number is missing.
                        state.next_number = state.next_number.min(segment.number);
                    }
                },
            }
            state.broken.pop();
        }
        Ok(())
    }
}

/// Starts the thread that syncs; it ends with the journal.
pub(super) fn spawn_syncer(journal: &Arc<WorkerJournal>, turns: mpsc::Receiver<Pending>) -> io::Result<()> {
    let journal = Arc::downgrade(journal);
    let name = "journal-sync".to_owned();
    std::thread::Builder::new().name(name).spawn(move || sync_turns(&journal, &turns)).map(drop)
}

fn sync_turns(journal: &Weak<WorkerJournal>, turns: &mpsc::Receiver<Pending>) {
    while let Ok(first) = turns.recv() {
        let Some(journal) = journal.upgrade() else { return };
        let gathered: Vec<Pending> = std::iter::once(first).chain(turns.try_iter()).collect();
        let mut synced = None;
        let mut result = Ok(());
        for segment in gathered.iter().flat_map(|turn| &turn.chunks).map(|chunk| &chunk.segment) {
            if synced != Some(segment.number) {
                synced = Some(segment.number);
                result = result.and_then(|()| journal.sync(segment));
            }
        }
        for turn in gathered {
            let result = match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            journal.resolve(turn, result);
        }
    }
}

impl WorkerJournal {
    fn sync(&self, segment: &Segment) -> io::Result<()> {
        #[cfg(test)]
        self.common.faults.on_sync()?;
        segment.file.sync_data()
    }
}
