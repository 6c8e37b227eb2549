//! Gateways of the real program that share a PostgreSQL database, each with a data directory of its own.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use sqlx::Row as _;
use tempfile::TempDir;

use super::postgres::Postgres;
use super::process::Process;

/// Two nodes, and the database they share.
pub(crate) struct Nodes {
    pub nodes: Vec<Process>,
    pub postgres: Postgres,
    /// Gone with the rest.
    _dirs: [TempDir; 2],
}

impl Nodes {
    /// The first starts alone on the empty database; the second has the first one's keys.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let (dirs, postgres) = (directories(), Postgres::start());
        let first = start(&dirs[0], &postgres, settings).await;
        share(&dirs[0], &dirs[1], "keys");
        share(&dirs[0], &dirs[1], "admin-token");
        let second = start(&dirs[1], &postgres, settings).await;
        Self { nodes: vec![first, second], postgres, _dirs: dirs }
    }

    /// Resolves when what was changed so far is in force at both.
    pub(crate) async fn in_step(&self) {
        let newest = "SELECT max(revision) FROM directory_changes";
        let newest: i64 = self.postgres.rows(newest).await[0].get(0);
        for node in &self.nodes {
            while node.operated("GET", "/api/status", &Value::Null).await["directory_revision"] != newest {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

pub(crate) fn directories() -> [TempDir; 2] {
    [(); 2].map(|()| TempDir::new().expect("a temporary directory"))
}

/// Starts a gateway in `dir` on the database.
pub(crate) async fn start(dir: &TempDir, postgres: &Postgres, settings: &[(&str, &str)]) -> Process {
    let url = postgres.url();
    Process::start(dir.path(), &[&[("STORE__URL", url.as_str())], settings].concat()).await
}

/// Gives one gateway's data directory this file or directory of another's.
pub(crate) fn share(from: &TempDir, to: &TempDir, name: &str) {
    let data = to.path().join("data");
    std::fs::create_dir_all(&data).expect("a directory");
    copy(&from.path().join("data").join(name), &data.join(name));
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).expect("a directory");
        for entry in std::fs::read_dir(from).expect("readable") {
            let name = entry.expect("readable").file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        std::fs::copy(from, to).expect("copied");
    }
}
