//! `audit export`: rows into a file, which is there only when it is whole.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::cli::client::query;
use crate::cli::failure::Failure;
use crate::cli::session::{Session, text};
use crate::cli::time::{When, when};

#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    /// The file to write; for CSV, what proves it is written beside it as FILE.proof.json.
    file: PathBuf,
    /// Whose log; without it, that of the node that answers.
    #[arg(long, value_name = "NODE_ID")]
    node: Option<String>,
    /// From this row on: after the last of another file, to go on from there.
    #[arg(long, value_name = "SEQ")]
    from_seq: Option<u64>,
    /// Up to this row; without it, all that are signed for.
    #[arg(long, value_name = "SEQ")]
    to_seq: Option<u64>,
    /// Calls that arrived since then, and what lies between them: 10m, 2h, 2026-12-31 or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<When>,
    /// Calls that arrived before then.
    #[arg(long, value_name = "TIME", value_parser = when)]
    until: Option<When>,
    /// The form of the rows.
    #[arg(long, value_enum, default_value_t = Form::Jsonl)]
    format: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Jsonl,
    Csv,
}

pub(in crate::cli) async fn export(asked: Export, session: &Session) -> Result<(), Failure> {
    let range = [
        ("node", asked.node),
        ("from_seq", asked.from_seq.map(|seq| seq.to_string())),
        ("to_seq", asked.to_seq.map(|seq| seq.to_string())),
        ("since", asked.since.map(|when| when.before(session.now))),
        ("until", asked.until.map(|when| when.before(session.now))),
    ];
    // First which rows these are: what comes is then the same, however long it takes.
    let header = session.client.get(&query("/api/audit/export/proof", &range)).await?;
    let member = |name: &str| Some(text(&header.json[name]));
    let (first, last) = (member("first_seq"), member("last_seq"));
    let format = if asked.format == Form::Csv { "csv" } else { "jsonl" };
    let rows = [
        ("node", member("node_id")),
        ("from_seq", first.clone()),
        ("to_seq", last.clone()),
        ("format", Some(format.to_owned())),
    ];
    let part = beside(&asked.file, ".part");
    let written = download(&query("/api/audit/export", &rows), &part, session).await;
    let done = written.and_then(|()| {
        if asked.format == Form::Csv {
            let proof = beside(&asked.file, ".proof.json");
            std::fs::write(&proof, &header.text).map_err(|error| unwritable(&proof, &error))?;
        }
        std::fs::rename(&part, &asked.file).map_err(|error| unwritable(&asked.file, &error))
    });
    if done.is_err() {
        // What there is of it proves nothing.
        let _ = std::fs::remove_file(&part);
    }
    done?;
    let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
    session.print(&format!("{}: rows {first} to {last}\n", asked.file.display()))
}

async fn download(path: &str, to: &Path, session: &Session) -> Result<(), Failure> {
    let mut file = BufWriter::new(File::create(to).map_err(|error| unwritable(to, &error))?);
    let (mut rows, mut told) = (0_u64, std::time::Instant::now());
    let terminal = io::stderr().is_terminal();
    let taken = session.client.download(path, |piece| {
        rows += memchr::memchr_iter(b'\n', piece).count() as u64;
        if terminal && told.elapsed().as_millis() >= 500 {
            told = std::time::Instant::now();
            let _ = write!(io::stderr().lock(), "\r{rows} lines");
        }
        file.write_all(piece).map_err(|error| unwritable(to, &error))
    });
    taken.await?;
    if terminal {
        let _ = write!(io::stderr().lock(), "\r\u{1b}[K");
    }
    let file = file.into_inner().map_err(|error| unwritable(to, error.error()))?;
    file.sync_all().map_err(|error| unwritable(to, &error))
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn unwritable(file: &Path, error: &io::Error) -> Failure {
    Failure::Running(format!("{} cannot be written: {error}", file.display()))
}
