//! What may become of a connection: one table of status, action and side. Pure.
//!
//! Promises: a block is lifted by the side that set it, or by an operator, and by nobody else; whatever the other side does
//! leaves it in place. An operator's block is lifted by operators only.

use super::RegistryError;
use crate::clock::Timestamp;
use crate::store::rows::{ConnectionRow, ConnectionStatus};

/// What somebody wants done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say yes to a request.
    Accept,
    /// Say no to a request.
    Decline,
    /// Let nothing pass, until taken back.
    Block,
    /// Take one's own block back.
    Unblock,
    /// Put at rest.
    Pause,
    /// End the rest.
    Resume,
    /// End the agreement. A block stays.
    End,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 7] =
        [Self::Accept, Self::Decline, Self::Block, Self::Unblock, Self::Pause, Self::Resume, Self::End];

    /// The action of OpenAgora's `action` (`accept`) or `status` (`connected`), and of our additions.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "accept" | "accepted" | "connected" | "connect" => Self::Accept,
            "decline" | "declined" => Self::Decline,
            "block" | "blocked" => Self::Block,
            "unblock" | "unblocked" => Self::Unblock,
            "pause" | "paused" => Self::Pause,
            "resume" | "resumed" => Self::Resume,
            "end" | "ended" => Self::End,
            _ => return None,
        })
    }

    /// The word used in the log of changes and in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Decline => "decline",
            Self::Block => "block",
            Self::Unblock => "unblock",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::End => "end",
        }
    }
}

/// Who acts on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The agent that asked.
    Requester,
    /// The agent that was asked.
    Target,
    /// An operator, over both.
    Operator,
}

/// How long a requester whose request was declined waits before it may ask again: an hour, in microseconds.
const DECLINED_REST_US: i64 = 3_600_000_000;

/// Whether `side` may ask for a connection where there is `row` already.
///
/// # Errors
/// [`RegistryError::Forbidden`] when it may not, [`RegistryError::Connection`] when there is nothing to ask for, or not yet.
pub fn ask(row: &ConnectionRow, side: Side, now: Timestamp) -> Result<(), RegistryError> {
    use ConnectionStatus::{Declined, Ended};
    let unfit = |problem: String| Err(RegistryError::Connection { problem, current: Box::new(row.clone()) });
    let blocked = row.blocked_by_requester || row.blocked_by_target;
    let again = row.resolved_at.unwrap_or(row.created_at).plus_micros(DECLINED_REST_US);
    match (side, row.status) {
        (Side::Operator, _) if blocked => unfit("the connection is blocked: unblock it first".to_owned()),
        _ if blocked => Err(RegistryError::Forbidden("the connection between the two agents is blocked".to_owned())),
        (Side::Requester, Declined) if now < again => {
            unfit(format!("the request was declined: ask again after {again}, or let the other agent ask"))
        }
        // Turned round, it would bind nobody.
        (Side::Target, Declined | Ended) if row.operations_fixed => Err(RegistryError::Forbidden(
            "an operator fixed what the other agent may call over this connection: let it ask, or an operator"
                .to_owned(),
        )),
        (_, Declined | Ended) => Ok(()),
        _ => unfit("Connection already exists".to_owned()),
    }
}

/// `row` as it is after `action` by `side`.
///
/// # Errors
/// [`RegistryError::Forbidden`] when this side never may, [`RegistryError::Connection`] when the connection is not in a
/// state for it.
pub fn apply(row: &ConnectionRow, action: Action, side: Side) -> Result<ConnectionRow, RegistryError> {
    use ConnectionStatus::{Connected, Declined, Ended, Paused, Pending};
    let unfit =
        |problem: &str| Err(RegistryError::Connection { problem: problem.to_owned(), current: Box::new(row.clone()) });
    let forbidden = |why: &str| Err(RegistryError::Forbidden(why.to_owned()));
    let blocked = row.blocked_by_requester || row.blocked_by_target;

    let mut next = row.clone();
    next.status = match (action, side, row.status) {
        (Action::Accept | Action::Decline, Side::Requester, _) => {
            return forbidden("only the agent that was asked, or an operator, can accept or decline");
        }
        (Action::Accept, ..) if blocked => return unfit("the connection is blocked: unblock it first"),
        (Action::Accept, _, Pending) | (Action::Accept, Side::Operator, Declined | Ended | Paused) => Connected,
        (Action::Decline, _, Pending) => Declined,
        (Action::Accept | Action::Decline, _, status) => {
            return unfit(&format!("the connection is {}, not pending", status.as_str()));
        }

        (Action::Pause | Action::Resume, Side::Requester | Side::Target, _) => {
            return forbidden("only an operator can pause and resume a connection");
        }
        (Action::Pause, Side::Operator, Connected) => Paused,
        (Action::Resume, Side::Operator, Paused) => Connected,
        (Action::Pause, _, _) => return unfit("only a connected connection can be paused"),
        (Action::Resume, _, _) => return unfit("only a paused connection can be resumed"),

        (Action::Block, _, status) => {
            match side {
                Side::Requester => next.blocked_by_requester = true,
                Side::Target => next.blocked_by_target = true,
                Side::Operator => {
                    (next.blocked_by_requester, next.blocked_by_target, next.block_locked) = (true, true, true);
                }
            }
            // To block is also to answer; to block whom one has asked is to take the request back.
            match (status, side) {
                (Pending, Side::Requester) => Ended,
                (Pending, Side::Target | Side::Operator) => Declined,
                (other, _) => other,
            }
        }
        (Action::Unblock, Side::Operator, status) if blocked => {
            (next.blocked_by_requester, next.blocked_by_target, next.block_locked) = (false, false, false);
            status
        }
        (Action::Unblock, Side::Requester | Side::Target, _) if row.block_locked => {
            return forbidden("an operator blocked this connection: only an operator can unblock it");
        }
        (Action::Unblock, Side::Requester, status) if row.blocked_by_requester => {
            next.blocked_by_requester = false;
            status
        }
        (Action::Unblock, Side::Target, status) if row.blocked_by_target => {
            next.blocked_by_target = false;
            status
        }
        (Action::Unblock, Side::Requester | Side::Target, _) if blocked => {
            return forbidden("only the side that blocked can unblock");
        }
        (Action::Unblock, _, _) => return unfit("the connection is not blocked"),

        (Action::End, Side::Requester | Side::Target, Paused) => {
            return forbidden(
                "an operator paused this connection: only an operator can end it; to let nothing pass, block it",
            );
        }
        // Or a request that was declined could be made anew at once.
        (Action::End, Side::Requester, Declined) => Declined,
        (Action::End, _, _) => Ended,
    };
    Ok(next)
}

#[cfg(test)]
mod tests;
