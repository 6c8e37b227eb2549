//! Folding refusals under a flood: past the first few of a kind in a second, those of one turn of the flusher share one entry
//! that carries their number.
//!
//! Promises that nothing is lost: every refusal has an entry of its own or raises the number of one that is not yet written.
//! Must not know files.

use foldhash::{HashMap, HashMapExt as _};
use uuid::Uuid;

use super::entry::{StoredAddress, set_calls};

/// How many refusals of a kind get an entry of their own in every second.
const OWN_PER_SECOND: u32 = 8;
/// How many kinds are told apart in a second; beyond it everybody has an entry of their own.
const KINDS_MAX: usize = 65_536;

/// Refusals that look the same to an auditor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RefusalKind {
    pub(super) source: Option<StoredAddress>,
    pub(super) target: Option<Uuid>,
    pub(super) caller: Option<Uuid>,
    pub(super) reason: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    count: u32,
    /// The shared entry, if it belongs to the turn `turn`.
    shared: usize,
    turn: u64,
}

/// An entry in the buffer that stands for several refusals.
#[derive(Debug)]
struct Shared {
    request_id: Uuid,
    start: usize,
    end: usize,
    calls: u32,
}

/// Where a refusal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Into an entry of its own.
    Own,
    /// Into a new entry that later ones of this turn may join: tell [`Folds::share`] where it is.
    Share,
    /// Into the entry with this request id.
    Joined(Uuid),
}

#[derive(Debug)]
pub(super) struct Folds {
    second: u64,
    turn: u64,
    seen: HashMap<RefusalKind, Seen>,
    shared: Vec<Shared>,
}

impl Folds {
    pub(super) fn new() -> Self {
        Self { second: 0, turn: 1, seen: HashMap::new(), shared: Vec::new() }
    }

    /// Decides where a refusal that stands for `calls` calls goes.
    pub(super) fn place(&mut self, second: u64, kind: &RefusalKind, calls: u32) -> Place {
        if second != self.second {
            self.second = second;
            self.seen.clear();
        }
        if self.seen.len() >= KINDS_MAX && !self.seen.contains_key(kind) {
            return Place::Own;
        }
        let seen = self.seen.entry(*kind).or_insert(Seen { count: 0, shared: 0, turn: 0 });
        if seen.count < OWN_PER_SECOND {
            seen.count += 1;
            return Place::Own;
        }
        if seen.turn == self.turn
            && let Some(shared) = self.shared.get_mut(seen.shared)
            && let Some(sum) = shared.calls.checked_add(calls)
        {
            shared.calls = sum;
            return Place::Joined(shared.request_id);
        }
        Place::Share
    }

    /// Says that the entry at `start..end` of the buffer, which stands for `calls` calls, may be joined in this turn.
    pub(super) fn share(&mut self, kind: &RefusalKind, request_id: Uuid, start: usize, end: usize, calls: u32) {
        if let Some(seen) = self.seen.get_mut(kind) {
            (seen.turn, seen.shared) = (self.turn, self.shared.len());
            self.shared.push(Shared { request_id, start, end, calls });
        }
    }

    /// Ends the turn: writes the numbers into the entries of `buffer`, which leaves for the disk.
    pub(super) fn seal(&mut self, buffer: &mut [u8]) {
        self.turn += 1;
        for shared in self.shared.drain(..) {
            set_calls(&mut buffer[shared.start..shared.end], shared.calls);
        }
    }

    /// Ends the turn without a trace: its buffer is thrown away.
    pub(super) fn forget(&mut self) {
        self.turn += 1;
        self.shared.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: RefusalKind = RefusalKind { source: None, target: None, caller: None, reason: Some("rate_limited") };

    #[test]
    fn the_first_eight_of_a_second_stand_alone_and_later_ones_of_a_turn_share() {
        let mut folds = Folds::new();
        let mut buffer = vec![0; 64];
        for _ in 0..8 {
            assert_eq!(folds.place(1, &KIND, 1), Place::Own);
        }
        assert_eq!(folds.place(1, &KIND, 1), Place::Share);
        let id = Uuid::from_u128(1);
        folds.share(&KIND, id, 0, 32, 1);
        assert_eq!(folds.place(1, &KIND, 1), Place::Joined(id));
        assert_eq!(folds.place(1, &RefusalKind { reason: None, ..KIND }, 1), Place::Own);
        folds.seal(&mut buffer);
        assert_eq!(folds.place(1, &KIND, 1), Place::Share, "an entry that has left cannot be joined");
        assert_eq!(folds.place(2, &KIND, 1), Place::Own, "a new second starts anew");
    }

    #[test]
    fn a_number_that_would_overflow_starts_a_new_entry() {
        let mut folds = Folds::new();
        for _ in 0..8 {
            folds.place(1, &KIND, 1);
        }
        assert_eq!(folds.place(1, &KIND, u32::MAX), Place::Share);
        folds.share(&KIND, Uuid::nil(), 0, 32, u32::MAX);
        assert_eq!(folds.place(1, &KIND, 1), Place::Share);
    }
}
