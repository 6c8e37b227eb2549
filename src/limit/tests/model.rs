//! The limits against a model of them that is too simple to be wrong, over random histories.

use proptest::prelude::*;

use super::*;

/// One caller's limits, kept in the plainest way: a bucket as nanoseconds of credit, a day as a count.
struct Model {
    interval: u64,
    burst: u64,
    daily: u32,
    credit: u64,
    used: u32,
    day: i64,
    at: u64,
}

impl Model {
    fn new(interval: u64, burst: u32, daily: u32, at: u64) -> Self {
        let burst = u64::from(burst);
        Self { interval, burst, daily, credit: interval * burst, used: 0, day: NOON.utc_day(), at }
    }

    fn ask(&mut self, at: u64, day: i64, units: u32) -> Result<u64, RefusedKind> {
        self.credit = (self.credit + (at - self.at)).min(self.interval * self.burst);
        self.at = at;
        if day > self.day {
            (self.day, self.used) = (day, 0);
        }
        if self.used + units > self.daily {
            return Err(RefusedKind::Daily);
        }
        let price = self.interval * u64::from(units);
        if price > self.credit {
            return Err(RefusedKind::Rate);
        }
        self.credit -= price;
        self.used += units;
        Ok(self.credit / self.interval)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ask,
    Advance(u64),
    Sweep,
    /// The directory is published anew, and the policy reloaded without a change.
    Publish,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Ask),
        3 => (0u64..90_000).prop_map(|ms| Step::Advance(ms * 1_000_000 + 1)),
        1 => (0u64..40_000).prop_map(|s| Step::Advance(s * 1_000_000_000)),
        1 => Just(Step::Sweep),
        1 => Just(Step::Publish),
    ];
    prop::collection::vec(step, 1..120)
}

#[derive(Clone, Debug)]
struct Numbers {
    calls: u32,
    seconds: u64,
    burst: u32,
    daily: u32,
    units: u32,
}

fn numbers() -> impl Strategy<Value = Numbers> {
    (1u32..50, 1u64..400, 5u32..40, 1u32..60, 1u32..4).prop_map(|(calls, seconds, burst, daily, units)| Numbers {
        calls,
        seconds,
        burst,
        daily,
        units,
    })
}

impl Numbers {
    fn policy(&self) -> Arc<Policy> {
        let Self { calls, seconds, burst, daily, units } = self;
        let work = format!("work = {{ rate = \"{calls}/{seconds}s\", burst = {burst} }}");
        policy(&[
            ("work = { rate = \"300/min\", burst = 300 }", &work),
            ("work = { rate = \"1/min\", burst = 1 }", &work),
            ("work = { rate = \"1/5min\", burst = 1 }", &work),
            ("daily = 10_000", &format!("daily = {daily}")),
            ("daily = 1_000", &format!("daily = {daily}")),
            ("daily = 288", &format!("daily = {daily}")),
            (
                "# SendMessage = { draws = \"work\", units = 1 }",
                &format!("SendMessage = {{ draws = \"work\", units = {units} }}"),
            ),
        ])
    }

    fn interval(&self) -> u64 {
        (self.seconds * 1_000_000_000).div_ceil(u64::from(self.calls))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn limits_decide_as_the_model_does(numbers in numbers(), steps in steps(), who in 0usize..3) {
        let house = House::new(numbers.policy());
        let mut direction = house.direction(&ConnectionLimits::default());
        let mut model = Model::new(numbers.interval(), numbers.burst, numbers.daily, house.clock.nanos());
        for step in steps {
            match step {
                Step::Advance(nanos) => house.clock.advance(Duration::from_nanos(nanos)),
                Step::Sweep => house.limits.sweep(),
                Step::Publish => {
                    house.limits.set_policy(numbers.policy());
                    let previous = Arc::clone(&direction);
                    direction = house.limits.direction(CONNECTION, TARGET, &ConnectionLimits::default(), Some(&previous));
                }
                Step::Ask => {
                    let subject = [Subject::Connected(&direction), verified(), anonymous("192.0.2.1")][who];
                    let expected = model.ask(house.clock.nanos(), house.clock.wall().utc_day(), numbers.units);
                    let decided = house.send(subject);
                    prop_assert_eq!(decided.as_ref().map(|_| ()).map_err(|r| r.kind), expected.map(|_| ()));
                    match (decided, expected) {
                        (Ok(permit), Ok(remaining)) => {
                            let room = permit.headroom().bucket.expect("a bucket");
                            prop_assert_eq!(u64::from(room.remaining), remaining);
                            prop_assert_eq!(permit.headroom().day.expect("a day").remaining, numbers.daily - model.used);
                        }
                        (Err(refused), Err(_)) => {
                            let room = refused.headroom.bucket.expect("a bucket");
                            prop_assert_eq!(u64::from(room.remaining), model.credit / model.interval);
                            prop_assert_eq!(refused.headroom.day.expect("a day").remaining, numbers.daily - model.used);
                        }
                        _ => unreachable!("just compared"),
                    }
                }
            }
        }
        prop_assert_eq!(house.agent.in_flight(), 0);
    }

    #[test]
    fn a_caller_that_waits_as_told_is_never_refused_again(
        numbers in numbers(), pauses in prop::collection::vec(0u64..5_000_000_000, 1..60), who in 0usize..3,
    ) {
        let house = House::new(numbers.policy());
        let direction = house.direction(&ConnectionLimits::default());
        let subject = [Subject::Connected(&direction), verified(), anonymous("192.0.2.1")][who];
        for pause in pauses {
            house.clock.advance(Duration::from_nanos(pause));
            let Err(refused) = house.send(subject) else { continue };
            let Some(wait) = refused.retry_after else {
                prop_assert!(numbers.units > numbers.daily, "told no wait: {:?}", refused);
                continue;
            };
            prop_assert!(wait >= Duration::from_secs(1) && wait.subsec_nanos() == 0);
            // A second less is too early, or the wait was told too long.
            if refused.kind == RefusedKind::Rate && wait > Duration::from_secs(1) {
                house.clock.advance(wait - Duration::from_secs(1));
                prop_assert!(house.send(subject).is_err());
                house.clock.advance(Duration::from_secs(1));
            } else {
                house.clock.advance(wait);
            }
            let again = house.send(subject);
            prop_assert!(again.is_ok(), "waited {:?}: {:?}", wait, again);
        }
    }
}
