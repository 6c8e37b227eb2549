//! The ledger: the rows of each node as the leaves of a Merkle tree, and what is said of it in signed checkpoints.
//!
//! | file | what it is for |
//! |---|---|
//! | `tree` | the tree as it grows, its root |
//! | `proof` | proofs of inclusion and consistency |
//! | `note` | checkpoints as signed text, keys |
//! | `grow` | the tree of a node, as rows are to be added to it |
//! | `read` | roots and proofs out of what is stored |
//! | `seal` | signing checkpoints as the tree grows |
//! | `publish` | bringing them to places outside |
//! | `export` | parts of the log in files that prove themselves |
//! | `verify` | checking all of it: rows against what was signed |
//! | `retention` | what is erased in rows, and what rows go |

pub mod export;
pub mod grow;
pub mod note;
pub mod proof;
pub mod publish;
pub mod read;
pub mod retention;
pub mod seal;
pub mod tree;
pub mod verify;

#[cfg(test)]
mod publish_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
