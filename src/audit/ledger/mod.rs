//! The ledger: the rows of each node as the leaves of a Merkle tree, and what is said of it in signed checkpoints.
//!
//! | file | what it is for |
//! |---|---|
//! | `tree` | the tree as it grows, its root |
//! | `proof` | proofs of inclusion and consistency |
//! | `note` | checkpoints as signed text, keys |

pub mod note;
pub mod proof;
pub mod tree;
