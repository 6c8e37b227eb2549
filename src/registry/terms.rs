//! The terms of a connection: what it is for, what may be called, how much, until when; and who may fix which of them.

use super::RegistryError;
use super::names::check_text;
use super::transition::Side;
use crate::a2a::OperationSet;
use crate::clock::Timestamp;
use crate::store::rows::{ConnectionLimits, ConnectionRow};

/// 31 days: the longest period of a rate.
const LONGEST_PERIOD_MS: u64 = 31 * 86_400_000;

/// The longest purpose, and the longest reason for a change.
pub(super) const TEXT_MAX: usize = 500;

/// What is to be fixed. What is not said stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Its own limits: the operators' to fix.
    pub limits: Option<ConnectionLimits>,
    /// When it ends: the operators' to fix.
    pub ends_at: Option<Option<Timestamp>>,
    /// What the requester may call: wanted by it when it asks, narrowed by the target, fixed by operators.
    pub operations: Option<Option<OperationSet>>,
    /// What it is for: said by the requester when it asks, changed by operators.
    pub purpose: Option<Option<String>>,
    /// When somebody should look at it again: fixed by the target and by operators.
    pub review_at: Option<Option<Timestamp>>,
}

/// In which place somebody fixes terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hand {
    /// The requester, in its request.
    Asking,
    /// One of the two sides, later.
    Party(Side),
    /// An operator.
    Operator,
}

fn forbidden<T>(why: &str) -> Result<T, RegistryError> {
    Err(RegistryError::Forbidden(why.to_owned()))
}

impl Terms {
    /// Whether nothing is to be fixed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.limits.is_none()
            && self.ends_at.is_none()
            && self.operations.is_none()
            && self.purpose.is_none()
            && self.review_at.is_none()
    }

    pub(super) fn apply(&self, row: &mut ConnectionRow, hand: Hand) -> Result<(), RegistryError> {
        if (self.limits.is_some() || self.ends_at.is_some()) && hand != Hand::Operator {
            return forbidden("only an operator can set limits or an end");
        }
        if let Some(limits) = self.limits {
            check_limits("limits", limits)?;
            row.limits = limits;
        }
        if let Some(ends_at) = self.ends_at {
            row.ends_at = ends_at;
        }
        if let Some(review_at) = self.review_at {
            if matches!(hand, Hand::Asking | Hand::Party(Side::Requester)) {
                return forbidden("review_at is set by the agent that was asked, or by an operator");
            }
            row.review_at = review_at;
        }
        if let Some(purpose) = &self.purpose {
            if matches!(hand, Hand::Party(_)) {
                return forbidden("the purpose is said with the request; later only an operator can change it");
            }
            let text = purpose.as_deref().map(|text| check_text("purpose", text, TEXT_MAX, true)).transpose()?;
            row.purpose = text.filter(|text| !text.is_empty());
        }
        match self.operations {
            Some(operations) => agree(row, operations, hand),
            None => Ok(()),
        }
    }
}

/// Whether limits of an own, in `member`, make sense.
pub(super) fn check_limits(member: &str, limits: ConnectionLimits) -> Result<(), RegistryError> {
    let ConnectionLimits { rate, period_ms, burst, daily: _, streams: _ } = limits;
    if rate == Some(0) || burst == Some(0) || period_ms == Some(0) {
        return Err(RegistryError::invalid(
            member,
            "rate, period and burst must be at least 1: to let nothing pass, pause or block",
        ));
    }
    if rate.is_some() != period_ms.is_some() {
        return Err(RegistryError::invalid(member, "rate and period belong together: send both or neither"));
    }
    if period_ms.is_some_and(|ms| ms > LONGEST_PERIOD_MS) {
        return Err(RegistryError::invalid(&*format!("{member}.period"), "is longer than 31 days"));
    }
    Ok(())
}

/// Puts `wanted` in force as far as `hand` may.
fn agree(row: &mut ConnectionRow, wanted: Option<OperationSet>, hand: Hand) -> Result<(), RegistryError> {
    if wanted.is_some_and(OperationSet::is_empty) {
        let problem = "must name at least one, or be null for all: to let nothing pass, pause or block";
        return Err(RegistryError::invalid("operations", problem));
    }
    let narrower = match (wanted, row.operations) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(wanted), Some(now)) => wanted.is_within(now),
    };
    match hand {
        Hand::Operator => row.operations_fixed = wanted.is_some(),
        // What an operator fixed stands already; "all" is then as much of it as there is.
        Hand::Asking if wanted.is_none() => return Ok(()),
        Hand::Asking | Hand::Party(Side::Target) if narrower => {}
        Hand::Party(Side::Requester) => {
            return forbidden("the requester says in its request which operations it wants: end this one and ask anew");
        }
        Hand::Asking | Hand::Party(_) => {
            let now = row.operations.map(|set| set.to_string()).unwrap_or_default();
            return Err(RegistryError::Forbidden(format!(
                "operations can only be narrowed, and are {now}: more can be given by an operator, or by a new request"
            )));
        }
    }
    row.operations = wanted;
    Ok(())
}
