//! A statement and its values.

use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Postgres, SqlSafeStr as _, SqlStr, Sqlite};

use super::{Dialect, On, Pool, Row, Tx, Value, in_time};
use crate::store::StoreError;

/// A statement and its values, in the order of `$1`, `$2`, ...
#[derive(Debug)]
pub(in crate::store) struct Query {
    sql: Sql,
    values: Vec<Value>,
}

#[derive(Debug)]
enum Sql {
    Same(&'static str),
    Each { sqlite: &'static str, postgres: &'static str },
    Built(String),
}

/// A statement that both databases understand.
pub(in crate::store) fn query(sql: &'static str) -> Query {
    Query { sql: Sql::Same(sql), values: Vec::new() }
}

/// A statement that each database has in its own words; the values are the same.
pub(in crate::store) fn either(sqlite: &'static str, postgres: &'static str) -> Query {
    Query { sql: Sql::Each { sqlite, postgres }, values: Vec::new() }
}

/// Runs `$method` of the sqlx query on whatever `$on` is.
macro_rules! run {
    ($query:expr, $on:expr, $method:ident) => {
        match $on.into() {
            On::Pool(Pool::Sqlite(pool)) => Given::Sqlite($query.sqlite().$method(pool).await?),
            On::Tx(Tx::Sqlite(tx)) => Given::Sqlite($query.sqlite().$method(&mut **tx).await?),
            On::Pool(Pool::Postgres(pool, patience)) => {
                Given::Postgres(in_time(*patience, $query.postgres().$method(pool)).await?)
            }
            On::Tx(Tx::Postgres(tx, patience)) => {
                Given::Postgres(in_time(*patience, $query.postgres().$method(&mut **tx)).await?)
            }
        }
    };
}

/// What a database gave.
enum Given<S, P> {
    Sqlite(S),
    Postgres(P),
}

impl Query {
    /// Adds the next value.
    pub(in crate::store) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs it; how many rows it touched.
    pub(in crate::store) async fn execute<'a>(self, on: impl Into<On<'a>>) -> Result<u64, StoreError> {
        Ok(match run!(self, on, execute) {
            Given::Sqlite(done) => done.rows_affected(),
            Given::Postgres(done) => done.rows_affected(),
        })
    }

    /// Every row.
    pub(in crate::store) async fn fetch_all<'a>(self, on: impl Into<On<'a>>) -> Result<Vec<Row>, StoreError> {
        Ok(match run!(self, on, fetch_all) {
            Given::Sqlite(rows) => rows.into_iter().map(Row::Sqlite).collect(),
            Given::Postgres(rows) => rows.into_iter().map(Row::Postgres).collect(),
        })
    }

    /// The first row, if there is one.
    pub(in crate::store) async fn fetch_optional<'a>(self, on: impl Into<On<'a>>) -> Result<Option<Row>, StoreError> {
        Ok(match run!(self, on, fetch_optional) {
            Given::Sqlite(row) => row.map(Row::Sqlite),
            Given::Postgres(row) => row.map(Row::Postgres),
        })
    }

    /// The first row; [`StoreError::NotFound`] without one.
    pub(in crate::store) async fn fetch_one<'a>(self, on: impl Into<On<'a>>) -> Result<Row, StoreError> {
        self.fetch_optional(on).await?.ok_or(StoreError::NotFound)
    }

    /// The number in the one column of the one row.
    pub(in crate::store) async fn number<'a>(self, on: impl Into<On<'a>>) -> Result<i64, StoreError> {
        self.fetch_one(on).await?.get_number(0)?.ok_or(StoreError::NotFound)
    }

    /// Whether there is a row.
    pub(in crate::store) async fn exists<'a>(self, on: impl Into<On<'a>>) -> Result<bool, StoreError> {
        Ok(self.fetch_optional(on).await?.is_some())
    }

    fn sqlite(self) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
        let sql = self.sql.text(Dialect::Sqlite);
        self.values.into_iter().fold(sqlx::query(sql), |query, value| value.on_sqlite(query))
    }

    fn postgres(self) -> sqlx::query::Query<'static, Postgres, PgArguments> {
        let sql = self.sql.text(Dialect::Postgres);
        self.values.into_iter().fold(sqlx::query(sql), |query, value| value.on_postgres(query))
    }
}

impl Sql {
    fn text(&self, dialect: Dialect) -> SqlStr {
        match self {
            Self::Same(sql) => sql.into_sql_str(),
            Self::Each { sqlite, postgres } => match dialect {
                Dialect::Sqlite => sqlite.into_sql_str(),
                Dialect::Postgres => postgres.into_sql_str(),
            },
            // Put together of literals; whatever comes from outside is a value.
            Self::Built(sql) => AssertSqlSafe(sql.clone()).into_sql_str(),
        }
    }
}

/// A statement put together of pieces, for the database it is built for.
#[derive(Debug)]
pub(in crate::store) struct Built {
    dialect: Dialect,
    sql: String,
    values: Vec<Value>,
}

impl Built {
    pub(in crate::store) fn new(dialect: Dialect, sql: &str) -> Self {
        Self { dialect, sql: sql.to_owned(), values: Vec::new() }
    }

    /// Adds words. Never anything that comes from outside.
    pub(in crate::store) fn push(&mut self, sql: &'static str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    /// Adds words of one database or the other.
    pub(in crate::store) fn push_either(&mut self, sqlite: &'static str, postgres: &'static str) -> &mut Self {
        self.push(match self.dialect {
            Dialect::Sqlite => sqlite,
            Dialect::Postgres => postgres,
        })
    }

    /// Adds a value.
    pub(in crate::store) fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        self.sql.push('$');
        self.sql.push_str(&self.values.len().to_string());
        self
    }

    pub(in crate::store) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(in crate::store) fn build(self) -> Query {
        Query { sql: Sql::Built(self.sql), values: self.values }
    }
}

/// A statement that ends in the condition that a column is one of the ids that are its first value.
macro_rules! among {
    ($before:expr, $column:literal) => {
        $crate::store::sql::either(
            concat!($before, $column, " IN (SELECT value FROM json_each($1))"),
            concat!($before, $column, " = ANY($1)"),
        )
    };
}
pub(in crate::store) use among;
