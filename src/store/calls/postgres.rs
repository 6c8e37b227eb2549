//! Rows of the log into PostgreSQL: one statement for all of them, each column an array.

use std::sync::LazyLock;

use sqlx::{AssertSqlSafe, Executor as _, PgConnection, SqlSafeStr as _};
use uuid::Uuid;

use super::COLUMNS;
use crate::store::StoreError;
use crate::store::rows::CallRow;
use crate::store::sql::{Patience, PgTime, in_time};

/// The columns that are not text or numbers, with the types of their arrays.
const TYPES: &[(&str, &str)] = &[
    ("id", "uuid"),
    ("target_agent_id", "uuid"),
    ("caller_agent_id", "uuid"),
    ("node_id", "uuid"),
    ("credential_id", "uuid"),
    ("connection_id", "uuid"),
    ("called_at", "timestamptz"),
    ("personal_salt", "bytea"),
    ("client_ip_commitment", "bytea"),
    ("leaf_hash", "bytea"),
];
/// The columns that are numbers.
const NUMBERS: &[&str] = &[
    "status_code",
    "latency_ms",
    "seq",
    "units",
    "upstream_status",
    "rpc_error_code",
    "request_bytes",
    "response_bytes",
    "stream_events",
    "ttfb_ms",
    "calls",
    "limit_left",
];

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let array = |(n, column): (usize, &&str)| {
        let known = TYPES.iter().find(|(name, _)| name == column).map(|(_, of)| *of);
        let of = known.unwrap_or(if NUMBERS.contains(column) { "bigint" } else { "text" });
        format!("${}::{of}[]", n + 1)
    };
    let (columns, arrays) = (COLUMNS.join(", "), COLUMNS.iter().enumerate().map(array).collect::<Vec<_>>().join(", "));
    let today = COLUMNS.len() + 1;
    format!("INSERT INTO proxy_calls ({columns}, sealed_on) SELECT *, ${today}::text::date FROM unnest({arrays})")
});

pub(super) async fn insert(tx: &mut PgConnection, patience: Patience, rows: &[CallRow]) -> Result<(), StoreError> {
    let today = sqlx::query_scalar::<_, String>("SELECT proxy_calls_day()::text");
    let today = in_time(patience, today.fetch_one(&mut *tx)).await?;
    macro_rules! each {
        ($column:ident) => {
            rows.iter().map(|row| row.$column).collect::<Vec<_>>()
        };
        (&$column:ident) => {
            rows.iter().map(|row| row.$column.as_str()).collect::<Vec<_>>()
        };
        (&? $column:ident) => {
            rows.iter().map(|row| row.$column.as_deref()).collect::<Vec<_>>()
        };
    }
    let times: Vec<PgTime> = rows.iter().map(|row| PgTime(row.called_at)).collect();
    let salts: Vec<Option<&[u8]>> =
        rows.iter().map(|row| row.personal_salt.as_ref().map(<[u8; 16]>::as_slice)).collect();
    let commitments: Vec<Option<&[u8]>> =
        rows.iter().map(|row| row.client_ip_commitment.as_ref().map(<[u8; 32]>::as_slice)).collect();
    let leaves: Vec<&[u8]> = rows.iter().map(|row| row.leaf_hash.as_slice()).collect();
    let ids: Vec<Uuid> = each!(id);
    let query = sqlx::query(AssertSqlSafe(INSERT.as_str()).into_sql_str())
        .bind(ids)
        .bind(each!(target_agent_id))
        .bind(each!(caller_agent_id))
        .bind(each!(&trust_level))
        .bind(each!(status_code))
        .bind(each!(latency_ms))
        .bind(times)
        .bind(each!(node_id))
        .bind(each!(seq))
        .bind(each!(credential_id))
        .bind(each!(&auth_method))
        .bind(each!(&?client_ip))
        .bind(salts)
        .bind(commitments)
        .bind(each!(connection_id))
        .bind(each!(&binding))
        .bind(each!(&?protocol_version))
        .bind(each!(&?method))
        .bind(each!(&operation))
        .bind(each!(&?rpc_id))
        .bind(each!(&?task_id))
        .bind(each!(&?context_id))
        .bind(each!(&?message_id))
        .bind(each!(&decision))
        .bind(each!(&?reason))
        .bind(each!(&?policy_rule))
        .bind(each!(&?policy_digest))
        .bind(each!(units))
        .bind(each!(&outcome))
        .bind(each!(upstream_status))
        .bind(each!(rpc_error_code))
        .bind(each!(&?task_state))
        .bind(each!(request_bytes))
        .bind(each!(response_bytes))
        .bind(each!(stream_events))
        .bind(each!(ttfb_ms))
        .bind(each!(calls))
        .bind(each!(&?trace_id))
        .bind(each!(&?limit_name))
        .bind(each!(limit_left))
        .bind(leaves)
        .bind(today);
    in_time(patience, tx.execute(query)).await.map(drop)
}
