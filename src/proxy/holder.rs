//! Whose limits a call is held to, and how the answer tells what is left of them.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use uuid::Uuid;

use super::Settings;
use crate::identity::Caller;
use crate::limit::{Direction, Headroom, Subject};
use crate::trust::Standing;

/// Whose limits a call is held to.
#[derive(Clone, Debug)]
pub(super) enum Holder {
    /// A caller with an accepted connection.
    Connected(Arc<Direction>),
    /// A known caller without one.
    Verified { caller: Uuid, target: Uuid },
    /// An unknown caller.
    Anonymous { target: Uuid, source: IpAddr },
}

impl Holder {
    /// None for the blocked: they have nothing that could be limited.
    pub(super) fn of(standing: &Standing, caller: &Caller, target: Uuid, source: IpAddr) -> Option<Self> {
        match (standing, caller) {
            (Standing::Blocked(_), _) => None,
            (Standing::Connected(connection), _) => Some(Self::Connected(Arc::clone(connection.towards(target)))),
            (_, Caller::Agent(key)) => Some(Self::Verified { caller: key.agent.id, target }),
            (_, Caller::Anonymous) => Some(Self::Anonymous { target, source }),
        }
    }

    pub(super) fn subject(&self) -> Subject<'_> {
        match self {
            Self::Connected(direction) => Subject::Connected(direction),
            Self::Verified { caller, target } => Subject::Verified { caller: *caller, target: *target },
            Self::Anonymous { target, source } => Subject::Anonymous { target: *target, source: *source },
        }
    }

    /// Whether it is an agent. A stranger's limits are not looked up for an answer that drew on none of them: that would keep
    /// an account for everybody who ever sent anything.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self, Self::Anonymous { .. })
    }
}

/// Tells what is left. An agent's own fields of the current kind stay beside ours: it is a list, and both hold.
pub(super) fn tell(headers: &mut HeaderMap, headroom: &Headroom, settings: &Settings) {
    headers.extend(headroom.headers());
    if settings.x_ratelimit {
        for (name, value) in headroom.older_headers() {
            headers.insert(name, value);
        }
    }
}
