//! The scripts themselves.

use std::num::NonZeroU32;
use std::time::Duration;

use ::redis::Value;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;

use super::redis::Redis;
use crate::clock::{Clock, Timestamp};
use crate::limit::account::{Draws, Slots};
use crate::limit::bucket::{Shape, draw, limiter};
use crate::limit::key::LimitKey;
use crate::limit::shared::connection::{Connection, Server};
use crate::limit::shared::script::{Answer, Known, Names, Question, Script, Verdict, answer, beat, told};

/// Noon of a day in 2023, on the server's clock of these tests.
pub(super) const NOON: u64 = (19_675 * 86_400 + 43_200) * 1_000_000;
const TODAY: u32 = 19_675;
const DAY_US: u64 = 86_400_000_000;

/// A server whose scripts take the time from the test.
pub(super) struct Bench {
    redis: Redis,
    runtime: Runtime,
    pub(super) names: Names,
    connection: Connection,
}

/// The script with the clock replaced by the last two of its arguments.
fn on_the_tests_clock(script: &Script) -> Script {
    let (from, to) = ("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}");
    assert_eq!(script.text.matches(from).count(), 1, "the scripts read the clock once");
    Script::of(script.text.replace(from, to))
}

impl Bench {
    fn new() -> Self {
        let redis = Redis::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let names = Self::names("one");
        let server = server(redis.port);
        let connection = runtime.block_on(Connection::open(&server, names.scripts())).expect("it is there");
        Self { redis, runtime, names, connection }
    }

    /// An instance's own view of the keys.
    fn names(instance: &str) -> Names {
        let names = Names::new("test", instance.to_owned());
        let [admit, tell, beat] = names.scripts().map(on_the_tests_clock);
        Names { admit, tell, beat, ..names }
    }

    pub(super) fn run(&self, names: &Names, at: u64, commands: impl IntoIterator<Item = ::redis::Cmd>) -> Vec<Value> {
        self.run_each(names, commands.into_iter().map(|command| (at, command)))
    }

    fn run_each(&self, names: &Names, commands: impl IntoIterator<Item = (u64, ::redis::Cmd)>) -> Vec<Value> {
        let clocked = commands.into_iter().map(|(at, mut command)| {
            command.arg(at / 1_000_000).arg(at % 1_000_000);
            command
        });
        let commands: Vec<_> = clocked.collect();
        self.runtime.block_on(self.connection.ask(&commands, names.scripts())).expect("it answers")
    }

    fn admit_as(&self, names: &Names, at: u64, question: Question) -> Answer {
        let command = names.admit(&names.admit, "epoch", &question);
        answer(self.run(names, at, [command]).remove(0)).expect("an answer")
    }

    fn admit(&self, at: u64, question: Question) -> Answer {
        self.admit_as(&self.names, at, question)
    }

    pub(super) fn tell(&self, known: &Known) {
        told(self.run(&self.names, NOON, [self.names.tell("epoch", known)]).remove(0)).expect("it was told");
    }

    fn show_up(&self, names: &Names, at: u64) -> Vec<String> {
        let beat = beat(self.run(names, at, [names.beat(Some("epoch"), "epoch")]).remove(0)).expect("an answer");
        assert_eq!(beat.epoch, "epoch");
        beat.live
    }

    /// An epoch has begun, and the account under `key` is new.
    pub(super) fn fresh(&self, key: LimitKey) -> Question {
        let _ = self.redis.ask(&format!("DEL {}", self.names.account(&key)));
        let _ = self.redis.ask("SET {test}:epoch epoch");
        question(key, shape(1_000, 10), 1)
    }

    fn count(&self, key: LimitKey, field: &str) -> String {
        let answer = self.redis.ask(&format!("HGET {} {field}", self.names.account(&key)));
        answer.lines().nth(1).unwrap_or_default().to_owned()
    }
}

pub(super) fn server(port: u16) -> Server {
    Server { host: "127.0.0.1".to_owned(), port, tls: None, user: None, password: None, database: 0 }
}

/// A shape by the microsecond.
pub(super) fn shape(interval: u64, burst: u32) -> Shape {
    Shape::new(interval * 1_000, NonZeroU32::new(burst).expect("not 0"))
}

pub(super) fn question(key: LimitKey, shape: Shape, units: u32) -> Question {
    Question { key, draws: Draws::Work, shape, units, full_in: 0, owed: false, day: None, stream: None }
}

fn stream(version: u64, count: u32, limit: Option<u32>) -> Option<(Slots, Option<u32>)> {
    Some((Slots { version, count }, limit))
}

/// Tries a property on one server: starting one for each try would take longer than the tries.
pub(super) fn holds<S: Strategy>(strategy: S, property: impl Fn(&Bench, S::Value) -> Result<(), TestCaseError>) {
    let bench = Bench::new();
    let tried = TestRunner::default().run(&strategy, |value| property(&bench, value));
    tried.unwrap_or_else(|failed| panic!("{failed}"));
}

#[test]
fn the_script_decides_as_governor_does() {
    let steps = prop::collection::vec((1u32..8, prop_oneof![Just(0u64), 0u64..10_000, 0u64..50_000_000]), 1..60);
    holds(((1u64..5_000_000, 1u32..400), steps), |bench, ((interval, burst), steps)| {
        let (shape, clock) = (shape(interval, burst), Clock::manual(Timestamp(0)));
        let governor = limiter(shape, governor::state::InMemoryState::default(), &clock);
        let fresh = bench.fresh([1; 16]);
        let mut now = NOON;
        let (mut asked, mut expected) = (Vec::new(), Vec::new());
        for (units, later) in steps {
            let units = units.min(burst);
            now += later;
            clock.advance(Duration::from_micros(later));
            let question = Question { shape, units, ..fresh };
            asked.push((now, bench.names.admit(&bench.names.admit, "epoch", &question)));
            let units = NonZeroU32::new(units).expect("from 1");
            expected.push(draw(&governor, shape, units, clock.nanos()));
        }
        let answers = bench.run_each(&bench.names, asked);
        for (value, expected) in answers.into_iter().zip(expected) {
            let Answer { verdict, full_in, wait, .. } = answer(value).expect("an answer");
            match expected {
                Ok(expected) => {
                    prop_assert_eq!(verdict, Verdict::Passes);
                    prop_assert_eq!(shape.level(full_in * 1_000, 0).remaining, expected.remaining);
                }
                Err(short) => {
                    prop_assert_eq!(verdict, Verdict::Bucket);
                    prop_assert_eq!(Some(wait * 1_000), short.wait);
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_changed_limit_carries_over_what_was_used_as_the_gateway_does() {
    let shapes = (1u64..1 << 38, 1u32..5_000, 1u64..1 << 38, 1u32..5_000);
    holds((shapes, 0.0f64..1.0), |bench, ((i1, b1, i2, b2), part)| {
        let (old, new) = (shape(i1, b1), shape(i2, b2));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let full_in = 1 + (part * (old.fill() / 1_000 - 1) as f64) as u64;
        let fresh = bench.fresh([2; 16]);
        let buckets = [Some((old, full_in)), None];
        bench.tell(&Known { key: fresh.key, buckets, ..Known::default() });
        // More than there can be: refused, and nothing is taken.
        let asked = bench.admit(NOON, Question { shape: new, units: new.burst.get() + 1, ..fresh });
        let carried = new.carry(old, full_in * 1_000, 0);
        let difference = asked.full_in.checked_sub(carried.div_ceil(1_000));
        prop_assert!(difference.is_some_and(|micros| micros <= 1), "{} for {}", asked.full_in, carried);
        Ok(())
    });
}

#[test]
fn a_call_takes_all_or_nothing() {
    let bench = Bench::new();
    let fresh = Question { day: Some((Some(2), TODAY, 0)), ..bench.fresh([3; 16]) };
    bench.show_up(&bench.names, NOON);
    let one = shape(1_000_000, 1);
    let first = bench.admit(NOON, Question { shape: one, stream: stream(1, 1, Some(1)), ..fresh });
    assert_eq!((first.verdict, first.used, first.full_in), (Verdict::Passes, 1, 1_000_000));

    // The bucket refuses: neither the day nor the stream is taken.
    let second = bench.admit(NOON, Question { shape: one, stream: stream(2, 2, None), ..fresh });
    assert_eq!((second.verdict, second.used, second.wait), (Verdict::Bucket, 1, 1_000_000));
    assert_eq!(bench.count(fresh.key, "s:one"), "1:1");
    // The stream refuses, then the day: the bucket is as it was.
    let third = bench.admit(NOON + 1_000_000, Question { shape: one, stream: stream(3, 2, Some(1)), ..fresh });
    assert_eq!((third.verdict, third.full_in), (Verdict::Streams, 0));
    let day = Some((Some(1), TODAY, 0));
    let fourth = bench.admit(NOON + 1_000_000, Question { shape: one, day, stream: stream(3, 2, None), ..fresh });
    assert_eq!((fourth.verdict, fourth.full_in, fourth.used), (Verdict::Day, 0, 1));
    assert_eq!(bench.count(fresh.key, "s:one"), "1:1");
}

#[test]
fn a_day_ends_at_midnight_of_the_servers_clock() {
    let bench = Bench::new();
    let fresh = Question { day: Some((Some(2), TODAY, 0)), ..bench.fresh([4; 16]) };
    let midnight = (NOON / DAY_US + 1) * DAY_US;
    let used = [midnight - 2, midnight - 1, midnight - 1, midnight].map(|at| {
        let answer = bench.admit(at, fresh);
        (answer.verdict, answer.used)
    });
    assert_eq!(used, [(Verdict::Passes, 1), (Verdict::Passes, 2), (Verdict::Day, 2), (Verdict::Passes, 1)]);
}

#[test]
fn streams_of_all_instances_count_as_long_as_they_are_seen() {
    let bench = Bench::new();
    let fresh = Question { units: 0, ..bench.fresh([5; 16]) };
    let two = Bench::names("two");
    bench.show_up(&bench.names, NOON);
    assert_eq!(bench.show_up(&two, NOON), ["one", "two"]);
    let open = |names, at, version, count| {
        bench.admit_as(names, at, Question { stream: stream(version, count, Some(3)), ..fresh }).verdict
    };
    assert_eq!(open(&bench.names, NOON, 1, 1), Verdict::Passes);
    assert_eq!(open(&bench.names, NOON, 2, 2), Verdict::Passes);
    assert_eq!(open(&two, NOON, 1, 1), Verdict::Passes);
    assert_eq!(open(&two, NOON, 2, 2), Verdict::Streams);
    // Three seconds later one is not seen any more, and a little later forgotten.
    bench.show_up(&two, NOON + 3_000_001);
    assert_eq!(open(&two, NOON + 3_000_001, 2, 2), Verdict::Passes);
    bench.show_up(&two, NOON + 70_000_000);
    assert_eq!(open(&two, NOON + 70_000_000, 3, 3), Verdict::Passes);
    assert_eq!(bench.count(fresh.key, "s:one"), "");
}

#[test]
fn an_instances_open_streams_are_what_it_told_last_whatever_arrives_in_which_order() {
    let bench = Bench::new();
    let fresh = Question { units: 0, ..bench.fresh([6; 16]) };
    let tell = |version, count| {
        let slots = Slots { version, count };
        bench.tell(&Known { key: fresh.key, slots, ..Known::default() });
        bench.count(fresh.key, "s:one")
    };
    assert_eq!([tell(5, 2), tell(4, 7), tell(5, 2), tell(6, 0)], ["5:2", "5:2", "5:2", "6:0"]);
    // A question that was overtaken passes by what was told later.
    let late = bench.admit(NOON, Question { stream: stream(5, 9, Some(1)), ..fresh });
    assert_eq!((late.verdict, bench.count(fresh.key, "s:one").as_str()), (Verdict::Passes, "6:0"));
}

#[test]
fn what_is_told_is_taken_over_where_it_is_more_and_telling_it_twice_changes_nothing() {
    let bench = Bench::new();
    let fresh = Question { day: Some((Some(100), TODAY, 0)), ..bench.fresh([7; 16]) };
    let known = |full_in, used| Known {
        key: fresh.key,
        buckets: [Some((fresh.shape, full_in)), Some((fresh.shape, 3_000))],
        day: TODAY,
        used,
        slots: Slots::default(),
    };
    for known in [known(5_000, 4), known(5_000, 4), known(2_000, 3)] {
        bench.tell(&known);
    }
    let after = bench.admit(NOON, fresh);
    assert_eq!((after.full_in, after.used), (6_000, 5));
    let reads = bench.admit(NOON, Question { draws: Draws::Reads, day: None, ..fresh });
    assert_eq!(reads.full_in, 4_000);
    // Of another day nothing is taken over.
    bench.tell(&Known { day: TODAY - 1, ..known(0, 50) });
    assert_eq!(bench.admit(NOON, fresh).used, 6);
}

#[test]
fn what_a_node_owes_or_the_server_has_lost_comes_with_the_question() {
    let bench = Bench::new();
    let fresh = Question { day: Some((Some(100), TODAY, 7)), full_in: 5_000, ..bench.fresh([8; 16]) };
    // The key is not there though the node knows better: expired, or dropped.
    let first = bench.admit(NOON, fresh);
    assert_eq!((first.full_in, first.used), (6_000, 8));
    // It is there: what the node knows came from here.
    let second = bench.admit(NOON, Question { full_in: 9_000, day: Some((Some(100), TODAY, 50)), ..fresh });
    assert_eq!((second.full_in, second.used), (7_000, 9));
    // What it charged alone stays, also if the call does not pass.
    let owed = Question { full_in: 9_500, day: Some((Some(100), TODAY, 20)), owed: true, ..fresh };
    let third = bench.admit(NOON, owed);
    assert_eq!((third.verdict, third.full_in, third.used), (Verdict::Bucket, 9_500, 20));
    assert_eq!(bench.admit(NOON, Question { full_in: 0, ..fresh }).full_in, 9_500);
}

#[test]
fn nothing_is_decided_or_told_under_another_epoch() {
    let bench = Bench::new();
    let fresh = bench.fresh([9; 16]);
    let _ = bench.redis.ask("DEL {test}:epoch");
    let asked = bench.run(&bench.names, NOON, [bench.names.admit(&bench.names.admit, "epoch", &fresh)]);
    assert!(answer(asked.into_iter().next().expect("one")).is_err());
    let known = Known { key: fresh.key, used: 1, day: TODAY, ..Known::default() };
    let said = bench.run(&bench.names, NOON, [bench.names.tell("epoch", &known)]);
    assert!(told(said.into_iter().next().expect("one")).is_err());
    assert_eq!(bench.count(fresh.key, "u"), "");
}

#[test]
fn an_account_is_forgotten_once_it_says_no_more_than_a_new_one() {
    let bench = Bench::new();
    let fresh = bench.fresh([10; 16]);
    let left = || {
        let answer = bench.redis.ask(&format!("PTTL {}", bench.names.account(&fresh.key)));
        answer.trim().trim_start_matches(':').parse::<i64>().expect("a number")
    };
    let passes = |question| assert_eq!(bench.admit(NOON, question).verdict, Verdict::Passes);
    passes(Question { shape: shape(10_000_000, 5), ..fresh });
    assert!((9_000..=11_000).contains(&left()), "{}", left());
    passes(Question { units: 0, stream: stream(1, 1, None), ..fresh });
    assert!((59_000..=61_000).contains(&left()), "{}", left());
    passes(Question { shape: shape(10_000_000, 5), day: Some((None, TODAY, 0)), ..fresh });
    assert!((43_000_000..=43_201_000).contains(&left()), "until midnight: {}", left());
}

#[test]
fn a_server_that_has_forgotten_the_scripts_is_told_them_again() {
    let bench = Bench::new();
    let fresh = bench.fresh([11; 16]);
    let _ = bench.redis.ask("SCRIPT FLUSH");
    assert_eq!(bench.admit(NOON, fresh).verdict, Verdict::Passes);
}

#[test]
fn a_clock_that_is_set_back_gives_nothing_back_and_closes_nothing_for_longer() {
    const HOUR: u64 = 3_600_000_000;
    let bench = Bench::new();
    let two = Bench::names("two");
    let fresh = bench.fresh([13; 16]);
    let slow = Question { shape: shape(1_000_000, 10), ..fresh };
    bench.show_up(&two, NOON + HOUR);
    assert_eq!(bench.admit(NOON + HOUR, Question { units: 10, ..slow }).verdict, Verdict::Passes);

    let refused = bench.admit(NOON, slow);
    assert_eq!((refused.verdict, refused.wait, refused.full_in), (Verdict::Bucket, 1_000_000, 10_000_000));
    assert_eq!(bench.admit(NOON + 1_000_000, slow).verdict, Verdict::Passes);
    assert_eq!(bench.admit(NOON + 1_000_001, slow).verdict, Verdict::Bucket);

    // Nor does an instance that is gone seem to be there until that hour has come again.
    assert_eq!(bench.show_up(&bench.names, NOON), ["one", "two"]);
    assert_eq!(bench.show_up(&bench.names, NOON + 3_000_001), ["one"]);
}

#[test]
fn a_day_without_a_limit_is_counted_as_far_as_a_node_can_count() {
    let bench = Bench::new();
    let fresh = Question { day: Some((None, TODAY, u32::MAX - 1)), owed: true, ..bench.fresh([14; 16]) };
    assert_eq!(bench.admit(NOON, Question { units: 5, ..fresh }).used, u32::MAX);
}
