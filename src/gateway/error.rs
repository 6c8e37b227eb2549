//! What can stand in the way of a start.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the gateway did not start.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Listen(&'static str, SocketAddr, std::io::Error),
    /// A directory or file cannot be made or read.
    File(PathBuf, std::io::Error),
    /// Another gateway serves from the data directory.
    InUse {
        /// The directory.
        data_dir: PathBuf,
        /// The process that serves from it, where that could be read.
        process: Option<u32>,
    },
    /// The database cannot be opened; holds where it is.
    Store(String, crate::store::StoreError),
    /// The key files do not belong to the database.
    ForeignKeys {
        /// The directory they are in.
        keys: PathBuf,
        /// Which of them.
        kind: &'static str,
        /// The database.
        database: String,
    },
    /// Anything else, already in words that say what to do.
    Other(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(setting, address, error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "{setting} = \"{address}\": another program listens there already; stop it, or set another address"
                )
            }
            Self::Listen(setting, address, error) => {
                write!(f, "{setting} = \"{address}\": cannot listen there: {error}")
            }
            Self::InUse { data_dir, process } => {
                let process = process.map_or_else(String::new, |id| format!(" (process {id})"));
                write!(
                    f,
                    "data_dir = \"{}\": another gateway{process} serves from this directory already; stop it, or set another \
                     data_dir",
                    data_dir.display()
                )
            }
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Store(place, error) => write!(f, "{place}: {error}"),
            Self::ForeignKeys { keys, kind, database } => {
                let keys = keys.display();
                write!(
                    f,
                    "{keys}: {kind}.key is not the one that {database} was written with; copy the directory {keys} of another node \
                     of this database, or restore it from the backup"
                )
            }
            Self::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for StartError {}
