//! The Merkle tree of RFC 6962 (section 2.1), as it grows: what must be kept of it to add leaves, and its root.
//!
//! Pure. A subtree is *full* when it has 2^level leaves and begins at a multiple of that; its position is its place among the
//! full subtrees of that level, from 0. The *frontier* of a tree are the roots of the largest full subtrees that make it up,
//! left to right: one for each bit that is set in its size.

use aws_lc_rs::digest;

/// SHA-256.
pub type Hash = [u8; 32];

/// The hash of a leaf: SHA-256 over a zero byte and the record.
#[must_use]
pub fn leaf_hash(record: &[u8]) -> Hash {
    sha256(&[&[0], record])
}

/// The hash of a node over its two children.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

pub(crate) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// A full subtree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subtree {
    /// It has 2^level leaves.
    pub level: u32,
    /// Its place among those of its level, from 0.
    pub position: u64,
}

impl Subtree {
    /// The first leaf, from 0.
    #[must_use]
    pub fn first(self) -> u64 {
        self.position << self.level
    }

    /// The leaf after the last.
    #[must_use]
    pub fn end(self) -> u64 {
        (self.position + 1) << self.level
    }

    /// The two that it is made of; `None` for a leaf.
    #[must_use]
    pub fn halves(self) -> Option<[Self; 2]> {
        let level = self.level.checked_sub(1)?;
        Some([0, 1].map(|half| Self { level, position: self.position * 2 + half }))
    }
}

/// The full subtrees that make up the leaves from `first` to before `end`, left to right, as RFC 6962 splits them: `first` is
/// a multiple of the largest power of two below their number.
#[must_use]
pub fn parts(first: u64, end: u64) -> Vec<Subtree> {
    let mut parts = Vec::new();
    let mut at = first;
    while at < end {
        let level = (end - at).ilog2();
        parts.push(Subtree { level, position: at >> level });
        at += 1 << level;
    }
    parts
}

/// The root over subtrees as [`parts`] lists them: each is the left child of a node whose right child is all that follows.
/// `None` without any.
#[must_use]
pub fn fold(roots: &[Hash]) -> Option<Hash> {
    let (last, before) = roots.split_last()?;
    Some(before.iter().rev().fold(*last, |right, left| node_hash(left, &right)))
}

/// All that must be kept of a tree for it to grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    roots: Vec<Hash>,
}

impl Frontier {
    /// Of a tree of `size` leaves; `None` if that many roots do not belong to it.
    #[must_use]
    pub fn of(size: u64, roots: Vec<Hash>) -> Option<Self> {
        (roots.len() == size.count_ones() as usize).then_some(Self { size, roots })
    }

    /// How many leaves there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of its full subtrees, left to right.
    #[must_use]
    pub fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// The full subtrees whose roots these are.
    #[must_use]
    pub fn subtrees(&self) -> Vec<Subtree> {
        parts(0, self.size)
    }

    /// Adds a leaf; tells of each full subtree that it completes, the leaf itself not among them.
    pub fn push(&mut self, leaf: Hash, mut full: impl FnMut(Subtree, &Hash)) {
        let mut hash = leaf;
        let mut level = 0;
        while self.size >> level & 1 == 1 {
            // As many roots as bits set: there is one.
            let Some(left) = self.roots.pop() else { break };
            hash = node_hash(&left, &hash);
            level += 1;
            full(Subtree { level, position: self.size >> level }, &hash);
        }
        self.roots.push(hash);
        self.size += 1;
    }

    /// The root of the tree; SHA-256 of nothing for an empty one.
    #[must_use]
    pub fn root(&self) -> Hash {
        fold(&self.roots).unwrap_or_else(|| sha256(&[]))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition of RFC 6962 section 2.1, word for word.
    pub(crate) fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => sha256(&[]),
            [leaf] => *leaf,
            more => {
                let k = 1 << (more.len() - 1).ilog2();
                node_hash(&by_definition(&more[..k]), &by_definition(&more[k..]))
            }
        }
    }

    pub(crate) fn leaves(n: usize) -> Vec<Hash> {
        (0..n).map(|n| leaf_hash(&(n as u64).to_be_bytes())).collect()
    }

    pub(crate) fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).expect("hex")).collect()
    }

    /// The inputs and roots that implementations of RFC 6962 (Certificate Transparency, Trillian) test with.
    pub(crate) const VECTOR_LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const VECTOR_ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn the_roots_are_those_of_the_known_vectors() {
        let mut tree = Frontier::default();
        assert_eq!(tree.root().as_slice(), hex(VECTOR_ROOTS[0]));
        for (leaf, root) in VECTOR_LEAVES.iter().zip(&VECTOR_ROOTS[1..]) {
            tree.push(leaf_hash(&hex(leaf)), |_, _| {});
            assert_eq!(tree.root().as_slice(), hex(root));
        }
    }

    proptest! {
        #[test]
        fn a_tree_that_grows_is_the_tree_of_the_definition(n in 0..700_usize) {
            let leaves = leaves(n);
            let mut tree = Frontier::default();
            for (at, leaf) in leaves.iter().enumerate() {
                tree.push(*leaf, |subtree, hash| {
                    let (first, end) = (subtree.first() as usize, subtree.end() as usize);
                    assert_eq!(end, at + 1);
                    assert_eq!(*hash, by_definition(&leaves[first..end]));
                });
            }
            prop_assert_eq!(tree.root(), by_definition(&leaves));
            let roots: Vec<Hash> = tree
                .subtrees()
                .into_iter()
                .map(|part| by_definition(&leaves[part.first() as usize..part.end() as usize]))
                .collect();
            prop_assert_eq!(Frontier::of(n as u64, roots), Some(tree));
            prop_assert_eq!(Frontier::of(n as u64 + 1, vec![[0; 32]; n.count_ones() as usize + 40]), None);
        }
    }
}
