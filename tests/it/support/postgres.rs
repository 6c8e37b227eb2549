//! A PostgreSQL server of the test's own: on a free port, nothing kept, stopped with the test. Shared with the
//! benches.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

/// A PostgreSQL server of the test's own.
#[derive(Debug)]
pub(crate) struct Postgres {
    child: Child,
    port: u16,
    owner: Owner,
    dir: tempfile::TempDir,
}

impl Postgres {
    /// Starts one, and waits until it answers.
    pub(crate) fn start() -> Self {
        let (dir, owner) = (tempfile::TempDir::new().expect("a temporary directory"), Owner::find());
        if let Some((uid, gid)) = owner.other {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).expect("it can be given to another");
        }
        let made = owner
            .runs("initdb")
            .arg("-D")
            .arg(dir.path().join("data"))
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
            .stdout(Stdio::null())
            .status();
        assert!(made.expect("setpriv is on every Debian").success(), "initdb failed");
        // Another program may take the port between being found free and being used: then the next.
        for _ in 0..10 {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            let port = free.expect("a free port").port();
            if let Some(child) = serve(&owner, port, dir.path()) {
                return Self { child, port, owner, dir };
            }
        }
        panic!("no PostgreSQL would start: {}", log(dir.path()));
    }

    /// Its one database.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Of the process whose children do the work.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops it by a signal: `INT` ends what goes on in it in order, `QUIT` as a crash does.
    pub(crate) fn stop(&mut self, signal: &str) {
        self.signal(signal);
        self.child.wait().expect("it is our child");
    }

    /// Starts it again where it was.
    pub(crate) fn start_again(&mut self) {
        let again = Instant::now();
        while again.elapsed() < Duration::from_secs(20) {
            if let Some(child) = serve(&self.owner, self.port, self.dir.path()) {
                self.child = child;
                return;
            }
        }
        panic!("PostgreSQL would not start again on port {}: {}", self.port, log(self.dir.path()));
    }

    /// It takes connections and answers nothing, on those it has either, until it is thawed.
    pub(crate) fn freeze(&self) {
        // Itself first: it must not have a child of which nobody knows.
        self.signal("STOP");
        self.children().iter().for_each(|child| signal(*child, "STOP"));
    }

    pub(crate) fn thaw(&self) {
        self.children().iter().for_each(|child| signal(*child, "CONT"));
        self.signal("CONT");
    }

    /// Runs statements.
    pub(crate) async fn run(&self, sql: &str) {
        let mut connection = PgConnection::connect(&self.url()).await.expect("it answers");
        connection.execute(AssertSqlSafe(sql.to_owned())).await.expect("they are right");
    }

    /// The rows of a query.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<PgRow> {
        let mut connection = PgConnection::connect(&self.url()).await.expect("it answers");
        connection.fetch_all(AssertSqlSafe(sql.to_owned())).await.expect("it is right")
    }

    fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    fn children(&self) -> Vec<u32> {
        let id = self.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|id| id.parse().ok()).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // It may be frozen.
            self.thaw();
            self.stop("QUIT");
        }
    }
}

/// Who the server runs as, and where its programs are.
#[derive(Debug)]
struct Owner {
    /// Somebody else, where the test is run by root: that it refuses.
    other: Option<(u32, u32)>,
    programs: PathBuf,
}

impl Owner {
    fn find() -> Self {
        let id = |arguments: &[&str]| -> Option<u32> {
            let said = Command::new("id").args(arguments).stderr(Stdio::null()).output().expect("id is everywhere");
            String::from_utf8(said.stdout).ok()?.trim().parse().ok()
        };
        let of = |user: &str| Some((id(&["-u", user])?, id(&["-g", user])?));
        let root = id(&["-u"]) == Some(0);
        let other = root.then(|| of("postgres").or_else(|| of("nobody")).expect("nobody is everywhere"));
        Self { other, programs: programs() }
    }

    /// A command that runs one of PostgreSQL's programs as the owner, and ends it when the test is killed.
    fn runs(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        if let Some((uid, gid)) = self.other {
            command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
        }
        command.args(["--pdeathsig", "INT"]).arg(self.programs.join(program)).stdin(Stdio::null());
        command
    }
}

/// Where PostgreSQL's programs are: Debian keeps them off the path.
fn programs() -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = debian.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find(|bin| bin.join("initdb").exists());
    newest.or(on_path).expect("PostgreSQL must be installed: run tests/run.sh, which does that")
}

fn serve(owner: &Owner, port: u16, dir: &Path) -> Option<Child> {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).expect("a log file");
    let mut child = owner
        .runs("postgres")
        .arg("-D")
        .arg(dir.join("data"))
        .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
        .args(["-c", "fsync=off", "-c", "full_page_writes=off"])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("setpriv is on every Debian");
    let ready = || {
        Command::new(owner.programs.join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
            .status()
    };
    loop {
        if ready().is_ok_and(|status| status.success()) {
            return Some(child);
        }
        if child.try_wait().expect("it is our child").is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(process: u32, name: &str) {
    // One that has ended meanwhile is none to be told.
    let sent = Command::new("kill").args([format!("-{name}"), process.to_string()]).stderr(Stdio::null()).status();
    sent.expect("kill is a program everywhere");
}

fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}
