//! The segments of one worker in order, intents paired with their outcomes.
//!
//! A call is over with its outcome, as a whole entry, or by not being carried into the next segment: then its outcome could not
//! be written. What was over at or before the position in the database is followed, but not handed on again.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use uuid::Uuid;

use super::batch::Gathering;
use super::losses::Losses;
use super::segment_reader::{Extent, Found, SegmentReader};
use crate::audit::gap::{Cause, Gap};
use crate::audit::journal::entry::{self, Kind};
use crate::audit::journal::segment::{FIRST, file_name};

/// A place in a worker's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// A segment that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) number: u64,
    pub(super) extent: Extent,
}

#[derive(Debug)]
pub(super) struct WorkerReader {
    pub(super) worker: u32,
    /// What was over there or before is in the database.
    resume: Place,
    /// The same as of now.
    stored: Place,
    at: Option<Reading>,
    /// Payloads of intents without an outcome yet.
    open: HashMap<Uuid, Box<[u8]>>,
    /// What could not be read.
    losses: Losses,
}

#[derive(Debug)]
struct Reading {
    number: u64,
    reader: SegmentReader,
    /// How many carried intents are still to come, and those that have.
    to_carry: u32,
    carried: HashSet<Uuid>,
    /// How many calls were begun before it, as its header says.
    begun: Option<u64>,
    /// The segment before it that was read.
    before: Option<u64>,
}

impl Reading {
    fn place(&self) -> Place {
        Place { segment: self.number, offset: self.reader.offset() }
    }
}

impl WorkerReader {
    pub(super) fn new(worker: u32, resume: Place) -> Self {
        Self { worker, resume, stored: resume, at: None, open: HashMap::new(), losses: Losses::default() }
    }

    /// Reads on until the batch is full or there is nothing more.
    pub(super) fn read(&mut self, dir: &Path, segments: &[Listed], out: &mut Gathering) -> io::Result<()> {
        while !out.full() {
            let Some(reading) = &mut self.at else {
                let Some(first) = segments.first() else { return Ok(()) };
                self.enter(dir, *first, out)?;
                continue;
            };
            let Some(listed) = segments.iter().find(|listed| listed.number == reading.number) else { return Ok(()) };
            match reading.reader.next(listed.extent)? {
                Found::Entry { kind, payload } => {
                    let place = reading.place();
                    let payload = reading.reader.bytes(payload);
                    let fresh = place > self.resume;
                    let mut last_carried = false;
                    self.losses.count(entry::begun(kind, payload));
                    if kind == Kind::Carried && reading.to_carry > 0 {
                        let id = entry::request_id(payload);
                        // Its beginning was lost, but the call is not.
                        self.losses.count(u64::from(id.is_some_and(|id| !self.open.contains_key(&id))));
                        reading.carried.extend(id);
                        reading.to_carry -= 1;
                        last_carried = reading.to_carry == 0;
                    }
                    match take(&mut self.open, kind, payload, fresh, out) {
                        Ok(()) => {}
                        // Its beginning is among what was lost before, and counted there.
                        Err(Senseless::Orphan) if self.losses.ever() => {}
                        Err(_) => {
                            let file = file_name(self.worker, place.segment);
                            let calls = entry::begun(kind, payload).max(u64::from(kind == Kind::Outcome));
                            self.losses.spoilt(place.segment);
                            if fresh {
                                let place = format!("{file} before byte {}: an entry makes no sense", place.offset);
                                out.gap(&Gap { cause: Cause::EntryUnreadable, place, calls: Some(calls) });
                            }
                        }
                    }
                    if last_carried {
                        self.behind_header(out);
                    }
                }
                Found::Nothing => match segments.iter().find(|listed| listed.number > reading.number) {
                    Some(next) => self.enter(dir, *next, out)?,
                    None => return Ok(()),
                },
                Found::Damage(from) => self.skip(from, listed.extent),
            }
        }
        Ok(())
    }

    /// Notes that everything up to there is in the database.
    pub(super) fn committed(&mut self, place: Place) {
        self.stored = place;
    }

    /// Reads once more what is not in the database.
    pub(super) fn go_back(&mut self) {
        *self = Self::new(self.worker, self.stored);
    }

    /// Ends the last segment: what is still open was interrupted.
    pub(super) fn interrupt_open(&mut self, out: &mut Gathering) {
        let open = std::mem::take(&mut self.open);
        interrupt(open, out);
        if let Some(gap) = self.losses.end() {
            out.gap(&gap);
        }
    }

    /// What was over there or before is in the database once everything handed on is. Never behind where it started.
    pub(super) fn place(&self) -> Option<Place> {
        self.at.as_ref().map(|reading| reading.place().max(self.resume))
    }

    /// Whether it reads a segment behind the one that the database knows of.
    pub(super) fn has_moved_on(&self) -> bool {
        self.place().is_some_and(|place| place.segment > self.stored.segment.max(FIRST))
    }

    /// Whether nothing of segment `number` is needed any more. The database has to stand behind it: a place in a segment that is
    /// gone would be taken for a loss.
    pub(super) fn is_past(&self, number: u64) -> bool {
        let behind = |reading: &Reading| number < self.stored.segment && reading.to_carry == 0;
        // What is lost there is found again until it is a gap in the log.
        self.at.as_ref().is_some_and(behind) && !self.losses.is_pending()
    }

    pub(super) fn is_damaged(&self, number: u64) -> bool {
        self.losses.spoils(number)
    }

    /// The segment that is read, while a gap waits for the header of the next one.
    pub(super) fn waits_in(&self) -> Option<u64> {
        self.at.as_ref().filter(|_| self.losses.is_pending()).map(|reading| reading.number)
    }

    fn enter(&mut self, dir: &Path, listed: Listed, out: &mut Gathering) -> io::Result<()> {
        let Listed { number, extent } = listed;
        let name = file_name(self.worker, number);
        let mut reader = SegmentReader::open(&dir.join(&name))?;
        let header = reader.header(extent)?;
        let before = self.at.as_ref().map(|reading| reading.number);
        let (to_carry, begun) = header.map_or((0, None), |header| (header.carried, header.begun));
        // Where the database stands is always in a segment that is still there; at first, in none.
        let from = self.resume.segment.max(FIRST);
        if before.is_none() && (number == FIRST || self.resume == Place::default()) {
            self.losses.begin();
        }
        let due = before.map_or(from, |before| before + 1);
        if due < number && begun.is_some() {
            self.losses.note(Cause::SegmentMissing, due, &missing(self.worker, due, number - 1));
        }
        let (gone, written) = (reader.is_gone(), reader.is_written());
        if header.is_none() {
            reader.skip_to(extent.end());
        }
        self.at = Some(Reading { number, reader, to_carry, carried: HashSet::new(), begun, before });
        match header {
            Some(_) if to_carry == 0 => self.behind_header(out),
            Some(_) => {}
            None if gone => self.losses.note(Cause::SegmentMissing, number, &missing(self.worker, number, number)),
            None if written => self.skip(0, extent),
            // It was never written, and says nothing of what is open.
            None => {}
        }
        Ok(())
    }

    /// Behind the header and what was carried over: whatever is missing before it is known now.
    fn behind_header(&mut self, out: &mut Gathering) {
        let Some(reading) = &mut self.at else { return };
        let carried = std::mem::take(&mut reading.carried);
        let fresh = reading.place() > self.resume;
        // A call that is not among the carried ones will have no outcome.
        let given_up = self.open.extract_if(|id, _| !carried.contains(id)).collect();
        let name = reading.before.map(|before| file_name(self.worker, before));
        let gap = self.losses.settle(reading.begun, reading.before.zip(name.as_deref()));
        if fresh {
            interrupt(given_up, out);
            if let Some(gap) = gap {
                out.gap(&gap);
            }
        }
    }

    /// Goes on behind what cannot be read, which begins at `from`.
    fn skip(&mut self, from: u64, extent: Extent) {
        let (worker, resume) = (self.worker, self.resume);
        let Some(reading) = &mut self.at else { return };
        let (number, end) = (reading.number, extent.end());
        let name = file_name(worker, number);
        tracing::error!(file = name, from, "the journal is damaged: calls may be missing; the file is kept aside");
        if resume.segment == number && (from + 1..end).contains(&resume.offset) {
            // When it was read before, it was readable up to there, or could be read again from there on.
            reading.reader.skip_to(resume.offset);
            self.losses.note(Cause::SegmentDamaged, number, &format!("{name} from byte {from} to {}", resume.offset));
            self.losses.lose_count();
        } else {
            reading.reader.skip_to(end);
            self.losses.note(Cause::SegmentDamaged, number, &format!("{name} from byte {from}"));
        }
    }
}

/// Segments that are not there, in words.
fn missing(worker: u32, first: u64, last: u64) -> String {
    let (from, to) = (file_name(worker, first), file_name(worker, last));
    if first == last { format!("{from} is missing") } else { format!("{from} to {to} are missing") }
}

/// Why an entry makes no row.
enum Senseless {
    /// It ends a call that never began.
    Orphan,
    /// It cannot be read.
    Unreadable,
}

/// Takes an entry.
fn take(
    open: &mut HashMap<Uuid, Box<[u8]>>,
    kind: Kind,
    payload: &[u8],
    fresh: bool,
    out: &mut Gathering,
) -> Result<(), Senseless> {
    let id = entry::request_id(payload).ok_or(Senseless::Unreadable)?;
    match kind {
        Kind::Intent | Kind::Carried => {
            open.insert(id, payload.into());
            Ok(())
        }
        Kind::Outcome => {
            let intent = open.remove(&id).ok_or(Senseless::Orphan)?;
            if fresh { out.add(&intent, Some(payload)).ok_or(Senseless::Unreadable) } else { Ok(()) }
        }
        Kind::Whole if fresh => out.add(payload, None).ok_or(Senseless::Unreadable),
        Kind::Whole => Ok(()),
    }
}

fn interrupt(open: HashMap<Uuid, Box<[u8]>>, out: &mut Gathering) {
    let mut open: Vec<_> = open.into_iter().collect();
    open.sort_unstable_by_key(|(id, _)| *id);
    for (id, intent) in open {
        if out.add(&intent, None).is_none() {
            let place = format!("the beginning of call {id} makes no sense");
            out.gap(&Gap { cause: Cause::EntryUnreadable, place, calls: Some(1) });
        }
    }
}
