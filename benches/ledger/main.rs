//! What a large log costs: a day of ten million calls between a hundred pairs of agents, in the gateway as it is delivered.
//!
//! `cargo bench --bench ledger` takes about a quarter of an hour and 10 GiB of disk; `LEDGER_ROWS=1000000` is a smaller one, and
//! `-- --postgres` takes a PostgreSQL server of its own instead of SQLite.
//! Measured are writing (as the drain writes: rows, tree and sums in one transaction), questions, proofs, export and
//! verification.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod fill;
#[path = "../../tests/it/support/postgres.rs"]
#[allow(dead_code)] // shared with the tests
mod postgres;
#[path = "../load/process.rs"]
#[allow(dead_code)] // shared with the load bench
mod process;
#[path = "../scale/subject.rs"]
#[allow(dead_code)] // shared with the scale bench
mod subject;
#[path = "../scale/times.rs"]
mod times;

use std::process::ExitCode;
use std::time::Duration;

use postgres::Postgres;
use serde_json::Value;
use subject::Subject;
use times::{line, timed};
use trust_gateway::clock::{Clock, Timestamp};
use trust_gateway::store::{PostgresOptions, Store};
use uuid::Uuid;

pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const ROWS: u64 = 10_000_000;
const DAY_US: i64 = 86_400_000_000;
/// How often each question is asked.
const TIMES: usize = 20;

fn main() -> ExitCode {
    let result = if std::env::args().any(|argument| argument == "--bench") {
        run()
    } else {
        // Started as a test, where what is measured would be an unoptimised build.
        println!("nothing is measured here: cargo bench --bench ledger");
        Ok(())
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Fallible<()> {
    let rows = match std::env::var("LEDGER_ROWS") {
        Ok(text) => text.parse()?,
        Err(_) => ROWS,
    };
    // Yesterday: sums of minutes do not go back for ever.
    let begin = Timestamp((Clock::system().wall().utc_day() - 1) * DAY_US);
    let server = std::env::args().any(|argument| argument == "--postgres").then(Postgres::start);
    let url = server.as_ref().map(Postgres::url);
    let mut gateway = Subject::start_on(url.clone())?;
    let node: Uuid = text(&status(&gateway)?, "node_id").parse()?;
    println!("{rows} rows\n");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut took = Duration::ZERO;
    let start = gateway.restart_after(|data| {
        took = runtime.block_on(async {
            let store = match &url {
                Some(url) => Store::open_postgres(&PostgresOptions::parse(url)?).await?,
                None => Store::open_sqlite(&data.join("gateway.db")).await?,
            };
            let took = fill::fill(store, node, rows, begin).await?;
            if let Some(server) = &server {
                // As the server does by itself within a minute: without, it guesses how to read.
                server.run("ANALYZE").await;
            }
            Ok::<_, Box<dyn std::error::Error>>(took)
        })?;
        Ok(())
    })?;
    line("writing", &[took], &format!("{:.0} rows/s", rows as f64 / took.as_secs_f64()));
    line("start, until calls are answered", &[start], "");
    let sealed = until_sealed(&gateway, rows)?;
    println!("\nlog on disk: {} MiB", number(&status(&gateway)?, "database_bytes") >> 20);

    println!();
    questions(&gateway, rows, begin)?;
    println!();
    numbers(&gateway, begin)?;
    println!();
    evidence(&gateway, rows, begin, &sealed)
}

/// Waits until the last row is signed for; the log's key.
fn until_sealed(gateway: &Subject, rows: u64) -> Fallible<String> {
    for _ in 0..600 {
        let ledger = &status(gateway)?["ledger"];
        if ledger["sealed_rows"].as_u64() == Some(rows) {
            return Ok(text(ledger, "key"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(format!("the log is not signed for: {}", status(gateway)?["ledger"]).into())
}

/// The log itself.
fn questions(gateway: &Subject, rows: u64, begin: Timestamp) -> Fallible<()> {
    let noon = rows / 2;
    let id = fill::request_id(noon, fill::time_of(noon, rows, begin));
    let page = ask(gateway, "calls, first page", "/api/calls?limit=50")?;
    let next = text(&page, "next");
    ask(gateway, "calls, next page", &format!("/api/calls?limit=50&next={next}"))?;
    ask(gateway, "calls until noon", &format!("/api/calls?limit=50&until={}", at(begin, 12 * 60)))?;
    ask(gateway, "calls of one target", &format!("/api/calls?limit=50&target={}", fill::target(3)))?;
    ask(gateway, "calls of one caller", &format!("/api/calls?limit=50&caller={}", fill::caller(3)))?;
    let pair = format!("{}:{}", fill::caller(3), fill::target(4));
    ask(gateway, "calls of one pair", &format!("/api/calls?limit=50&pair={pair}"))?;
    ask(gateway, "one call by its id", &format!("/api/calls?request_id={id}"))?;
    let hour = format!("since={}&until={}", at(begin, 11 * 60), at(begin, 12 * 60));
    ask(gateway, "refused calls of an hour", &format!("/api/calls?limit=50&decision=refused&{hour}"))?;
    let task = format!("/api/calls?task_id=task-{}&{hour}", noon / 3 - 100);
    ask(gateway, "one task within an hour", &task)?;
    Ok(())
}

/// The log in numbers.
fn numbers(gateway: &Subject, begin: Timestamp) -> Fallible<()> {
    let range = |from, to| format!("since={}&until={}", at(begin, from), at(begin, to));
    let day = range(0, 24 * 60);
    ask(gateway, "stats of the day", &format!("/api/calls/stats?{day}"))?;
    ask(gateway, "stats of the day by hour", &format!("/api/calls/stats?{day}&bucket=hour"))?;
    ask(gateway, "stats by caller and agent", &format!("/api/calls/stats?{day}&by=caller,agent"))?;
    let ragged = range(7, 24 * 60 - 13);
    ask(gateway, "stats with ragged ends", &format!("/api/calls/stats?{ragged}"))?;
    let minutes = range(12 * 60, 12 * 60 + 5);
    ask(gateway, "stats of five minutes by minute", &format!("/api/calls/stats?{minutes}&bucket=minute"))?;
    ask(gateway, "stats of the day by minute", &format!("/api/calls/stats?{day}&bucket=minute"))?;
    Ok(())
}

/// What proves it.
fn evidence(gateway: &Subject, rows: u64, begin: Timestamp, key: &str) -> Fallible<()> {
    let noon = rows / 2;
    let id = fill::request_id(noon, fill::time_of(noon, rows, begin));
    ask(gateway, "proof of one call", &format!("/api/audit/proof/{id}"))?;
    ask(gateway, "proof of consistency", &format!("/api/audit/consistency?from={}&to={rows}", noon + 1))?;
    let per_second = |took: Duration| format!("{:.0} rows/s", rows as f64 / took.as_secs_f64());
    let (took, _) = timed(|| gateway.command(&["audit", "verify", "--key", key]))?;
    line("audit verify, the database", &[took], &per_second(took));
    let (took, _) = timed(|| gateway.command(&["audit", "export", "calls.jsonl"]))?;
    line("audit export, JSONL", &[took], &per_second(took));
    let (took, _) = timed(|| gateway.command(&["audit", "verify", "--export", "calls.jsonl", "--key", key]))?;
    line("audit verify, the export", &[took], &per_second(took));
    Ok(())
}

/// So many minutes into the day.
fn at(begin: Timestamp, minutes: i64) -> String {
    begin.plus_micros(minutes * 60_000_000).to_string()
}

fn status(gateway: &Subject) -> Fallible<Value> {
    Ok(serde_json::from_str(&gateway.operate("GET", "/api/status", "")?)?)
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value, member: &str) -> u64 {
    value[member].as_u64().unwrap_or_default()
}

/// Asks a question some times; `what` is shown beside how long the answers took. The last answer.
fn ask(gateway: &Subject, what: &str, path: &str) -> Fallible<Value> {
    let mut last = String::new();
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let (took, answer) = timed(|| gateway.operate("GET", path, ""))?;
        times.push(took);
        last = answer;
    }
    line(what, &times, "");
    Ok(serde_json::from_str(&last)?)
}
