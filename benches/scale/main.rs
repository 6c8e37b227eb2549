//! What a large registry costs: 10 000 agents and 50 000 connections in the gateway as it is delivered.
//!
//! `cargo bench --bench scale` takes some minutes. Measured are the import, the start on a full database, searches, changes
//! (until they are in force, which is when the API answers), and what calls feel of changes made while they run: the same load
//! with and without, in turns.

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../load/agent.rs"]
mod agent;
#[path = "../load/process.rs"]
#[allow(dead_code)] // shared with the load bench
mod process;
#[allow(dead_code)] // shared with the ledger bench
mod subject;
mod times;
#[path = "../load/wire.rs"]
#[allow(dead_code)] // shared with the load bench
mod wire;

use std::net::SocketAddr;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use process::Process;
use serde_json::{Value, json};
use subject::Subject;
use times::{line, quantile, timed};
use wire::Wire;

pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

pub(crate) const MEBIBYTE: usize = 1 << 20;

const AGENTS: usize = 10_000;
const CONNECTIONS: usize = 50_000;
/// Calls go from this one to the next.
const CALLER: usize = 0;
const CALLERS: usize = 8;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("agent") => agent::run(),
        _ if arguments.iter().any(|argument| argument == "--bench") => run(),
        _ => {
            // Started as a test, where what is measured would be an unoptimised build.
            println!("nothing is measured here: cargo bench --bench scale");
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error}");
            ExitCode::FAILURE
        }
    }
}

/// An answer of `size` bytes; what the agent here sends.
pub(crate) fn result(size: usize) -> String {
    let frame = r#"{"jsonrpc":"2.0","id":"1","result":{"message":{"messageId":"m","role":"ROLE_AGENT","parts":[{"text":""}]}}}"#;
    frame.replace(r#""text":"""#, &format!(r#""text":"{}""#, "x".repeat(size.saturating_sub(frame.len()))))
}

fn run() -> Fallible<()> {
    let mut behind = Process::start(Command::new(std::env::current_exe()?).arg("agent"))?;
    let agent: SocketAddr = behind.lines().next().ok_or("the agent does not start")?.parse()?;

    let mut gateway = Subject::start()?;
    println!("{AGENTS} agents, {CONNECTIONS} connections\n");
    let export = export(agent).to_string();
    let import = |path: &str, what: &str| -> Fallible<()> {
        let (took, report) = timed(|| gateway.operate("POST", path, &export))?;
        let report: Value = serde_json::from_str(&report)?;
        line(what, &[took], &format!("{} problems", report["problems"].as_array().map_or(0, Vec::len)));
        Ok(())
    };
    import("/api/import/openagora?dry_run=true", "import, dry run")?;
    import("/api/import/openagora?dry_run=false", "import, applied")?;

    let begun = Instant::now();
    while total(&gateway, "status=unknown")? > 0 {
        if begun.elapsed() > Duration::from_secs(300) {
            return Err("the first probes take longer than five minutes".into());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    line("first probe of every agent", &[begun.elapsed()], "");
    import("/api/import/openagora?dry_run=false", "import, a second time")?;

    let starts = (0..5).map(|_| gateway.restart()).collect::<Fallible<Vec<_>>>()?;
    line("start, until calls are answered", &starts, &format!("{} MiB resident", gateway.process.rss() / 1024));

    println!();
    for (what, query) in [
        ("list, first page", "limit=50"),
        ("list, last page", "limit=50&page=200"),
        ("search, one agent found", "q=agent+07123"),
        ("search, many found", "q=weather"),
        ("search, two letters", "q=zq"),
        ("search, nothing found", "q=nothing-like-this"),
        ("skill", "skill=forecast-7"),
    ] {
        let path = format!("/api/agents?{query}");
        let times =
            (0..50).map(|_| Ok(timed(|| gateway.operate("GET", &path, ""))?.0)).collect::<Fallible<Vec<_>>>()?;
        line(what, &times, &format!("{} found", total(&gateway, query)?));
    }

    println!();
    let pairs: Vec<String> = gateway.connections(64)?;
    let change = |id: &str, action: &str| {
        gateway.operate("PATCH", &format!("/api/connections/{id}"), &json!({"action": action}).to_string())
    };
    let mut times = Vec::new();
    for id in pairs.iter().take(20) {
        times.push(timed(|| change(id, "block"))?.0);
        times.push(timed(|| change(id, "unblock"))?.0);
    }
    line("a change, until it is in force", &times, "");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = pairs
            .iter()
            .map(|id| scope.spawn(|| change(id, "block").map(drop).map_err(|error| error.to_string())))
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a thread failed".to_owned())))
    })?;
    line(&format!("{} changes at once, until all are", pairs.len()), &[begun.elapsed()], "");

    println!();
    felt(&gateway)
}

/// What calls feel of changes.
fn felt(gateway: &Subject) -> Fallible<()> {
    let key = gateway.key_of(&slug(CALLER))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut plain = Vec::new();
    let mut changing = Vec::new();
    let mut changes = 0;
    for _ in 0..ROUNDS {
        plain.push(runtime.block_on(load(gateway.public, &key))?);
        let load = runtime.spawn(async_load(gateway.public, key.clone()));
        while !load.is_finished() {
            let body = json!({"description": format!("changed {changes} times")}).to_string();
            gateway.operate("PATCH", &format!("/api/agents/{}", slug(7)), &body)?;
            changes += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
        changing.push(runtime.block_on(load)??);
    }
    let all = |rounds: &[Vec<Duration>]| -> Vec<Duration> { rounds.iter().flatten().copied().collect() };
    line("call", &all(&plain), &format!("{CALLERS} callers"));
    line("call, while changes are made", &all(&changing), &format!("{changes} changes"));
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let ratios = plain
            .iter()
            .zip(&changing)
            .map(|(plain, changing)| quantile(changing, share).as_secs_f64() / quantile(plain, share).as_secs_f64());
        let mut ratios: Vec<f64> = ratios.collect();
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (ratios.first().copied().unwrap_or_default(), ratios.last().copied().unwrap_or_default());
        println!("{name} with changes / without: {:.2} ({least:.2}-{most:.2})", ratios[ratios.len() / 2]);
    }
    Ok(())
}

async fn async_load(gateway: SocketAddr, key: String) -> Result<Vec<Duration>, String> {
    load(gateway, &key).await.map_err(|error| error.to_string())
}

/// Callers that call one after the other; how long each call took.
async fn load(gateway: SocketAddr, key: &str) -> Fallible<Vec<Duration>> {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"messageId":"1","role":"ROLE_USER","parts":[{"text":"Hello"}]}}}"#;
    let request = format!(
        "POST /api/proxy/{} HTTP/1.1\r\nHost: {gateway}\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n\
         A2A-Version: 1.0\r\nContent-Length: {}\r\n\r\n{body}",
        slug(CALLER + 1),
        body.len()
    );
    let end = Instant::now() + ROUND;
    let caller = async || -> std::io::Result<Vec<Duration>> {
        let mut wire = Wire::connect(gateway).await?;
        let mut times = Vec::new();
        while Instant::now() < end {
            let begun = Instant::now();
            wire.send(request.as_bytes()).await?;
            let head = wire.head().await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
            if head.status() != "200" {
                return Err(std::io::Error::other(head.line));
            }
            wire.body(head.length.unwrap_or_default(), b"").await?;
            times.push(begun.elapsed());
        }
        Ok(times)
    };
    let all = futures_util::future::try_join_all((0..CALLERS).map(|_| caller())).await?;
    Ok(all.concat())
}

fn slug(n: usize) -> String {
    format!("agent-{n:05}")
}

fn id(kind: u128, n: usize) -> String {
    uuid::Uuid::from_u128((kind << 100) | (n as u128 + 1)).to_string()
}

/// The registry as OpenAgora would hand it over.
fn export(agent: SocketAddr) -> Value {
    let agents: Vec<Value> = (0..AGENTS)
        .map(|n| {
            json!({
                "id": id(1, n), "slug": slug(n), "name": format!("Agent {n:05}"), "url": format!("http://{agent}/{n}"),
                "description": if n % 3 == 0 { "Knows the weather of places large and small." } else { "Plans journeys." },
                "provider": format!("Company {}", n % 97), "capabilities": ["streaming"],
                "agent_skills": [{"name": format!("forecast-{}", n % 500), "description": "Tells what comes.", "tags": ["sky"]}],
                "created_at": "2026-01-01T00:00:00Z",
            })
        })
        .collect();
    // Each to the next ones: every pair once.
    let each = CONNECTIONS / AGENTS;
    let pairs = (0..AGENTS).flat_map(|n| (1..=each).map(move |step| (n, (n + step) % AGENTS)));
    let connections: Vec<Value> = pairs
        .enumerate()
        .map(|(at, (requester, target))| {
            json!({
                "id": id(2, at), "requester_id": id(1, requester), "target_id": id(1, target), "status": "connected",
                "created_at": "2026-01-02T00:00:00Z", "resolved_at": "2026-01-02T00:00:01Z",
            })
        })
        .collect();
    json!({"agents": agents, "api_keys": [], "connections": connections})
}

fn total(gateway: &Subject, query: &str) -> Fallible<u64> {
    let answer: Value = serde_json::from_str(&gateway.operate("GET", &format!("/api/agents?{query}"), "")?)?;
    answer["total"].as_u64().ok_or_else(|| format!("no total: {answer}").into())
}
