use std::collections::HashSet;
use std::sync::Barrier;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;

const SETTINGS: BreakerSettings =
    BreakerSettings { failures: 3, min_open: Duration::from_secs(1), max_open: Duration::from_secs(8) };

fn scene() -> (Arc<Breaker>, Clock) {
    (Arc::new(Breaker::new(SETTINGS, 7)), Clock::manual(Timestamp(0)))
}

fn call(breaker: &Arc<Breaker>, clock: &Clock, sign: Sign) {
    breaker.enter(clock).expect("let through").tell(sign, clock);
}

fn opened() -> (Arc<Breaker>, Clock) {
    let (breaker, clock) = scene();
    for _ in 0..3 {
        call(&breaker, &clock, Sign::Fails);
    }
    (breaker, clock)
}

#[test]
fn it_opens_after_failures_one_after_the_other_and_not_before() {
    let (breaker, clock) = scene();
    for _ in 0..10 {
        call(&breaker, &clock, Sign::Fails);
        call(&breaker, &clock, Sign::Fails);
        call(&breaker, &clock, Sign::Answers);
    }
    assert_eq!((breaker.state(), breaker.opened()), (BreakerState::Closed, 0));
    for _ in 0..3 {
        call(&breaker, &clock, Sign::Fails);
    }
    assert_eq!((breaker.state(), breaker.opened()), (BreakerState::Open, 1));
    let refused = breaker.enter(&clock).expect_err("open");
    assert!((800..=1000).contains(&refused.retry_after.as_millis()), "{refused:?}");
    assert_eq!(breaker.refused(), 1);
}

#[test]
fn when_its_time_is_over_one_call_tries_and_its_success_closes() {
    let (breaker, clock) = opened();
    clock.advance(Duration::from_secs(1));
    let trial = breaker.enter(&clock).expect("one is let through");
    assert!(trial.is_trial());
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert_eq!(breaker.enter(&clock).expect_err("only one").retry_after, Duration::from_secs(1));
    trial.tell(Sign::Answers, &clock);
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert!(!breaker.enter(&clock).expect("closed").is_trial());
}

#[test]
fn each_trial_that_fails_doubles_the_wait_up_to_the_longest() {
    let (breaker, clock) = opened();
    for wait in [1, 2, 4, 8, 8, 8] {
        let left = breaker.enter(&clock).expect_err("open").retry_after;
        assert!(left <= Duration::from_secs(wait) && left >= Duration::from_millis(wait * 800), "{wait}: {left:?}");
        clock.advance(Duration::from_secs(wait));
        call(&breaker, &clock, Sign::Fails);
        assert_eq!(breaker.state(), BreakerState::Open);
    }
    clock.advance(Duration::from_secs(8));
    call(&breaker, &clock, Sign::Answers);
    // From the beginning again: an agent that is back is treated like any other.
    for _ in 0..3 {
        call(&breaker, &clock, Sign::Fails);
    }
    assert!(breaker.enter(&clock).expect_err("open").retry_after <= Duration::from_secs(1));
}

#[test]
fn a_trial_that_is_dropped_is_given_back_at_once() {
    let (breaker, clock) = opened();
    clock.advance(Duration::from_secs(1));
    drop(breaker.enter(&clock).expect("a trial"));
    assert_eq!(breaker.state(), BreakerState::Open);
    assert!(breaker.enter(&clock).expect("another trial").is_trial());
}

#[test]
fn a_trial_that_takes_too_long_makes_room_for_another_and_says_nothing_any_more() {
    let (breaker, clock) = opened();
    clock.advance(Duration::from_secs(1));
    let slow = breaker.enter(&clock).expect("a trial");
    clock.advance(Duration::from_secs(8));
    let next = breaker.enter(&clock).expect("another trial");
    slow.tell(Sign::Answers, &clock);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    next.tell(Sign::Answers, &clock);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn calls_that_set_out_before_it_opened_say_nothing_afterwards() {
    let (breaker, clock) = scene();
    let early: Vec<_> = (0..5).map(|_| breaker.enter(&clock).expect("closed")).collect();
    let mut early = early.into_iter();
    for passage in early.by_ref().take(3) {
        passage.tell(Sign::Fails, &clock);
    }
    for sign in [Sign::Fails, Sign::Answers] {
        early.next().expect("five").tell(sign, &clock);
        assert_eq!((breaker.state(), breaker.opened()), (BreakerState::Open, 1), "{sign:?}");
    }
}

#[test]
fn a_probe_that_finds_the_agent_closes_it_and_a_trial_under_way_no_longer_counts() {
    let (breaker, clock) = opened();
    clock.advance(Duration::from_secs(1));
    let trial = breaker.enter(&clock).expect("a trial");
    breaker.close();
    trial.tell(Sign::Fails, &clock);
    assert_eq!((breaker.state(), breaker.opened()), (BreakerState::Closed, 1));
}

#[test]
fn what_the_agent_asks_for_is_kept_within_the_longest_wait() {
    for (asked, least, most) in [(5, 5_000, 5_000), (3_600, 8_000, 8_000), (0, 800, 1_000)] {
        let (breaker, clock) = scene();
        for n in 0..3 {
            call(&breaker, &clock, Sign::SaysItFails { caller: n, pause: Some(Duration::from_secs(asked)) });
        }
        let left = breaker.enter(&clock).expect_err("open").retry_after.as_millis();
        assert!((least..=most).contains(&left), "{asked}: {left}");
    }
}

#[test]
fn with_no_number_of_failures_it_never_opens() {
    let (breaker, clock) =
        (Arc::new(Breaker::new(BreakerSettings { failures: 0, ..SETTINGS }, 0)), Clock::manual(Timestamp(0)));
    for _ in 0..1_000 {
        call(&breaker, &clock, Sign::Fails);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn what_one_caller_alone_saw_does_not_open_it_until_another_sees_it_or_the_gateway_itself() {
    let says = |caller| Sign::SaysItFails { caller, pause: None };
    for way in 0..3 {
        let (breaker, clock) = scene();
        for _ in 0..100 {
            call(&breaker, &clock, says(7));
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        match way {
            0 => breaker.confirm(&clock),
            1 => call(&breaker, &clock, says(8)),
            _ => call(&breaker, &clock, Sign::Fails),
        }
        assert_eq!((breaker.state(), breaker.opened()), (BreakerState::Open, 1), "{way}");
    }
    // Confirmed before it was often enough; and what is confirmed is forgotten with the row.
    let (breaker, clock) = scene();
    breaker.confirm(&clock);
    for sign in [says(7), Sign::Answers, says(7), says(7), says(7)] {
        call(&breaker, &clock, sign);
    }
    assert_eq!(breaker.state(), BreakerState::Closed, "nothing had failed that could be confirmed");
    call(&breaker, &clock, Sign::Answers);
    call(&breaker, &clock, says(7));
    breaker.confirm(&clock);
    call(&breaker, &clock, says(7));
    assert_eq!(breaker.state(), BreakerState::Closed, "twice");
    call(&breaker, &clock, says(7));
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn every_word_means_one_thing() {
    for witness in [Witness::None, Witness::Enough, Witness::One(0), Witness::One(u32::MAX)] {
        for failures in [0, 1, COUNT] {
            let phase = Phase::Closed { failures, witness };
            assert_eq!(Phase::unpack(phase.pack()), phase);
        }
        let many = Phase::Closed { failures: COUNT + 1, witness };
        assert_eq!(Phase::unpack(many.pack()), Phase::Closed { failures: COUNT, witness }, "it stays at the most");
    }
}

#[test]
fn of_many_threads_exactly_one_gets_the_trial() {
    for _ in 0..50 {
        let (breaker, clock) = opened();
        clock.advance(Duration::from_secs(1));
        let start = Barrier::new(8);
        let passages: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        breaker.enter(&clock).ok()
                    })
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(passages.len(), 1);
    }
}

/// What the breaker must do, said as plainly as possible.
struct Model {
    failures: u32,
    /// Who saw them; the gateway itself is `None`.
    witnesses: HashSet<Option<u32>>,
    /// Open until, and for the n-th time; none while closed.
    open: Option<(u64, u32)>,
    /// The trial under way and when it counts as lost.
    trial: Option<(usize, u64)>,
}

impl Model {
    fn new() -> Self {
        Self { failures: 0, witnesses: HashSet::new(), open: None, trial: None }
    }

    /// Whether it opens with what was seen.
    fn opens(&self) -> bool {
        self.failures >= 3 && (self.witnesses.len() > 1 || self.witnesses.contains(&None))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enter,
    Tell(usize, Sign),
    Confirm,
    Drop(usize),
    Wait(u64),
    Close,
}

fn sign() -> impl Strategy<Value = Sign> {
    prop_oneof![
        2 => Just(Sign::Answers),
        2 => Just(Sign::Fails),
        4 => (0..2_u32).prop_map(|caller| Sign::SaysItFails { caller, pause: None }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Enter),
        4 => (0..4_usize, sign()).prop_map(|(which, sign)| Step::Tell(which, sign)),
        1 => Just(Step::Confirm),
        1 => (0..4_usize).prop_map(Step::Drop),
        3 => (1..6_000_u64).prop_map(Step::Wait),
        1 => Just(Step::Close),
    ]
}

/// Until when it is open. The jitter is the breaker's own; its bounds are promised.
fn open_until(breaker: &Breaker, now: u64, level: u32) -> Result<u64, TestCaseError> {
    let longest = (1_000 << level.min(3)).min(8_000);
    let Phase::Open { until, .. } = Phase::unpack(breaker.word.load(Ordering::Relaxed)) else {
        return Err(TestCaseError::fail("it should be open"));
    };
    prop_assert!((now + longest * 4 / 5..=now + longest).contains(&until));
    Ok(until)
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(steps in prop::collection::vec(step(), 1..120)) {
        let (breaker, clock) = scene();
        let mut model = Model::new();
        let mut held: Vec<(usize, Passage)> = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            let now = millis(&clock);
            match step {
                Step::Enter => {
                    let lets = match (model.open, model.trial) {
                        (None, _) => true,
                        (Some(_), Some((_, lost))) => now >= lost,
                        (Some((until, _)), None) => now >= until,
                    };
                    let passage = breaker.enter(&clock);
                    prop_assert_eq!(passage.is_ok(), lets);
                    if let Ok(passage) = passage {
                        prop_assert_eq!(passage.is_trial(), model.open.is_some());
                        if passage.is_trial() {
                            model.trial = Some((n, now + 8_000));
                        }
                        held.push((n, passage));
                    }
                }
                Step::Tell(which, sign) if which < held.len() => {
                    let (id, passage) = held.remove(which);
                    let was_trial = passage.is_trial();
                    passage.tell(sign, &clock);
                    let well = sign == Sign::Answers;
                    let level = match (model.open, model.trial) {
                        (Some((_, level)), Some((trial, _))) if was_trial && trial == id => {
                            model.trial = None;
                            if well {
                                (model.open, model.failures) = (None, 0);
                                None
                            } else {
                                Some(level + 1)
                            }
                        }
                        (None, _) if !was_trial => {
                            let witness = match sign {
                                Sign::SaysItFails { caller, .. } => Some(caller),
                                Sign::Answers | Sign::Fails => None,
                            };
                            if well {
                                model = Model::new();
                            } else {
                                model.failures += 1;
                                model.witnesses.insert(witness);
                            }
                            model.opens().then_some(0)
                        }
                        _ => None,
                    };
                    if let Some(level) = level {
                        model.open = Some((open_until(&breaker, now, level)?, level));
                        (model.failures, model.witnesses) = (0, HashSet::new());
                    }
                }
                Step::Confirm => {
                    breaker.confirm(&clock);
                    if model.open.is_none() && model.failures > 0 {
                        model.witnesses.insert(None);
                        if model.opens() {
                            model = Model { open: Some((open_until(&breaker, now, 0)?, 0)), ..Model::new() };
                        }
                    }
                }
                Step::Drop(which) if which < held.len() => {
                    let (id, passage) = held.remove(which);
                    drop(passage);
                    if let (Some((_, level)), Some((trial, _))) = (model.open, model.trial) && trial == id {
                        (model.open, model.trial) = (Some((0, level)), None);
                    }
                }
                Step::Wait(ms) => clock.advance(Duration::from_millis(ms)),
                Step::Close => {
                    breaker.close();
                    model = Model::new();
                }
                Step::Tell(..) | Step::Drop(_) => {}
            }
            let expected = match (model.open, model.trial) {
                (None, _) => BreakerState::Closed,
                (Some(_), None) => BreakerState::Open,
                (Some(_), Some(_)) => BreakerState::HalfOpen,
            };
            prop_assert_eq!(breaker.state(), expected);
        }
    }
}
