//! Why the registry refuses a change, sorted by what the asker can do about it.

use std::fmt;

use super::vault::VaultError;
use crate::store::StoreError;
use crate::store::rows::ConnectionRow;

/// A refused change.
#[derive(Debug)]
pub enum RegistryError {
    /// There is no such thing, or the asker may not know that there is.
    NotFound(&'static str),
    /// The asker may not do this; the text says who may.
    Forbidden(String),
    /// A value is not acceptable.
    Invalid {
        /// The member of the request, as it is named there.
        member: String,
        /// What is wrong with it and what to send instead.
        problem: String,
    },
    /// A unique value is taken, or a limit reached.
    Taken(String),
    /// There is no room for more now; the text says when there may be.
    Full(String),
    /// The two agents have a connection already, or it is not in a state for this.
    Connection {
        /// What stands in the way.
        problem: String,
        /// The connection as it is.
        current: Box<ConnectionRow>,
    },
    /// It was done a moment ago; again after this time.
    TooSoon(std::time::Duration),
    /// The database failed.
    Store(StoreError),
    /// A secret could not be sealed or opened.
    Vault(VaultError),
}

impl RegistryError {
    /// An unacceptable value of `member`.
    pub fn invalid(member: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { member: member.into(), problem: problem.into() }
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(what) => write!(f, "{what} not found"),
            Self::Forbidden(why) | Self::Taken(why) | Self::Full(why) => f.write_str(why),
            Self::TooSoon(wait) => write!(f, "this was done a moment ago: try again in {} s", wait.as_secs().max(1)),
            Self::Invalid { member, problem } => write!(f, "{member}: {problem}"),
            Self::Connection { problem, .. } => f.write_str(problem),
            Self::Store(error) => error.fmt(f),
            Self::Vault(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RegistryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Vault(error) => Some(error),
            _ => None,
        }
    }
}

impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<VaultError> for RegistryError {
    fn from(error: VaultError) -> Self {
        Self::Vault(error)
    }
}
