//! One row as it is exported: its place, its leaf hash, and all that this is made of, under the names of the columns.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::hexed;
use crate::audit::journal::entry::Draft;
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::calls::ScannedRow;
use crate::store::rows::CallRow;

/// The exported form of [`CallRow`], and the ways there and back. The columns are given once.
macro_rules! exported {
    ($($(#[$attribute:meta])* $column:ident: $kind:ty,)+) => {
        /// A row of `proxy_calls`; what is absent is null.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs)] // the columns, which `CallRow` describes
        pub struct ExportedRow {
            pub seq: i64,
            #[serde(with = "hexed")]
            pub leaf_hash: [u8; 32],
            /// True: the content was erased, and what is left does not give the leaf hash.
            #[serde(default, skip_serializing_if = "std::ops::Not::not")]
            pub erased: bool,
            $($(#[$attribute])* pub $column: $kind,)+
        }

        /// The columns, in the order of CSV.
        pub(super) const COLUMNS: &[&str] = &["seq", "leaf_hash", "erased", $(stringify!($column)),+];

        impl ExportedRow {
            fn new(row: CallRow, leaf_hash: [u8; 32], erased: bool) -> Self {
                Self { seq: row.seq, leaf_hash, erased, $($column: row.$column),+ }
            }

            /// As the log has it; whose it is, it does not say.
            #[must_use]
            pub fn into_scanned(self) -> ScannedRow {
                let (seq, leaf_hash, erased) = (self.seq, Some(self.leaf_hash), self.erased);
                let row = CallRow { seq, leaf_hash: self.leaf_hash, $($column: self.$column,)+ ..Draft::new(Uuid::nil()).row };
                ScannedRow { seq, leaf_hash, row: Ok(row), erased }
            }
        }
    };
}

exported! {
    id: Uuid,
    called_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_agent_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caller_agent_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credential_id: Option<Uuid>,
    auth_method: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hexed")]
    personal_salt: Option<[u8; 16]>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hexed")]
    client_ip_commitment: Option<[u8; 32]>,
    trust_level: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connection_id: Option<Uuid>,
    binding: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protocol_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    operation: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rpc_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    decision: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy_rule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy_digest: Option<String>,
    units: i64,
    outcome: String,
    status_code: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream_status: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rpc_error_code: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task_state: Option<String>,
    request_bytes: i64,
    response_bytes: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream_events: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttfb_ms: Option<i64>,
    latency_ms: i64,
    calls: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit_left: Option<i64>,
}

/// The columns whose values are numbers, and not texts that may look like some.
pub(super) const NUMBERS: &[&str] = &[
    "seq",
    "units",
    "status_code",
    "upstream_status",
    "rpc_error_code",
    "request_bytes",
    "response_bytes",
    "stream_events",
    "ttfb_ms",
    "latency_ms",
    "calls",
    "limit_left",
];

impl TryFrom<ScannedRow> for ExportedRow {
    type Error = StoreError;

    /// # Errors
    /// When the row cannot be read: what is not a row of ours is not passed on.
    fn try_from(ScannedRow { leaf_hash, row, erased, .. }: ScannedRow) -> Result<Self, StoreError> {
        let leaf_hash = leaf_hash.ok_or_else(|| StoreError::Corrupt("a leaf_hash is not 32 bytes long".to_owned()))?;
        Ok(Self::new(row?, leaf_hash, erased))
    }
}
