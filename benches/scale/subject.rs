//! The gateway under measurement: a process, its data, and its operator.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Fallible;
use crate::process::{Process, ask};

pub(crate) struct Subject {
    pub(crate) process: Process,
    pub(crate) public: SocketAddr,
    admin: SocketAddr,
    token: String,
    dir: TempDir,
    /// The database's URL, where that is not the embedded one.
    database: Option<String>,
}

impl Subject {
    pub(crate) fn start() -> Fallible<Self> {
        Self::start_on(None)
    }

    /// On that database.
    pub(crate) fn start_on(database: Option<String>) -> Fallible<Self> {
        let dir = TempDir::new()?;
        let (process, public, admin) = spawn(&dir, database.as_deref())?;
        let token = std::fs::read_to_string(dir.path().join("data/admin-token"))?.trim().to_owned();
        Ok(Self { process, public, admin, token, dir, database })
    }

    /// Stops it and starts it on the same data; how long the start took.
    pub(crate) fn restart(&mut self) -> Fallible<Duration> {
        self.restart_after(|_| Ok(()))
    }

    /// The same, with something done to its data in between.
    pub(crate) fn restart_after(&mut self, meanwhile: impl FnOnce(&Path) -> Fallible<()>) -> Fallible<Duration> {
        self.process.stop()?;
        meanwhile(&self.dir.path().join("data"))?;
        let begun = Instant::now();
        (self.process, self.public, self.admin) = spawn(&self.dir, self.database.as_deref())?;
        // It says its addresses when it listens; what counts is that it answers.
        ask(self.public, "GET /readyz HTTP/1.1", "")?;
        Ok(begun.elapsed())
    }

    /// Asks the API as an operator.
    pub(crate) fn operate(&self, method: &str, path: &str, body: &str) -> Fallible<String> {
        let authorization = format!("Authorization: Bearer {}\r\nContent-Type: application/json", self.token);
        ask(self.admin, &format!("{method} {path} HTTP/1.1\r\n{authorization}"), body)
    }

    /// Runs the program as an operator would, on this gateway and its data.
    pub(crate) fn command(&self, arguments: &[&str]) -> Fallible<String> {
        let mut command = program(&self.dir, self.database.as_deref());
        command
            .args(arguments)
            .env("TRUST_GATEWAY_URL", format!("http://{}", self.admin))
            .env("TRUST_GATEWAY_TOKEN", &self.token);
        let output = command.output()?;
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout)?),
            false => Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    }

    /// The ids of some connections.
    pub(crate) fn connections(&self, count: usize) -> Fallible<Vec<String>> {
        let answer: Value =
            serde_json::from_str(&self.operate("GET", &format!("/api/connections?limit={count}"), "")?)?;
        let ids = answer["connections"].as_array().into_iter().flatten().filter_map(|row| row["id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    }

    /// A new key of an agent, whose connections let everything pass.
    pub(crate) fn key_of(&self, agent: &str) -> Fallible<String> {
        let limits = json!({"rate": 1_000_000, "period_ms": 1000, "burst": 1_000_000, "daily": 1_000_000_000});
        let path = format!("/api/connections?agent_id={agent}&limit=100");
        let answer: Value = serde_json::from_str(&self.operate("GET", &path, "")?)?;
        for row in answer["connections"].as_array().into_iter().flatten() {
            let path = format!("/api/connections/{}", row["id"].as_str().unwrap_or_default());
            self.operate("PATCH", &path, &json!({"limits": limits}).to_string())?;
        }
        let made = self.operate("POST", "/api/keys", &json!({"agent_id": agent}).to_string())?;
        let made: Value = serde_json::from_str(&made)?;
        made["key"].as_str().map(str::to_owned).ok_or_else(|| format!("no key: {made}").into())
    }
}

/// The program, with its data in `dir`.
fn program(dir: &TempDir, database: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trust-gateway"));
    command.current_dir(dir.path()).env("TRUST_GATEWAY__DATA_DIR", dir.path().join("data"));
    if let Some(url) = database {
        command.env("TRUST_GATEWAY__STORE__URL", url);
    }
    command
}

fn spawn(dir: &TempDir, database: Option<&str>) -> Fallible<(Process, SocketAddr, SocketAddr)> {
    let mut command = program(dir, database);
    command
        .arg("serve")
        .env("TRUST_GATEWAY__SERVER__LISTEN", "127.0.0.1:0")
        .env("TRUST_GATEWAY__ADMIN__LISTEN", "127.0.0.1:0")
        .env("TRUST_GATEWAY__AGENTS__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]")
        .stderr(File::options().create(true).append(true).open(dir.path().join("log"))?);
    let mut process = Process::start(&mut command)?;
    let (mut public, mut admin) = (None, None);
    for line in process.lines() {
        let address = |url: &str| url.trim_start_matches("http://").parse::<SocketAddr>().ok();
        match line.split_once(' ') {
            Some(("public", url)) => public = address(url),
            Some(("admin", url)) => admin = address(url),
            _ => {}
        }
        if let (Some(public), Some(admin)) = (public, admin) {
            return Ok((process, public, admin));
        }
    }
    Err(format!("the gateway does not start: {}", std::fs::read_to_string(dir.path().join("log"))?).into())
}
