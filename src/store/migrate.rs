//! The migrations, compiled in: brings a database to this program's schema, and refuses one that is ahead of it.

use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use sqlx::{Executor as _, PgConnection, Row as _, SqlSafeStr as _, SqlitePool};

use super::StoreError;
use super::sql::{Patience, in_time};

/// The files of one directory of migrations, in order. A test holds the lists against the directories.
macro_rules! migrations {
    ($directory:literal: $($version:literal $file:literal $name:literal;)+) => {
        &[$(($version, $name, include_str!(concat!("../../migrations/", $directory, "/", $file, "_", $name, ".sql")))),+]
    };
}

type Files = &'static [(i64, &'static str, &'static str)];

const SQLITE: Files = migrations! { "sqlite":
    1 "0001" "registry";
    2 "0002" "calls";
    3 "0003" "control";
    4 "0004" "limits";
    5 "0005" "nodes";
    6 "0006" "ledger";
    7 "0007" "rollups";
    8 "0008" "outlets";
    9 "0009" "retention";
};

const POSTGRES: Files = migrations! { "postgres":
    1 "0001" "registry";
    2 "0002" "calls";
    3 "0003" "control";
    4 "0004" "limits";
    5 "0005" "nodes";
    6 "0006" "ledger";
    7 "0007" "rollups";
    8 "0008" "outlets";
    9 "0009" "retention";
};

/// The oldest PostgreSQL, as `server_version_num` has it.
const OLDEST_POSTGRES: i32 = 130_000;

/// Applies what is missing.
pub(super) async fn sqlite(pool: &SqlitePool) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await?;
    run(&mut *connection, SQLITE).await
}

/// Applies what is missing. Nodes that start at the same time take turns.
pub(super) async fn postgres(connection: &mut PgConnection) -> Result<(), StoreError> {
    let row =
        in_time(Patience::ASKED, connection.fetch_one("SELECT current_setting('server_version_num')::int")).await?;
    let version: i32 = row.try_get(0)?;
    if version < OLDEST_POSTGRES {
        return Err(StoreError::OldServer(version / 10_000));
    }
    let migrating = async {
        // "Is there already" is no news.
        connection.execute("SET client_min_messages = warning").await?;
        // Before the first look, and for as long as the connection lives: two that find no table would both make it.
        connection.execute("SELECT pg_advisory_lock(8390891584382493556)").await?;
        Ok::<_, sqlx::Error>(run(&mut *connection, POSTGRES).await)
    };
    in_time(Patience::MIGRATING, migrating).await?
}

async fn run<C: Migrate>(connection: &mut C, files: Files) -> Result<(), StoreError> {
    let known = files.last().map_or(0, |(version, ..)| *version);
    connection.ensure_migrations_table("_sqlx_migrations").await.map_err(failed)?;
    let applied = connection.list_applied_migrations("_sqlx_migrations").await.map_err(failed)?;
    if let Some(found) = applied.iter().map(|m| m.version).max().filter(|found| *found > known) {
        return Err(StoreError::NewerSchema { found, known });
    }
    let migrations = files
        .iter()
        .map(|(version, name, sql)| {
            Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
        })
        .collect();
    // Locked already, where it needs a lock.
    Migrator::with_migrations(migrations).set_locking(false).run_direct(None, connection, false).await.map_err(failed)
}

fn failed(error: sqlx::migrate::MigrateError) -> StoreError {
    StoreError::Database(sqlx::Error::Migrate(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::sql::query;

    #[test]
    fn every_migration_on_disk_is_compiled_in_and_in_order() {
        for (directory, files) in [("sqlite", SQLITE), ("postgres", POSTGRES)] {
            let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(directory);
            let mut on_disk: Vec<String> = std::fs::read_dir(directory)
                .expect("the directory")
                .map(|entry| entry.expect("an entry").file_name().into_string().expect("ASCII"))
                .collect();
            on_disk.sort();
            let listed: Vec<String> =
                files.iter().map(|(version, name, _)| format!("{version:04}_{name}.sql")).collect();
            assert_eq!(on_disk, listed);
        }
        let names = |files: Files| files.iter().map(|(version, name, _)| (*version, *name)).collect::<Vec<_>>();
        assert_eq!(names(SQLITE), names(POSTGRES), "the same numbers on both");
    }

    #[tokio::test]
    async fn a_database_of_a_newer_version_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("gateway.db");
        let store = Store::open_sqlite(&file).await.expect("opens");
        let newer = query("UPDATE _sqlx_migrations SET version = 999 WHERE version = 1");
        newer.execute(&store.writer).await.expect("runs");
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
