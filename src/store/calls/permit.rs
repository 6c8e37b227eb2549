//! The transactions that may touch sealed rows. The database refuses it to all others, by trigger.

use crate::store::holds::HoldRow;
use crate::store::sql::{Tx, query};
use crate::store::{Store, StoreError};

/// What is done to sealed rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Permit {
    /// Values are taken out.
    Erase,
    /// Rows go.
    Drop,
}

impl Permit {
    fn as_str(self) -> &'static str {
        match self {
            Self::Erase => "erase",
            Self::Drop => "drop",
        }
    }
}

/// A transaction with a permit, and the holds in force as long as it goes on.
pub(in crate::store) struct Permitted {
    pub(in crate::store) tx: Tx,
    pub(in crate::store) holds: Vec<HoldRow>,
}

impl Store {
    /// Begins one. They happen one after the other on all nodes, never on the connection that PostgreSQL's rows are recorded on.
    pub(in crate::store) async fn permitted(&self, permit: Permit) -> Result<Permitted, StoreError> {
        let mut tx = self.writer.begin("BEGIN IMMEDIATE", "BEGIN").await?;
        ledger_turn(&mut tx).await?;
        match tx {
            Tx::Sqlite(_) => query("INSERT INTO ledger_permits (permit) VALUES ($1)"),
            Tx::Postgres(..) => query("SELECT set_config('trust_gateway.permit', $1, true)"),
        }
        .bind(permit.as_str())
        .execute(&mut tx)
        .await?;
        let holds = super::super::holds::in_force(&mut tx).await?;
        Ok(Permitted { tx, holds })
    }
}

impl Permitted {
    pub(in crate::store) async fn commit(self) -> Result<(), StoreError> {
        let Self { mut tx, .. } = self;
        // PostgreSQL's ends with the transaction.
        if let Tx::Sqlite(_) = tx {
            query("DELETE FROM ledger_permits").execute(&mut tx).await?;
        }
        tx.commit().await
    }
}

/// Waits for the other transactions that change sealed rows, or say which must stay: a hold that was placed holds from then on.
pub(in crate::store) async fn ledger_turn(tx: &mut Tx) -> Result<(), StoreError> {
    if let Tx::Postgres(..) = tx {
        query("SELECT pg_advisory_xact_lock(8390891584382493559)").execute(tx).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    use crate::audit::ledger::testing::{NODE, record};
    use crate::clock::Timestamp;
    use crate::store::calls::COLUMNS;
    use crate::store::rows::AdminEvent;
    use crate::store::sql::{Built, Dialect};
    use crate::store::testing::{TestStore, on_each_database};

    on_each_database!(
        sealed_rows_are_not_changed,
        erasure_takes_values_away_and_nothing_else,
        a_permit_ends_with_its_transaction,
    );

    const REFUSED: &str = "proxy_calls: sealed rows are not changed; see trust-gateway audit erase";

    async fn refused(test: &TestStore, sql: &str) {
        let error = test.try_by_hand(sql).await.expect_err(sql).to_string();
        assert!(error.contains(REFUSED), "{sql}: {error}");
    }

    /// What a column may be set to in a test, other than what it is.
    fn other(column: &str) -> String {
        match column {
            "id" | "target_agent_id" | "caller_agent_id" | "node_id" | "credential_id" | "connection_id" => {
                "'00000000-0000-0000-0000-00000000ffff'".to_owned()
            }
            "called_at" => "'2030-01-01T00:00:00.000000Z'".to_owned(),
            "personal_salt" | "client_ip_commitment" | "leaf_hash" => "X'00'".to_owned(),
            column if COLUMNS.contains(&column) => "'7'".to_owned(),
            column => panic!("{column} is no column"),
        }
    }

    /// The same in the words of either database.
    fn spelled(test: &TestStore, sql: &str) -> String {
        if test.store.is_shared() { sql.replace("X'00'", "'\\x00'::bytea") } else { sql.to_owned() }
    }

    fn moved(columns: &str) -> String {
        format!("rowid, {}", columns.replace("seq", "seq + 100"))
    }

    fn with_permit(test: &TestStore, permit: &str, sql: &str) -> String {
        if test.store.is_shared() {
            format!("BEGIN; SET LOCAL trust_gateway.permit = '{permit}'; {sql}; COMMIT")
        } else {
            format!("BEGIN; INSERT INTO ledger_permits VALUES ('{permit}'); {sql}; DELETE FROM ledger_permits; COMMIT")
        }
    }

    mod suite {
        use super::*;

        pub(super) async fn sealed_rows_are_not_changed(test: &TestStore) {
            record(&test.store, NODE, 0..9).await;
            for column in COLUMNS {
                let sql = format!("UPDATE proxy_calls SET {column} = {} WHERE seq = 2", other(column));
                refused(test, &spelled(test, &sql)).await;
            }
            for sql in [
                "UPDATE proxy_calls SET client_ip = NULL",
                "UPDATE proxy_calls SET erased_at = '2030-01-01T00:00:00.000000Z'",
                "UPDATE proxy_calls SET sealed_on = '2020-01-01' WHERE seq = 1",
                "DELETE FROM proxy_calls",
                "DELETE FROM proxy_calls WHERE seq = 9",
            ] {
                refused(test, sql).await;
            }
            let columns = COLUMNS.join(", ");
            if test.store.is_shared() {
                let insert = format!(
                    "INSERT INTO proxy_calls ({columns}, sealed_on) SELECT {columns}, sealed_on FROM proxy_calls"
                );
                refused(test, &format!("{insert} ON CONFLICT (node_id, seq, sealed_on) DO UPDATE SET calls = 9")).await;
                let today = "to_char((now() AT TIME ZONE 'UTC')::date, 'YYYYMMDD')";
                let day = |sql: &str, what: &str| {
                    format!("DO $$ BEGIN EXECUTE '{sql} proxy_calls_' || {today} || '{what}'; END $$")
                };
                refused(test, "TRUNCATE proxy_calls").await;
                refused(test, &day("TRUNCATE", "")).await;
                refused(test, &day("DELETE FROM", "")).await;
                refused(test, &day("UPDATE", " SET calls = 9")).await;
                refused(
                    test,
                    "SELECT proxy_calls_drop((now() AT TIME ZONE ''UTC'')::date)".replace("''", "'").as_str(),
                )
                .await;
            } else {
                for insert in ["INSERT OR REPLACE INTO", "REPLACE INTO"] {
                    // Over itself, and another call in the place of one.
                    for (into, from) in
                        [(columns.clone(), columns.clone()), (format!("rowid, {columns}"), moved(&columns))]
                    {
                        let sql = format!("{insert} proxy_calls ({into}) SELECT {from} FROM proxy_calls");
                        let sql = Built::new(Dialect::Sqlite, &sql).build();
                        let error = sql.execute(&test.store.writer).await.expect_err("a row is there").to_string();
                        assert!(error.contains(REFUSED), "{error}");
                    }
                }
                refused(test, "UPDATE OR REPLACE proxy_calls SET seq = 2 WHERE seq = 1").await;
            }
            // More are added all the same.
            record(&test.store, NODE, 9..12).await;
            assert_eq!(test.store.leaf_hashes(NODE, 0, 99).await.expect("leaves").len(), 12);
        }

        pub(super) async fn erasure_takes_values_away_and_nothing_else(test: &TestStore) {
            record(&test.store, NODE, 0..9).await;
            let erasable = [
                "client_ip",
                "personal_salt",
                "credential_id",
                "protocol_version",
                "method",
                "rpc_id",
                "task_id",
                "context_id",
                "message_id",
                "trace_id",
            ];
            for column in COLUMNS.iter().filter(|column| **column != "client_ip_commitment") {
                let set = format!("UPDATE proxy_calls SET {column} = {} WHERE seq = 2", other(column));
                refused(test, &with_permit(test, "erase", &spelled(test, &set))).await;
                refused(test, &with_permit(test, "drop", &spelled(test, &set))).await;
                let erase =
                    with_permit(test, "erase", &format!("UPDATE proxy_calls SET {column} = NULL WHERE seq = 1"));
                let done = test.try_by_hand(&erase).await;
                // Of the others some are null already: nothing is changed of those.
                if erasable.contains(column) {
                    done.unwrap_or_else(|error| panic!("{column}: {error}"));
                } else if ![
                    "connection_id",
                    "reason",
                    "policy_rule",
                    "policy_digest",
                    "upstream_status",
                    "rpc_error_code",
                    "task_state",
                    "stream_events",
                    "ttfb_ms",
                    "limit_name",
                    "limit_left",
                    "caller_agent_id",
                ]
                .contains(column)
                {
                    done.expect_err(column);
                }
            }
            let at = "erased_at = '2030-01-01T00:00:00.000000Z', client_ip_commitment = X'00'";
            let sql = spelled(test, &format!("UPDATE proxy_calls SET {at}"));
            test.try_by_hand(&with_permit(test, "erase", &sql)).await.expect("once");
            for sql in ["erased_at = NULL", "client_ip_commitment = NULL", "erased_at = '2031-01-01T00:00:00.000000Z'"]
            {
                refused(test, &with_permit(test, "erase", &format!("UPDATE proxy_calls SET {sql}"))).await;
            }
            refused(test, &with_permit(test, "erase", "DELETE FROM proxy_calls")).await;
            test.try_by_hand(&with_permit(test, "drop", "DELETE FROM proxy_calls WHERE seq < 3"))
                .await
                .expect("dropped");
            assert_eq!(test.store.leaf_hashes(NODE, 0, 99).await.expect("leaves").len(), 7);
        }

        pub(super) async fn a_permit_ends_with_its_transaction(test: &TestStore) {
            record(&test.store, NODE, 0..3).await;
            for _ in 0..2 {
                test.store.permitted(Permit::Drop).await.expect("begun").commit().await.expect("committed");
                drop(test.store.permitted(Permit::Drop).await.expect("begun"));
                let sql = query("DELETE FROM proxy_calls");
                let error = sql.execute(&test.store.writer).await.expect_err("no permit").to_string();
                assert!(error.contains(REFUSED), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn a_hold_waits_for_whoever_may_take_rows_away() {
        let test = TestStore::postgres().await;
        let other = test.again().await;
        let permitted = test.store.permitted(Permit::Drop).await.expect("begun");
        let placing = tokio::spawn(async move {
            let (id, at, words) = (Uuid::now_v7(), Timestamp(0), String::new);
            let hold = HoldRow {
                id,
                agent: None,
                since: None,
                until: None,
                reason: words(),
                placed_by: words(),
                placed_at: at,
                released_at: None,
            };
            let (actor, action, subject) = (words(), words(), words());
            let event = AdminEvent { id, at, actor, action, subject, before: None, after: None, reason: None };
            other.place_hold(&hold, &event).await.expect("placed");
            other.close().await;
        });
        let waiting = async || {
            let locks = query(
                "SELECT count(*) FROM pg_locks JOIN pg_database ON database = pg_database.oid \
                 WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted",
            );
            locks.number(&test.store.reader).await.expect("reads") > 0
        };
        while !waiting().await {
            assert!(!placing.is_finished(), "it did not wait");
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        permitted.commit().await.expect("committed");
        placing.await.expect("placed");
        test.end().await;
    }
}
