//! The database behind one interface. Knows SQL and rows; knows no HTTP and no rules.
//!
//! One writing connection, several reading ones: SQLite allows one writer, and a queue of our own is kinder than its lock.

mod agent_limits;
mod agents;
pub mod call_query;
pub mod calls;
mod columns;
mod connections;
mod directory;
mod error;
mod events;
mod health;
mod import;
mod keys;
mod migrate;
mod operators;
pub mod rows;
mod search;
mod secrets;
mod tally;
mod words;

#[cfg(test)]
mod conformance;

use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool, Transaction};

pub use connections::ConnectionFilter;
pub use error::StoreError;
pub use events::{EventFilter, EventPage};
pub use search::{AgentFilter, AgentPage};
pub use secrets::{Sealed, SecretColumn};
pub use tally::Tally;

/// The open database.
#[derive(Clone, Debug)]
pub struct Store {
    /// The one connection that writes.
    writer: SqlitePool,
    /// Connections that only read.
    reader: SqlitePool,
}

impl Store {
    /// Opens (and creates, and migrates) the SQLite database in `file`.
    ///
    /// # Errors
    /// When the file cannot be opened, is not a database, or was written by a newer version.
    pub async fn open_sqlite(file: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::from_str("sqlite:")?
            .filename(file)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(5))
            .foreign_keys(true)
            .pragma("cache_size", "-65536")
            .pragma("wal_autocheckpoint", "16000")
            .pragma("journal_size_limit", "67108864");
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(
                // Has to be decided before the first table is made.
                options.clone().create_if_missing(true).auto_vacuum(SqliteAutoVacuum::Incremental),
            )
            .await?;
        migrate::run(&writer).await?;
        // Readers page through rows: a large cache each would only cost memory.
        let options = options.read_only(true).pragma("cache_size", "-8192");
        let reader = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
        Ok(Self { writer, reader })
    }

    /// A transaction that may write. It takes the write lock at once: a read that becomes a write half-way could fail.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Reads the database, so that whoever asks knows whether it can be read.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1 FROM agents LIMIT 1").fetch_optional(&self.reader).await?;
        Ok(())
    }

    /// Closes every connection, the writer last.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}
