//! What was found: what is there and was changed, and what is missing, apart.

use std::collections::BTreeSet;

use serde::Serialize;
use uuid::Uuid;

/// As many are told one by one.
const TOLD: usize = 20;

/// Something that is not as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind.
    pub kind: Kind,
    /// The first row it is about, by its `seq`,
    pub first: u64,
    /// and the last.
    pub last: u64,
    /// In words.
    pub what: String,
}

/// The kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Content and leaf hash do not belong together.
    Edited,
    /// It is no row that a gateway writes.
    Unreadable,
    /// A row stands where there is no place for it.
    Inserted,
    /// Rows do not give the root that was signed.
    NotAsSigned,
    /// Two trees were signed, of which one is not the beginning of the other.
    SignedAnew,
    /// A checkpoint that nobody trusted has signed.
    Untrusted,
    /// What is kept beside the rows is not what they give.
    Kept,
    /// Nothing says what the rows should be.
    Unsigned,
    /// Rows are missing.
    Missing,
    /// A file ends before its end.
    CutOff,
}

/// Findings: the first of them, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Whether there are none.
    pub holds: bool,
    /// The lowest `seq` among them.
    pub first_bad: Option<u64>,
    /// The first that were met.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub more: u64,
}

impl Findings {
    fn none() -> Self {
        Self { holds: true, ..Self::default() }
    }

    /// Adds one.
    pub fn add(&mut self, kind: Kind, first: u64, last: u64, what: impl Into<String>) {
        self.holds = false;
        self.first_bad = Some(self.first_bad.map_or(first, |bad| bad.min(first)));
        match self.findings.len() < TOLD {
            true => self.findings.push(Finding { kind, first, last, what: what.into() }),
            false => self.more += 1,
        }
    }

    /// The kinds among those that are told one by one.
    #[must_use]
    pub fn kinds(&self) -> BTreeSet<Kind> {
        self.findings.iter().map(|finding| finding.kind).collect()
    }
}

/// What was found of one log, or of the part of it that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogReport {
    /// Whose log.
    pub node_id: Uuid,
    /// The file that was read; none: the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The keys that counted: the one trusted, and those that it and its successors announced.
    pub keys: Vec<String>,
    /// Whether the first of them was taken from what is checked, which makes it only as good as that.
    pub key_unproven: bool,
    /// Whether what is there is what was recorded.
    pub integrity: Findings,
    /// Whether nothing is missing.
    pub completeness: Findings,
    /// The rows that were read.
    pub rows: u64,
    /// Rows before the first: removed by retention, or before what was exported.
    pub before: u64,
    /// The rows that the largest checkpoint that holds speaks of.
    pub signed: u64,
    /// Rows past that.
    pub unsealed: u64,
    /// The checkpoints that hold.
    pub checkpoints: u64,
    /// Checkpoints of what lies before the first row: out of reach.
    pub checkpoints_before: u64,
    /// Checkpoints signed with keys that do not count, older than the last that does.
    pub checkpoints_of_others: u64,
    /// Rows that nothing speaks against, but that cannot be shown to be what was signed either, because of others.
    pub unproven: u64,
    /// Rows whose content was erased: their leaf hashes alone are checked.
    pub erased_rows: u64,
    /// Rows whose address was erased: all else is checked.
    pub erased_addresses: u64,
    /// Rows that stand for calls that were lost.
    pub gaps: u64,
}

impl LogReport {
    /// Of a log of which nothing is known yet.
    #[must_use]
    pub fn new(node_id: Uuid) -> Self {
        Self {
            node_id,
            file: None,
            keys: Vec::new(),
            key_unproven: false,
            integrity: Findings::none(),
            completeness: Findings::none(),
            rows: 0,
            before: 0,
            signed: 0,
            unsealed: 0,
            checkpoints: 0,
            checkpoints_before: 0,
            checkpoints_of_others: 0,
            unproven: 0,
            erased_rows: 0,
            erased_addresses: 0,
            gaps: 0,
        }
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.integrity.holds && self.completeness.holds
    }
}
