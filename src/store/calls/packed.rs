//! Rows out of SQLite at the speed that a check of millions of them needs: one text for each row, which SQLite makes and which is
//! taken apart here. Handing over some forty values one by one takes twice as long.
//!
//! A row that does not read so, for whatever reason, is left to the ordinary way, which says what is wrong with it.

use std::fmt;
use std::sync::LazyLock;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use uuid::Uuid;

use super::scan::ScannedRow;
use crate::clock::Timestamp;
use crate::store::rows::CallRow;
use crate::store::sql::exact_id;

/// The columns of a row: how SQLite writes each into the list, and how it is read from there.
macro_rules! packed {
    ($($column:ident: $kind:ty $(as $sql:literal)?,)+) => {
        /// A row as a list.
        #[derive(serde::Deserialize)]
        struct Packed {
            erased: i64,
            $($column: $kind,)+
        }

        /// The columns as SQL.
        const VALUES: &[(&str, &str)] = &[$((stringify!($column), concat!($($sql)?))),+];

        impl Packed {
            fn row(self) -> CallRow {
                CallRow { erased_at: None, $($column: self.$column.into_value(),)+ }
            }
        }
    };
}

packed! {
    id: Id,
    target_agent_id: Option<Id>,
    caller_agent_id: Option<Id>,
    trust_level: String,
    status_code: i64,
    latency_ms: i64,
    called_at: Time,
    node_id: Id,
    seq: i64,
    credential_id: Option<Id>,
    auth_method: String,
    client_ip: Option<String>,
    personal_salt: Option<Bytes<16>> as "hex",
    client_ip_commitment: Option<Bytes<32>> as "hex",
    connection_id: Option<Id>,
    binding: String,
    protocol_version: Option<String>,
    method: Option<String>,
    operation: String,
    rpc_id: Option<String>,
    task_id: Option<String>,
    context_id: Option<String>,
    message_id: Option<String>,
    decision: String,
    reason: Option<String>,
    policy_rule: Option<String>,
    policy_digest: Option<String>,
    units: i64,
    outcome: String,
    upstream_status: Option<i64>,
    rpc_error_code: Option<i64>,
    task_state: Option<String>,
    request_bytes: i64,
    response_bytes: i64,
    stream_events: Option<i64>,
    ttfb_ms: Option<i64>,
    calls: i64,
    trace_id: Option<String>,
    limit_name: Option<String>,
    limit_left: Option<i64>,
    leaf_hash: Bytes<32> as "hex",
}

/// The rows of a node behind a `seq`, each with its `seq` and as a list.
pub(super) static SELECT: LazyLock<String> = LazyLock::new(|| {
    let value = |(column, form): &(&str, &str)| match *form {
        "hex" => format!("iif({column} IS NULL, NULL, hex({column}))"),
        _ => (*column).to_owned(),
    };
    let values = VALUES.iter().map(value).collect::<Vec<_>>().join(", ");
    format!(
        "SELECT seq, json_array(erased_at IS NOT NULL, {values}) AS packed FROM proxy_calls \
         WHERE node_id = $1 AND seq > $2 ORDER BY seq LIMIT $3"
    )
});

/// The row in a list; `None` if it does not read.
pub(super) fn unpacked(text: &str) -> Option<ScannedRow> {
    let packed: Packed = serde_json::from_str(text).ok()?;
    let erased = packed.erased != 0;
    let row = packed.row();
    Some(ScannedRow { seq: row.seq, leaf_hash: Some(row.leaf_hash), row: Ok(row), erased })
}

/// What a column is in a [`CallRow`].
trait IntoValue {
    type Value;
    fn into_value(self) -> Self::Value;
}

macro_rules! as_it_is {
    ($($kind:ty),+) => {$(
        impl IntoValue for $kind {
            type Value = Self;
            fn into_value(self) -> Self {
                self
            }
        }
    )+};
}

as_it_is!(i64, String, Option<i64>, Option<String>);

/// A value that is written as text, in one way only.
macro_rules! written {
    ($name:ident $(<const $n:ident: $of:ty>)?, $value:ty, $read:expr) => {
        struct $name$(<const $n: $of>)?($value);

        impl<'de $(, const $n: $of)?> Deserialize<'de> for $name$(<$n>)? {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Written($read)).map(Self)
            }
        }

        impl$(<const $n: $of>)? IntoValue for $name$(<$n>)? {
            type Value = $value;
            fn into_value(self) -> $value {
                self.0
            }
        }

        impl$(<const $n: $of>)? IntoValue for Option<$name$(<$n>)?> {
            type Value = Option<$value>;
            fn into_value(self) -> Self::Value {
                self.map(|written| written.0)
            }
        }
    };
}

written!(Id, Uuid, exact_id);
written!(Time, Timestamp, Timestamp::parse_exact);
written!(Bytes<const N: usize>, [u8; N], bytes);

struct Written<T>(fn(&str) -> Option<T>);

impl<T> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value as the gateway writes it")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).ok_or_else(|| E::custom("it is written otherwise"))
    }
}

/// As SQLite's `hex` writes them.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut bytes = [0; N];
    if pairs.len() != N {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_of_a_row_is_packed() {
        let mut packed: Vec<&str> = VALUES.iter().map(|(column, _)| *column).collect();
        let mut columns = super::super::COLUMNS.to_vec();
        packed.sort_unstable();
        columns.sort_unstable();
        assert_eq!(packed, columns);
    }

    #[test]
    fn bytes_are_read_in_one_form_only() {
        assert_eq!(bytes::<2>("0AFF"), Some([10, 255]));
        for wrong in ["0aff", "0AF", "0AFF00", "", "0AG0", "0A\u{e9}"] {
            assert_eq!(bytes::<2>(wrong), None, "{wrong}");
        }
    }
}
