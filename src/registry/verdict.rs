//! From signs to a verdict on an agent's health, with hysteresis: one bad moment is no outage, one good one no recovery.
//!
//! Promises: the first sign of an agent decides at once; from then on it takes three bad signs in a row to call it offline and
//! two good ones to call it online again. Signs come from probes and, at most one a second, from calls: a burst that fails
//! together is one sign. Pure: knows no time, no network and no database.

use crate::store::rows::HealthStatus;
use crate::vitals::{Ailment, Counts};

/// Bad signs in a row that make an agent offline.
const OFFLINE_AFTER: u32 = 3;

/// Good signs in a row that make it online again.
const ONLINE_AFTER: u32 = 2;

/// Fewer calls than that say nothing about a share of them.
const CALLS_MIN: u64 = 20;

/// With more calls than that, old ones count half.
const CALLS_MAX: u64 = 100;

/// One look at an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It answers; what may be said of it all the same.
    Well(Option<Ailment>),
    /// It answers, but no caller would be content.
    Ill(Ailment),
    /// It does not answer.
    Down(Ailment),
}

/// What is known of one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    health: HealthStatus,
    reason: Option<Ailment>,
    bad: u32,
    good: u32,
    /// Calls of late, and those of them that failed.
    calls: u64,
    failed: u64,
    /// Too many of them did.
    failing: Option<Ailment>,
}

impl Verdict {
    /// What a row says, without what led there.
    pub(super) fn kept(health: HealthStatus, reason: Option<&str>) -> Self {
        let reason = reason.and_then(Ailment::from_word);
        Self { health, reason, bad: 0, good: 0, calls: 0, failed: 0, failing: None }
    }

    /// The health, and why.
    pub(super) fn shown(&self) -> (HealthStatus, Option<Ailment>) {
        match (self.health, self.failing) {
            (HealthStatus::Online, Some(ailment)) => (HealthStatus::Degraded, Some(ailment)),
            _ => (self.health, self.reason),
        }
    }

    /// Bad signs in a row up to now.
    pub(super) fn bad_signs(&self) -> u32 {
        self.bad
    }

    /// Whether it should be looked at sooner than agents that are well.
    pub(super) fn unsettled(&self) -> bool {
        let settled = match self.health {
            HealthStatus::Online => true,
            HealthStatus::Degraded => self.good >= ONLINE_AFTER,
            HealthStatus::Offline | HealthStatus::Unknown => false,
        };
        !settled || self.bad > 0
    }

    /// Takes a sign in.
    pub(super) fn see(&mut self, sign: Sign) {
        let first = self.health == HealthStatus::Unknown;
        match sign {
            Sign::Down(ailment) => {
                (self.bad, self.good) = (self.bad.saturating_add(1), 0);
                let offline = first || self.health == HealthStatus::Offline || self.bad >= OFFLINE_AFTER;
                self.health = if offline { HealthStatus::Offline } else { HealthStatus::Degraded };
                self.reason = Some(ailment);
            }
            Sign::Ill(ailment) => {
                (self.bad, self.good) = (0, self.good.saturating_add(1));
                if self.health != HealthStatus::Offline || self.good >= ONLINE_AFTER {
                    (self.health, self.reason) = (HealthStatus::Degraded, Some(ailment));
                }
            }
            Sign::Well(remark) => {
                (self.bad, self.good) = (0, self.good.saturating_add(1));
                if first || self.health == HealthStatus::Online || self.good >= ONLINE_AFTER {
                    (self.health, self.reason) = (HealthStatus::Online, remark);
                }
            }
        }
    }

    /// Takes in what calls showed since the last time.
    pub(super) fn see_calls(&mut self, since: Counts, unauthorized: bool, ailment: Ailment) {
        let answered = since.answered + since.erred;
        if answered + since.silent == 0 {
            return;
        }
        self.calls += answered + since.silent;
        self.failed += since.erred + since.silent;
        while self.calls > CALLS_MAX {
            self.age();
        }
        if answered == 0 {
            self.see(Sign::Down(ailment));
        } else if unauthorized {
            self.see(Sign::Ill(Ailment::AuthFailed));
        } else if since.answered > 0 {
            // A call does not know of the card: what the probes remarked stays.
            let remark = if self.health == HealthStatus::Online { self.reason } else { None };
            self.see(Sign::Well(remark));
        }
        self.weigh(ailment);
    }

    /// Time has passed: what calls showed counts less.
    pub(super) fn age(&mut self) {
        (self.calls, self.failed) = (self.calls / 2, self.failed / 2);
        if self.calls < CALLS_MIN {
            self.failing = None;
        }
    }

    /// A fifth of the calls failing is too much; only less than a tenth is fine again.
    fn weigh(&mut self, ailment: Ailment) {
        if self.calls < CALLS_MIN {
            return;
        }
        if self.failed * 5 >= self.calls {
            self.failing = Some(ailment);
        } else if self.failed * 10 < self.calls {
            self.failing = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use HealthStatus::{Degraded, Offline, Online, Unknown};

    const DOWN: Sign = Sign::Down(Ailment::Timeout);
    const WELL: Sign = Sign::Well(None);
    const ILL: Sign = Sign::Ill(Ailment::Slow);

    fn new() -> Verdict {
        Verdict::kept(Unknown, None)
    }

    fn after(signs: &[Sign]) -> Vec<HealthStatus> {
        let mut verdict = new();
        signs
            .iter()
            .map(|sign| {
                verdict.see(*sign);
                verdict.shown().0
            })
            .collect()
    }

    fn calls(verdict: &mut Verdict, answered: u64, erred: u64, silent: u64) -> HealthStatus {
        verdict.see_calls(Counts { answered, erred, silent }, false, Ailment::ServerError);
        verdict.shown().0
    }

    #[test]
    fn the_first_sign_decides_at_once() {
        for (sign, health) in [(WELL, Online), (ILL, Degraded), (DOWN, Offline)] {
            assert_eq!(after(&[sign]), [health]);
        }
    }

    #[test]
    fn it_takes_three_bad_signs_to_be_offline_and_two_good_ones_to_be_back() {
        assert_eq!(
            after(&[WELL, DOWN, DOWN, WELL, DOWN, DOWN, DOWN, WELL, DOWN, WELL, WELL]),
            [Online, Degraded, Degraded, Degraded, Degraded, Degraded, Offline, Offline, Offline, Offline, Online]
        );
        assert_eq!(after(&[DOWN, ILL, ILL, WELL, WELL]), [Offline, Offline, Degraded, Online, Online]);
    }

    #[test]
    fn calls_that_all_fail_within_a_second_are_one_bad_sign() {
        let mut verdict = new();
        verdict.see(WELL);
        assert_eq!(calls(&mut verdict, 0, 0, 15), Degraded);
        assert_eq!(verdict.bad_signs(), 1);
        assert_eq!(calls(&mut verdict, 0, 0, 1), Degraded);
        assert_eq!(calls(&mut verdict, 0, 0, 1), Offline);
    }

    #[test]
    fn a_fifth_of_the_calls_failing_is_degraded_until_less_than_a_tenth_do() {
        let mut verdict = new();
        verdict.see(WELL);
        assert_eq!(calls(&mut verdict, 15, 4, 0), Online, "too few to tell");
        assert_eq!(calls(&mut verdict, 1, 0, 0), Degraded);
        assert_eq!(verdict.shown().1, Some(Ailment::ServerError));
        assert_eq!(calls(&mut verdict, 12, 0, 0), Degraded, "4 of 32");
        assert_eq!(calls(&mut verdict, 12, 0, 0), Online, "4 of 44");
    }

    #[test]
    fn calls_of_long_ago_count_no_more() {
        let mut verdict = new();
        verdict.see(WELL);
        assert_eq!(calls(&mut verdict, 20, 20, 0), Degraded);
        verdict.age();
        assert_eq!(verdict.shown().0, Degraded);
        verdict.age();
        assert_eq!(verdict.shown().0, Online);
    }

    #[test]
    fn what_a_thousand_calls_did_before_does_not_hide_what_they_do_now() {
        let mut verdict = new();
        verdict.see(WELL);
        assert_eq!(calls(&mut verdict, 10_000, 0, 0), Online);
        assert_eq!(calls(&mut verdict, 50, 50, 0), Degraded);
    }

    #[test]
    fn an_agent_is_looked_at_sooner_until_it_is_clear_how_it_is_doing() {
        for (signs, unsettled) in [
            (&[][..], true),
            (&[WELL], false),
            (&[WELL, DOWN], true),
            (&[WELL, DOWN, WELL], true),
            (&[WELL, DOWN, WELL, WELL], false),
            (&[ILL], true),
            (&[ILL, ILL], false),
            (&[DOWN], true),
        ] {
            let mut verdict = new();
            signs.iter().for_each(|sign| verdict.see(*sign));
            assert_eq!(verdict.unsettled(), unsettled, "{signs:?}");
        }
    }

    #[test]
    fn a_refused_credential_is_degraded_and_a_remark_of_the_probes_outlives_calls() {
        let mut verdict = new();
        verdict.see(Sign::Well(Some(Ailment::PostOnly)));
        calls(&mut verdict, 5, 0, 0);
        assert_eq!(verdict.shown(), (Online, Some(Ailment::PostOnly)));
        verdict.see_calls(Counts { answered: 5, ..Counts::default() }, true, Ailment::Timeout);
        assert_eq!(verdict.shown(), (Degraded, Some(Ailment::AuthFailed)));
    }

    proptest! {
        #[test]
        fn no_verdict_turns_without_the_signs_it_takes(which in prop::collection::vec(0..3_usize, 1..60)) {
            let signs: Vec<Sign> = which.into_iter().map(|n| [WELL, ILL, DOWN][n]).collect();
            let seen = after(&signs);
            for n in 1..signs.len() {
                let tail = |count: usize| &signs[(n + 1).saturating_sub(count)..=n];
                let bad = |sign: &Sign| matches!(sign, Sign::Down(_));
                match (seen[n - 1], seen[n]) {
                    (Offline, Offline) | (Online | Degraded, Online | Degraded) => {}
                    (Offline, _) => prop_assert!(tail(2).iter().all(|sign| !bad(sign))),
                    (_, Offline) => prop_assert!(tail(3).len() == 3 && tail(3).iter().all(bad)),
                    (_, _) => prop_assert!(false, "nothing becomes unknown again"),
                }
                prop_assert!(!(bad(&signs[n]) && seen[n] == Online));
            }
        }
    }
}
