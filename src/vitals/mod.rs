//! How an agent is doing, as its calls show it: counts, and the circuit breaker.
//!
//! Calls write here with a few relaxed atomics; whoever makes a verdict on the agent's health reads here, and probes close the
//! breaker. One value per agent, kept from snapshot to snapshot while its endpoint is the same: agents that share a host do not
//! share this. Knows no HTTP and no database.

mod breaker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

pub use breaker::{Breaker, BreakerSettings, BreakerState, Passage, Refused, Sign};

/// What is wrong with an agent: the fixed set of words for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// No connection to it can be made.
    Unreachable,
    /// It does not answer in time.
    Timeout,
    /// Its certificate or its TLS is not acceptable.
    Tls,
    /// It broke off.
    BrokeOff,
    /// It says that it failed.
    ServerError,
    /// It refuses the gateway's credential.
    AuthFailed,
    /// It sends callers elsewhere.
    Redirects,
    /// It answers, but slowly.
    Slow,
    /// It answers as no agent does.
    AnswersOddly,
    /// Its registered endpoint is no URL.
    BadUrl,
    /// It has no card and answers calls only. Nothing is wrong with that.
    PostOnly,
}

impl Ailment {
    const ALL: [Self; 11] = [
        Self::Unreachable,
        Self::Timeout,
        Self::Tls,
        Self::BrokeOff,
        Self::ServerError,
        Self::AuthFailed,
        Self::Redirects,
        Self::Slow,
        Self::AnswersOddly,
        Self::BadUrl,
        Self::PostOnly,
    ];

    /// The word in rows and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::BrokeOff => "broke_off",
            Self::ServerError => "server_error",
            Self::AuthFailed => "auth_failed",
            Self::Redirects => "redirects",
            Self::Slow => "slow",
            Self::AnswersOddly => "answers_oddly",
            Self::BadUrl => "bad_url",
            Self::PostOnly => "post_only",
        }
    }

    /// What a word in a row means.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ailment| ailment.as_str() == word)
    }
}

/// What one call showed of its agent. What was the caller's fault shows nothing but that the agent answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It answered.
    Answered,
    /// It answered that it does not know the gateway's credential.
    Unauthorized,
    /// It answered, and badly.
    Erred(Ailment),
    /// It did not answer.
    Silent(Ailment),
}

/// The counts since the agent was first seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls it answered, credentials refused included.
    pub answered: u64,
    /// Calls it answered badly, or whose answer it broke off.
    pub erred: u64,
    /// Calls it did not answer.
    pub silent: u64,
}

/// All of it for one agent.
#[derive(Debug)]
pub struct Vitals {
    /// Whether calls are let through.
    pub breaker: Arc<Breaker>,
    answered: AtomicU64,
    erred: AtomicU64,
    silent: AtomicU64,
    /// Answers in a row that refused the gateway's credential.
    unauthorized: AtomicU32,
    last: AtomicU8,
}

impl Vitals {
    /// Nothing known yet.
    #[must_use]
    pub fn new(settings: BreakerSettings, seed: u32) -> Self {
        Self {
            breaker: Arc::new(Breaker::new(settings, seed)),
            answered: AtomicU64::new(0),
            erred: AtomicU64::new(0),
            silent: AtomicU64::new(0),
            unauthorized: AtomicU32::new(0),
            last: AtomicU8::new(0),
        }
    }

    /// Notes what a call showed.
    pub fn note(&self, shown: Shown) {
        let (count, ailment) = match shown {
            Shown::Answered | Shown::Unauthorized => (&self.answered, None),
            Shown::Erred(ailment) => (&self.erred, Some(ailment)),
            Shown::Silent(ailment) => (&self.silent, Some(ailment)),
        };
        if let Some(ailment) = ailment {
            self.last.store(ailment as u8, Ordering::Relaxed);
        }
        match shown {
            Shown::Unauthorized => _ = self.unauthorized.fetch_add(1, Ordering::Relaxed),
            Shown::Answered if self.unauthorized.load(Ordering::Relaxed) != 0 => {
                self.unauthorized.store(0, Ordering::Relaxed);
            }
            _ => {}
        }
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            answered: self.answered.load(Ordering::Relaxed),
            erred: self.erred.load(Ordering::Relaxed),
            silent: self.silent.load(Ordering::Relaxed),
        }
    }

    /// How many answers in a row refused the gateway's credential.
    #[must_use]
    pub fn unauthorized(&self) -> u32 {
        self.unauthorized.load(Ordering::Relaxed)
    }

    /// What was wrong the last time something was.
    #[must_use]
    pub fn last_ailment(&self) -> Ailment {
        let last = usize::from(self.last.load(Ordering::Relaxed));
        Ailment::ALL.get(last).copied().unwrap_or(Ailment::Unreachable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ailment_is_found_by_its_number_and_by_its_word() {
        let vitals = Vitals::new(BreakerSettings::default(), 0);
        for ailment in Ailment::ALL {
            vitals.note(Shown::Erred(ailment));
            assert_eq!(vitals.last_ailment(), ailment);
            assert_eq!(Ailment::from_word(ailment.as_str()), Some(ailment));
        }
    }

    #[test]
    fn refused_credentials_count_only_in_a_row() {
        let vitals = Vitals::new(BreakerSettings::default(), 0);
        for shown in [Shown::Unauthorized, Shown::Unauthorized, Shown::Erred(Ailment::ServerError)] {
            vitals.note(shown);
        }
        assert_eq!(vitals.unauthorized(), 2);
        vitals.note(Shown::Answered);
        assert_eq!(vitals.unauthorized(), 0);
        assert_eq!(vitals.counts(), Counts { answered: 3, erred: 1, silent: 0 });
    }
}
