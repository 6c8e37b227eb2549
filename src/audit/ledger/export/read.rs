//! Checking an export or a proof, with nothing at hand but the file and a key.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use super::batches::{Ends, in_order, record};
use super::row::ExportedRow;
use super::{EXPORT, Header, PROOF, Proof, Sealed, Trailer, VERSION, csv};
use crate::audit::ledger::note::VerifierKey;
use crate::audit::ledger::proof::check_inclusion;
use crate::audit::ledger::tree::Frontier;
use crate::audit::ledger::verify::{Beyond, Check, Claim, Content, Given, Kind, Leaf, LogReport, Progress, claims};

/// Between two reports of how far it is.
const TOLD_EVERY: u64 = 10_000;

/// Why a file cannot be checked at all.
#[derive(Debug)]
pub enum FileError {
    /// It cannot be read.
    Unreadable(PathBuf, io::Error),
    /// It is neither an export nor a proof.
    Foreign(PathBuf, String),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Foreign(path, why) => {
                write!(f, "{} is no export and no proof of a trust gateway: {why}", path.display())
            }
        }
    }
}

impl std::error::Error for FileError {}

/// What a record of an export is.
enum Line {
    Row(Leaf),
    End(Trailer),
    Wrong(String),
}

fn json_line(text: &str) -> Line {
    match serde_json::from_str::<ExportedRow>(text) {
        Ok(row) => Line::Row(row.into_scanned().into()),
        Err(error) => serde_json::from_str(text).map_or_else(|_| Line::Wrong(error.to_string()), Line::End),
    }
}

fn csv_line(text: &str) -> Line {
    csv::row(text).map_or_else(Line::Wrong, |row| Line::Row(row.into_scanned().into()))
}

/// Checks an export (CSV with `NAME.proof.json` beside it) or the proof of a call.
///
/// # Errors
/// When it is neither, or cannot be read.
pub fn verify_file(path: &Path, given: &Given, progress: impl FnMut(Progress)) -> Result<LogReport, FileError> {
    let unreadable = |path: &Path, error| FileError::Unreadable(path.to_owned(), error);
    let foreign = |why: String| FileError::Foreign(path.to_owned(), why);
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(|error| unreadable(path, error))?);
    let first = record(&mut file, Ends::Line).map_err(|error| unreadable(path, error))?.unwrap_or_default();
    let mut report = if first == csv::head() {
        let beside = proof_beside(path);
        let header = std::fs::read_to_string(&beside).map_err(|error| unreadable(&beside, error))?;
        let header: Header = serde_json::from_str(&header).map_err(|error| foreign(error.to_string()))?;
        let export = Export { header, ends: Ends::QuotedLine, line: csv_line };
        export.verify(file, given, progress).map_err(|error| error.at(path))?
    } else if let Ok(header) = serde_json::from_str::<Header>(&first) {
        let export = Export { header, ends: Ends::Line, line: json_line };
        export.verify(file, given, progress).map_err(|error| error.at(path))?
    } else {
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, error))?;
        let proof: Proof = serde_json::from_str(&text).map_err(|error| foreign(error.to_string()))?;
        verify_proof(proof, given).map_err(|error| error.at(path))?
    };
    report.file = Some(path.display().to_string());
    Ok(report)
}

/// The header of a CSV export.
pub(super) fn proof_beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".proof.json");
    name.into()
}

enum Failed {
    Read(io::Error),
    Foreign(String),
}

impl Failed {
    fn at(self, path: &Path) -> FileError {
        match self {
            Self::Read(error) => FileError::Unreadable(path.to_owned(), error),
            Self::Foreign(why) => FileError::Foreign(path.to_owned(), why),
        }
    }
}

fn is(format: &str, version: u32, wanted: &str) -> Result<(), String> {
    match (format == wanted, version == VERSION) {
        (true, true) => Ok(()),
        (true, false) => Err(format!("it is of version {version}, this program knows {VERSION}")),
        (false, _) => Err(format!("it says that it is {format:?}")),
    }
}

/// An export whose first line was read.
struct Export {
    header: Header,
    ends: Ends,
    line: fn(&str) -> Line,
}

impl Export {
    fn verify(
        self,
        file: BufReader<File>,
        given: &Given,
        mut progress: impl FnMut(Progress),
    ) -> Result<LogReport, Failed> {
        let Self { header, ends, line } = self;
        is(&header.format, header.version, EXPORT).map_err(Failed::Foreign)?;
        let Header { sealed, first_seq, last_seq, range_proof, .. } = header;
        if !(1..=last_seq).contains(&first_seq) || i64::try_from(last_seq).is_err() {
            return Err(Failed::Foreign(format!("there are no rows from {first_seq} to {last_seq}")));
        }
        let start = Frontier::of(first_seq - 1, range_proof.before);
        let start =
            start.ok_or_else(|| Failed::Foreign("its range proof does not begin where its rows do".to_owned()))?;
        let (own, within, report) = trusted(&sealed, given, last_seq)?;
        let mut check = Check::new(report, &start, last_seq, within);
        let (mut number, mut rows, mut end) = (1_u64, 0_u64, None::<Trailer>);
        let read = in_order(file, ends, line, |line| {
            number += 1;
            if end.is_some() {
                let what = format!("line {number} comes after the end");
                check.report().integrity.add(Kind::Inserted, last_seq, last_seq, what);
            }
            match line {
                Line::Row(leaf) => {
                    rows += 1;
                    check.row(&leaf);
                }
                Line::End(trailer) => end = Some(trailer),
                Line::Wrong(why) => {
                    let seq = check.size() + 1;
                    let what = format!("line {number} is no row: {why}");
                    check.report().integrity.add(Kind::Unreadable, seq, seq, what);
                }
            }
            if rows.is_multiple_of(TOLD_EVERY) {
                progress(Progress { node: sealed.node_id, rows, of: last_seq + 1 - first_seq });
            }
        });
        read.map_err(Failed::Read)?;
        let (size, wanted) = (check.size(), last_seq + 1 - first_seq);
        if ends == Ends::Line && end.as_ref().is_none_or(|end| (end.rows, end.end) != (wanted, true)) {
            let what = "the file was cut off: its last line is not the one that says so";
            check.report().completeness.add(Kind::CutOff, size + 1, size + 1, what);
        }
        if size < last_seq {
            let what = format!("rows {} to {last_seq} are missing at the end", size + 1);
            check.report().completeness.add(Kind::Missing, size + 1, last_seq, what);
            check.report().unproven += size - start.size();
        }
        let beyond = own.filter(|_| size == last_seq).map(|claim| Beyond { claim, after: range_proof.after });
        Ok(check.finish(None, beyond.as_ref()))
    }
}

/// The checkpoint that proves the file, and those that speak of its rows up to `last`.
fn trusted(sealed: &Sealed, given: &Given, last: u64) -> Result<(Option<Claim>, Vec<Claim>, LogReport), Failed> {
    let mut report = LogReport::new(sealed.node_id);
    let trusted = sealed.trusted(&given.keys, &mut report).map_err(|error| Failed::Foreign(error.to_string()))?;
    let Some((own, mut within)) = trusted else {
        if report.integrity.holds {
            let what = format!("no key that was given has signed its checkpoint, which is of {}", sealed.origin);
            report.integrity.add(Kind::Untrusted, last, last, what);
        }
        return Ok((None, Vec::new(), report));
    };
    let keys: Vec<_> = report.keys.iter().filter_map(|key| VerifierKey::parse(key).ok()).collect();
    for key in &keys {
        let mut aside = LogReport::new(sealed.node_id);
        within.extend(claims(key, &given.checkpoints, &mut aside));
    }
    within.sort_by_key(|claim| claim.size);
    within.dedup_by(|later, earlier| (later.size, later.root) == (earlier.size, earlier.root));
    for claim in within.iter().filter(|claim| claim.size == own.size && claim.root != own.root) {
        let what = format!(
            "the checkpoint of {} rows from {} does not hold, while that of the file does: the log was signed anew",
            claim.size, claim.from
        );
        report.integrity.add(Kind::SignedAnew, 1, claim.size, what);
    }
    // The one that proves the file is checked at its end.
    within.retain(|claim| claim.size <= last && *claim != own);
    Ok((Some(own), within, report))
}

/// Checks the proof of one call.
fn verify_proof(proof: Proof, given: &Given) -> Result<LogReport, Failed> {
    is(&proof.format, proof.version, PROOF).map_err(Failed::Foreign)?;
    let Proof { sealed, row, index, size, hashes, .. } = proof;
    let seq = index.checked_add(1).ok_or_else(|| Failed::Foreign(format!("there is no leaf {index}")))?;
    let (own, _, mut report) = trusted(&sealed, given, seq)?;
    let leaf = Leaf::from(row.into_scanned());
    (report.rows, report.before) = (1, index);
    report.erased_addresses = u64::from(leaf.address_erased);
    let stored = leaf.stored.unwrap_or_default();
    match &leaf.content {
        Content::Hash(hash) if *hash == stored => {}
        Content::Erased => report.erased_rows = 1,
        Content::Hash(_) => {
            report.integrity.add(Kind::Edited, seq, seq, "what the row holds is not what its leaf hash was made of");
        }
        Content::Unreadable(why) => report.integrity.add(Kind::Unreadable, seq, seq, why.clone()),
    }
    if leaf.seq != seq.cast_signed() {
        report.integrity.add(Kind::Inserted, seq, seq, format!("the row says that it is row {}", leaf.seq));
    }
    match own {
        Some(own) if own.size == size => match check_inclusion(&stored, index, size, &own.root, &hashes) {
            Ok(()) => (report.checkpoints, report.signed) = (1, size),
            Err(error) => report.integrity.add(Kind::NotAsSigned, seq, seq, format!("row {seq}: {error}")),
        },
        Some(own) => {
            let what = format!("the proof is for a tree of {size} rows, the checkpoint speaks of {}", own.size);
            report.integrity.add(Kind::NotAsSigned, seq, seq, what);
        }
        None => {}
    }
    Ok(report)
}
