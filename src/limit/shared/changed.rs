//! Accounts whose open streams have changed since they were last told.

use std::sync::{Mutex, PoisonError};

use crate::limit::key::LimitKey;

/// Accounts whose open streams have changed since they were last told.
#[derive(Debug, Default)]
pub(in crate::limit) struct Changed(Mutex<Vec<LimitKey>>);

impl Changed {
    /// Notes one. Noting it twice is no harm: what is told is how it stands then.
    pub(in crate::limit) fn note(&self, key: LimitKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(key);
    }

    /// Those noted since the last time.
    pub(super) fn take(&self) -> Vec<LimitKey> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
