//! Gaps: rows of the log that are no calls, but say that damage took some.
//!
//! What cannot be read of the journal becomes such a row, numbered, hashed and committed like every other, so that nobody can
//! take a gap out of the log any more than a call. `decision` and `outcome` are `gap`, `operation` is `Gap`, `reason` is the
//! cause, `method` says where, and `calls` how many calls are known to be missing, 0 where that is not known. `called_at` is
//! when it was found.

use uuid::Uuid;

use super::journal::entry::Draft;
use super::record::{bound, bounded};
use crate::clock::Timestamp;
use crate::store::rows::CallRow;

/// The word in `decision` and `outcome`.
pub const WORD: &str = "gap";
/// The word in `operation`.
pub const OPERATION: &str = "Gap";
/// The word where a call has a trust level, a binding and a way of proving who it is.
const NONE: &str = "none";

/// Why something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Bytes of a segment are not what was written.
    SegmentDamaged,
    /// A segment is not there.
    SegmentMissing,
    /// An entry is as it was written and makes no sense.
    EntryUnreadable,
    /// Nothing of the journal of one process start can be read.
    JournalUnreadable,
}

impl Cause {
    /// The word in `reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SegmentDamaged => "segment_damaged",
            Self::SegmentMissing => "segment_missing",
            Self::EntryUnreadable => "entry_unreadable",
            Self::JournalUnreadable => "journal_unreadable",
        }
    }
}

/// Something that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub cause: Cause,
    /// Where, in words.
    pub place: String,
    /// How many calls; `None`: that is not known.
    pub calls: Option<u64>,
}

impl Gap {
    /// Its row, which has no number yet.
    #[must_use]
    pub(crate) fn row(&self, node: Uuid, found: Timestamp) -> CallRow {
        let none = || NONE.to_owned();
        CallRow {
            id: Uuid::now_v7(),
            called_at: found,
            auth_method: none(),
            trust_level: none(),
            binding: none(),
            method: Some(bounded(&self.place, bound::METHOD).into()),
            operation: OPERATION.to_owned(),
            decision: WORD.to_owned(),
            reason: Some(self.cause.as_str().to_owned()),
            outcome: WORD.to_owned(),
            calls: self.calls.map_or(0, |calls| i64::try_from(calls).unwrap_or(i64::MAX)),
            ..Draft::new(node).row
        }
    }
}
