//! The words by which rows and the API name the variants of the row types.

use super::rows::{AdminState, ConnectionStatus, HealthStatus, OperatorRole, PushMode};

macro_rules! words {
    ($($type:ident { $($variant:ident => $word:literal),+ $(,)? })+) => {$(
        impl $type {
            /// The word used in rows and in the API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The variant a word stands for.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    )+};
}

words! {
    AdminState { Pending => "pending", Active => "active", Disabled => "disabled", Deleted => "deleted" }
    HealthStatus { Unknown => "unknown", Online => "online", Degraded => "degraded", Offline => "offline" }
    PushMode { Refuse => "refuse", Pass => "pass" }
    ConnectionStatus {
        Pending => "pending", Connected => "connected", Declined => "declined", Paused => "paused", Ended => "ended",
    }
    OperatorRole { Admin => "admin", Auditor => "auditor" }
}
