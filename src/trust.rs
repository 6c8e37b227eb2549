//! What a caller is to one target. Pure: looks at the directory, asks nobody.

mod level;

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::directory::{Agent, Connection, Directory};
use crate::identity::Caller;

pub use level::TrustLevel;

/// The standing of a caller towards a target.
#[derive(Clone)]
pub enum Standing {
    /// Either side has blocked the other.
    Blocked(Arc<Connection>),
    /// Known by address only.
    Unverified,
    /// Known by a credential.
    Verified,
    /// Connected by the agreement held here.
    Connected(Arc<Connection>),
}

impl Standing {
    /// The trust level of this standing.
    #[must_use]
    pub fn level(&self) -> TrustLevel {
        match self {
            Self::Blocked(_) => TrustLevel::Blocked,
            Self::Unverified => TrustLevel::Unverified,
            Self::Verified => TrustLevel::Verified,
            Self::Connected(_) => TrustLevel::Connected,
        }
    }

    /// The connection that decided, if one did.
    #[must_use]
    pub fn connection(&self) -> Option<&Arc<Connection>> {
        match self {
            Self::Blocked(connection) | Self::Connected(connection) => Some(connection),
            Self::Unverified | Self::Verified => None,
        }
    }
}

/// What `caller` is to `target` at `now`. Without a target (nothing is registered there) a known caller is `verified`.
#[must_use]
pub fn classify(directory: &Directory, caller: &Caller, target: Option<&Agent>, now: Timestamp) -> Standing {
    let Caller::Agent(key) = caller else {
        return Standing::Unverified;
    };
    let Some(connection) = target.and_then(|target| directory.connection(key.agent.id, target.id)) else {
        return Standing::Verified;
    };
    if connection.blocked {
        Standing::Blocked(Arc::clone(connection))
    } else if connection.in_force(now) {
        Standing::Connected(Arc::clone(connection))
    } else {
        Standing::Verified
    }
}
