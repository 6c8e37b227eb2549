//! The circuit breaker of one agent: calls to an agent that does not answer are refused for a while, at once and for nothing.
//!
//! Promises: only failures one after the other open it, and none that one caller alone saw and may have provoked; while it is open, exactly one call at a time is let through to try, and
//! a trial that is dropped is given back; its whole state is one word, changed by compare-and-swap, so that no two workers can
//! disagree about it. A closed breaker costs a call two relaxed loads. Knows no HTTP: who failed and how is its caller's judgement.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;

/// When it opens and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures one after the other that open it; 0 keeps it closed for ever.
    pub failures: u32,
    /// How long it is open the first time; doubled each time the trial fails.
    pub min_open: Duration,
    /// How long it is open at most.
    pub max_open: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failures: 5, min_open: Duration::from_secs(1), max_open: Duration::from_secs(30) }
    }
}

/// What it does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Lets them pass.
    Closed,
    /// Refuses them.
    Open,
    /// One is being tried, the others are refused.
    HalfOpen,
}

impl BreakerState {
    /// Every state, for whoever counts by it.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When the next one may be tried.
    pub retry_after: Duration,
}

/// What a call in hand said of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It answers.
    Answers,
    /// It does not.
    Fails,
    /// It, or something in front of it, says that it does not. Perhaps this caller made it say so.
    SaysItFails {
        /// A number for the caller; others seldom have the same.
        caller: u32,
        /// For how long, if it said so.
        pause: Option<Duration>,
    },
}

/// Who saw the failures in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Witness {
    /// Nobody yet.
    None,
    /// One caller, who may have provoked them.
    One(u32),
    /// Several, or the gateway itself.
    Enough,
}

impl Witness {
    fn and(self, caller: u32) -> Self {
        match self {
            Self::None => Self::One(caller),
            Self::One(other) if other == caller => self,
            Self::One(_) | Self::Enough => Self::Enough,
        }
    }
}

/// The breaker.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    /// Sets its jitter apart from that of others.
    seed: u32,
    word: AtomicU64,
    opened: AtomicU64,
    refused: AtomicU64,
}

/// The word, taken apart: two bits of phase, then eight of level and a time in milliseconds, or the witness and a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// After so many failures.
    Closed { failures: u64, witness: Witness },
    /// For the n-th time in a row, until then.
    Open { level: u8, until: u64 },
    /// With a trial that counts as lost from then on: an agent that thinks for minutes must not keep all others out.
    Trying { level: u8, until: u64 },
}

const LOW: u64 = (1 << 54) - 1;
/// The count has twenty bits: more than may be configured. The witness is above it.
const COUNT: u64 = (1 << 20) - 1;

impl Phase {
    fn pack(self) -> u64 {
        match self {
            Self::Closed { failures, witness } => {
                let witness = match witness {
                    Witness::None => 0,
                    Witness::Enough => 1,
                    Witness::One(caller) => 2 + u64::from(caller),
                };
                witness << 20 | failures.min(COUNT)
            }
            Self::Open { level, until } => 1 << 62 | u64::from(level) << 54 | until & LOW,
            Self::Trying { level, until } => 2 << 62 | u64::from(level) << 54 | until & LOW,
        }
    }

    fn unpack(word: u64) -> Self {
        let (level, low) = ((word >> 54 & 0xff) as u8, word & LOW);
        match word >> 62 {
            0 => {
                let witness = match low >> 20 {
                    0 => Witness::None,
                    1 => Witness::Enough,
                    caller => Witness::One((caller - 2) as u32),
                };
                Self::Closed { failures: low & COUNT, witness }
            }
            1 => Self::Open { level, until: low },
            _ => Self::Trying { level, until: low },
        }
    }
}

fn millis(clock: &Clock) -> u64 {
    clock.nanos() / 1_000_000
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(LOW).min(LOW)
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(settings: BreakerSettings, seed: u32) -> Self {
        Self { settings, seed, word: AtomicU64::new(0), opened: AtomicU64::new(0), refused: AtomicU64::new(0) }
    }

    /// What it does with calls now. One whose time is over stays open until a call comes to try.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        match Phase::unpack(self.word.load(Ordering::Relaxed)) {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::Trying { .. } => BreakerState::HalfOpen,
        }
    }

    /// How often it has opened, failed trials included.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// How many calls it has refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// What it was made with.
    #[must_use]
    pub fn settings(&self) -> BreakerSettings {
        self.settings
    }

    /// Lets a call pass, or refuses it.
    ///
    /// # Errors
    /// While it is open, and while another call is being tried.
    pub fn enter(self: &Arc<Self>, clock: &Clock) -> Result<Passage, Refused> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let (level, until) = match Phase::unpack(word) {
                Phase::Closed { .. } => return Ok(self.passage(None)),
                Phase::Open { level, until } | Phase::Trying { level, until } => (level, until),
            };
            let now = millis(clock);
            if now < until {
                self.refused.fetch_add(1, Ordering::Relaxed);
                // A trial is over long before it counts as lost.
                let wait = if matches!(Phase::unpack(word), Phase::Trying { .. }) { 1_000 } else { until - now };
                return Err(Refused { retry_after: Duration::from_millis(wait) });
            }
            let trial = Phase::Trying { level, until: now + whole_millis(self.settings.max_open).max(1) }.pack();
            match self.word.compare_exchange_weak(word, trial, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Ok(self.passage(Some(trial))),
                Err(other) => word = other,
            }
        }
    }

    /// Closes it: the agent was found to answer.
    pub fn close(&self) {
        if self.word.load(Ordering::Relaxed) != 0 {
            self.word.store(0, Ordering::Release);
        }
    }

    /// The gateway itself found that the agent does not answer: what a single caller saw was not of its making.
    pub fn confirm(&self, clock: &Clock) {
        let mut word = self.word.load(Ordering::Relaxed);
        while let Phase::Closed { failures: failures @ 1.., .. } = Phase::unpack(word) {
            let next = self.failed(failures, Witness::Enough, None, clock);
            match self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return self.count(next),
                Err(other) => word = other,
            }
        }
    }

    /// The word after so many failures in a row.
    fn failed(&self, failures: u64, witness: Witness, hint: Option<Duration>, clock: &Clock) -> u64 {
        let most = u64::from(self.settings.failures);
        if most > 0 && failures >= most && witness == Witness::Enough {
            self.open(0, hint, clock)
        } else {
            Phase::Closed { failures, witness }.pack()
        }
    }

    fn passage(self: &Arc<Self>, trial: Option<u64>) -> Passage {
        Passage { breaker: Arc::clone(self), trial }
    }

    /// What a call said that was let through while it was closed. Nothing, once it no longer is: such a call set out before.
    fn told(&self, sign: Sign, clock: &Clock) {
        let mut word = self.word.load(Ordering::Relaxed);
        while let Phase::Closed { failures, witness } = Phase::unpack(word) {
            let next = match sign {
                Sign::Answers if failures == 0 => return,
                Sign::Answers => 0,
                Sign::Fails => self.failed(failures + 1, Witness::Enough, None, clock),
                Sign::SaysItFails { caller, pause } => self.failed(failures + 1, witness.and(caller), pause, clock),
            };
            match self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return self.count(next),
                Err(other) => word = other,
            }
        }
    }

    /// How a trial ended. Nothing, if it is no longer the one: it took too long, or a probe closed the breaker.
    fn tried(&self, trial: u64, sign: Sign, clock: &Clock) {
        let Phase::Trying { level, .. } = Phase::unpack(trial) else { return };
        let next = match sign {
            Sign::Answers => 0,
            Sign::Fails => self.open(level.saturating_add(1), None, clock),
            Sign::SaysItFails { pause, .. } => self.open(level.saturating_add(1), pause, clock),
        };
        if self.word.compare_exchange(trial, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.count(next);
        }
    }

    fn count(&self, word: u64) {
        if matches!(Phase::unpack(word), Phase::Open { .. }) {
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn open(&self, level: u8, hint: Option<Duration>, clock: &Clock) -> u64 {
        let now = millis(clock);
        Phase::Open { level, until: now + self.open_for(level, hint, now) }.pack()
    }

    /// The back-off in milliseconds, less up to a fifth, so that gateways do not try in step. What the agent itself asked for is
    /// kept, within the longest back-off.
    fn open_for(&self, level: u8, hint: Option<Duration>, now: u64) -> u64 {
        let most = whole_millis(self.settings.max_open).max(1);
        let doubled =
            whole_millis(self.settings.min_open).max(1).saturating_mul(1 << u32::from(level).min(32)).min(most);
        let mut seed = [0; 12];
        seed[..4].copy_from_slice(&self.seed.to_be_bytes());
        seed[4..].copy_from_slice(&now.to_be_bytes());
        let jittered = doubled - doubled * u64::from(crc32fast::hash(&seed) % 1_000) / 5_000;
        jittered.max(hint.map_or(0, whole_millis).min(most)).max(1)
    }
}

/// A call that was let through. Dropped without a word, it says nothing of the agent; a trial is given back.
#[derive(Debug)]
pub struct Passage {
    breaker: Arc<Breaker>,
    /// The word the trial put there: it is the trial's name.
    trial: Option<u64>,
}

impl Passage {
    /// Whether the breaker waits for what comes of this call.
    #[must_use]
    pub fn is_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// Says what the call found.
    pub fn tell(mut self, sign: Sign, clock: &Clock) {
        match self.trial.take() {
            Some(trial) => self.breaker.tried(trial, sign, clock),
            None => self.breaker.told(sign, clock),
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let Some(trial) = self.trial.take() else { return };
        if let Phase::Trying { level, .. } = Phase::unpack(trial) {
            let free = Phase::Open { level, until: 0 }.pack();
            let _ = self.breaker.word.compare_exchange(trial, free, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
