//! The migrations, compiled in: brings a database to this program's schema, and refuses one that is ahead of it.

use sqlx::migrate::{Migrate as _, Migration, MigrationType, Migrator};
use sqlx::{SqlSafeStr as _, SqlitePool};

use super::StoreError;

/// Every file of `migrations/sqlite/`, in order. A test holds this list against the directory.
const SQLITE: &[(i64, &str, &str)] = &[
    (1, "registry", include_str!("../../migrations/sqlite/0001_registry.sql")),
    (2, "calls", include_str!("../../migrations/sqlite/0002_calls.sql")),
    (3, "control", include_str!("../../migrations/sqlite/0003_control.sql")),
    (4, "limits", include_str!("../../migrations/sqlite/0004_limits.sql")),
];

/// Applies what is missing.
pub(super) async fn run(pool: &SqlitePool) -> Result<(), StoreError> {
    let known = SQLITE.last().map_or(0, |(version, ..)| *version);
    let mut connection = pool.acquire().await?;
    connection.ensure_migrations_table("_sqlx_migrations").await.map_err(failed)?;
    let applied = connection.list_applied_migrations("_sqlx_migrations").await.map_err(failed)?;
    if let Some(found) = applied.iter().map(|m| m.version).max().filter(|found| *found > known) {
        return Err(StoreError::NewerSchema { found, known });
    }
    drop(connection);
    let migrations = SQLITE
        .iter()
        .map(|(version, name, sql)| {
            Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
        })
        .collect();
    Migrator::with_migrations(migrations).run(pool).await.map_err(failed)
}

fn failed(error: sqlx::migrate::MigrateError) -> StoreError {
    StoreError::Database(sqlx::Error::Migrate(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn every_migration_on_disk_is_compiled_in_and_in_order() {
        let mut on_disk: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite"))
            .expect("the directory")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("ASCII"))
            .collect();
        on_disk.sort();
        let listed: Vec<String> = SQLITE.iter().map(|(version, name, _)| format!("{version:04}_{name}.sql")).collect();
        assert_eq!(on_disk, listed);
    }

    #[tokio::test]
    async fn a_database_of_a_newer_version_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("gateway.db");
        let store = Store::open_sqlite(&file).await.expect("opens");
        sqlx::query("UPDATE _sqlx_migrations SET version = 999 WHERE version = 1")
            .execute(&store.writer)
            .await
            .expect("runs");
        store.close().await;
        let error = Store::open_sqlite(&file).await.expect_err("newer");
        assert!(matches!(error, StoreError::NewerSchema { found: 999, .. }), "{error}");
    }

    #[tokio::test]
    async fn opening_twice_changes_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("gateway.db");
        Store::open_sqlite(&file).await.expect("opens").close().await;
        Store::open_sqlite(&file).await.expect("opens again").close().await;
    }
}
