//! `audit verify`: checks the log without asking the gateway, which may be what is doubted.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use uuid::Uuid;

use crate::audit::ledger::export::verify_file;
use crate::audit::ledger::note::{Note, VerifierKey};
use crate::audit::ledger::verify::{Collected, Findings, Given, LogReport, Progress, Verified, verify_database};
use crate::cli::failure::{Failure, NOT_WHOLE};
use crate::cli::session::{bytes, contents};
use crate::config::LoadSource;
use crate::gateway;
use crate::telemetry::escaped;

/// Between two lines of progress.
const TOLD_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    /// The configuration that names the database; without it, trust-gateway.toml in the working directory if there is one.
    #[arg(long, value_name = "FILE", conflicts_with = "export")]
    config: Option<PathBuf>,
    /// Check these files instead: exports, or proofs of calls.
    #[arg(long, visible_alias = "proof", value_name = "FILE", num_args = 1..)]
    export: Vec<PathBuf>,
    /// The public key to trust (NAME+ID+BASE64, or a file with one a line). Without it the database's own, or the file's: that is
    /// only as good as what is checked.
    #[arg(long, value_name = "KEY|FILE")]
    key: Vec<String>,
    /// Checkpoints that were collected elsewhere, such as the file of a witness.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    checkpoints: Vec<PathBuf>,
    /// Check the log of this node only.
    #[arg(long, value_name = "NODE_ID")]
    node: Option<Uuid>,
}

pub(in crate::cli) async fn verify(asked: Verify, json: bool) -> Result<(), Failure> {
    let mut given = Given { keys: Vec::new(), checkpoints: Vec::new(), node: asked.node };
    for key in &asked.key {
        given.keys.extend(keys(key)?);
    }
    for file in &asked.checkpoints {
        given.checkpoints.extend(checkpoints(file)?);
    }
    let begun = Instant::now();
    let mut screen = Screen::new(begun);
    let verified = if asked.export.is_empty() {
        let config = crate::cli::load(LoadSource::process(asked.config))?;
        let unreadable = |error: &dyn std::fmt::Display| Failure::Running(error.to_string());
        let store = gateway::open_to_read(&config).await.map_err(|error| unreadable(&error))?;
        let verified = verify_database(&store, &given, |progress| screen.show(progress)).await;
        store.close().await;
        verified.map_err(|error| unreadable(&error))?
    } else {
        let mut logs = Vec::new();
        for file in &asked.export {
            let report = verify_file(file, &given, |progress| screen.show(progress));
            logs.push(report.map_err(|error| Failure::usage(error.to_string()))?);
        }
        let whole = logs.iter().all(LogReport::is_whole);
        Verified { whole, logs, absent: Vec::new(), strange: Vec::new() }
    };
    screen.clear();
    let shown = match json {
        true => serde_json::to_string(&verified).map_err(|error| Failure::Running(error.to_string()))? + "\n",
        false => told(&verified, begun.elapsed()),
    };
    // Whoever closed the pipe has read enough; the exit code says the rest.
    let _ = io::stdout().lock().write_all(shown.as_bytes());
    if verified.whole { Ok(()) } else { Err(Failure::Told(NOT_WHOLE)) }
}

/// The keys that a text is, or that are in the file it names.
fn keys(text: &str) -> Result<Vec<VerifierKey>, Failure> {
    if let Ok(key) = VerifierKey::parse(text) {
        return Ok(vec![key]);
    }
    let lines = contents(Path::new(text))?;
    let lines = lines.lines().filter(|line| !line.trim().is_empty());
    let keys = lines.map(VerifierKey::parse).collect::<Result<Vec<_>, _>>();
    let keys = keys.map_err(|error| Failure::usage(format!("--key {text}: {error}")))?;
    if keys.is_empty() { Err(Failure::usage(format!("--key {text}: there is no key in it"))) } else { Ok(keys) }
}

fn checkpoints(file: &Path) -> Result<Vec<Collected>, Failure> {
    let from = file.display().to_string();
    // Where writing one broke off there may be part of a character.
    let bytes = bytes(file)?;
    let text = String::from_utf8_lossy(&bytes);
    let (mut collected, mut broken) = (Vec::new(), Vec::new());
    for (line, note) in Note::parse_all(&text) {
        match note {
            Ok(note) => collected.push(Collected { note, from: from.clone() }),
            Err(error) => broken.push(format!("{from}:{line}: {error}")),
        }
    }
    match broken.first() {
        Some(first) if collected.is_empty() => Err(Failure::usage(first.clone())),
        _ => {
            for what in broken {
                // As a power cut leaves them.
                let _ = writeln!(io::stderr(), "{what}: this checkpoint is not whole, and is passed over");
            }
            Ok(collected)
        }
    }
}

/// How far it is, where somebody looks on.
struct Screen {
    begun: Instant,
    told: Instant,
    terminal: bool,
}

impl Screen {
    fn new(begun: Instant) -> Self {
        Self { begun, told: begun, terminal: io::stderr().is_terminal() }
    }

    fn show(&mut self, Progress { node, rows, of }: Progress) {
        if !self.terminal || self.told.elapsed() < TOLD_EVERY {
            return;
        }
        self.told = Instant::now();
        let rate = rows as f64 / self.begun.elapsed().as_secs_f64();
        let (percent, left) = (rows * 100 / of.max(1), of.saturating_sub(rows) as f64 / rate.max(1.0));
        let _ = write!(
            io::stderr().lock(),
            "\r\u{1b}[K{node}: {rows} of {of} rows, {percent} %, {rate:.0} rows/s, {left:.0} s left"
        );
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(io::stderr().lock(), "\r\u{1b}[K");
        }
    }
}

/// The report, for people.
fn told(verified: &Verified, took: Duration) -> String {
    let mut out = String::new();
    for log in &verified.logs {
        let name = log.file.clone().unwrap_or_else(|| format!("node {}", log.node_id));
        let _ = writeln!(out, "{}", escaped(&name));
        for (name, value) in lines(log) {
            let _ = writeln!(out, "  {name:<14}{}", escaped(&value));
        }
        for finding in log.integrity.findings.iter().chain(&log.completeness.findings) {
            let _ = writeln!(out, "  - {}", escaped(&finding.what));
        }
    }
    for name in &verified.absent {
        let _ = writeln!(out, "{}: a log that there should be is not there at all", escaped(name));
    }
    for name in &verified.strange {
        let _ = writeln!(out, "{:?}: rows or checkpoints that belong to no node", name);
    }
    let rows: u64 = verified.logs.iter().map(|log| log.rows).sum();
    let rate = rows as f64 / took.as_secs_f64().max(0.001);
    let verdict = if verified.whole { "whole" } else { "NOT WHOLE" };
    let _ = writeln!(out, "{verdict}: {rows} rows in {:.1} s ({rate:.0} rows/s)", took.as_secs_f64());
    out
}

fn lines(log: &LogReport) -> Vec<(&'static str, String)> {
    let verdict = |findings: &Findings| match findings.first_bad {
        None => "holds".to_owned(),
        Some(first) => {
            let all = findings.findings.len() as u64 + findings.more;
            format!("BROKEN, first at row {first}; {all} findings")
        }
    };
    let mut lines = vec![("integrity", verdict(&log.integrity)), ("completeness", verdict(&log.completeness))];
    lines.push((
        "signed",
        format!("{} rows read, {} checkpoints hold, the last of {} rows", log.rows, log.checkpoints, log.signed),
    ));
    let mut say = |count: u64, name: &'static str, what: &str| {
        if count > 0 {
            lines.push((name, format!("{count} {what}")));
        }
    };
    say(log.before, "before", "rows lie before the first: their root is part of what was signed");
    say(log.unsealed, "unsealed", "rows lie past the last checkpoint: nothing shows that they are what was recorded");
    say(log.unproven, "unproven", "rows cannot be shown to be what was signed, because of what was found");
    say(log.erased_rows, "erased", "rows have no content any more: their leaf hashes hold");
    say(log.erased_addresses, "addresses", "rows have no address any more: all else holds");
    say(log.gaps, "gaps", "rows stand for calls that were lost");
    say(log.checkpoints_before, "earlier", "checkpoints are of rows that are not there any more");
    say(log.checkpoints_of_others, "others", "older checkpoints are signed with keys that do not count");
    if let Some(key) = log.keys.first() {
        let of = if log.file.is_some() { "the file" } else { "the database" };
        let doubt = format!(" (from {of} itself, and only as good as that: --key names one from elsewhere)");
        lines.push(("key", format!("{key}{}", if log.key_unproven { &doubt } else { "" })));
    }
    lines
}
