//! Rows of the log into SQLite: many in one statement, values one by one.

use std::sync::LazyLock;

use sqlx::SqliteConnection;
use sqlx::sqlite::{Sqlite, SqliteArguments};
use uuid::Uuid;

use super::COLUMNS;
use crate::store::StoreError;
use crate::store::rows::CallRow;

/// Rows per statement, largest first: few sizes, so that each is prepared once; at most 41 * 256 variables.
const STATEMENT_ROWS: [usize; 4] = [256, 32, 4, 1];

static INSERTS: LazyLock<[String; 4]> = LazyLock::new(|| STATEMENT_ROWS.map(insert_statement));

fn insert_statement(rows: usize) -> String {
    let mut sql = format!("INSERT INTO proxy_calls ({}, sealed_on) VALUES ", COLUMNS.join(", "));
    let group = format!("({}, date('now'))", vec!["?"; COLUMNS.len()].join(", "));
    sql.push_str(&vec![group; rows].join(", "));
    sql
}

pub(super) async fn insert(tx: &mut SqliteConnection, mut rows: &[CallRow]) -> Result<(), StoreError> {
    for (size, sql) in STATEMENT_ROWS.into_iter().zip(INSERTS.iter()) {
        while let Some((now, later)) = rows.split_at_checked(size) {
            let mut query = sqlx::query(sql.as_str());
            for row in now {
                query = bind(query, row);
            }
            query.execute(&mut *tx).await?;
            rows = later;
        }
    }
    Ok(())
}

type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// Binds a row's values in the order of [`COLUMNS`].
fn bind<'q>(query: Query<'q>, row: &CallRow) -> Query<'q> {
    let id = |id: Option<Uuid>| id.map(|id| id.to_string());
    query
        .bind(row.id.to_string())
        .bind(id(row.target_agent_id))
        .bind(id(row.caller_agent_id))
        .bind(row.trust_level.as_str())
        .bind(row.status_code)
        .bind(row.latency_ms)
        .bind(row.called_at.to_string())
        .bind(row.node_id.to_string())
        .bind(row.seq)
        .bind(id(row.credential_id))
        .bind(row.auth_method.as_str())
        .bind(row.client_ip.as_deref())
        .bind(row.personal_salt.as_ref().map(<[u8; 16]>::as_slice))
        .bind(row.client_ip_commitment.as_ref().map(<[u8; 32]>::as_slice))
        .bind(id(row.connection_id))
        .bind(row.binding.as_str())
        .bind(row.protocol_version.as_deref())
        .bind(row.method.as_deref())
        .bind(row.operation.as_str())
        .bind(row.rpc_id.as_deref())
        .bind(row.task_id.as_deref())
        .bind(row.context_id.as_deref())
        .bind(row.message_id.as_deref())
        .bind(row.decision.as_str())
        .bind(row.reason.as_deref())
        .bind(row.policy_rule.as_deref())
        .bind(row.policy_digest.as_deref())
        .bind(row.units)
        .bind(row.outcome.as_str())
        .bind(row.upstream_status)
        .bind(row.rpc_error_code)
        .bind(row.task_state.as_deref())
        .bind(row.request_bytes)
        .bind(row.response_bytes)
        .bind(row.stream_events)
        .bind(row.ttfb_ms)
        .bind(row.calls)
        .bind(row.trace_id.as_deref())
        .bind(row.limit_name.as_deref())
        .bind(row.limit_left)
        .bind(row.leaf_hash.as_slice())
}
