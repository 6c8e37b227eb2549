//! What can go wrong with the database, sorted by what the caller can do about it.

use std::fmt;
use std::time::Duration;

/// A failed database operation.
#[derive(Debug)]
pub enum StoreError {
    /// A unique value is taken; holds what names it: a column (`agents.slug`) or a constraint (`agents_slug_key`).
    Conflict(String),
    /// As many as may be are there already.
    Full,
    /// Nothing matches.
    NotFound,
    /// A stored value cannot be read: the database was changed by hand or by another version.
    Corrupt(String),
    /// Rows are not what they were when they were looked at; says which.
    Changed(String),
    /// The database's schema is newer than this program.
    NewerSchema {
        /// The newest migration found in the database.
        found: i64,
        /// The newest this program knows.
        known: i64,
    },
    /// PostgreSQL is older than the oldest that is supported; holds its version.
    OldServer(i32),
    /// Somebody else has the database file open.
    Busy,
    /// The database server did not answer for that long.
    Silent(Duration),
    /// Everything else: the file, the disk, the connection.
    Database(sqlx::Error),
}

impl StoreError {
    /// Whether it took too long: less at once may be done in time.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        match self {
            Self::Silent(_) => true,
            // PostgreSQL's query_canceled, which is what `statement_timeout` does.
            Self::Database(sqlx::Error::Database(error)) => error.code().as_deref() == Some("57014"),
            _ => false,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict(what) => write!(f, "already taken: {what}"),
            Self::Full => f.write_str("no more of these are taken now"),
            Self::NotFound => f.write_str("no such row"),
            Self::Corrupt(what) => write!(f, "the database holds a value this version cannot read: {what}"),
            Self::Changed(what) => f.write_str(what),
            Self::NewerSchema { found, known } => write!(
                f,
                "the database is at migration {found}, this program knows up to {known}: run the newer version, or restore a backup"
            ),
            Self::OldServer(version) => {
                write!(f, "the server is PostgreSQL {version}: version 13 or newer is needed")
            }
            Self::Busy => f.write_str("somebody else has the database open: stop it and run this again"),
            Self::Silent(waited) => write!(f, "the database has not answered for {} s", waited.as_secs()),
            Self::Database(error) => write!(f, "database: {error}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Database(error) => Some(error),
            _ => None,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::RowNotFound => Self::NotFound,
            sqlx::Error::Database(db) if db.is_unique_violation() => {
                // PostgreSQL names the constraint; SQLite says "UNIQUE constraint failed: agents.slug".
                let message = db.message();
                let column = db.constraint().or_else(|| message.rsplit(": ").next()).unwrap_or(message);
                Self::Conflict(column.to_owned())
            }
            _ => Self::Database(error),
        }
    }
}
