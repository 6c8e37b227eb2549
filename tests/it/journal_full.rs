//! A disk that is full, a database that is locked or away: counted from outside, every answer but "cannot be recorded" has its
//! row, those trusted least are refused first, and it all mends itself.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use sqlx::Row as _;
use tokio::task::JoinSet;

use crate::support::agent::Agent;
use crate::support::client::{Answer, Client};
use crate::support::gateway::Registered;
use crate::support::nodes;
use crate::support::postgres::Postgres;
use crate::support::process::Process;
use crate::support::within;

/// A call whose record is long, so that not many of them fill a journal.
fn long_call() -> Value {
    let long = |letter: &str| letter.repeat(250);
    json!({"jsonrpc": "2.0", "id": long("i"), "method": "SendMessage", "params": {"message": {
        "messageId": long("m"), "contextId": long("c"), "taskId": long("t"), "role": "ROLE_USER", "parts": [{"text": "hello"}]}}})
}

async fn call(client: &mut Client, key: Option<&str>) -> Answer {
    client.call("/api/proxy/target", key, &long_call()).await;
    client.answer().await
}

fn reason(answer: &Answer) -> String {
    answer.json()["error"]["data"][0]["reason"].as_str().unwrap_or_default().to_owned()
}

fn id(answer: &Answer) -> String {
    answer.header("x-openagora-request-id").expect("every answer has one").to_owned()
}

/// An agent, and a caller that is connected to it.
async fn scene(gateway: &Process) -> (Agent, Registered) {
    let agent = Agent::echo().await;
    let target = gateway.register("target", Some(&agent.url())).await;
    let caller = gateway.register("caller", None).await;
    let limits = json!({"rate": 1_000_000, "period_ms": 1_000, "burst": 1_000_000, "daily": 100_000_000});
    let connection =
        json!({"requester_id": caller.id, "target_id": target.id, "status": "connected", "limits": limits});
    gateway.operated("POST", "/api/connections", &connection).await;
    (agent, caller)
}

/// The ids of all rows, of which none is there twice.
async fn recorded(gateway: &Process) -> BTreeSet<String> {
    let ids = gateway.ids().await;
    let rows: BTreeSet<String> = ids.iter().cloned().collect();
    assert_eq!(ids.len(), rows.len(), "no row is there twice");
    rows
}

/// A file system of a few MiB, for as long as this lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, mib: u64) -> Self {
        std::fs::create_dir_all(at).expect("a directory");
        let options = format!("size={mib}m,mode=700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status();
        assert!(mounted.expect("mount is everywhere").success(), "root may mount a tmpfs at {}", at.display());
        Self(at.to_owned())
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Leaves no room on it.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.ballast()).expect("a file");
        let full = std::io::copy(&mut std::io::repeat(1), &mut file).expect_err("it ends somewhere");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "only root may mount the small disk that this fills: tests/run.sh runs it as such"]
async fn a_full_disk_refuses_what_it_cannot_record_and_serves_again_once_there_is_room() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = SmallDisk::mount(&dir.path().join("data"), 24);
    let gateway = Process::start(dir.path(), &[]).await;
    let (agent, caller) = scene(&gateway).await;
    let mut client = Client::connect(gateway.public).await;
    assert_eq!(call(&mut client, Some(&caller.key)).await.status, 200);

    disk.fill();
    let mut answered = Vec::new();
    within("the disk is full", async {
        loop {
            let answer = call(&mut client, Some(&caller.key)).await;
            match answer.status {
                200 => answered.push(id(&answer)),
                503 => break assert_eq!(reason(&answer), "AUDIT_UNAVAILABLE"),
                _ => panic!("{}", answer.text()),
            }
        }
    })
    .await;
    let forwarded = agent.calls().len();
    assert_eq!(forwarded, answered.len() + 1, "the refused one was not let through");
    let mut refused = Vec::new();
    for _ in 0..50 {
        let answer = call(&mut client, Some(&caller.key)).await;
        match answer.status {
            503 => refused.push(id(&answer)),
            // The database made room for some.
            _ => answered.push(id(&answer)),
        }
    }
    assert!(refused.len() > 25, "{} refused", refused.len());

    std::fs::remove_file(disk.ballast()).expect("removed");
    within("it serves again", async {
        loop {
            let answer = call(&mut client, Some(&caller.key)).await;
            if answer.status == 200 {
                break answered.push(id(&answer));
            }
            assert_eq!(reason(&answer), "AUDIT_UNAVAILABLE");
            tokio::task::yield_now().await;
        }
    })
    .await;
    within("it is ready", async {
        while gateway.operate("GET", "/readyz", &Value::Null).await.json()["status"] != "ready" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let rows = recorded(&gateway).await;
    assert!(answered.iter().all(|id| rows.contains(id)), "every answer has its row");
    assert!(!refused.iter().any(|id| rows.contains(id)), "who was told that it is not recorded is not");
    assert_eq!(agent.calls().len(), answered.len() + 1, "what was forwarded was answered");
    gateway.kill().await;
}

/// Another process that holds the database locked until it is told to stop.
struct Locked(Child);

impl Locked {
    fn lock(database: &Path, seconds: u32) -> Self {
        let program = "import sqlite3, sys, time\n\
                       db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)\n\
                       db.execute('BEGIN EXCLUSIVE')\n\
                       print('locked', flush=True)\n\
                       time.sleep(float(sys.argv[2]))\n\
                       db.execute('ROLLBACK')\n";
        let mut child = Command::new("python3")
            .args(["-c", program])
            .arg(database)
            .arg(seconds.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 must be on the PATH: run tests/run.sh, which installs it");
        let mut told = [0; 6];
        let out = child.stdout.as_mut().expect("piped");
        std::io::Read::read_exact(out, &mut told).expect("it says that it has the lock");
        Self(child)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_locked_for_ten_seconds_by_somebody_else_loses_and_refuses_no_call() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let gateway = Process::start(dir.path(), &[]).await;
    let (agent, caller) = scene(&gateway).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let (public, key, stop) = (gateway.public, caller.key.clone(), Arc::clone(&stop));
        callers.spawn(async move {
            let (mut client, mut ids) = (Client::connect(public).await, BTreeSet::new());
            while !stop.load(Ordering::Relaxed) {
                let answer = call(&mut client, Some(&key)).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                ids.insert(id(&answer));
                // As many as will be rows soon after.
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            ids
        });
    }
    let mut locked = Locked::lock(&dir.path().join("data/gateway.db"), 10);
    let ended = tokio::task::spawn_blocking(move || locked.0.wait().expect("it is our child").success());
    assert!(ended.await.expect("it is waited for"), "it had the database for as long");
    stop.store(true, Ordering::Relaxed);
    let answered: BTreeSet<String> = callers.join_all().await.into_iter().flatten().collect();
    assert_eq!(answered.len(), agent.calls().len());
    let rows = within("every call is a row", async {
        loop {
            let rows = recorded(&gateway).await;
            if rows.len() >= answered.len() {
                break rows;
            }
        }
    })
    .await;
    assert_eq!(rows, answered);
    gateway.kill().await;
}

/// Whether calls of somebody with this key are refused for want of room.
async fn is_refused(public: SocketAddr, key: Option<&str>, answered: &mut Vec<String>) -> bool {
    let mut client = Client::connect(public).await;
    let answer = call(&mut client, key).await;
    let reason = reason(&answer);
    if reason != "AUDIT_UNAVAILABLE" {
        answered.push(id(&answer));
    }
    if reason == "JOURNAL_FULL" {
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{}", answer.text());
        assert_eq!(answer.json()["id"].as_str().map(str::len), Some(250), "the id is echoed");
    }
    matches!(reason.as_str(), "JOURNAL_FULL" | "AUDIT_UNAVAILABLE")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_those_trusted_least_are_refused_first_and_all_are_served_again() {
    let (dir, mut postgres) = (tempfile::TempDir::new().expect("a temporary directory"), Postgres::start());
    // Strangers are refused for want of room here, not because the directory is old.
    let settings = [("AUDIT__JOURNAL_BUDGET", "16MiB"), ("DIRECTORY__MAX_STALE", "1h"), ("LOG__ACCESS", "false")];
    let gateway = nodes::start(&dir, &postgres, &settings).await;
    let (agent, connected) = scene(&gateway).await;
    let verified = gateway.register("stranger", None).await;
    let keys = [None, Some(verified.key.as_str()), Some(connected.key.as_str())];
    let mut answered = Vec::new();
    for key in keys {
        assert!(!is_refused(gateway.public, key, &mut answered).await);
    }

    postgres.stop("INT");
    let mut seen: Vec<(usize, u16, String)> = Vec::new();
    let mut clients = [Client::connect(gateway.public).await, Client::connect(gateway.public).await];
    for _ in 0..200 {
        for client in &mut clients {
            for _ in 0..50 {
                let answer = call(client, Some(&connected.key)).await;
                if reason(&answer) != "AUDIT_UNAVAILABLE" {
                    answered.push(id(&answer));
                }
            }
        }
        let mut refused = 0;
        for key in keys {
            refused += usize::from(is_refused(gateway.public, key, &mut answered).await);
        }
        if seen.last().is_none_or(|(last, ..)| *last != refused) {
            let ready = gateway.operate("GET", "/readyz", &Value::Null).await;
            let checks = ready.json()["checks"].clone();
            seen.push((refused, ready.status, checks["journal_budget"].as_str().unwrap_or_default().to_owned()));
        }
        if refused == 3 {
            break;
        }
    }
    let order: Vec<(usize, u16)> = seen.iter().map(|(refused, status, _)| (*refused, *status)).collect();
    assert_eq!(order, [(0, 200), (1, 200), (2, 200), (3, 503)], "{seen:?}");
    for ((.., told), words) in seen.iter().zip(["ok", "without a credential", "without a connection", "all calls"]) {
        assert!(told.contains(words), "{told}");
    }

    postgres.start_again();
    within("everybody is served again", async {
        loop {
            let mut refused = false;
            for key in keys {
                refused |= is_refused(gateway.public, key, &mut answered).await;
            }
            if !refused {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    within("every answer has its row", async {
        loop {
            let rows = postgres.rows("SELECT id::text FROM proxy_calls").await;
            let rows: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
            if answered.iter().all(|id| rows.contains(id)) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let counted = "SELECT (count(*) = count(DISTINCT id)), sum(calls)::bigint, \
                   count(*) FILTER (WHERE decision = 'allowed' AND outcome = 'completed') FROM proxy_calls";
    let row = postgres.rows(counted).await.remove(0);
    let (once, calls, forwarded): (bool, i64, i64) = (row.get(0), row.get(1), row.get(2));
    assert!(once, "no row is there twice");
    assert_eq!(calls, answered.len() as i64, "as many calls as there were answers");
    assert_eq!(forwarded, agent.calls().len() as i64);
    let metrics = gateway.operate("GET", "/metrics", &Value::Null).await.text();
    assert!(metrics.contains("trust_gateway_journal_refuses{level=\"connected\"} 0"), "{metrics}");
    assert!(metrics.contains("trust_gateway_journal_budget_bytes 16777216"), "{metrics}");
    gateway.kill().await;
}
