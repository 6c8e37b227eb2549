//! Parts of a log in files that prove themselves: rows, and what is needed beside them to come to a signed root.
//!
//! | file | what it is for |
//! |---|---|
//! | `row` | one row, with all that its leaf is made of |
//! | `csv` | rows as CSV |
//! | `make` | exports and proofs out of a database |
//! | `batches` | the lines of a file, read by several threads |
//! | `read` | checking a file |
//!
//! `docs/ledger.md` describes the files for those who read them without us.

mod batches;
mod csv;
mod hexed;
mod make;
mod read;
mod row;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use make::{ExportError, Format, Range, consistency, export, header, lines, proof, trailer};
pub use read::{FileError, verify_file};
pub use row::ExportedRow;

use super::note::{Note, NoteError, VerifierKey};
use super::tree::Hash;
use super::verify::{Claim, Collected, LogReport, claims, is_of};

/// What an export says that it is.
pub const EXPORT: &str = "trust-gateway-export";
/// What the proof of one call says that it is.
pub const PROOF: &str = "trust-gateway-proof";
/// The version of both.
pub const VERSION: u32 = 1;

/// Whose log it is, and what was signed of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Whose log.
    pub node_id: Uuid,
    /// What its keys call it.
    pub origin: String,
    /// The keys that its checkpoints were signed with, the oldest first: as good as the file they are in.
    pub keys: Vec<String>,
    /// The checkpoints that announced a next key.
    pub announcements: Vec<String>,
    /// The one that everything is proved by.
    pub checkpoint: String,
}

impl Sealed {
    /// The checkpoint that counts if `key` is trusted, or else the file's own first key; what else was signed. Notes in `report`
    /// what is wrong with it.
    fn trusted(&self, keys: &[VerifierKey], report: &mut LogReport) -> Result<Option<(Claim, Vec<Claim>)>, NoteError> {
        let from = "the file";
        let notes = self.announcements.iter().chain([&self.checkpoint]).map(|note| Note::parse(note));
        let notes = notes.map(|note| note.map(|note| Collected { note, from: from.to_owned() }));
        let notes = notes.collect::<Result<Vec<_>, _>>()?;
        let own = self.keys.first().map(|key| VerifierKey::parse(key)).transpose()?;
        let own = own.filter(|own| is_of(own.name(), self.node_id));
        let key = keys.iter().find(|key| key.name() == self.origin && is_of(key.name(), self.node_id)).cloned();
        report.key_unproven = keys.is_empty();
        let Some(key) = key.or(own.filter(|_| keys.is_empty())) else { return Ok(None) };
        let claims = claims(&key, &notes, report);
        let own = notes.last().map(|one| one.note.unverified());
        let own = own.and_then(|own| claims.iter().find(|claim| (claim.size, claim.root) == (own.size, own.root)));
        Ok(own.cloned().map(|own| (own, claims)))
    }
}

/// The first line of an export, or the file beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`EXPORT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Whose log, and what was signed of it.
    #[serde(flatten)]
    pub sealed: Sealed,
    /// The `seq` of the first row,
    pub first_seq: u64,
    /// and of the last.
    pub last_seq: u64,
    /// What leads from these rows to the root in the checkpoint.
    pub range_proof: RangeProof,
}

/// The roots of what lies to both sides of a range of leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeProof {
    /// Of the largest full subtrees that make up what is before it, left to right.
    #[serde(with = "hexed")]
    pub before: Vec<Hash>,
    /// Of what is behind it, left to right.
    #[serde(with = "hexed")]
    pub after: Vec<Hash>,
}

/// The last line of an export: without it, the file was cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trailer {
    /// Rows in the file.
    pub rows: u64,
    /// Always true.
    pub end: bool,
}

/// That one call is in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// [`PROOF`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Whose log, and what was signed of it.
    #[serde(flatten)]
    pub sealed: Sealed,
    /// The call.
    pub row: ExportedRow,
    /// Its place among the leaves, from 0.
    pub index: u64,
    /// How many leaves the checkpoint speaks of.
    pub size: u64,
    /// The proof of inclusion (RFC 6962 section 2.1.1), in its order.
    #[serde(with = "hexed")]
    pub hashes: Vec<Hash>,
}

/// That one state of a log is the beginning of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Consistency {
    /// Whose log.
    pub node_id: Uuid,
    /// The smaller number of rows,
    pub from: u64,
    /// the root of their tree,
    #[serde(with = "hexed")]
    pub from_root: Hash,
    /// the larger number,
    pub to: u64,
    /// and that root.
    #[serde(with = "hexed")]
    pub to_root: Hash,
    /// The proof of consistency (RFC 6962 section 2.1.2), in its order.
    #[serde(with = "hexed")]
    pub hashes: Vec<Hash>,
}
