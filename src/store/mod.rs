//! The database behind one interface: SQLite in a file, or PostgreSQL. Knows SQL and rows; knows no HTTP and no rules.
//!
//! What changes the registry happens one after the other, whichever database it is and however many nodes there are: SQLite
//! has one writer (and a queue of our own is kinder than its lock), on PostgreSQL whoever writes takes one advisory lock
//! first. So every check holds until the write that it is for. Recording calls takes no part in that: each node has rows of
//! its own.

mod agent_limits;
mod agents;
pub mod call_query;
pub mod calls;
mod columns;
mod connections;
mod copy;
mod directory;
mod error;
mod events;
mod health;
pub mod holds;
mod import;
mod keys;
pub mod ledger;
mod migrate;
mod nodes;
mod open;
mod operators;
mod outlets;
pub mod rows;
mod search;
mod secrets;
mod sql;
mod tally;
mod webhooks;
mod words;

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(test)]
mod sharing_tests;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use tokio::sync::Mutex;

use sql::{Pool, Tx, query};

pub use connections::ConnectionFilter;
pub use copy::copy_sqlite;
pub use error::StoreError;
pub use events::{EventFilter, EventPage};
pub use health::HealthChange;
pub use nodes::{ChangeListener, NodeRow};
pub use open::{PostgresOptions, PostgresOptionsError};
pub use search::{AgentFilter, AgentPage};
pub use secrets::{Sealed, SecretColumn};
pub use tally::Tally;
pub use webhooks::{Delivery, WAITING_MAX, Waiting, WebhookEvent};

/// The open database.
#[derive(Clone, Debug)]
pub struct Store {
    /// Changes the registry.
    writer: Pool,
    /// Only reads.
    reader: Pool,
    /// Records calls; on PostgreSQL a connection of its own, so that nobody who asks keeps the drain waiting.
    recorder: Pool,
    /// Held by whoever needs commits on SQLite to survive a power loss: how they are made is a matter of the connection.
    synced: Arc<Mutex<()>>,
    /// Reads the log for those who are sent its rows.
    follower: Pool,
}

impl Store {
    /// A transaction that may change the registry. It takes its turn at once: a read that becomes a write half-way could fail,
    /// or find that what it read is no longer so.
    async fn begin(&self) -> Result<Tx, StoreError> {
        let mut tx = self.writer.begin("BEGIN IMMEDIATE", "BEGIN").await?;
        if let Tx::Postgres(..) = tx {
            query("SELECT trust_gateway_turn()").execute(&mut tx).await?;
        }
        Ok(tx)
    }

    /// A transaction that reads, all of it as of one moment.
    async fn snapshot(&self) -> Result<Tx, StoreError> {
        self.reader.begin("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    /// Reads the database, so that whoever asks knows whether it can be read.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn ping(&self) -> Result<(), StoreError> {
        query("SELECT 1 FROM agents LIMIT 1").exists(&self.reader).await.map(drop)
    }

    /// Returns once what was committed survives a power cut.
    ///
    /// # Errors
    /// When that cannot be had.
    async fn write_through(&self) -> Result<(), StoreError> {
        // PostgreSQL's commit has waited for that.
        if let Pool::Postgres(..) = self.writer {
            return Ok(());
        }
        let row = query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&self.writer).await?;
        match columns::number(&row, "busy")? {
            0 => Ok(()),
            _ => Err(StoreError::Busy),
        }
    }

    /// Whether other nodes may change what is here.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.writer, Pool::Postgres(..))
    }

    /// Closes every connection, the writer last.
    pub async fn close(&self) {
        self.reader.close().await;
        self.follower.close().await;
        self.recorder.close().await;
        self.writer.close().await;
    }
}
