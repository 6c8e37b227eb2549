//! The trust levels themselves: words that policy, limits, records and headers share.

use std::fmt;

/// How far a target trusts a caller; the order is the order of trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TrustLevel {
    /// Either side has blocked the other: nothing passes.
    Blocked,
    /// No credential: known by its network address only.
    Unverified,
    /// A valid credential, but no connection in force.
    Verified,
    /// An accepted connection between caller and target.
    Connected,
}

impl TrustLevel {
    /// Every level, in order of trust.
    pub const ALL: [Self; 4] = [Self::Blocked, Self::Unverified, Self::Verified, Self::Connected];

    /// The name used in headers, rows and configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Unverified => "unverified",
            Self::Verified => "verified",
            Self::Connected => "connected",
        }
    }
}

impl fmt::Display for TrustLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
