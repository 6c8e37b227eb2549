//! Rebuilds the tree of one log from its rows and holds it against what was signed. Pure; its memory does not grow with the log.
//!
//! The tree is built of the leaf hashes that lie beside the rows: where it gives a signed root, each of them is what was
//! recorded, and a row whose content gives another is a row that was edited. Where it does not, the kept roots of subtrees
//! tell in which block of 256 rows it lies: if the tree built of *them* gives the signed root, they are what was recorded, and
//! the blocks that differ are not.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use super::report::{Kind, LogReport};
use super::row::{Content, Leaf};
use super::trust::Claim;
use crate::audit::ledger::proof::root_through;
use crate::audit::ledger::tree::{Frontier, Hash, fold};
use crate::store::ledger::KEPT_LEVELS;

/// Rows of a block whose root is kept.
pub const BLOCK: u64 = 1 << KEPT_LEVELS;
/// As many holes and bad rows are remembered between two checkpoints that hold: by then all is said.
const REMEMBERED: usize = 10_000;

/// Over a larger hole no tree is made: whoever says that there is a row so far out could keep this going for ever.
const HOLE_MAX: u64 = 1 << 26;

/// A checkpoint of more rows than are at hand, and what its tree has to their right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beyond {
    /// What was signed.
    pub claim: Claim,
    /// The roots to the right, left to right.
    pub after: Vec<Hash>,
}

/// The check of one log.
#[derive(Debug)]
pub struct Check {
    /// Leaves so far: the `seq` of the last.
    size: u64,
    /// No row has a place behind this.
    end: u64,
    /// Roots of whole blocks as the leaf hashes give them,
    blocks: Frontier,
    /// and as they were kept.
    kept_blocks: Frontier,
    /// The leaves behind the last whole block.
    partial: Frontier,
    /// Kept roots of blocks to come, by position.
    kept: BTreeMap<u64, Hash>,
    claims: VecDeque<Claim>,
    /// Leaves up to here are what was signed, or are reported.
    good: u64,
    /// The first claim behind that which the leaves do not give.
    failed: Option<Claim>,
    /// Blocks behind `good` for which another root was kept.
    differing: Vec<u64>,
    /// Rows behind `good` that are missing,
    holes: Vec<RangeInclusive<u64>>,
    /// or that are reported already.
    named: Vec<u64>,
    report: LogReport,
}

impl Check {
    /// Of the log of `node` from behind `start` on. Rows behind `end` have no place in it.
    #[must_use]
    pub fn new(mut report: LogReport, start: &Frontier, end: u64, claims: Vec<Claim>) -> Self {
        let size = start.size();
        let (above, below) = start.roots().split_at((size / BLOCK).count_ones() as usize);
        // Both have as many roots as bits are set, as the whole has.
        let tree = |size, roots: &[Hash]| Frontier::of(size, roots.to_vec()).unwrap_or_default();
        let blocks = tree(size / BLOCK, above);
        report.before = size;
        let mut claims: VecDeque<_> = claims.into();
        while claims.front().is_some_and(|claim| claim.size < size) {
            claims.pop_front();
            report.checkpoints_before += 1;
        }
        let mut check = Self {
            size,
            end,
            kept_blocks: blocks.clone(),
            blocks,
            partial: tree(size % BLOCK, below),
            kept: BTreeMap::new(),
            claims,
            good: size,
            failed: None,
            differing: Vec::new(),
            holes: Vec::new(),
            named: Vec::new(),
            report,
        };
        check.hold();
        check
    }

    /// Leaves so far: the `seq` of the last.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Tells the kept root of a block whose rows are still to come.
    pub fn kept(&mut self, position: u64, root: Hash) {
        self.kept.insert(position, root);
    }

    /// The next row.
    pub fn row(&mut self, leaf: &Leaf) {
        self.report.rows += 1;
        self.report.erased_addresses += u64::from(leaf.address_erased);
        self.report.gaps += u64::from(leaf.gap);
        let seq = u64::try_from(leaf.seq).unwrap_or(0);
        if seq <= self.size || seq > self.end {
            let why = match seq {
                0 => "rows are numbered from 1",
                seq if seq > self.end => "the tree ends before it",
                _ => "it is there twice, or not in its order",
            };
            self.report.integrity.add(Kind::Inserted, seq, seq, format!("row {} has no place: {why}", leaf.seq));
            return;
        }
        if seq > self.size + 1 {
            let missing = self.size + 1..=seq - 1;
            self.report.completeness.add(Kind::Missing, self.size + 1, seq - 1, missing_text(&missing));
            if seq - self.size > HOLE_MAX {
                self.end = self.size;
                self.report.unproven += 1;
                return;
            }
            if self.holes.len() < REMEMBERED {
                self.holes.push(missing);
            }
            while self.size + 1 < seq {
                self.push([0; 32]);
            }
        }
        let problem = match (&leaf.content, &leaf.stored) {
            (Content::Hash(hash), Some(stored)) if hash == stored => None,
            (Content::Erased, Some(_)) => {
                self.report.erased_rows += 1;
                None
            }
            (Content::Hash(_), Some(_)) => {
                Some((Kind::Edited, "what it holds is not what its leaf hash was made of".to_owned()))
            }
            (Content::Unreadable(why), _) => Some((Kind::Unreadable, why.clone())),
            (_, None) => Some((Kind::Edited, "it has no leaf hash".to_owned())),
        };
        if let Some((kind, what)) = problem {
            self.report.integrity.add(kind, seq, seq, format!("row {seq}: {what}"));
            if self.named.len() < REMEMBERED {
                self.named.push(seq);
            }
        }
        self.push(match (&leaf.stored, &leaf.content) {
            (Some(stored), _) => *stored,
            (None, Content::Hash(hash)) => *hash,
            (None, _) => [0; 32],
        });
    }

    fn push(&mut self, leaf: Hash) {
        self.partial.push(leaf, |_, _| {});
        self.size += 1;
        if self.size.is_multiple_of(BLOCK) {
            let (position, root) = (self.size / BLOCK - 1, self.partial.root());
            let kept = self.kept.remove(&position).unwrap_or(root);
            self.blocks.push(root, |_, _| {});
            self.kept_blocks.push(kept, |_, _| {});
            if kept != root {
                self.differing.push(position);
            }
            self.partial = Frontier::default();
        }
        self.hold();
    }

    /// Holds the tree against what was signed for this size.
    fn hold(&mut self) {
        let mut here = Vec::new();
        while let Some(claim) = self.claims.pop_front_if(|claim| claim.size == self.size) {
            here.push(claim);
        }
        if here.is_empty() {
            return;
        }
        let given = |root: Hash| here.iter().any(|claim| claim.root == root);
        let (tree, kept) = (self.root(&self.blocks), self.root(&self.kept_blocks));
        let truth = match (given(tree), given(kept)) {
            (true, _) => tree,
            (false, true) => kept,
            (false, false) => {
                self.failed = self.failed.take().or_else(|| here.pop());
                return;
            }
        };
        here.retain(|claim| claim.root != truth);
        self.settle(truth == tree, &here);
        self.report.checkpoints += 1;
        self.report.signed = self.size;
    }

    /// What was signed for this size is what the leaves give, or else what the kept roots give; so was something else.
    fn settle(&mut self, by_leaves: bool, others: &[Claim]) {
        let differing = std::mem::take(&mut self.differing);
        let failed = self.failed.take();
        if by_leaves {
            for claim in failed.iter().chain(others) {
                self.signed_anew(claim);
            }
            for block in differing {
                let (first, last) = (block * BLOCK + 1, (block + 1) * BLOCK);
                let what = format!(
                    "ledger_subtrees holds another root for rows {first} to {last} than these give, which are what was signed"
                );
                self.report.integrity.add(Kind::Kept, first, last, what);
            }
            self.kept_blocks = self.blocks.clone();
        } else {
            for claim in others {
                self.signed_anew(claim);
            }
            for block in differing {
                self.not_as_signed((block * BLOCK + 1).max(self.good + 1)..=((block + 1) * BLOCK).min(self.size));
            }
            self.blocks = self.kept_blocks.clone();
        }
        self.good = self.size;
        self.holes.clear();
        self.named.clear();
    }

    fn signed_anew(&mut self, claim: &Claim) {
        let Claim { size, from, .. } = claim;
        let what = format!(
            "the checkpoint of {size} rows from {from} does not hold, while another one does: rows from {} on were changed, and \
             the log was signed anew",
            self.good + 1
        );
        self.report.integrity.add(Kind::SignedAnew, (self.good + 1).min(*size), *size, what);
    }

    /// Rows among which something is not what was signed. If what that is was told, the others are only not proved.
    fn not_as_signed(&mut self, rows: RangeInclusive<u64>) {
        let missing = self.holes.iter().map(|hole| {
            let (first, last) = (*hole.start().max(rows.start()), *hole.end().min(rows.end()));
            (last + 1).saturating_sub(first)
        });
        let (missing, named) =
            (missing.sum::<u64>(), self.named.iter().filter(|seq| rows.contains(seq)).count() as u64);
        let all = rows.end() + 1 - rows.start();
        if missing + named > 0 {
            self.report.unproven += all - missing - named;
            return;
        }
        let what = match all {
            1 => format!("row {} is not what was signed", rows.start()),
            _ => format!("among rows {} to {} is one that is not what was signed", rows.start(), rows.end()),
        };
        self.report.integrity.add(Kind::NotAsSigned, *rows.start(), *rows.end(), what);
    }

    fn root(&self, blocks: &Frontier) -> Hash {
        let roots = [blocks.roots(), self.partial.roots()].concat();
        fold(&roots).unwrap_or_else(|| Frontier::default().root())
    }

    /// What was found. `head` is the tree as the database has it; `beyond` a checkpoint of a larger one.
    #[must_use]
    pub fn finish(mut self, head: Option<&Frontier>, beyond: Option<&Beyond>) -> LogReport {
        if let Some(Beyond { claim, after }) = beyond {
            let roots = [self.blocks.roots(), self.partial.roots()].concat();
            let root = Frontier::of(self.size, roots).and_then(|tree| root_through(&tree, claim.size, after));
            if root == Some(claim.root) {
                self.settle(true, &[]);
                self.report.checkpoints += 1;
                self.report.signed = self.size;
            } else {
                self.failed = self.failed.take().or_else(|| Some(claim.clone()));
            }
        }
        if let Some(Claim { size, .. }) = self.failed.take() {
            let first_bad = size.min(self.size);
            if first_bad > self.good {
                self.not_as_signed(self.good + 1..=first_bad);
            } else {
                let what = format!("what stands for the first {size} rows is not what was signed");
                self.report.integrity.add(Kind::NotAsSigned, 1, size.max(1), what);
            }
            self.report.unproven += self.size - first_bad;
            self.good = self.size;
        }
        let sealed = self.report.signed.max(self.report.before);
        match self.claims.back() {
            // Signed for, with others that are not there.
            Some(_) => self.report.unproven += self.size - self.good,
            None => self.report.unsealed = self.size.saturating_sub(sealed),
        }
        let there =
            self.claims.back().map(|claim| (claim.size, format!("a checkpoint from {} was signed", claim.from)));
        let told = head.map(|head| (head.size(), "the tree was grown".to_owned()));
        if let Some((size, how)) = there.into_iter().chain(told).max_by_key(|(size, _)| *size)
            && size > self.size
        {
            let what = format!("{}, at the end: {how} for {size} rows", missing_text(&(self.size + 1..=size)));
            self.report.completeness.add(Kind::Missing, self.size + 1, size, what);
        }
        let not_its_head = head.is_some_and(|head| head.size() == self.size && head.root() != self.root(&self.blocks));
        if not_its_head && self.report.integrity.holds && self.holes.is_empty() {
            let what = "rows past the last checkpoint do not give the tree in ledger_heads";
            self.report.integrity.add(Kind::Kept, self.good + 1, self.size, what);
        }
        if self.report.checkpoints == 0 && self.size > 0 && self.report.is_whole() {
            let what = "no checkpoint that counts speaks of these rows: nothing shows that they are what was recorded";
            self.report.integrity.add(Kind::Unsigned, self.report.before + 1, self.size, what);
        }
        self.report
    }

    /// What was found so far, to be added to.
    pub fn report(&mut self) -> &mut LogReport {
        &mut self.report
    }
}

fn missing_text(rows: &RangeInclusive<u64>) -> String {
    match rows.start() == rows.end() {
        true => format!("row {} is missing", rows.start()),
        false => format!("rows {} to {} are missing", rows.start(), rows.end()),
    }
}
