//! The reasons a call may be refused or ended for, and what each of them is called on every surface: one row per reason.

use http::StatusCode;

use crate::a2a::{Binding, EnvelopeError, Operation, OperationSet};

/// The domain of our own reasons in `ErrorInfo`.
pub(super) const DOMAIN: &str = "trust-gateway";

/// The domain of the reasons that A2A defines (A2A 1.0 section 5.4).
pub(super) const A2A_DOMAIN: &str = "a2a-protocol.org";

/// Why a call is refused, or ended before its answer was whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// This agent takes no anonymous calls.
    CredentialMissing,
    /// The credential is unknown, expired or malformed; never downgraded to anonymous.
    CredentialInvalid,
    /// More than one credential, or one where none may be.
    CredentialAmbiguous,
    /// Either side has blocked the other, and the caller may know the agent.
    Blocked,
    /// The connection is not agreed for this operation.
    OperationNotAgreed {
        /// What was called.
        operation: Operation,
        /// What the connection is agreed for.
        agreed: OperationSet,
    },
    /// No such agent, or none that this caller may know of.
    AgentNotFound,
    /// The agent's name is missing: a client resolved the card's name against a base URL without its trailing slash.
    BaseUrlWithoutSlash,
    /// The agent exists but this path under it is not public.
    PathNotFound,
    /// The rate of the tier or connection is used up.
    RateLimited,
    /// The quota of the UTC day is used up.
    QuotaExhausted,
    /// The caller holds as many streams open as it may.
    TooManyStreams,
    /// The caller has as many calls in flight as it may.
    TooManyCalls,
    /// The caller's calls that are being read or forwarded hold as much as they may.
    TooMuchInHand,
    /// The agent has as many calls in flight as it may.
    AgentBusy,
    /// The gateway has as many calls in hand as it may, or no memory for this one's body.
    GatewayBusy,
    /// The agent is out of service by its owner's or an operator's will.
    AgentDisabled,
    /// No connection to the agent could be made: nothing was sent.
    ConnectFailed,
    /// The agent has not answered the calls before: nothing was sent.
    CircuitOpen,
    /// A time limit on the agent's answer passed.
    UpstreamTimeout,
    /// The agent broke off before its answer began, after the call was sent.
    AgentGone,
    /// The agent's answer is not HTTP that can be passed on (garbage, 101).
    InvalidAnswer,
    /// The call cannot be recorded, so it may not happen.
    JournalDown,
    /// The journal has no room left for calls of this level.
    JournalFull,
    /// Who may call whom could not be looked up for too long.
    DirectoryStale,
    /// This gateway is shutting down.
    Draining,
    /// The body is larger than the limit.
    TooLarge,
    /// The body came too slowly.
    SlowBody,
    /// The request's framing or headers break HTTP.
    BadFraming,
    /// The path has what no path may have (dot segments, encoded slashes, control characters).
    BadPath,
    /// The body is not of a type that A2A has.
    ContentType,
    /// The body is compressed; agents would not all read it as the gateway does.
    ContentEncoding,
    /// The body is no request; see the fault.
    Envelope(EnvelopeError),
    /// The HTTP method is not one of those this path takes.
    MethodNotAllowed {
        /// For the header `Allow`.
        allow: &'static str,
    },
    /// Push configurations are not passed on to this agent.
    PushRefused,
    /// The call has come through this gateway already.
    Loop,
    /// What allowed the call was taken back while it ran: a block, a revoked key, an agent out of service.
    Revoked,
    /// An operator ended the call while it ran.
    EndedByOperator,
    /// The caller left before it could be answered; nobody reads this.
    CallerGone,
    /// The agent's extended card is not served here.
    ExtendedCard,
}

/// What one reason is called: HTTP status, JSON-RPC code, `ErrorInfo` reason, word in the row.
struct Names(u16, i64, &'static str, &'static str);

impl Reason {
    #[rustfmt::skip] // a table
    fn names(self) -> Names {
        match self {
            Self::CredentialMissing       => Names(401, -32000, "UNAUTHENTICATED", "credential_missing"),
            Self::CredentialInvalid       => Names(401, -32000, "UNAUTHENTICATED", "credential_invalid"),
            Self::CredentialAmbiguous     => Names(400, -32000, "CREDENTIAL_AMBIGUOUS", "credential_ambiguous"),
            Self::Blocked                 => Names(403, -32000, "PERMISSION_DENIED", "blocked"),
            Self::OperationNotAgreed { .. } => Names(403, -32000, "OPERATION_NOT_AGREED", "operation_not_agreed"),
            Self::AgentNotFound           => Names(404, -32000, "AGENT_NOT_FOUND", "agent_not_found"),
            Self::BaseUrlWithoutSlash     => Names(404, -32000, "AGENT_NOT_FOUND", "base_url_without_slash"),
            Self::PathNotFound            => Names(404, -32000, "PATH_NOT_FOUND", "path_not_found"),
            Self::RateLimited             => Names(429, -32000, "RATE_LIMITED", "rate_limited"),
            Self::QuotaExhausted          => Names(429, -32000, "QUOTA_EXHAUSTED", "quota_exhausted"),
            Self::TooManyStreams          => Names(429, -32000, "TOO_MANY_STREAMS", "too_many_streams"),
            Self::TooManyCalls            => Names(429, -32000, "TOO_MANY_CALLS", "too_many_calls"),
            Self::TooMuchInHand           => Names(429, -32000, "TOO_MUCH_IN_HAND", "too_much_in_hand"),
            Self::AgentBusy               => Names(503, -32000, "AGENT_BUSY", "agent_busy"),
            Self::GatewayBusy             => Names(503, -32000, "GATEWAY_BUSY", "gateway_busy"),
            Self::AgentDisabled           => Names(503, -32000, "AGENT_UNAVAILABLE", "agent_disabled"),
            Self::ConnectFailed           => Names(503, -32000, "AGENT_UNAVAILABLE", "connect_failed"),
            Self::CircuitOpen             => Names(503, -32000, "AGENT_UNAVAILABLE", "circuit_open"),
            Self::UpstreamTimeout         => Names(504, -32000, "UPSTREAM_TIMEOUT", "upstream_timeout"),
            Self::AgentGone               => Names(502, -32000, "AGENT_GONE", "agent_gone"),
            Self::InvalidAnswer           => Names(502, -32006, "INVALID_AGENT_RESPONSE", "invalid_answer"),
            Self::JournalDown             => Names(503, -32000, "AUDIT_UNAVAILABLE", "journal_down"),
            Self::JournalFull             => Names(503, -32000, "JOURNAL_FULL", "journal_full"),
            Self::DirectoryStale          => Names(503, -32000, "DIRECTORY_STALE", "directory_stale"),
            Self::Draining                => Names(503, -32000, "GATEWAY_DRAINING", "draining"),
            Self::TooLarge                => Names(413, -32600, "REQUEST_TOO_LARGE", "too_large"),
            Self::SlowBody                => Names(408, -32000, "REQUEST_TIMEOUT", "slow_body"),
            Self::BadFraming              => Names(400, -32000, "BAD_REQUEST", "bad_framing"),
            Self::BadPath                 => Names(400, -32000, "BAD_PATH", "bad_path"),
            Self::ContentType             => Names(415, -32005, "CONTENT_TYPE_NOT_SUPPORTED", "content_type"),
            Self::ContentEncoding         => Names(415, -32000, "CONTENT_ENCODING_NOT_SUPPORTED", "content_encoding"),
            Self::Envelope(fault)         => Names(400, fault.code(), envelope_info(fault), fault.word()),
            Self::MethodNotAllowed { .. } => Names(405, -32000, "METHOD_NOT_ALLOWED", "method_not_allowed"),
            Self::PushRefused             => Names(400, -32003, "PUSH_NOTIFICATION_NOT_SUPPORTED", "push_refused"),
            Self::Loop                    => Names(508, -32000, "LOOP_DETECTED", "loop"),
            Self::Revoked                 => Names(403, -32000, "PERMISSION_DENIED", "revoked"),
            Self::EndedByOperator         => Names(502, -32000, "ENDED_BY_OPERATOR", "ended_by_operator"),
            Self::CallerGone              => Names(400, -32000, "CALLER_GONE", "caller_gone"),
            Self::ExtendedCard            => Names(400, -32004, "UNSUPPORTED_OPERATION", "extended_card"),
        }
    }

    /// The word for the row's column `reason`.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.names().3
    }

    /// The JSON-RPC error code.
    #[must_use]
    pub fn code(self) -> i64 {
        self.names().1
    }

    /// The `reason` in `ErrorInfo`.
    #[must_use]
    pub fn info(self) -> &'static str {
        self.names().2
    }

    /// The HTTP status. Errors that SDK servers would answer inside JSON-RPC keep the status 200 there.
    #[must_use]
    pub fn status(self, binding: Binding) -> StatusCode {
        let inside =
            binding == Binding::JsonRpc && matches!(self, Self::Envelope(_) | Self::PushRefused | Self::ExtendedCard);
        let code = if inside { 200 } else { self.names().0 };
        StatusCode::from_u16(code).expect("the table has statuses between 200 and 599 only")
    }

    /// Whether the reason, as a word, is A2A's and not ours.
    #[must_use]
    pub fn is_a2a(self) -> bool {
        matches!(self, Self::InvalidAnswer | Self::ContentType | Self::PushRefused | Self::ExtendedCard)
    }

    /// Whether it is a limit that grows with trust.
    #[must_use]
    pub fn is_limit(self) -> bool {
        matches!(self, Self::RateLimited | Self::QuotaExhausted | Self::TooManyStreams | Self::TooManyCalls)
    }

    /// The canonical status of `google.rpc.Code`, for REST.
    #[must_use]
    pub fn canonical(self) -> &'static str {
        match (self, self.names().0) {
            (Self::PushRefused | Self::ExtendedCard | Self::Loop, _) => "FAILED_PRECONDITION",
            (Self::EndedByOperator, _) => "CANCELLED",
            (_, 400 | 415) => "INVALID_ARGUMENT",
            (_, 401) => "UNAUTHENTICATED",
            (_, 403) => "PERMISSION_DENIED",
            (_, 404) => "NOT_FOUND",
            (_, 405) => "UNIMPLEMENTED",
            (_, 408 | 504) => "DEADLINE_EXCEEDED",
            (_, 413 | 429 | 431) => "RESOURCE_EXHAUSTED",
            (_, 503) => "UNAVAILABLE",
            _ => "INTERNAL",
        }
    }

    /// The words of OpenAgora's `error` member, where it has some for this.
    #[must_use]
    pub fn openagora_error(self) -> Option<&'static str> {
        match self {
            Self::AgentNotFound | Self::BaseUrlWithoutSlash => Some("Agent not found"),
            Self::ConnectFailed | Self::CircuitOpen | Self::AgentGone => Some("Target agent unreachable"),
            _ => None,
        }
    }

    /// What happened and what to do, in one or two sentences.
    #[must_use]
    pub fn message(self) -> String {
        match self {
            Self::CredentialMissing => "An API key is needed: send it as \"Authorization: Bearer <key>\" or \"X-API-Key\".",
            Self::CredentialInvalid => "The API key is not valid: check it, or have a new one made.",
            Self::CredentialAmbiguous => {
                "There is more than one credential: send exactly one, as \"Authorization: Bearer <key>\" or \"X-API-Key\"."
            }
            Self::Blocked => "Calls between you and this agent are blocked: talk to the agent's owner.",
            Self::AgentNotFound => "There is no such agent, or none for you: check its name.",
            Self::BaseUrlWithoutSlash => {
                "There is no agent's name in this path: add a trailing slash to the base URL, as in /api/proxy/<agent>/."
            }
            Self::PathNotFound => "This agent has nothing here: check the path, or read the agent's card for its addresses.",
            Self::RateLimited => "Too many calls: the rate limit is reached.",
            Self::QuotaExhausted => "The quota for this day (UTC) is used up.",
            Self::TooManyStreams => "As many streams are open as allowed: close one first.",
            Self::TooManyCalls => "As many calls are in flight as allowed: wait for one to end.",
            Self::AgentBusy => "The agent has as many calls in flight as it takes.",
            Self::TooMuchInHand => {
                "Your calls that are under way hold as many bytes as allowed: wait for one to end, or send less at once."
            }
            Self::GatewayBusy => "The gateway has as many calls in hand as it can take.",
            Self::AgentDisabled => "The agent is out of service: ask its owner when it will be back.",
            Self::ConnectFailed => "The agent cannot be reached. It has not seen this call: it is safe to repeat.",
            Self::CircuitOpen => {
                "The agent did not answer the calls before and is left alone for a moment. It has not seen this call: repeat it later."
            }
            Self::UpstreamTimeout => {
                "The agent did not answer in time. It may still be working: look for the task before repeating the call."
            }
            Self::AgentGone => {
                "The agent broke off without an answer. It may have done the work: look for the task before repeating the call."
            }
            Self::InvalidAnswer => "The agent's answer cannot be passed on: tell the agent's owner.",
            Self::JournalDown => "Calls cannot be recorded at the moment and are therefore not let through.",
            Self::JournalFull => "The gateway's records wait for its database and have little room left: calls like this one are not let through meanwhile.",
            Self::DirectoryStale => "The gateway cannot look up who may call this agent and serves connected callers only: try again later.",
            Self::Draining => "The gateway is shutting down. A task that was running may still be: resubscribe to it or fetch it.",
            Self::TooLarge => "The request is too large: send less, or files by reference.",
            Self::SlowBody => "The request's body came too slowly: send it again, without pauses.",
            Self::BadFraming => "The request is not sound HTTP: check its headers and length.",
            Self::BadPath => "The path is not acceptable: leave out dot segments, encoded slashes and control characters.",
            Self::ContentType => "The body's type is not supported: send application/json or application/a2a+json.",
            Self::ContentEncoding => "Compressed bodies are not supported: send it without Content-Encoding.",
            Self::Envelope(fault) => return fault.to_string(),
            Self::MethodNotAllowed { allow } => return format!("This address does not take that HTTP method: use {allow}."),
            Self::OperationNotAgreed { operation, agreed } => {
                return format!(
                    "The connection to this agent is agreed for {agreed} and what follows from it, not for {operation}: call \
                     one of those, or ask the agent's owner or an operator for more."
                );
            }
            Self::PushRefused => "Push notifications are not available here: poll the task or subscribe to it instead.",
            Self::Loop => "The call has come through this gateway before: check the agent's registered address.",
            Self::Revoked => "The permission for this call was taken back while it ran: ask the agent's owner.",
            Self::EndedByOperator => {
                "An operator of the gateway ended this call. The agent may have done the work: look for the task before repeating it."
            }
            Self::CallerGone => "The caller has left.",
            Self::ExtendedCard => "This agent has no extended card here: use its public card.",
        }
        .to_owned()
    }
}

fn envelope_info(fault: EnvelopeError) -> &'static str {
    if fault.code() == -32700 { "PARSE_ERROR" } else { "INVALID_REQUEST" }
}
