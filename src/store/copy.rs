//! A copy of a SQLite database as of one moment, while others read and write it.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use super::StoreError;

/// Writes what the database in `file` holds into the new file `to`, which is whole when this returns.
///
/// # Errors
/// When `file` cannot be read, or `to` is there already or cannot be written.
pub async fn copy_sqlite(file: &Path, to: &Path) -> Result<(), StoreError> {
    // Not through a store: that would bring the original up to date, under a gateway that may be older.
    let options = SqliteConnectOptions::new().filename(file).busy_timeout(Duration::from_secs(5));
    let mut connection = options.connect().await?;
    sqlx::query("VACUUM INTO $1").bind(to.to_string_lossy().into_owned()).execute(&mut connection).await?;
    Ok(connection.close().await?)
}
