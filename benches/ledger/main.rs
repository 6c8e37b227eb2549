//! What a large log costs: a day of ten million calls between a hundred pairs of agents, on SQLite, in the gateway as it is
//! delivered.
//!
//! `cargo bench --bench ledger` takes about a quarter of an hour and 10 GiB of disk; `LEDGER_ROWS=1000000` is a smaller one.
//! Measured are writing (as the drain writes: rows, tree and sums in one transaction), questions, proofs, export and
//! verification.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod fill;
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

use serde_json::Value;
use subject::Subject;
use times::{line, timed};
use trust_gateway::clock::Timestamp;
use uuid::Uuid;

pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const ROWS: u64 = 10_000_000;
/// The day of the calls; any will do.
const DAY: &str = "2026-01-02T00:00:00Z";
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
    let begin = Timestamp::parse(DAY)?;
    let mut gateway = Subject::start()?;
    let node: Uuid = text(&status(&gateway)?, "node_id").parse()?;
    println!("{rows} rows\n");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut took = Duration::ZERO;
    let start = gateway.restart_after(|data| {
        took = runtime.block_on(fill::fill(data, node, rows, begin))?;
        Ok(())
    })?;
    line("writing", &[took], &format!("{:.0} rows/s", rows as f64 / took.as_secs_f64()));
    line("start, until calls are answered", &[start], "");
    Ok(())
}

fn status(gateway: &Subject) -> Fallible<Value> {
    Ok(serde_json::from_str(&gateway.operate("GET", "/api/status", "")?)?)
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_default().to_owned()
}

/// Asks a question some times; `what` is shown beside how long the answers took.
#[allow(dead_code)]
fn ask(gateway: &Subject, what: &str, path: &str) -> Fallible<()> {
    let times = (0..TIMES).map(|_| Ok(timed(|| gateway.operate("GET", path, ""))?.0)).collect::<Fallible<Vec<_>>>()?;
    line(what, &times, "");
    Ok(())
}
