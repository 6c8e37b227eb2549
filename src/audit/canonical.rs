//! The canonical record: the bytes that a row's leaf in the Merkle tree is hashed from.
//!
//! It is a function of the row alone, so that anyone who holds the table can compute it again. `seq` and `node_id` are not in
//! it: a leaf's place in a node's tree says both. Neither is `leaf_hash`, nor what the limits remember of a call.
//!
//! # Version 1, byte by byte
//!
//! `"tgcall"` (6 bytes), version `0x01`, then the fields that the row has, in ascending order of their tags. A field is its tag
//! (1 byte), the length of its value (2 bytes, big-endian) and the value. Absent values (SQL NULL) are left out.
//!
//! | tag | field | value |
//! |---|---|---|
//! | 01 | `id` | uuid |
//! | 02 | `called_at` | int, microseconds since 1970 |
//! | 03 | `target_agent_id` | uuid |
//! | 04 | `caller_agent_id` | uuid |
//! | 05 | `credential_id` | uuid |
//! | 06 | `auth_method` | text |
//! | 07 | `client_ip` | commitment |
//! | 08 | `trust_level` | text |
//! | 09 | `connection_id` | uuid |
//! | 0a | `binding` | text |
//! | 0b | `protocol_version` | text |
//! | 0c | `method` | text |
//! | 0d | `operation` | text |
//! | 0e | `rpc_id` | text |
//! | 0f | `task_id` | text |
//! | 10 | `context_id` | text |
//! | 11 | `message_id` | text |
//! | 12 | `decision` | text |
//! | 13 | `reason` | text |
//! | 14 | `policy_rule` | text |
//! | 15 | `policy_digest` | text |
//! | 16 | `units` | int |
//! | 17 | `outcome` | text |
//! | 18 | `status_code` | int |
//! | 19 | `upstream_status` | int |
//! | 1a | `rpc_error_code` | int |
//! | 1b | `task_state` | text |
//! | 1c | `request_bytes` | int |
//! | 1d | `response_bytes` | int |
//! | 1e | `stream_events` | int |
//! | 1f | `ttfb_ms` | int |
//! | 20 | `latency_ms` | int |
//! | 21 | `calls` | int |
//! | 22 | `trace_id` | text |
//! | 23 | `limit_name` | text |
//! | 24 | `limit_left` | int |
//!
//! A uuid is its 16 bytes, an int is 8 bytes big-endian two's complement, text is UTF-8. The commitment is
//! `SHA-256(salt || client_ip)`, salt being the row's 16 bytes and `client_ip` its text; once both are erased the row holds the
//! commitment itself, and the leaf stays what it was.
//!
//! The leaf is `SHA-256(0x00 || record)` (RFC 6962 section 2.1).
//!
//! Test vectors are in `docs/record_vectors.jsonl`, and what this is for in `docs/ledger.md`.

use uuid::Uuid;

use super::ledger::tree::{self, sha256};
use crate::store::rows::CallRow;

/// The first bytes of every record: what it is and its version.
const PREFIX: &[u8] = b"tgcall\x01";

/// The canonical record of a row.
#[must_use]
pub fn record(row: &CallRow) -> Vec<u8> {
    let mut out = Vec::with_capacity(640);
    write(row, &mut out);
    out
}

/// The leaf hash of a row: SHA-256 over a zero byte and the canonical record.
#[must_use]
pub fn leaf_hash(row: &CallRow) -> [u8; 32] {
    tree::leaf_hash(&record(row))
}

/// The commitment that stands for a personal value in the record.
#[must_use]
pub fn commitment(salt: &[u8; 16], value: &str) -> [u8; 32] {
    sha256(&[salt, value.as_bytes()])
}

fn write(row: &CallRow, out: &mut Vec<u8>) {
    out.extend_from_slice(PREFIX);
    let mut fields = Fields(out);
    fields.uuid(0x01, Some(row.id));
    fields.int(0x02, Some(row.called_at.0));
    fields.uuid(0x03, row.target_agent_id);
    fields.uuid(0x04, row.caller_agent_id);
    fields.uuid(0x05, row.credential_id);
    fields.text(0x06, Some(&row.auth_method));
    let ip = match (&row.client_ip, &row.personal_salt) {
        (Some(ip), Some(salt)) => Some(commitment(salt, ip)),
        _ => row.client_ip_commitment,
    };
    if let Some(ip) = ip {
        fields.put(0x07, &ip);
    }
    fields.text(0x08, Some(&row.trust_level));
    fields.uuid(0x09, row.connection_id);
    fields.text(0x0a, Some(&row.binding));
    fields.text(0x0b, row.protocol_version.as_deref());
    fields.text(0x0c, row.method.as_deref());
    fields.text(0x0d, Some(&row.operation));
    fields.text(0x0e, row.rpc_id.as_deref());
    fields.text(0x0f, row.task_id.as_deref());
    fields.text(0x10, row.context_id.as_deref());
    fields.text(0x11, row.message_id.as_deref());
    fields.text(0x12, Some(&row.decision));
    fields.text(0x13, row.reason.as_deref());
    fields.text(0x14, row.policy_rule.as_deref());
    fields.text(0x15, row.policy_digest.as_deref());
    fields.int(0x16, Some(row.units));
    fields.text(0x17, Some(&row.outcome));
    fields.int(0x18, Some(row.status_code));
    fields.int(0x19, row.upstream_status);
    fields.int(0x1a, row.rpc_error_code);
    fields.text(0x1b, row.task_state.as_deref());
    fields.int(0x1c, Some(row.request_bytes));
    fields.int(0x1d, Some(row.response_bytes));
    fields.int(0x1e, row.stream_events);
    fields.int(0x1f, row.ttfb_ms);
    fields.int(0x20, Some(row.latency_ms));
    fields.int(0x21, Some(row.calls));
    fields.text(0x22, row.trace_id.as_deref());
    fields.text(0x23, row.limit_name.as_deref());
    fields.int(0x24, row.limit_left);
}

struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn put(&mut self, tag: u8, value: &[u8]) {
        // The journal bounds every string far below this; a row edited by hand that exceeds it must not panic the verifier,
        // and cannot pass as another row, since its length says 65535.
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.0.push(tag);
        self.0.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.0.extend_from_slice(value);
    }

    fn text(&mut self, tag: u8, value: Option<&str>) {
        if let Some(value) = value {
            self.put(tag, value.as_bytes());
        }
    }

    fn int(&mut self, tag: u8, value: Option<i64>) {
        if let Some(value) = value {
            self.put(tag, &value.to_be_bytes());
        }
    }

    fn uuid(&mut self, tag: u8, value: Option<Uuid>) {
        if let Some(value) = value {
            self.put(tag, value.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::journal::entry::Draft;
    use crate::audit::ledger::export::ExportedRow;
    use crate::clock::Timestamp;

    fn row() -> CallRow {
        CallRow {
            id: Uuid::from_u128(1),
            called_at: Timestamp(1_700_000_000_000_001),
            target_agent_id: Some(Uuid::from_u128(2)),
            auth_method: "api_key".to_owned(),
            client_ip: Some("203.0.113.0/24".to_owned()),
            personal_salt: Some([9; 16]),
            trust_level: "verified".to_owned(),
            binding: "jsonrpc".to_owned(),
            method: Some("message/send".to_owned()),
            operation: "SendMessage".to_owned(),
            decision: "allowed".to_owned(),
            units: 1,
            outcome: "completed".to_owned(),
            status_code: 200,
            rpc_error_code: Some(-32_001),
            request_bytes: 3,
            response_bytes: 4,
            latency_ms: 5,
            limit_name: Some("tier.verified.rate".to_owned()),
            limit_left: Some(0),
            ..Draft::new(Uuid::from_u128(3)).row
        }
    }

    /// Made by another program, in another language.
    #[test]
    fn the_documented_records_are_made_of_the_documented_rows() {
        #[derive(serde::Deserialize)]
        struct Vector {
            what: String,
            row: ExportedRow,
            record: String,
        }
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let vectors = include_str!("../../docs/record_vectors.jsonl").lines();
        let vectors: Vec<Vector> = vectors.map(|line| serde_json::from_str(line).expect("a vector")).collect();
        assert_eq!(vectors.len(), 4);
        for Vector { what, row, record: documented } in vectors {
            let documented_leaf = row.leaf_hash;
            let row = row.into_scanned().row.expect("a row");
            assert_eq!(hex(&record(&row)), documented, "{what}");
            assert_eq!(leaf_hash(&row), documented_leaf, "{what}");
        }
    }

    #[test]
    fn erasing_an_address_and_its_salt_leaves_the_leaf_as_it_was() {
        let erased = CallRow {
            client_ip: None,
            personal_salt: None,
            client_ip_commitment: Some(commitment(&[9; 16], "203.0.113.0/24")),
            ..row()
        };
        assert_eq!(leaf_hash(&erased), leaf_hash(&row()));
    }

    #[test]
    fn position_and_leaf_are_not_in_the_record_and_everything_else_is() {
        let moved = CallRow { seq: 9, node_id: Uuid::from_u128(4), leaf_hash: [1; 32], ..row() };
        assert_eq!(record(&moved), record(&row()));
        for changed in [
            CallRow { caller_agent_id: Some(Uuid::from_u128(2)), target_agent_id: None, ..row() },
            CallRow { reason: Some("x".to_owned()), ..row() },
            CallRow { policy_rule: Some("x".to_owned()), ..row() },
            CallRow { calls: 2, ..row() },
            CallRow { trace_id: Some(String::new()), ..row() },
            CallRow { limit_name: None, ..row() },
            CallRow { limit_left: Some(1), ..row() },
        ] {
            assert_ne!(leaf_hash(&changed), leaf_hash(&row()), "{changed:?}");
        }
    }
}
