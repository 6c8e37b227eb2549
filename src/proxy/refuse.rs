//! The one place where a call that is not answered by its agent is recorded and answered.

use std::time::Duration;

use http::request::Parts;
use http::{Method, Response};
use hyper::body::Incoming;
use uuid::Uuid;

use super::call::Call;
use super::forward::Order;
use super::headers::BadHead;
use super::read::{self, BodyError};
use super::reason::Reason;
use super::refusal::{self, Refusal, RenderContext};
use super::route::BadPath;
use super::{Body, Settings, Worker, holder};
use crate::a2a::envelope::{self, EnvelopeError};
use crate::audit::journal::{JournalDown, JournalFull, Written};
use crate::audit::record::{Decision, Ending, Intent, LimitLeft};
use crate::identity::CredentialError;
use crate::limit::{Abuse, Headroom, Refused, RefusedKind};
use crate::policy::Denial;
use crate::vitals;

impl Worker {
    /// Records and renders the refusal of a call whose record is not open.
    pub(super) async fn refuse(
        &self,
        mut call: Call,
        mut refusal: Refusal,
        settings: &Settings,
        head: &Parts,
        body: &mut Incoming,
    ) -> Response<Body> {
        // Whatever is answered in its place must tell no more than "nobody there" does.
        let hidden = refusal.reason == Reason::AgentNotFound;
        if let Some(abuse) = abuse(refusal.reason) {
            match self.shared.limits.abuse(call.source(), abuse) {
                Ok(left) => refusal.headroom = Some(Box::new(left)),
                Err(too_many) => refusal = too_many.into(),
            }
        }
        self.echo_id(&mut call, head, body).await;
        let mut request_id = call.intent.request_id;
        if !call.is_decided() {
            call.intent.decision = Decision::Refused;
            call.intent.reason = Some(refusal.reason.word());
            call.intent.limit = refusal.rule.zip(refusal.left).map(|(name, left)| LimitLeft { name, left });
            call.intent.policy_rule = refusal.rule.map(Into::into).or(call.intent.policy_rule.take());
            // A refusal nobody could record is not given: the journal's failure is answered instead.
            match record(&mut call, &refusal, head, hidden).await {
                Ok(recorded) => request_id = recorded,
                Err(down) => refusal = down.into(),
            }
        }
        let left = self.left(&call, refusal.headroom.as_deref().copied().unwrap_or_default());
        finish(&refusal, &left, &context(&call.intent, request_id, head, hidden), settings)
    }

    /// Answers a call whose record has been closed without an answer of the agent's.
    pub(super) async fn give_up(
        &self,
        written: Option<Written>,
        mut refusal: Refusal,
        order: &Order<'_>,
    ) -> Response<Body> {
        if let Some(written) = written
            && let Err(down) = written.await
        {
            refusal = down.into();
        }
        let context = context(order.intent, order.intent.request_id, order.head, false);
        finish(&refusal, &order.headroom, &context, order.settings)
    }

    /// A refusal from before the body was read still echoes the caller's id, if what has arrived holds it.
    async fn echo_id(&self, call: &mut Call, head: &Parts, body: &mut Incoming) {
        let unread = call.intent.rpc_id.is_none() && call.request_bytes == 0 && head.method == Method::POST;
        // Looking at the body of a caller that waits for "100 Continue" would ask it to send.
        if !unread || head.headers.contains_key(http::header::EXPECT) {
            return;
        }
        if let Some(arrived) = read::arrived(body).await {
            call.request_bytes = arrived.len() as u64;
            call.intent.rpc_id = envelope::find_id(&arrived).and_then(|id| id.as_json().map(Into::into));
        }
    }
}

/// Records a refusal; yields the id of the row it will be found in.
async fn record(call: &mut Call, refusal: &Refusal, head: &Parts, hidden: bool) -> Result<Uuid, JournalDown> {
    let gone = refusal.reason == Reason::CallerGone;
    let ending = if gone { Ending::ClientGone } else { Ending::Refused };
    let status = if gone { 0 } else { refusal.status(call.intent.binding).as_u16() };
    let length = refusal::render(refusal, &context(&call.intent, call.intent.request_id, head, hidden)).body().len();
    let recorded = call.answered_here(ending, status, length)?;
    recorded.written.await?;
    Ok(recorded.request_id)
}

fn context<'a>(intent: &'a Intent, request_id: Uuid, head: &Parts, hidden: bool) -> RenderContext<'a> {
    RenderContext {
        binding: intent.binding,
        rpc_id: intent.rpc_id.as_deref(),
        request_id,
        trust_level: (!hidden).then_some(intent.trust_level),
        head: head.method == Method::HEAD,
    }
}

fn finish(refusal: &Refusal, left: &Headroom, context: &RenderContext<'_>, settings: &Settings) -> Response<Body> {
    let mut response = refusal::render(refusal, context).map(Body::Whole);
    holder::tell(response.headers_mut(), left, settings);
    response
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

impl From<BadHead> for Refusal {
    fn from(bad: BadHead) -> Self {
        Self::new(match bad {
            BadHead::Host | BadHead::TransferEncoding => Reason::BadFraming,
            BadHead::ContentEncoding => Reason::ContentEncoding,
        })
    }
}

impl From<BadPath> for Refusal {
    fn from(_: BadPath) -> Self {
        Self::new(Reason::BadPath)
    }
}

impl From<CredentialError> for Refusal {
    fn from(error: CredentialError) -> Self {
        Self::new(match error {
            CredentialError::Ambiguous => Reason::CredentialAmbiguous,
            CredentialError::Malformed
            | CredentialError::Unknown
            | CredentialError::Disabled
            | CredentialError::Pending => Reason::CredentialInvalid,
        })
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::new(match error {
            BodyError::TooLarge => Reason::TooLarge,
            BodyError::TooSlow => Reason::SlowBody,
            BodyError::Malformed => Reason::BadFraming,
            BodyError::CallerGone => Reason::CallerGone,
            BodyError::TooMuchInHand => return Self::new(Reason::TooMuchInHand).by_rule("caller.body_memory"),
            BodyError::NoRoom => return Self::new(Reason::GatewayBusy).retry_after(Duration::from_secs(1)),
        })
    }
}

impl From<EnvelopeError> for Refusal {
    fn from(fault: EnvelopeError) -> Self {
        Self::new(Reason::Envelope(fault))
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        let reason = match denial {
            Denial::Blocked => Reason::Blocked,
            Denial::AnonymousNotAdmitted => Reason::CredentialMissing,
            Denial::OperationNotAgreed { operation, agreed } => Reason::OperationNotAgreed { operation, agreed },
        };
        Self::new(reason).by_rule(denial.rule())
    }
}

impl From<JournalDown> for Refusal {
    fn from(_: JournalDown) -> Self {
        Self::new(Reason::JournalDown)
    }
}

impl From<JournalFull> for Refusal {
    fn from(_: JournalFull) -> Self {
        Self::new(Reason::JournalFull).by_rule("audit.journal_budget").retry_after(JournalFull::RETRY)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let reason = match refused.kind {
            RefusedKind::Rate | RefusedKind::Abuse => Reason::RateLimited,
            RefusedKind::Daily => Reason::QuotaExhausted,
            RefusedKind::Streams => Reason::TooManyStreams,
            RefusedKind::InFlight => Reason::TooManyCalls,
            RefusedKind::AgentBusy => Reason::AgentBusy,
            RefusedKind::GatewayBusy => Reason::GatewayBusy,
        };
        let left = refused.limit().left;
        let mut refusal = Self::new(reason).by_rule(refused.rule);
        refusal = refusal.with("limit", refused.rule).with("remaining", left.to_string());
        refusal = refusal.with("cost", refused.headroom.cost.to_string());
        refusal.retry_after = refused.retry_after;
        refusal.left = Some(left);
        refusal.headroom = Some(Box::new(refused.headroom));
        refusal
    }
}

impl From<vitals::Refused> for Refusal {
    fn from(refused: vitals::Refused) -> Self {
        Self::new(Reason::CircuitOpen).by_rule("breaker").retry_after(refused.retry_after)
    }
}

/// Which abuse limit of the source a refusal counts against.
fn abuse(reason: Reason) -> Option<Abuse> {
    match reason {
        Reason::CredentialInvalid | Reason::CredentialAmbiguous => Some(Abuse::Credential),
        Reason::AgentNotFound
        | Reason::BaseUrlWithoutSlash
        | Reason::PathNotFound
        | Reason::BadPath
        | Reason::MethodNotAllowed { .. } => Some(Abuse::NotFound),
        Reason::Envelope(_) | Reason::BadFraming | Reason::ContentType | Reason::ContentEncoding => {
            Some(Abuse::Envelope)
        }
        _ => None,
    }
}
