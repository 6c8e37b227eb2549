//! What one row says of itself: whether its content is what its leaf hash was made of.

use crate::audit::canonical;
use crate::audit::ledger::tree::Hash;
use crate::store::calls::ScannedRow;
use crate::store::rows::CallRow;

/// A row, as far as the check goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Where it says that it stands.
    pub seq: i64,
    /// The leaf hash that lies beside it, if it is one.
    pub stored: Option<Hash>,
    /// What its content gives.
    pub content: Content,
    /// Whether its address was erased.
    pub address_erased: bool,
    /// Whether it stands for calls that were lost.
    pub gap: bool,
}

/// What the content of a row gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Its leaf hash.
    Hash(Hash),
    /// Nothing: it was erased.
    Erased,
    /// Nothing: it is no row that a gateway writes. Says why.
    Unreadable(String),
}

impl From<ScannedRow> for Leaf {
    fn from(ScannedRow { seq, leaf_hash, row, erased }: ScannedRow) -> Self {
        let content = match &row {
            Ok(row) if erased => erased_content(row),
            Ok(row) => content(row),
            Err(error) => Content::Unreadable(error.to_string()),
        };
        let row = row.ok();
        let address_erased = row.as_ref().is_some_and(|row| row.client_ip_commitment.is_some());
        Self { seq, stored: leaf_hash, content, address_erased, gap: row.is_some_and(|row| row.decision == "gap") }
    }
}

/// What a row gives whose content was erased. That happens to refused calls alone, and then to all that came from outside: a row
/// that says so and is another was made to, so that nothing is asked of what it says.
fn erased_content(row: &CallRow) -> Content {
    let CallRow { client_ip, personal_salt, credential_id, protocol_version, method, .. } = row;
    let CallRow { rpc_id, task_id, context_id, message_id, trace_id, .. } = row;
    let texts = [client_ip, protocol_version, method, rpc_id, task_id, context_id, message_id, trace_id];
    let left = personal_salt.is_some() || credential_id.is_some() || texts.into_iter().any(Option::is_some);
    match row.decision == "refused" && !left {
        true => Content::Erased,
        false => Content::Unreadable("it says that it was erased, and is not as erased rows are".to_owned()),
    }
}

/// What a row's content gives. What is not part of the record must not be there: it could say anything.
#[must_use]
pub fn content(row: &CallRow) -> Content {
    let CallRow { client_ip, personal_salt, client_ip_commitment, .. } = row;
    match (client_ip, personal_salt, client_ip_commitment) {
        (Some(_), Some(_), None) | (None, None, _) => Content::Hash(canonical::leaf_hash(row)),
        _ => Content::Unreadable("client_ip, personal_salt and client_ip_commitment do not belong together".to_owned()),
    }
}
