//! The segments of one worker in order, intents paired with their outcomes.
//!
//! A call is over with its outcome, as a whole entry, or by not being carried into the next segment: then its outcome could not
//! be written. What was over at or before the position in the database is followed, but not handed on again.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use uuid::Uuid;

use super::batch::Gathering;
use super::segment_reader::{Extent, Found, SegmentReader};
use crate::audit::journal::entry::{self, Kind};
use crate::audit::journal::segment::file_name;

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
    at: Option<Reading>,
    /// Payloads of intents without an outcome yet.
    open: HashMap<Uuid, Box<[u8]>>,
    /// Segments that hold something that could not be read.
    damaged: HashSet<u64>,
}

#[derive(Debug)]
struct Reading {
    number: u64,
    reader: SegmentReader,
    /// How many carried intents are still to come, and those that have.
    to_carry: u32,
    carried: HashSet<Uuid>,
}

impl Reading {
    fn place(&self) -> Place {
        Place { segment: self.number, offset: self.reader.offset() }
    }
}

impl WorkerReader {
    pub(super) fn new(worker: u32, resume: Place) -> Self {
        Self { worker, resume, at: None, open: HashMap::new(), damaged: HashSet::new() }
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
                    if take(&mut self.open, kind, payload, fresh, out).is_none() {
                        let file = dir.join(file_name(self.worker, place.segment));
                        tracing::error!(file = %file.display(), before = place.offset, ?kind, "an entry does not make a row");
                        self.damaged.insert(place.segment);
                    }
                    if kind == Kind::Carried && reading.to_carry > 0 {
                        reading.carried.extend(entry::request_id(payload));
                        reading.to_carry -= 1;
                        if reading.to_carry == 0 {
                            self.give_up_the_rest(out);
                        }
                    }
                }
                Found::Nothing => match segments.iter().find(|listed| listed.number > reading.number) {
                    Some(next) => self.enter(dir, *next, out)?,
                    None => return Ok(()),
                },
                Found::Damage => self.note_damage(dir, listed.number),
            }
        }
        Ok(())
    }

    /// Ends the last segment: what is still open was interrupted.
    pub(super) fn interrupt_open(&mut self, out: &mut Gathering) {
        let open = std::mem::take(&mut self.open);
        interrupt(open, out);
    }

    /// What was over there or before is in the database once everything handed on is. Never behind where it started.
    pub(super) fn place(&self) -> Option<Place> {
        self.at.as_ref().map(|reading| reading.place().max(self.resume))
    }

    /// Whether nothing of segment `number` is needed any more, once everything handed on is in the database.
    pub(super) fn is_past(&self, number: u64) -> bool {
        self.at.as_ref().is_some_and(|reading| number < reading.number && reading.to_carry == 0)
    }

    pub(super) fn is_damaged(&self, number: u64) -> bool {
        self.damaged.contains(&number)
    }

    fn enter(&mut self, dir: &Path, listed: Listed, out: &mut Gathering) -> io::Result<()> {
        let mut reader = SegmentReader::open(&dir.join(file_name(self.worker, listed.number)))?;
        let header = reader.header(listed.extent)?;
        let to_carry = header.map_or(0, |header| header.carried);
        if header.is_none() {
            // Without a header the segment was never written, and says nothing of what is open.
            let written = reader.is_written();
            reader.skip_to(listed.extent.end());
            if written {
                self.note_damage(dir, listed.number);
            }
        }
        self.at = Some(Reading { number: listed.number, reader, to_carry, carried: HashSet::new() });
        if header.is_some() && to_carry == 0 {
            self.give_up_the_rest(out);
        }
        Ok(())
    }

    /// After the carried intents: a call that is not among them will have no outcome.
    fn give_up_the_rest(&mut self, out: &mut Gathering) {
        let Some(reading) = &mut self.at else { return };
        let carried = std::mem::take(&mut reading.carried);
        let place = reading.place();
        let given_up = self.open.extract_if(|id, _| !carried.contains(id)).collect();
        if place > self.resume {
            interrupt(given_up, out);
        }
    }

    fn note_damage(&mut self, dir: &Path, number: u64) {
        let file = dir.join(file_name(self.worker, number));
        tracing::error!(file = %file.display(), "the journal is damaged: calls may be missing; the file is kept aside");
        self.damaged.insert(number);
    }
}

/// Takes an entry; `None` if no sense can be made of it.
fn take(
    open: &mut HashMap<Uuid, Box<[u8]>>,
    kind: Kind,
    payload: &[u8],
    fresh: bool,
    out: &mut Gathering,
) -> Option<()> {
    let id = entry::request_id(payload)?;
    match kind {
        Kind::Intent | Kind::Carried => {
            open.insert(id, payload.into());
            Some(())
        }
        Kind::Outcome => {
            let intent = open.remove(&id)?;
            if fresh { out.add(&intent, Some(payload)) } else { Some(()) }
        }
        Kind::Whole if fresh => out.add(payload, None),
        Kind::Whole => Some(()),
    }
}

fn interrupt(open: HashMap<Uuid, Box<[u8]>>, out: &mut Gathering) {
    let mut open: Vec<_> = open.into_iter().collect();
    open.sort_unstable_by_key(|(id, _)| *id);
    for (id, intent) in open {
        if out.add(&intent, None).is_none() {
            tracing::error!(%id, "an intent does not make a row");
        }
    }
}
