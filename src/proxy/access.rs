//! The access log: one line for each call, when its outcome is known; and the counts, which know no more than it.
//!
//! Promises that a line holds ids, numbers and words of our own only: nothing that a caller wrote, and no credential. Costs
//! nothing but a look while it is off. The fields are named as the columns of `proxy_calls`; `target` and `level` alone would
//! be taken for the line's own.

use uuid::Uuid;

use super::trace::TraceId;
use crate::a2a::Operation;
use crate::audit::record::{Decision, Intent, Outcome};
use crate::meter::{Ended, Meter};
use crate::telemetry::ACCESS;
use crate::trust::TrustLevel;

/// What a line says of a call that its outcome does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    request_id: Uuid,
    caller: Option<Uuid>,
    target: Option<Uuid>,
    level: TrustLevel,
    operation: Operation,
    decision: Decision,
    reason: Option<&'static str>,
    trace: Option<TraceId>,
}

impl Facts {
    pub(super) fn of(intent: &Intent) -> Self {
        Self {
            request_id: intent.request_id,
            caller: intent.caller_agent_id,
            target: intent.target_agent_id,
            level: intent.trust_level,
            operation: intent.operation,
            decision: intent.decision,
            reason: intent.reason,
            trace: intent.trace_id.as_deref().and_then(TraceId::parse),
        }
    }

    /// The same call, found in the row with this id.
    pub(super) fn found_as(self, request_id: Uuid) -> Self {
        Self { request_id, ..self }
    }

    /// The same call, which could not be recorded and was refused for that.
    pub(super) fn refused(self) -> Self {
        Self { decision: Decision::Refused, ..self }
    }

    /// Counts the call and writes the line.
    pub(super) fn tell(&self, outcome: &Outcome, meter: &Meter) {
        meter.ended(&Ended {
            target: self.target,
            operation: self.operation,
            decision: self.decision,
            ending: outcome.ending,
            reason: outcome.reason.or(self.reason),
            latency_ms: outcome.latency_ms,
            ttfb_ms: outcome.ttfb_ms,
            request_bytes: outcome.request_bytes,
            response_bytes: outcome.response_bytes,
        });
        tracing::info!(
            target: ACCESS,
            request_id = %self.request_id,
            caller_agent_id = self.caller.map(tracing::field::display),
            target_agent_id = self.target.map(tracing::field::display),
            trust_level = self.level.as_str(),
            operation = self.operation.as_str(),
            status_code = outcome.status_code,
            outcome = outcome.ending.as_str(),
            reason = outcome.reason.or(self.reason),
            latency_ms = outcome.latency_ms,
            response_bytes = outcome.response_bytes,
            trace_id = self.trace.map(tracing::field::display),
            "call"
        );
    }
}
