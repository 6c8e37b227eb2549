//! The migrations, compiled in.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{SqlSafeStr as _, SqlitePool};

use super::StoreError;

/// Every file of `migrations/sqlite/`, in order. A test holds this list against the directory.
const SQLITE: &[(i64, &str, &str)] = &[(2, "calls", include_str!("../../migrations/sqlite/0002_calls.sql"))];

pub(super) async fn run(pool: &SqlitePool) -> Result<(), StoreError> {
    let known = SQLITE.iter().map(|(version, ..)| *version).max().unwrap_or(0);
    let found = newest(pool).await?;
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    let migrations = SQLITE
        .iter()
        .map(|(version, name, sql)| {
            Migration::new(*version, (*name).into(), MigrationType::Simple, (*sql).into_sql_str(), false)
        })
        .collect();
    Migrator::with_migrations(migrations).run(pool).await.map_err(|error| StoreError::Database(error.into()))
}

/// The newest migration the database has seen; 0 for a new one.
async fn newest(pool: &SqlitePool) -> Result<i64, StoreError> {
    let table = "SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'";
    let tables: i64 = sqlx::query_scalar(table).fetch_one(pool).await?;
    if tables == 0 {
        return Ok(0);
    }
    Ok(sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations").fetch_one(pool).await?)
}
