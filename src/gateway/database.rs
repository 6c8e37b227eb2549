//! The database that the configuration names: opened, and named in messages.

use std::fmt;
use std::path::PathBuf;

use super::StartError;
use crate::config::{Config, StoreUrl};
use crate::store::{PostgresOptions, Store};

/// Where the state is.
#[derive(Clone, Debug)]
pub(super) enum Database {
    File(PathBuf),
    Server(Box<PostgresOptions>),
}

/// Reads what says where the database is, and opens nothing.
///
/// # Errors
/// When that cannot be read.
pub fn check_database(config: &Config) -> Result<(), StartError> {
    Database::of(config).map(|_| ())
}

/// The database of a gateway, to be read as it is: it may be serving, or be older than this program.
///
/// # Errors
/// When there is none, or it cannot be reached.
pub async fn open_to_read(config: &Config) -> Result<Store, StartError> {
    let database = Database::existing(config)?;
    let opened = match &database {
        Database::File(file) => Store::open_sqlite_to_read(file).await,
        Database::Server(options) => Store::open_postgres_to_read(options).await,
    };
    opened.map_err(|error| database.failed(error))
}

impl Database {
    /// The one that `config` names.
    ///
    /// # Errors
    /// When the file with its password cannot be read.
    pub(super) fn of(config: &Config) -> Result<Self, StartError> {
        let url = match &config.store.url {
            StoreUrl::Sqlite(file) => {
                return Ok(Self::File(file.clone().unwrap_or_else(|| config.data_dir.join("gateway.db"))));
            }
            StoreUrl::Postgres(url) => url,
        };
        let options = PostgresOptions::parse(url.expose());
        let options = options.map_err(|error| StartError::Other(format!("store.url: {error}")))?;
        let Some(file) = &config.store.password_file else { return Ok(Self::Server(Box::new(options))) };
        let password = std::fs::read_to_string(file).map_err(|error| {
            StartError::Other(format!("store.password_file: {}: {error}; it holds the password alone", file.display()))
        })?;
        let options = options.with_password(password.trim_end_matches(['\r', '\n']));
        Ok(Self::Server(Box::new(options)))
    }

    /// The same, where a gateway has been before.
    ///
    /// # Errors
    /// When there is no such file, or as for [`Database::of`].
    pub(super) fn existing(config: &Config) -> Result<Self, StartError> {
        let database = Self::of(config)?;
        match &database {
            Self::File(file) if !file.exists() => Err(StartError::Other(format!(
                "there is no database at {}: name the configuration of the gateway with --config",
                file.display()
            ))),
            _ => Ok(database),
        }
    }

    /// Opens it; makes or brings up to date what is in it.
    ///
    /// # Errors
    /// When it cannot be reached or used.
    pub(super) async fn open(&self) -> Result<Store, StartError> {
        let opened = match self {
            Self::File(file) => Store::open_sqlite(file).await,
            Self::Server(options) => Store::open_postgres(options).await,
        };
        opened.map_err(|error| self.failed(error))
    }

    /// What went wrong, and where.
    pub(super) fn failed(&self, error: crate::store::StoreError) -> StartError {
        StartError::Store(self.to_string(), error)
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Server(options) => write!(f, "{options}"),
        }
    }
}
