//! What of a worker's journal cannot be read, and how many calls are missing for it.
//!
//! The header of each segment says how many calls were begun before it. Held against those that were read, it tells how many a
//! damaged stretch has taken; a call that was begun in there, but carried over to the segment behind it, is found there, and
//! not missing. So a gap is known once the first readable header behind it, and what was carried over there, has been read. Must
//! not know files.

use std::collections::HashSet;

use crate::audit::gap::{Cause, Gap};

#[derive(Debug, Default)]
pub(super) struct Losses {
    /// How many calls were begun, up to here; `None`: it is not known, since no header has said where to begin.
    counted: Option<u64>,
    /// What could not be read since then, and where.
    pending: Option<(Cause, String)>,
    /// The segments it was in.
    segments: HashSet<u64>,
    /// Whether anything was ever lost, so that the end of a call may lack its beginning.
    ever: bool,
}

impl Losses {
    /// Begins with a worker's first segment.
    pub(super) fn begin(&mut self) {
        self.counted = Some(0);
    }

    /// Counts calls that were read.
    pub(super) fn count(&mut self, calls: u64) {
        self.counted = self.counted.map(|counted| counted.saturating_add(calls));
    }

    /// What follows was partly read before, nobody knows how much of it.
    pub(super) fn lose_count(&mut self) {
        self.counted = None;
    }

    /// Notes that there is something in `segment` that cannot be read.
    pub(super) fn note(&mut self, cause: Cause, segment: u64, place: &str) {
        self.spoilt(segment);
        match &mut self.pending {
            Some((_, places)) => {
                places.push_str(", ");
                places.push_str(place);
            }
            None => self.pending = Some((cause, place.to_owned())),
        }
    }

    /// Notes that `segment` holds something that makes no sense, which is a gap of its own.
    pub(super) fn spoilt(&mut self, segment: u64) {
        self.ever = true;
        self.segments.insert(segment);
    }

    /// Holds what was read, up to a header and what was carried over behind it, against what that says: `begun` calls. `before` is
    /// the segment before it.
    pub(super) fn settle(&mut self, begun: Option<u64>, before: Option<(u64, &str)>) -> Option<Gap> {
        let counted = std::mem::replace(&mut self.counted, begun);
        let missing = begun.zip(counted).map(|(begun, counted)| begun.saturating_sub(counted));
        if let (None, Some(1..), Some((segment, name))) = (&self.pending, missing, before) {
            // The end of what was written before is not there, and nothing that would show it.
            self.note(Cause::SegmentDamaged, segment, &format!("the end of {name}"));
        }
        self.gap(missing)
    }

    /// No header follows: what was lost since the last one has no number.
    pub(super) fn end(&mut self) -> Option<Gap> {
        self.gap(None)
    }

    fn gap(&mut self, missing: Option<u64>) -> Option<Gap> {
        let (cause, mut place) = self.pending.take()?;
        // Bounded, however many places there are: the words below stay.
        place.truncate(place.floor_char_boundary(140));
        place.push_str(match missing {
            Some(0) => ": no call is missing, but how some ended may be",
            Some(_) => ": counted by the segment behind it",
            None => ": how many calls are missing is not known",
        });
        Some(Gap { cause, place, calls: missing })
    }

    /// Whether something is lost of which it is not known yet how much that is.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether anything was ever lost.
    pub(super) fn ever(&self) -> bool {
        self.ever
    }

    /// Whether a segment holds something that could not be read.
    pub(super) fn spoils(&self, segment: u64) -> bool {
        self.segments.contains(&segment)
    }
}
