//! One call's facts from arrival to end, and the promise that they become a record.
//!
//! A [`Call`] that is dropped still records: a caller that hangs up drops the future that holds it, a panic drops it too.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use uuid::Uuid;

use super::access::Facts;
use super::holder::Holder;
use super::live::Entered;
use super::reason::Reason;
use crate::a2a::{Binding, Noticed, Operation};
use crate::audit::journal::{JournalDown, OpenRecord, Refused, WorkerJournal, Written};
use crate::audit::record::{AuthMethod, Decision, Ending, Intent, Outcome};
use crate::clock::Clock;
use crate::limit::Permit;
use crate::meter::Meter;
use crate::trust::TrustLevel;
use crate::vitals::Vitals;

/// Counts a worker's open calls; the acceptor looks at it.
#[derive(Debug)]
pub(super) struct OpenCount(Arc<AtomicUsize>);

impl OpenCount {
    /// One more.
    #[must_use]
    pub(super) fn enter(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counter))
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call that has not been decided.
pub(super) struct Call {
    /// What is known so far; becomes the intent.
    pub intent: Intent,
    /// Bytes of the body read so far.
    pub request_bytes: u64,
    /// Whose limits it is held to, once that is known.
    pub holder: Option<Holder>,
    source: IpAddr,
    arrived: u64,
    clock: Clock,
    journal: Arc<WorkerJournal>,
    meter: Arc<Meter>,
    open: Option<OpenCount>,
    decided: bool,
}

impl Call {
    /// A call that has just arrived from `source`.
    #[must_use]
    pub(super) fn arrive(
        clock: &Clock,
        journal: &Arc<WorkerJournal>,
        meter: &Arc<Meter>,
        open: OpenCount,
        source: IpAddr,
    ) -> Self {
        Self {
            intent: Intent {
                request_id: Uuid::now_v7(),
                called_at: clock.wall(),
                target_agent_id: None,
                caller_agent_id: None,
                credential_id: None,
                auth_method: AuthMethod::None,
                trust_level: TrustLevel::Unverified,
                connection_id: None,
                client_ip: Some(source),
                binding: Binding::Http,
                protocol_version: None,
                method: None,
                operation: Operation::Unknown,
                rpc_id: None,
                task_id: None,
                context_id: None,
                message_id: None,
                decision: Decision::Refused,
                reason: None,
                policy_rule: None,
                policy_digest: None,
                units: 0,
                limit: None,
                trace_id: None,
                charge: None,
            },
            request_bytes: 0,
            holder: None,
            source,
            arrived: clock.nanos(),
            clock: clock.clone(),
            journal: Arc::clone(journal),
            meter: Arc::clone(meter),
            open: Some(open),
            decided: false,
        }
    }

    /// Where it comes from.
    #[must_use]
    pub(super) fn source(&self) -> IpAddr {
        self.source
    }

    /// Whether a record of it exists already.
    #[must_use]
    pub(super) fn is_decided(&self) -> bool {
        self.decided
    }

    fn outcome(&self, ending: Ending, status: u16) -> Outcome {
        Outcome {
            ending,
            reason: None,
            status_code: status,
            upstream_status: None,
            rpc_error_code: None,
            task_state: None,
            task_id: None,
            context_id: None,
            request_bytes: self.request_bytes,
            response_bytes: 0,
            stream_events: None,
            ttfb_ms: None,
            latency_ms: elapsed_ms(&self.clock, self.arrived),
            calls: 1,
        }
    }

    /// Records that the gateway answers this call itself: a refusal, or a card. `decision` and `reason` are in the intent.
    ///
    /// # Errors
    /// When the journal is down.
    pub(super) fn answered_here(&mut self, ending: Ending, status: u16, bytes: usize) -> Result<Refused, JournalDown> {
        self.decided = true;
        let mut outcome = self.outcome(ending, status);
        outcome.response_bytes = bytes as u64;
        let facts = Facts::of(&self.intent);
        let recorded = self.journal.refuse(self.intent.clone(), outcome.clone());
        match &recorded {
            Ok(recorded) => facts.found_as(recorded.request_id).tell(&outcome, &self.meter),
            Err(JournalDown) => {
                // What the caller will be answered instead.
                let reason = Some(Reason::JournalDown.word());
                let refused = Outcome { ending: Ending::Refused, reason, ..self.outcome(Ending::Refused, 503) };
                facts.refused().tell(&refused, &self.meter);
            }
        }
        recorded
    }

    /// Opens the record of a call that will be forwarded once its intent is in the journal: when the future has resolved.
    ///
    /// # Errors
    /// When the journal is down: the call must not be forwarded.
    pub(super) fn open(&mut self, permit: &Permit) -> Result<(OpenCall, Written), JournalDown> {
        self.intent.decision = Decision::Allowed;
        self.intent.units = permit.units();
        self.intent.charge = permit.charge();
        self.intent.limit = permit.nearest();
        let record = match self.journal.open(self.intent.clone(), self.request_bytes) {
            Ok(record) => record,
            Err(down) => {
                self.intent.decision = Decision::Refused;
                return Err(down);
            }
        };
        self.decided = true;
        let written = record.intent_written();
        let open = OpenCall {
            outcome: self.outcome(Ending::ClientGone, 0),
            record: Some(record),
            facts: Facts::of(&self.intent),
            meter: Arc::clone(&self.meter),
            arrived: self.arrived,
            clock: self.clock.clone(),
            noticed: Noticed::default(),
            agent_failed: false,
            entered: None,
            vitals: None,
            _open: self.open.take(),
        };
        Ok((open, written))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.decided {
            let ending = if std::thread::panicking() { Ending::Interrupted } else { Ending::ClientGone };
            self.intent.reason = Some("undecided");
            let outcome = self.outcome(ending, 0);
            Facts::of(&self.intent).tell(&outcome, &self.meter);
            // With the journal down there is no answer either: nothing was promised.
            let _ = self.journal.refuse(self.intent.clone(), outcome);
        }
    }
}

/// A call whose intent is in the journal. However it is dropped, its outcome follows.
pub struct OpenCall {
    /// What is known of the end so far.
    pub outcome: Outcome,
    /// What was noticed in the answer.
    pub noticed: Noticed,
    /// The agent answered with a server error.
    pub agent_failed: bool,
    /// Its place among the live calls.
    pub entered: Option<Entered>,
    /// Where it is noted how its agent did.
    pub vitals: Option<Arc<Vitals>>,
    record: Option<OpenRecord>,
    facts: Facts,
    meter: Arc<Meter>,
    arrived: u64,
    clock: Clock,
    _open: Option<OpenCount>,
}

impl OpenCall {
    /// Closes the record of a call whose intent could not be written: if an entry is found after all, it says why.
    pub fn not_forwarded(mut self) {
        self.outcome.reason = Some("journal_down");
        self.outcome.status_code = 503;
        let _ = self.close(Ending::Interrupted);
    }

    /// Milliseconds since arrival.
    #[must_use]
    pub fn elapsed_ms(&self) -> u32 {
        elapsed_ms(&self.clock, self.arrived)
    }

    /// Writes the outcome. The future resolves when it is in the journal.
    pub fn close(&mut self, ending: Ending) -> Option<Written> {
        let record = self.record.take()?;
        self.entered = None;
        let noticed = std::mem::take(&mut self.noticed);
        let outcome = Outcome {
            ending,
            task_id: noticed.task_id,
            context_id: noticed.context_id,
            task_state: noticed.task_state,
            rpc_error_code: noticed.rpc_error_code,
            latency_ms: self.elapsed_ms(),
            ..self.outcome.clone()
        };
        self.facts.tell(&outcome, &self.meter);
        Some(record.close(outcome))
    }

    /// The ending of an answer that was handed on whole.
    #[must_use]
    pub fn whole_ending(&self) -> Ending {
        if self.agent_failed { Ending::AgentError } else { Ending::Completed }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if self.record.is_some() {
            // A reader that has stalled is never polled: that the gateway ended its answer shows only here.
            let cut = self.entered.as_ref().and_then(|entered| entered.tap.why_cut());
            if let Some(cut) = cut {
                self.outcome.reason = Some(cut.as_str());
            }
            let ending = if std::thread::panicking() || cut.is_some() {
                Ending::Interrupted
            } else if self.noticed.terminal {
                // The last event had passed: that the caller closed first is no loss to it.
                self.whole_ending()
            } else {
                Ending::ClientGone
            };
            let _ = self.close(ending);
        }
    }
}

fn elapsed_ms(clock: &Clock, since: u64) -> u32 {
    u32::try_from(clock.nanos().saturating_sub(since) / 1_000_000).unwrap_or(u32::MAX)
}
