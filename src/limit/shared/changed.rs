//! Accounts whose open streams have changed since they were last told.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::limit::key::LimitKey;

/// Accounts whose open streams have changed since they were last told.
#[derive(Debug, Default)]
pub(in crate::limit) struct Changed(Mutex<HashSet<LimitKey>>);

impl Changed {
    /// Notes one. Noting it twice is no harm: what is told is how it stands then.
    pub(in crate::limit) fn note(&self, key: LimitKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    }

    /// Those noted since the last time.
    pub(super) fn take(&self) -> HashSet<LimitKey> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_takes_one_place_however_often_it_changes_while_nobody_is_told() {
        let changed = Changed::default();
        for _ in 0..1_000 {
            changed.note([1; 16]);
            changed.note([2; 16]);
        }
        assert_eq!(changed.take().len(), 2);
        assert!(changed.take().is_empty());
    }
}
