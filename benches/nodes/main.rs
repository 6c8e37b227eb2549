//! How long a change made at one node takes to be in force at another, which shares its PostgreSQL.
//!
//! `cargo bench --bench nodes` takes some seconds. A connection is blocked and unblocked at one node, over and over; what counts
//! is the time from asking for it until a call at the other node is answered accordingly.

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../../tests/it/support/postgres.rs"]
#[allow(dead_code)] // shared with the tests
mod postgres;
#[path = "../load/process.rs"]
#[allow(dead_code)] // shared with the load bench
mod process;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use postgres::Postgres;
use process::{Process, ask};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const CHANGES: usize = 100;
/// In which every change must be in force, or the promise is broken.
const SECOND: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if !std::env::args().any(|argument| argument == "--bench") {
        // Started as a test, where what is measured would be an unoptimised build.
        println!("nothing is measured here: cargo bench --bench nodes");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Fallible<()> {
    let (postgres, dirs) = (Postgres::start(), [TempDir::new()?, TempDir::new()?]);
    let here = Node::start(dirs[0].path(), &postgres)?;
    let (keys, copy) = (dirs[0].path().join("data/keys"), dirs[1].path().join("data/keys"));
    std::fs::create_dir_all(&copy)?;
    for file in std::fs::read_dir(keys)? {
        let file = file?;
        std::fs::copy(file.path(), copy.join(file.file_name()))?;
    }
    let there = Node::start(dirs[1].path(), &postgres)?;
    let token = std::fs::read_to_string(dirs[0].path().join("data/admin-token"))?;
    let operate = |method: &str, path: &str, body: Value| -> Fallible<Value> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Type: application/json",
            token.trim()
        );
        Ok(serde_json::from_str(&ask(here.admin, &head, &body.to_string())?)?)
    };
    // Nobody is there: only what the gateway decides is looked at.
    let target =
        operate("POST", "/api/agents", json!({"name": "Target", "slug": "target", "url": "http://127.0.0.1:9/"}))?;
    let caller = operate("POST", "/api/agents", json!({"name": "Caller", "slug": "caller"}))?;
    let connection = json!({"requester_id": caller["id"], "target_id": target["id"], "status": "connected"});
    let connection = operate("POST", "/api/connections", connection)?;
    let path = format!("/api/connections/{}", connection["id"].as_str().unwrap_or_default());
    let key = caller["api_key"].as_str().unwrap_or_default();

    let mut times = Vec::with_capacity(CHANGES);
    for change in 0..CHANGES {
        let blocks = change % 2 == 0;
        let begun = Instant::now();
        operate("PUT", &path, json!({"action": if blocks { "block" } else { "unblock" }}))?;
        while (status(there.public, key)? == 403) != blocks {
            std::thread::sleep(Duration::from_micros(500));
        }
        times.push(begun.elapsed());
        // Not in step with anything that happens every so often.
        std::thread::sleep(Duration::from_millis(37 + (change as u64 * 61) % 211));
    }
    times.sort_unstable();
    let [p50, p99, most] = [CHANGES / 2, CHANGES * 99 / 100 - 1, CHANGES - 1].map(|at| times[at].as_secs_f64() * 1e3);
    println!("{CHANGES} changes, in force at the other node: p50 {p50:.1} ms, p99 {p99:.1} ms, most {most:.1} ms");
    if times[CHANGES - 1] > SECOND { Err("later than a second".into()) } else { Ok(()) }
}

struct Node {
    _process: Process,
    public: SocketAddr,
    admin: SocketAddr,
}

impl Node {
    fn start(dir: &Path, postgres: &Postgres) -> Fallible<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trust-gateway"));
        command
            .arg("serve")
            .current_dir(dir)
            .env("TRUST_GATEWAY__DATA_DIR", dir.join("data"))
            .env("TRUST_GATEWAY__STORE__URL", postgres.url())
            .env("TRUST_GATEWAY__SERVER__LISTEN", "127.0.0.1:0")
            .env("TRUST_GATEWAY__ADMIN__LISTEN", "127.0.0.1:0")
            .stderr(File::create(dir.join("log"))?);
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
                return Ok(Self { _process: process, public, admin });
            }
        }
        Err(format!("the gateway does not start: {}", std::fs::read_to_string(dir.join("log"))?).into())
    }
}

/// How a read of the caller's is answered.
fn status(address: SocketAddr, key: &str) -> Fallible<u16> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "t"}}).to_string();
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "POST /api/proxy/target HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nX-API-Key: {key}\r\nA2A-Version: 1.0\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split(' ').nth(1).ok_or("no answer")?.parse()?)
}
