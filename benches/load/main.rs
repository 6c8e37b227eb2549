//! What a call costs: the whole gateway as it is delivered, with real sockets, its journal and its database.
//!
//! `cargo bench --bench load` takes a minute or two, `-- --quick` ten seconds and is rough. Callers, gateway and agent are
//! processes of their own that share this machine, so calls per second say little; what counts is processor time of the gateway's
//! process per call: user and system, all threads, until every call is a row. It is compared with nginx, where that is installed,
//! set up to check a key, hold a rate and write a line of JSON for each call; and with `--against PATH`, another build of the
//! gateway. A second gateway shares its limits through a redis-server that is started for it, a third has its state on a
//! PostgreSQL, whose own processor time per call is the column `database`. They take turns, round by round; ratios are medians
//! of rounds, with the extremes behind them, since other work on the machine moves them. What a build differs from itself by (name it with `--against` as well) is noise. `--only WORD` picks
//! scenarios by name.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod agent;
mod drive;
#[path = "../../tests/it/support/postgres.rs"]
#[allow(dead_code)] // shared with the tests
mod postgres;
mod process;
mod proxy;
mod scenario;
mod table;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use process::Process;
use proxy::Kind;
use scenario::{SCENARIOS, Scale};

pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

pub(crate) const MEBIBYTE: usize = 1 << 20;

/// What is asked for on the command line.
struct Asked {
    quick: bool,
    only: String,
    against: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut asked = Asked { quick: false, only: String::new(), against: Vec::new() };
    let mut measure = false;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "agent" => return done(agent::run()),
            "--bench" => measure = true,
            "--quick" => asked.quick = true,
            "--only" => asked.only = arguments.next().unwrap_or_default(),
            "--against" => asked.against.extend(arguments.next().map(PathBuf::from)),
            other => {
                eprintln!("{other}: unknown; there is --quick, --only WORD, --against PROGRAM");
                return ExitCode::FAILURE;
            }
        }
    }
    if !measure {
        // Started as a test, where what is measured would be an unoptimised build.
        println!("nothing is measured here: cargo bench --bench load");
        return ExitCode::SUCCESS;
    }
    done(run(&asked))
}

fn done(result: Fallible<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(asked: &Asked) -> Fallible<()> {
    let mut behind = Process::start(Command::new(std::env::current_exe()?).arg("agent"))?;
    let agent: SocketAddr = behind.lines().next().ok_or("the agent does not start")?.parse()?;
    let mut kinds = vec![("trust-gateway".to_owned(), Kind::Gateway(env!("CARGO_BIN_EXE_trust-gateway").into()))];
    for program in &asked.against {
        kinds.push((program.display().to_string(), Kind::Gateway(std::path::absolute(program)?)));
    }
    let program = env!("CARGO_BIN_EXE_trust-gateway").into();
    kinds.insert(0, ("on PostgreSQL".to_owned(), Kind::OnPostgres(program)));
    if proxy::has_redis() {
        let program = env!("CARGO_BIN_EXE_trust-gateway").into();
        kinds.insert(0, ("limits shared".to_owned(), Kind::Sharing(program)));
    } else {
        println!("redis-server is not installed: sharing limits is not measured");
    }
    if proxy::has_nginx() {
        kinds.push(("nginx".to_owned(), Kind::Nginx));
    } else {
        println!("nginx is not installed (Debian: nginx-light): nothing to compare with");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let scale = if asked.quick { Scale::QUICK } else { Scale::FULL };
    let mut incomplete = Vec::new();
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.name().contains(&asked.only)) {
        let local = tokio::task::LocalSet::new();
        let results = local.block_on(&runtime, scenario.run(&kinds, agent, scale))?;
        table::print(scenario, &results);
        incomplete.extend(results.into_iter().filter(|result| !result.complete()).map(|result| result.name));
    }
    if incomplete.is_empty() {
        Ok(())
    } else {
        Err(format!("calls sent and rows differ: {}", incomplete.join(", ")).into())
    }
}

/// A call of `size` bytes.
pub(crate) fn call(method: &str, size: usize) -> String {
    let make = |text: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":"7f9a1c52","method":"{method}","params":{{"message":{{"messageId":"0198c0de-0000-7000-8000-000000000001","contextId":"ctx-0001","role":"ROLE_USER","parts":[{{"text":"{text}"}}]}}}}}}"#
        )
    };
    padded(size, make)
}

/// An answer of `size` bytes.
pub(crate) fn result(size: usize) -> String {
    let make = |text: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":"7f9a1c52","result":{{"task":{{"id":"task-0001","contextId":"ctx-0001","status":{{"state":"TASK_STATE_COMPLETED","timestamp":"2026-01-01T00:00:00Z"}},"artifacts":[{{"artifactId":"a","parts":[{{"text":"{text}"}}]}}]}}}}}}"#
        )
    };
    padded(size, make)
}

fn padded(size: usize, make: impl Fn(&str) -> String) -> String {
    make(&"x".repeat(size.saturating_sub(make("").len())))
}
