//! The memory that callers' bodies take: so much for all of them together, and so much for each caller, so that no one caller
//! takes all of it. Callers are not limited before their bodies are read, so their bodies are.

use std::net::IpAddr;
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::fast::RandomState;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::read::BodyError;
use crate::identity::Caller;
use crate::limit::{LimitKey, source_key};

/// Whose bodies: an agent's, or a network address's (IPv6: /64).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    Agent(Uuid),
    Source(LimitKey),
}

impl Whose {
    pub(super) fn of(caller: &Caller, source: IpAddr) -> Self {
        caller.agent_id().map_or_else(|| Self::Source(source_key(source)), Self::Agent)
    }
}

/// The memory for bodies, shared by all workers.
#[derive(Clone, Debug)]
pub struct BodyMemory {
    all: Arc<Semaphore>,
    each: usize,
    /// Those who have bodies in hand, and how many bytes.
    in_hand: Arc<DashMap<Whose, usize, RandomState>>,
}

impl BodyMemory {
    /// Room for `all` bytes, of which one caller may have `each`.
    #[must_use]
    pub fn new(all: usize, each: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))), each, in_hand: Arc::default() }
    }

    /// A place of `whose`, with nothing in it yet.
    pub(super) fn place(&self, whose: Whose) -> Place {
        Place { memory: self.clone(), whose, bytes: 0, permit: None }
    }
}

/// The memory one body takes, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    memory: BodyMemory,
    whose: Whose,
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Makes room for `bytes` more.
    ///
    /// # Errors
    /// When the caller has as much as it may, or there is no more at all.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), BodyError> {
        if bytes == 0 {
            return Ok(());
        }
        let permits = u32::try_from(bytes).map_err(|_| BodyError::NoRoom)?;
        let more = Arc::clone(&self.memory.all).try_acquire_many_owned(permits).map_err(|_| BodyError::NoRoom)?;
        let mut taken = self.memory.in_hand.entry(self.whose).or_insert(0);
        if *taken + bytes > self.memory.each {
            let nothing = *taken == 0;
            drop(taken);
            if nothing {
                self.leave();
            }
            return Err(BodyError::TooMuchInHand);
        }
        *taken += bytes;
        self.bytes += bytes;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Gives back what this place took; who has nothing in hand is forgotten.
    fn leave(&mut self) {
        if let Entry::Occupied(mut entry) = self.memory.in_hand.entry(self.whose) {
            *entry.get_mut() -= std::mem::take(&mut self.bytes);
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Whose = Whose::Agent(Uuid::from_u128(1));
    const OTHER: Whose = Whose::Source([7; 16]);

    #[test]
    fn a_caller_takes_its_share_and_no_more_and_gives_it_back() {
        let memory = BodyMemory::new(100, 40);
        let (mut one, mut two) = (memory.place(ONE), memory.place(ONE));
        assert!(one.take(30).is_ok() && two.take(10).is_ok());
        assert!(matches!(two.take(1), Err(BodyError::TooMuchInHand)));
        assert!(memory.place(OTHER).take(40).is_ok(), "another has its own");
        drop(one);
        assert!(two.take(30).is_ok());
        drop(two);
        assert_eq!((memory.all.available_permits(), memory.in_hand.len()), (100, 0), "nothing is left behind");
    }

    #[test]
    fn a_frame_with_nothing_in_it_takes_nothing_and_leaves_nothing_behind() {
        let memory = BodyMemory::new(100, 40);
        assert!(memory.place(ONE).take(0).is_ok());
        assert_eq!(memory.in_hand.len(), 0);
    }

    #[test]
    fn all_together_take_no_more_than_there_is() {
        let memory = BodyMemory::new(50, 40);
        let (mut one, mut other) = (memory.place(ONE), memory.place(OTHER));
        assert!(one.take(40).is_ok());
        assert!(matches!(other.take(11), Err(BodyError::NoRoom)));
        assert!(other.take(10).is_ok());
        drop((one, other));
        assert!(matches!(memory.place(ONE).take(41), Err(BodyError::TooMuchInHand)));
        assert_eq!((memory.all.available_permits(), memory.in_hand.len()), (50, 0), "a refusal keeps nothing");
    }
}
