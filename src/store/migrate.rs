//! The migrations, compiled in.

use sqlx::SqlitePool;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::StoreError;

/// Every file of `migrations/sqlite/`, in order. A test holds this list against the directory.
const SQLITE: &[(i64, &str, &str)] = &[];

pub(super) async fn run(pool: &SqlitePool) -> Result<(), StoreError> {
    let _ = (pool, SQLITE, None::<(Migration, MigrationType, Migrator)>);
    Ok(())
}
