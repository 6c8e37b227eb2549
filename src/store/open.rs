//! Opening either database: how connections are set up, and how many there are.

use std::fmt;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgPool};

use super::sql::{Patience, Pool};
use super::{Store, StoreError, migrate};

/// Connections for people and agents that ask, per node.
const READERS: u32 = 6;
/// Connections for changes, per node. They take turns; a few, so that one that hangs does not hold up the next.
const WRITERS: u32 = 4;
/// Connections for those who read at length: exports, verification.
const ASIDE: u32 = 2;
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection that was given back may take to answer. Less than [`CONNECT`]: whoever waits for it gets another.
const RELEASE: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 3_000 });

/// What every connection to PostgreSQL begins with. The server ends what takes too long even if nobody waits any more, and
/// notices within half a minute when a node is gone, so that its locks go too.
const SESSION: &str = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'; \
    SET statement_timeout = '30s'; SET lock_timeout = '8s'; \
    SET idle_in_transaction_session_timeout = '30s'; SET TIME ZONE 'UTC'; \
    SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
    SET client_min_messages = warning";

/// Where a PostgreSQL database is and how to log in there. Never shows the password.
#[derive(Clone)]
pub struct PostgresOptions {
    connect: PgConnectOptions,
}

/// A URL that does not lead to a database.
#[derive(Debug)]
pub struct PostgresOptionsError(String);

impl fmt::Display for PostgresOptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PostgresOptionsError {}

impl PostgresOptions {
    /// Reads `postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=FILE`. What is missing comes from the
    /// variables that PostgreSQL's own programs use (`PGPASSWORD`, `PGPASSFILE`, ...).
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn parse(url: &str) -> Result<Self, PostgresOptionsError> {
        // The URL itself stays out of the message: it may hold a password.
        let connect = PgConnectOptions::from_str(url).map_err(|error| PostgresOptionsError(error.to_string()))?;
        // Statements are not kept prepared: when a newer node adds a column, those that read all of them would fail from then on.
        let connect = connect.application_name("trust-gateway").statement_cache_capacity(0);
        Ok(Self { connect: connect.disable_statement_logging() })
    }

    /// The same with this password.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.connect = self.connect.password(password);
        self
    }
}

impl fmt::Display for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connect } = self;
        let database = connect.get_database().unwrap_or(connect.get_username());
        match connect.get_socket() {
            Some(socket) => write!(f, "PostgreSQL database {database} at {}", socket.display()),
            None => write!(f, "PostgreSQL database {database} at {}:{}", connect.get_host(), connect.get_port()),
        }
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// At most so many connections, made when they are needed.
pub(super) fn postgres_pool(connect: PgConnectOptions, connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(CONNECT)
        .idle_timeout(Duration::from_secs(300))
        .after_release(|connection, _| {
            Box::pin(async move {
                // It may have been given up in the middle of a statement. One that stays silent would never be free again.
                let answer = tokio::time::timeout(RELEASE, connection.ping()).await;
                answer.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut)).map(|()| true)
            })
        })
        .after_connect(|connection, _| Box::pin(async move { connection.execute(SESSION).await.map(drop) }))
        .connect_lazy_with(connect)
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
            .after_release(|connection, _| {
                Box::pin(async move {
                    // A disk that is full makes SQLite end the transaction by itself. The rollback that comes then fails, and the
                    // connection takes itself to be in a transaction for good. Ask behind the rollback; then make another.
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            })
            .connect_with(
                // `auto_vacuum` has to be decided before the first table is made.
                // What is erased or removed is overwritten; what would be replaced is as good as deleted for triggers.
                options
                    .clone()
                    .create_if_missing(true)
                    .auto_vacuum(SqliteAutoVacuum::Incremental)
                    .pragma("secure_delete", "ON")
                    .pragma("recursive_triggers", "ON"),
            )
            .await?;
        migrate::sqlite(&writer).await?;
        // Readers page through rows: a large cache each would only cost memory.
        let options = options.read_only(true).pragma("cache_size", "-8192");
        let reader = SqlitePoolOptions::new().max_connections(4).connect_with(options.clone()).await?;
        let follower = SqlitePoolOptions::new().max_connections(1).connect_lazy_with(options);
        let (writer, follower) = (Pool::Sqlite(writer), Pool::Sqlite(follower));
        let synced = Arc::default();
        Ok(Self { recorder: writer.clone(), writer, reader: Pool::Sqlite(reader), follower, synced })
    }

    /// The SQLite database in `file` for reading alone, as it is: nothing is made, brought up to date or written.
    ///
    /// # Errors
    /// When the file is not there or cannot be opened.
    pub async fn open_sqlite_to_read(file: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .read_only(true)
            .busy_timeout(Duration::from_secs(5))
            .pragma("cache_size", "-8192");
        let pool = SqlitePoolOptions::new().max_connections(ASIDE).connect_with(options).await?;
        Ok(Self::reading(Pool::Sqlite(pool)))
    }

    /// A PostgreSQL database for reading alone, as it is.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn open_postgres_to_read(options: &PostgresOptions) -> Result<Self, StoreError> {
        // Its error says what is wrong, a pool's says that time ran out.
        drop(super::sql::in_time(Patience::ASKED, options.connect.connect()).await?);
        let connect = options.connect.clone().options([("default_transaction_read_only", "on")]);
        Ok(Self::reading(Pool::Postgres(postgres_pool(connect, ASIDE), Patience::RECORDING)))
    }

    /// The same database over connections of its own, for reading at length.
    #[must_use]
    pub fn aside(&self) -> Self {
        Self::reading(match &self.reader {
            Pool::Sqlite(pool) => {
                let options = pool.connect_options().as_ref().clone();
                Pool::Sqlite(SqlitePoolOptions::new().max_connections(ASIDE).connect_lazy_with(options))
            }
            Pool::Postgres(pool, _) => {
                let options = pool.connect_options().as_ref().clone();
                Pool::Postgres(postgres_pool(options, ASIDE), Patience::RECORDING)
            }
        })
    }

    fn reading(pool: Pool) -> Self {
        Self {
            writer: pool.clone(),
            reader: pool.clone(),
            follower: pool.clone(),
            recorder: pool,
            synced: Arc::default(),
        }
    }

    /// Opens (and migrates) a PostgreSQL database, version 13 or newer. Several nodes may do so at once.
    ///
    /// # Errors
    /// When it cannot be reached or is not ours to use, or was migrated by a newer version.
    pub async fn open_postgres(options: &PostgresOptions) -> Result<Self, StoreError> {
        let pool =
            |connections, patience| Pool::Postgres(postgres_pool(options.connect.clone(), connections), patience);
        // The first connection is made outside a pool: its error says what is wrong, a pool's says that time ran out.
        let connecting = options.connect.connect();
        let mut connection = super::sql::in_time(Patience::ASKED, connecting).await?;
        migrate::postgres(&mut connection).await?;
        drop(connection);
        Ok(Self {
            writer: pool(WRITERS, Patience::ASKED),
            reader: pool(READERS, Patience::ASKED),
            recorder: pool(1, Patience::RECORDING),
            synced: Arc::default(),
            follower: pool(1, Patience::ASKED),
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::copy_bidirectional;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;

    use super::*;
    use crate::store::sql::query;
    use crate::store::testing::TestStore;

    /// Stands between a pool and its server; those that are connected when it is silenced hear nothing any more, nor that.
    async fn relay(server: (String, u16)) -> (u16, watch::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let silence = watch::Sender::new(());
        let silenced = silence.subscribe();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut far = TcpStream::connect((server.0.as_str(), server.1)).await.expect("the server answers");
                let mut silenced = silenced.clone();
                silenced.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = silenced.changed() => std::future::pending().await,
                    }
                });
            }
        });
        (port, silence)
    }

    #[tokio::test]
    async fn a_transaction_that_sqlite_ends_by_itself_keeps_nobody_from_beginning_another() {
        let test = TestStore::sqlite().await;
        test.by_hand(
            "CREATE TRIGGER full BEFORE INSERT ON journal_finished WHEN new.instance = 'full'
             BEGIN SELECT RAISE(ROLLBACK, 'database or disk is full'); END",
        )
        .await;
        let insert = "INSERT INTO journal_finished (instance) VALUES ($1)";
        for instance in ["full", "one", "full", "two"] {
            let mut tx = test.store.writer.begin("BEGIN IMMEDIATE", "BEGIN").await.expect("begins");
            match query(insert).bind(instance).execute(&mut tx).await {
                Ok(_) => tx.commit().await.expect("commits"),
                Err(error) => assert_eq!(instance, "full", "{error}"),
            }
        }
        test.end().await;
    }

    #[tokio::test]
    async fn a_connection_that_has_gone_silent_makes_room_for_another() {
        let (options, clean_up) = TestStore::empty_postgres().await;
        let server = (options.connect.get_host().to_owned(), options.connect.get_port());
        let (port, silence) = relay(server).await;
        let pool = postgres_pool(options.connect.clone().host("127.0.0.1").port(port), 1);
        let asked = async || sqlx::query("SELECT 1").execute(&pool).await;
        let mut connection = pool.acquire().await.expect("it connects");
        silence.send_replace(());
        let ping = tokio::time::timeout(Duration::from_millis(50), connection.ping());
        assert!(ping.await.is_err(), "it is silent");
        drop(connection);
        asked().await.expect("over another connection");
        pool.close().await;
        clean_up.await;
    }
}
