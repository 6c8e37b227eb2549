//! The way of log lines to their reader: a queue of bounded size that one thread empties.
//!
//! Promises: who logs never waits for the reader, neither a slow one nor one that reads no more; what finds no room is dropped
//! as a whole line, counted, and told where it is missing as soon as the reader takes lines again. Must not know what a line says.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// What may wait: seconds of a busy gateway's access lines, and nothing that its memory is planned with.
const ROOM: usize = 4 << 20;

/// From here on a write is large enough; nothing is gained by gathering more.
const BATCH: usize = 64 << 10;

/// How long lines are gathered into one write: for people it is at once, for a busy gateway it saves most of the writes.
const GATHERING: Duration = Duration::from_millis(2);

/// The target of the one event that tells of lost lines, which has room when others have none.
pub(super) const LOSS: &str = "trust_gateway::telemetry";

/// Lines on their way to one reader.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    room: usize,
    /// Something for the thread that writes.
    work: Condvar,
    /// Everything there was has been written.
    done: Condvar,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    lines: Vec<u8>,
    thread: Thread,
    /// The program ends: nothing is gathered any more.
    ending: bool,
}

/// What the thread that writes is doing; it is woken only where that matters, since waking costs a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thread {
    Asleep,
    Gathering,
    Writing,
}

impl Queue {
    /// Starts the thread that writes to `out`. It calls `tell` with the number of lines lost since the last time.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start<W, T>(out: W, tell: T) -> io::Result<Self>
    where
        W: io::Write + Send + 'static,
        T: Fn(&Self, u64) + Send + 'static,
    {
        Self::with_room(ROOM, out, tell)
    }

    fn with_room<W, T>(room: usize, mut out: W, tell: T) -> io::Result<Self>
    where
        W: io::Write + Send + 'static,
        T: Fn(&Self, u64) + Send + 'static,
    {
        let waiting = Waiting { lines: Vec::new(), thread: Thread::Writing, ending: false };
        let queue = Self(Arc::new(Shared {
            waiting: Mutex::new(waiting),
            room,
            work: Condvar::new(),
            done: Condvar::new(),
            lost: AtomicU64::new(0),
        }));
        let this = queue.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || this.write(&mut out, &tell))?;
        Ok(queue)
    }

    /// How many lines were dropped since the start.
    pub(super) fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Adds a line, or drops and counts it.
    pub(super) fn put(&self, line: &[u8]) {
        self.put_into(self.0.room, line);
    }

    /// Adds a line although there may be no room: for the few that must not be lost.
    pub(super) fn put_in_any_case(&self, line: &[u8]) {
        self.put_into(usize::MAX, line);
    }

    fn put_into(&self, room: usize, line: &[u8]) {
        let mut waiting = self.waiting();
        let length = waiting.lines.len().saturating_add(line.len());
        if length > room {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.lines.extend_from_slice(line);
        let next = match waiting.thread {
            Thread::Asleep => Thread::Gathering,
            Thread::Gathering if length >= BATCH => Thread::Writing,
            _ => return,
        };
        waiting.thread = next;
        drop(waiting);
        self.0.work.notify_one();
    }

    /// Waits until everything is written, but no longer than `limit`: a reader that reads no more must not hold up the end.
    pub(super) fn finish(&self, limit: Duration) {
        let mut waiting = self.waiting();
        waiting.ending = true;
        self.0.work.notify_one();
        let busy = |waiting: &mut Waiting| !waiting.lines.is_empty() || waiting.thread != Thread::Asleep;
        let _ = self.0.done.wait_timeout_while(waiting, limit, busy).unwrap_or_else(PoisonError::into_inner);
    }

    fn write(&self, out: &mut impl io::Write, tell: &impl Fn(&Self, u64)) {
        let mut batch = Vec::new();
        let mut told = 0;
        loop {
            self.take(&mut batch);
            match write_all(out, &batch) {
                // Now, because what was lost comes after all that waits, and nothing is lost that is not told in its place.
                Ok(()) => {
                    let lost = self.lost();
                    if lost > told {
                        tell(self, lost - told);
                        told = lost;
                    }
                }
                // Not told now: nobody would read it.
                Err(rest) => {
                    let lines = memchr::memchr_iter(b'\n', rest).count();
                    self.0.lost.fetch_add(lines as u64, Ordering::Relaxed);
                }
            }
            batch.clear();
            batch.shrink_to(BATCH);
        }
    }

    /// Waits for lines, and takes all there are.
    fn take(&self, batch: &mut Vec<u8>) {
        let mut waiting = self.waiting();
        if waiting.lines.is_empty() {
            waiting.thread = Thread::Asleep;
            self.0.done.notify_all();
            let empty = |waiting: &mut Waiting| waiting.lines.is_empty();
            waiting = self.0.work.wait_while(waiting, empty).unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.lines.len() < BATCH && !waiting.ending {
            waiting.thread = Thread::Gathering;
            let few = |waiting: &mut Waiting| waiting.lines.len() < BATCH && !waiting.ending;
            let gathered = self.0.work.wait_timeout_while(waiting, GATHERING, few);
            waiting = gathered.unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.thread = Thread::Writing;
        std::mem::swap(&mut waiting.lines, batch);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A line is added as a whole or not at all: whoever panicked has left nothing half done.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all of it, or returns what could not be written.
fn write_all<'a>(out: &mut impl io::Write, mut rest: &'a [u8]) -> Result<(), &'a [u8]> {
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => return Err(rest),
            Ok(written) => rest = &rest[written..],
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                // Somebody who has the same pipe made it one that does not wait.
                io::ErrorKind::WouldBlock => thread::sleep(GATHERING),
                _ => return Err(rest),
            },
        }
    }
    Ok(())
}

/// Where the events of a subscriber go: each of them is written as one.
pub(super) struct Line<'a> {
    queue: &'a Queue,
    in_any_case: bool,
}

impl io::Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.in_any_case {
            self.queue.put_in_any_case(line);
        } else {
            self.queue.put(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { queue: self, in_any_case: false }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line<'a> {
        Line { queue: self, in_any_case: event.target() == LOSS }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
