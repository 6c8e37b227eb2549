//! A call that is open: whoever holds it writes its outcome. Must not know files.

use std::sync::Arc;

use uuid::Uuid;

use super::group::{Group, Written};
use super::worker::WorkerJournal;
use crate::audit::record::{Ending, Outcome};

/// The right to write the outcome of an open call, once. Dropped without it, the call is recorded as `interrupted`.
#[derive(Debug)]
#[must_use = "dropping it records the call as interrupted"]
pub struct OpenRecord {
    pub(super) journal: Arc<WorkerJournal>,
    /// `None` once closed.
    pub(super) slot: Option<u32>,
    pub(super) request_id: Uuid,
    pub(super) group: Arc<Group>,
}

impl OpenRecord {
    /// When the intent is durable: nothing may be forwarded before.
    pub fn intent_written(&self) -> Written {
        Written::of(Arc::clone(&self.group))
    }

    /// The row's id.
    #[must_use]
    pub fn request_id(&self) -> Uuid {
        self.request_id
    }

    /// Appends the outcome. If the result fails, the answer must be cut: the call will be found as `interrupted`.
    pub fn close(mut self, outcome: Outcome) -> Written {
        match self.slot.take() {
            Some(slot) => self.journal.close(slot, self.request_id, &outcome),
            None => Written::failed(),
        }
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let (called_at, request_bytes) = match self.journal.lock().calls.get(slot as usize) {
            Some(Some(opened)) => (opened.intent.called_at, opened.request_bytes),
            _ => return,
        };
        let latency_us = self.journal.common.clock.wall().0.saturating_sub(called_at.0);
        let outcome = Outcome {
            ending: Ending::Interrupted,
            reason: None,
            status_code: 0,
            upstream_status: None,
            rpc_error_code: None,
            task_state: None,
            task_id: None,
            context_id: None,
            request_bytes,
            response_bytes: 0,
            stream_events: None,
            ttfb_ms: None,
            latency_ms: u32::try_from(latency_us / 1_000).unwrap_or(0),
            calls: 1,
        };
        // Nobody is left to wait for it.
        drop(self.journal.close(slot, self.request_id, &outcome));
    }
}
