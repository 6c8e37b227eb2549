//! Proofs of RFC 6962 (section 2.1.1 and 2.1.2): that a leaf is in a tree, and that a tree is the beginning of another. Pure.
//!
//! To make one, the ranges of leaves whose roots it consists of are listed here; where those roots come from is not known here.

use std::fmt;
use std::ops::Range;

use super::tree::{Frontier, Hash, node_hash};

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofError {
    /// The leaf or the smaller tree is not within the larger one.
    OutOfRange,
    /// The proof has too few or too many hashes.
    WrongLength,
    /// The hashes do not lead to the root.
    Mismatch,
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfRange => "what is to be proved lies beyond the tree",
            Self::WrongLength => "the proof has not as many hashes as it must have",
            Self::Mismatch => "the hashes do not lead to the root",
        })
    }
}

impl std::error::Error for ProofError {}

/// The largest power of two below `n`, which is more than one: where a tree is split.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// The ranges of leaves whose roots prove that leaf `index` is in a tree of `size`, in the order of the proof; `None` if it is
/// not.
#[must_use]
pub fn inclusion_ranges(index: u64, size: u64) -> Option<Vec<Range<u64>>> {
    if index >= size {
        return None;
    }
    let (mut first, mut end) = (0, size);
    let mut ranges = Vec::new();
    while end - first > 1 {
        let middle = first + split(end - first);
        if index < middle {
            ranges.push(middle..end);
            end = middle;
        } else {
            ranges.push(first..middle);
            first = middle;
        }
    }
    ranges.reverse();
    Some(ranges)
}

/// The ranges whose roots prove that the first `old` leaves of a tree of `new` make the tree of `old`; `None` if there are not
/// that many. Nothing is needed where `old` is 0 or `new`.
#[must_use]
pub fn consistency_ranges(old: u64, new: u64) -> Option<Vec<Range<u64>>> {
    if old > new {
        return None;
    }
    if old == 0 || old == new {
        return Some(Vec::new());
    }
    let (mut first, mut end) = (0, new);
    let mut ranges = Vec::new();
    while old < end {
        let middle = first + split(end - first);
        if old <= middle {
            ranges.push(middle..end);
            end = middle;
        } else {
            ranges.push(first..middle);
            first = middle;
        }
    }
    // The old tree's own root is known to whoever checks.
    if first != 0 {
        ranges.push(first..end);
    }
    ranges.reverse();
    Some(ranges)
}

/// The ranges of leaves to the right of the first `size` of a tree of `all`, left to right: their roots and what is kept of the
/// tree of `size` make the whole.
#[must_use]
pub fn ranges_after(size: u64, all: u64) -> Vec<Range<u64>> {
    let (mut first, mut end) = (0, all);
    let mut ranges = Vec::new();
    while size < end {
        if size == first {
            ranges.push(first..end);
            break;
        }
        let middle = first + split(end - first);
        if size <= middle {
            ranges.push(middle..end);
            end = middle;
        } else {
            first = middle;
        }
    }
    ranges.reverse();
    ranges
}

/// The root of a tree of `all` leaves whose beginning is `tree` and whose rest has the roots `after`, as [`ranges_after`] lists
/// them; `None` if those are too few or too many.
#[must_use]
pub fn root_through(tree: &Frontier, all: u64, after: &[Hash]) -> Option<Hash> {
    if tree.size() > all {
        return None;
    }
    if all == 0 {
        return after.is_empty().then(|| tree.root());
    }
    let (mut left, mut right) = (tree.roots().iter(), after.iter());
    let root = through(0..all, tree.size(), &mut left, &mut right)?;
    (left.next().is_none() && right.next().is_none()).then_some(root)
}

fn through<'h>(
    range: Range<u64>,
    size: u64,
    left: &mut impl Iterator<Item = &'h Hash>,
    right: &mut impl Iterator<Item = &'h Hash>,
) -> Option<Hash> {
    let count = range.end - range.start;
    if range.start >= size {
        return right.next().copied();
    }
    if range.end <= size && count.is_power_of_two() {
        return left.next().copied();
    }
    let middle = range.start + split(count);
    let first = through(range.start..middle, size, left, right)?;
    Some(node_hash(&first, &through(middle..range.end, size, left, right)?))
}

/// Checks that `leaf` is the leaf `index` of the tree of `size` with this root.
///
/// # Errors
/// When the proof does not show it.
pub fn check_inclusion(leaf: &Hash, index: u64, size: u64, root: &Hash, proof: &[Hash]) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange);
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::WrongLength);
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            // A node on the right edge with no sibling on its level moves up as it is.
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    match (last, hash == *root) {
        (0, true) => Ok(()),
        (0, false) => Err(ProofError::Mismatch),
        _ => Err(ProofError::WrongLength),
    }
}

/// Checks that the tree of `old` leaves with the root `old_root` is the beginning of that of `new` leaves with `new_root`.
///
/// # Errors
/// When the proof does not show it.
pub fn check_consistency(
    old: u64,
    old_root: &Hash,
    new: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::OutOfRange);
    }
    if old == new || old == 0 {
        return match (proof.is_empty(), old == 0 || old_root == new_root) {
            (true, true) => Ok(()),
            (true, false) => Err(ProofError::Mismatch),
            (false, _) => Err(ProofError::WrongLength),
        };
    }
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    let (first, rest) = match (old.is_power_of_two(), proof.split_first()) {
        (true, _) => (*old_root, proof),
        (false, Some((first, rest))) => (*first, rest),
        (false, None) => return Err(ProofError::WrongLength),
    };
    let (mut of_old, mut of_new) = (first, first);
    for sibling in rest {
        if last == 0 {
            return Err(ProofError::WrongLength);
        }
        if at & 1 == 1 || at == last {
            of_old = node_hash(sibling, &of_old);
            of_new = node_hash(sibling, &of_new);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            of_new = node_hash(&of_new, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    match (last, of_old == *old_root && of_new == *new_root) {
        (0, true) => Ok(()),
        (0, false) => Err(ProofError::Mismatch),
        _ => Err(ProofError::WrongLength),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tree::leaf_hash;
    use super::super::tree::tests::{VECTOR_LEAVES, by_definition, hex, leaves};
    use super::*;

    fn roots(leaves: &[Hash], ranges: Vec<Range<u64>>) -> Vec<Hash> {
        ranges.into_iter().map(|range| by_definition(&leaves[range.start as usize..range.end as usize])).collect()
    }

    fn inclusion(leaves: &[Hash], index: u64) -> Vec<Hash> {
        roots(leaves, inclusion_ranges(index, leaves.len() as u64).expect("in range"))
    }

    fn consistency(leaves: &[Hash], old: u64) -> Vec<Hash> {
        roots(leaves, consistency_ranges(old, leaves.len() as u64).expect("in range"))
    }

    #[test]
    fn the_proofs_are_those_of_the_known_vectors() {
        let leaves: Vec<Hash> = VECTOR_LEAVES.iter().map(|leaf| leaf_hash(&hex(leaf))).collect();
        let proof = |proof: &[&str]| proof.iter().map(|hash| hex(hash)).collect::<Vec<_>>();
        let made = |made: Vec<Hash>| made.iter().map(|hash| hash.to_vec()).collect::<Vec<_>>();
        assert_eq!(
            made(inclusion(&leaves, 0)),
            proof(&[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ])
        );
        assert_eq!(
            made(consistency(&leaves, 6)),
            proof(&[
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ])
        );
    }

    proptest! {
        #[test]
        fn what_is_in_the_tree_is_proved_and_nothing_else(
            n in 1..300_usize, index in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(), bit in 0..256_usize,
        ) {
            let leaves = leaves(n);
            let (size, index) = (n as u64, index.index(n));
            let (leaf, root, mut proof) = (leaves[index], by_definition(&leaves), inclusion(&leaves, index as u64));
            let index = index as u64;
            prop_assert_eq!(check_inclusion(&leaf, index, size, &root, &proof), Ok(()));
            let wrong = other.index(n) as u64;
            if wrong != index {
                prop_assert!(check_inclusion(&leaf, wrong, size, &root, &proof).is_err());
            }
            let mut flipped = leaf;
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(check_inclusion(&flipped, index, size, &root, &proof), Err(ProofError::Mismatch));
            prop_assert_eq!(check_inclusion(&leaf, size, size, &root, &proof), Err(ProofError::OutOfRange));
            proof.push(root);
            prop_assert!(check_inclusion(&leaf, index, size, &root, &proof).is_err());
            proof.truncate(proof.len() - 1);
            if !proof.is_empty() {
                let at = other.index(proof.len());
                proof[at][bit / 8] ^= 1 << (bit % 8);
                prop_assert_eq!(check_inclusion(&leaf, index, size, &root, &proof), Err(ProofError::Mismatch));
                proof.pop();
                prop_assert!(check_inclusion(&leaf, index, size, &root, &proof).is_err());
            }
        }

        #[test]
        fn a_beginning_and_what_is_right_of_it_make_the_whole(
            n in 0..300_usize, size in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0..256_usize,
        ) {
            let leaves = leaves(n);
            let (all, size) = (n as u64, size.index(n + 1));
            let mut tree = Frontier::default();
            for leaf in &leaves[..size] {
                tree.push(*leaf, |_, _| {});
            }
            let mut after = roots(&leaves, ranges_after(size as u64, all));
            let root = by_definition(&leaves);
            prop_assert_eq!(root_through(&tree, all, &after), Some(root));
            if !after.is_empty() {
                let flip = at.index(after.len());
                after[flip][bit / 8] ^= 1 << (bit % 8);
                prop_assert_ne!(root_through(&tree, all, &after), Some(root));
                prop_assert_eq!(root_through(&tree, all, &after[1..]), None);
            }
            after.push(root);
            prop_assert_eq!(root_through(&tree, all, &after), None);
        }

        #[test]
        fn only_a_beginning_is_consistent(
            n in 1..300_usize, old in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0..256_usize,
        ) {
            let leaves = leaves(n);
            let (new, old) = (n as u64, old.index(n + 1) as u64);
            let (old_root, new_root) = (by_definition(&leaves[..old as usize]), by_definition(&leaves));
            let mut proof = consistency(&leaves, old);
            prop_assert_eq!(check_consistency(old, &old_root, new, &new_root, &proof), Ok(()));
            if old > 0 {
                let mut edited = leaves[..old as usize].to_vec();
                let edit = at.index(edited.len());
                edited[edit][bit / 8] ^= 1 << (bit % 8);
                let edited = by_definition(&edited);
                prop_assert_eq!(check_consistency(old, &edited, new, &new_root, &proof), Err(ProofError::Mismatch));
            }
            prop_assert!(check_consistency(new + 1, &old_root, new, &new_root, &proof).is_err());
            if !proof.is_empty() {
                let flip = at.index(proof.len());
                proof[flip][bit / 8] ^= 1 << (bit % 8);
                prop_assert_eq!(check_consistency(old, &old_root, new, &new_root, &proof), Err(ProofError::Mismatch));
            }
            proof.push(new_root);
            prop_assert!(check_consistency(old, &old_root, new, &new_root, &proof).is_err());
        }
    }
}
