//! Databases for tests: each test has one of its own, of either kind.
//!
//! PostgreSQL's server is that of `TEST_POSTGRES_URL`, whose user may create databases; `tests/run.sh` starts one. With
//! `TEST_STORE=postgres` the tests that take whatever database there is run on it, too.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use super::{PostgresOptions, Store, StoreError};

/// An empty store, and what holds it.
#[derive(Debug)]
pub(crate) struct TestStore {
    pub(crate) store: Store,
    place: Place,
}

#[derive(Debug)]
enum Place {
    File(tempfile::TempDir),
    /// The server's URL and the database.
    Server(String, String),
}

impl TestStore {
    /// In a file.
    pub(crate) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open_sqlite(&dir.path().join("gateway.db")).await.expect("opens");
        Self { store, place: Place::File(dir) }
    }

    /// On the server.
    pub(crate) async fn postgres() -> Self {
        let (server, database) = create().await;
        let options = PostgresOptions::parse(&of_database(&server, &database)).expect("a URL");
        let store = Store::open_postgres(&options).await.expect("opens");
        Self { store, place: Place::Server(server, database) }
    }

    /// On whichever database the tests are run for.
    pub(crate) async fn any() -> Self {
        match std::env::var("TEST_STORE").as_deref() {
            Ok("postgres") => Self::postgres().await,
            Ok(other) => panic!("TEST_STORE={other}: only \"postgres\" is known"),
            Err(_) => Self::sqlite().await,
        }
    }

    /// A database on the server that nobody has opened yet, and what gives it back.
    pub(crate) async fn empty_postgres() -> (PostgresOptions, impl Future<Output = ()>) {
        let (server, database) = create().await;
        let options = PostgresOptions::parse(&of_database(&server, &database)).expect("a URL");
        (options, async move { run(&server, format!("DROP DATABASE {database} WITH (FORCE)")).await })
    }

    /// A second store on the same database, as another node has one.
    pub(crate) async fn again(&self) -> Store {
        self.try_again().await.expect("opens")
    }

    /// The same, where it may fail.
    pub(crate) async fn try_again(&self) -> Result<Store, StoreError> {
        match &self.place {
            Place::File(dir) => Store::open_sqlite(&dir.path().join("gateway.db")).await,
            Place::Server(server, database) => {
                let options = PostgresOptions::parse(&of_database(server, database)).expect("a URL");
                Store::open_postgres(&options).await
            }
        }
    }

    /// Runs statements as somebody at the database would, past the store, and past what guards the rows of the log.
    pub(crate) async fn by_hand(&self, sql: &str) {
        if sql.contains("proxy_calls") {
            let guards: &[&str] = match &self.place {
                Place::File(_) => &["proxy_calls_deleted", "proxy_calls_changed"],
                Place::Server(..) => &["proxy_calls_sealed ON proxy_calls"],
            };
            for guard in guards {
                self.try_by_hand(&format!("DROP TRIGGER IF EXISTS {guard}")).await.expect("runs");
            }
        }
        self.try_by_hand(sql).await.expect("runs");
    }

    /// Runs statements past the store, where they may fail.
    pub(crate) async fn try_by_hand(&self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.place {
            Place::File(dir) => {
                let url = format!("sqlite:{}", dir.path().join("gateway.db").display());
                sqlx::SqliteConnection::connect(&url).await?.execute(sql).await.map(drop)
            }
            Place::Server(server, database) => {
                PgConnection::connect(&of_database(server, database)).await?.execute(sql).await.map(drop)
            }
        }
    }

    /// Closes it and gives the database back.
    pub(crate) async fn end(self) {
        self.store.close().await;
        if let Place::Server(server, database) = &self.place {
            run(server, format!("DROP DATABASE {database} WITH (FORCE)")).await;
        }
    }
}

/// The server's URL and a database made on it.
async fn create() -> (String, String) {
    let server = std::env::var("TEST_POSTGRES_URL").expect(
        "TEST_POSTGRES_URL is not set: run tests/run.sh, or set it to a server whose user may create databases, such as \
         postgres://postgres@127.0.0.1:5432/postgres",
    );
    let database = format!("test_{}", Uuid::new_v4().simple());
    run(&server, format!("CREATE DATABASE {database}")).await;
    (server, database)
}

fn of_database(server: &str, database: &str) -> String {
    let mut url = url::Url::parse(server).expect("TEST_POSTGRES_URL is a URL");
    url.set_path(database);
    url.into()
}

async fn run(server: &str, sql: String) {
    let mut connection = PgConnection::connect(server).await.expect("the server of TEST_POSTGRES_URL answers");
    connection.execute(AssertSqlSafe(sql)).await.expect("its user may create and drop databases");
}

/// Makes a test on each database of each function in `suite` beside it, which takes a [`TestStore`].
macro_rules! on_each_database {
    ($($name:ident),+ $(,)?) => {
        on_each_database! { @ sqlite $($name),+ }
        on_each_database! { @ postgres $($name),+ }
    };
    (@ $database:ident $($name:ident),+) => {
        mod $database {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let test = $crate::store::testing::TestStore::$database().await;
                    super::suite::$name(&test).await;
                    test.end().await;
                }
            )+
        }
    };
}
pub(crate) use on_each_database;
