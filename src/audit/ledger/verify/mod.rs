//! Checking a log: are its rows what was recorded, and are they all there? Nothing is believed but signatures of a trusted key.
//!
//! | file | what it is for |
//! |---|---|
//! | `row` | one row: content and leaf hash |
//! | `trust` | which checkpoints count |
//! | `check` | rows against checkpoints |
//! | `report` | what was found |
//! | `live` | the rows of a database |

mod check;
mod live;
mod report;
mod row;
mod trust;

#[cfg(test)]
pub(crate) mod tamper;
#[cfg(test)]
mod tests;

pub use check::{BLOCK, Beyond, Check};
pub use live::{Given, Progress, Verified, verify_database};
pub use report::{Finding, Findings, Kind, LogReport};
pub use row::{Content, Leaf, content};
pub use trust::{Claim, Collected, claims, is_of};
