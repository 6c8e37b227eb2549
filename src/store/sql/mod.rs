//! One way to speak to either database: a statement with its values, run on connections or in a transaction, giving rows.
//!
//! Statements are written once, in the SQL that SQLite and PostgreSQL share, with `$n` for values; where they differ both are
//! given. What a value or a column is in each of them (ids, times, flags) is settled here, once. Knows no table.

mod patience;
mod query;
mod row;
mod value;

use std::fmt;

use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, Transaction};

use super::StoreError;

pub(super) use patience::{Patience, in_time};
pub(super) use query::{Built, Query, among, either, query};
pub(super) use row::{Column, Row, corrupt, exact_id};
pub(super) use value::{PgTime, Value};

/// Which SQL is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

/// Connections to one database.
#[derive(Clone)]
pub(super) enum Pool {
    Sqlite(SqlitePool),
    /// A server may be slow, or silent: nobody waits longer than that for one statement.
    Postgres(PgPool, Patience),
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the options: they hold a password.
        f.write_str(match self {
            Self::Sqlite(_) => "Pool(SQLite)",
            Self::Postgres(..) => "Pool(PostgreSQL)",
        })
    }
}

impl Pool {
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(..) => Dialect::Postgres,
        }
    }

    /// A transaction that begins with `sqlite` or `postgres`.
    pub(super) async fn begin(&self, sqlite: &'static str, postgres: &'static str) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite(pool) => Ok(Tx::Sqlite(pool.begin_with(sqlite).await?)),
            Self::Postgres(pool, patience) => {
                Ok(Tx::Postgres(in_time(*patience, pool.begin_with(postgres)).await?, *patience))
            }
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            // One that is silent is not waited for.
            Self::Postgres(pool, patience) => drop(tokio::time::timeout(patience.0, pool.close()).await),
        }
    }
}

/// A transaction; rolled back when it is dropped.
pub(super) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>, Patience),
}

impl Tx {
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(..) => Dialect::Postgres,
        }
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => Ok(tx.commit().await?),
            Self::Postgres(tx, patience) => in_time(patience, tx.commit()).await,
        }
    }
}

/// Where a statement runs.
pub(super) enum On<'a> {
    Pool(&'a Pool),
    Tx(&'a mut Tx),
}

impl<'a> From<&'a Pool> for On<'a> {
    fn from(pool: &'a Pool) -> Self {
        Self::Pool(pool)
    }
}

impl<'a> From<&'a mut Tx> for On<'a> {
    fn from(tx: &'a mut Tx) -> Self {
        Self::Tx(tx)
    }
}
