//! The real program, as a process that can be told to stop, and killed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::client::{Answer, Client};
use super::gateway::Registered;
use super::within;

/// A gateway in a process of its own, on free ports, with its data in `data` below its directory.
pub(crate) struct Process {
    child: Child,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub token: String,
    log: PathBuf,
}

impl Process {
    /// Starts it in `dir`, with these settings in the environment, written `SECTION__KEY`, and waits until it serves.
    pub(crate) async fn start(dir: &Path, settings: &[(&str, &str)]) -> Self {
        Self::spawned(dir, &mut command(dir, settings)).await
    }

    /// Starts it like [`Process::start`], with `log` as its standard error.
    pub(crate) async fn start_logging_to(log: Stdio, dir: &Path, settings: &[(&str, &str)]) -> Self {
        Self::spawned(dir, command(dir, settings).stderr(log)).await
    }

    async fn spawned(dir: &Path, command: &mut Command) -> Self {
        let log = dir.join("log");
        let mut child = command.spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (mut public, mut admin) = (None, None);
        while public.is_none() || admin.is_none() {
            let line = within("the program says where it listens", lines.next_line()).await.expect("readable");
            let Some(line) = line else { panic!("the program ended: {}", read(&log)) };
            let address = |url: &str| url.split_once("://").and_then(|(_, address)| address.parse().ok());
            match line.split_once(' ') {
                Some(("public", url)) => public = address(url),
                Some(("admin", url)) => admin = address(url),
                _ => {}
            }
        }
        // The first start writes it; where several nodes share a database, that of one of them.
        let token = std::fs::read_to_string(dir.join("data/admin-token")).unwrap_or_default();
        let (public, admin) = (public.expect("just set"), admin.expect("just set"));
        Self { child, public, admin, token: token.trim().to_owned(), log }
    }

    /// Starts it where it must fail; how it ended and what it said.
    pub(crate) async fn start_in_vain(dir: &Path, settings: &[(&str, &str)]) -> (ExitStatus, String) {
        Self::failed(dir, &mut command(dir, settings)).await
    }

    /// Starts it where it must fail, with `log` as its standard error; how it ended.
    pub(crate) async fn start_in_vain_logging_to(log: Stdio, dir: &Path, settings: &[(&str, &str)]) -> ExitStatus {
        Self::failed(dir, command(dir, settings).stderr(log)).await.0
    }

    async fn failed(dir: &Path, command: &mut Command) -> (ExitStatus, String) {
        let mut child = command.spawn().expect("the program starts");
        let status = within("the program gives up", child.wait()).await.expect("it can be waited for");
        (status, read(&dir.join("log")))
    }

    pub(crate) async fn operate(&self, method: &str, path: &str, body: &Value) -> Answer {
        let mut client = Client::connect(self.admin).await;
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        client.send(method, path, &headers, body.as_bytes()).await;
        client.answer().await
    }

    pub(crate) async fn operated(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.operate(method, path, body).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
        answer.json()
    }

    /// Registers an agent at `url`, or a client, and yields it.
    pub(crate) async fn register(&self, slug: &str, url: Option<&str>) -> Registered {
        let row = self.operated("POST", "/api/agents", &json!({"name": slug, "slug": slug, "url": url})).await;
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        Registered { id: text("id"), key: text("api_key") }
    }

    pub(crate) async fn connect(&self, caller: &Registered, target: &Registered) {
        let body = json!({"requester_id": caller.id, "target_id": target.id, "status": "connected"});
        self.operated("POST", "/api/connections", &body).await;
    }

    /// Every row so far, newest first.
    pub(crate) async fn rows(&self) -> Vec<Value> {
        let mut rows = Vec::new();
        let mut path = "/api/calls?limit=200".to_owned();
        loop {
            let page = self.operated("GET", &path, &Value::Null).await;
            rows.extend(page["calls"].as_array().cloned().unwrap_or_default());
            match page["next"].as_str() {
                Some(next) => path = format!("/api/calls?limit=200&next={next}"),
                None => return rows,
            }
        }
    }

    /// The ids of all rows.
    pub(crate) async fn ids(&self) -> Vec<String> {
        self.rows().await.iter().filter_map(|row| row["id"].as_str().map(str::to_owned)).collect()
    }

    /// Sends it a signal: `TERM`, `HUP`.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().await.expect("kill is there");
        assert!(sent.success());
    }

    /// Resolves when it has ended.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        within("the program ends", self.child.wait()).await.expect("it can be waited for")
    }

    /// Whether it ends by itself within `time`.
    pub(crate) async fn ends_within(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.child.wait()).await.is_ok()
    }

    /// What it has logged so far, earlier starts in the same directory included.
    pub(crate) fn log(&self) -> String {
        read(&self.log)
    }

    /// Resolves when `text` is in its log.
    pub(crate) async fn logs(&self, text: &str) {
        self.logs_times(text, 1).await;
    }

    /// Resolves when `text` is in its log `times` times.
    pub(crate) async fn logs_times(&self, text: &str, times: usize) {
        within(&format!("{text:?} in the log"), async {
            while self.log().matches(text).count() < times {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("it runs");
    }
}

fn command(dir: &Path, settings: &[(&str, &str)]) -> Command {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).expect("a log file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_trust-gateway"));
    command
        .arg("serve")
        .current_dir(dir)
        .env("TRUST_GATEWAY__DATA_DIR", dir.join("data"))
        .env("TRUST_GATEWAY__SERVER__LISTEN", "127.0.0.1:0")
        .env("TRUST_GATEWAY__ADMIN__LISTEN", "127.0.0.1:0")
        .env("TRUST_GATEWAY__SERVER__WORKERS", "2")
        .env("TRUST_GATEWAY__AUDIT__SEGMENT", "1MiB")
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true);
    for (name, value) in settings {
        command.env(format!("TRUST_GATEWAY__{name}"), value);
    }
    command
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}
