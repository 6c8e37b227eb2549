//! Gates: how many calls may be open at once, whoever makes them, before one agent and before the whole gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::account::take_slot;

/// Counts the calls that are through it.
#[derive(Debug)]
pub struct Gate {
    in_flight: AtomicU32,
    most: AtomicU32,
}

impl Gate {
    /// Room for `most` calls.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self { in_flight: AtomicU32::new(0), most: AtomicU32::new(most) }
    }

    /// Room for `most` calls from now on; those that are through stay.
    pub fn set_most(&self, most: u32) {
        self.most.store(most, Ordering::Release);
    }

    /// Calls in flight now.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Lets a call through, if there is room; it leaves when the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Through> {
        take_slot(&self.in_flight, Some(self.most.load(Ordering::Acquire))).then(|| Through(Arc::clone(self)))
    }
}

/// A call's place behind a gate.
#[derive(Debug)]
pub(super) struct Through(Arc<Gate>);

impl Drop for Through {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}
