//! The limits as a whole, on a clock that the tests move.

mod gates;
mod history;
mod lasting;
mod model;
mod pressure;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::a2a::Operation;
use crate::audit::record::{Charge, LimitLeft};
use crate::clock::Timestamp;
use crate::store::rows::LevelLimits;

const SECRET: [u8; 32] = [7; 32];
const CONNECTION: Uuid = Uuid::from_u128(1);
const CALLER: Uuid = Uuid::from_u128(2);
const TARGET: Uuid = Uuid::from_u128(3);
/// Noon of a day in 2023.
const NOON: Timestamp = Timestamp(19_675 * 86_400_000_000 + 43_200_000_000);

/// The default policy with some of its text replaced.
fn policy(changes: &[(&str, &str)]) -> Arc<Policy> {
    let mut text = include_str!("../../../policies/default.toml").to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    Arc::new(Policy::load(&text, "test").expect("a valid policy"))
}

struct House {
    clock: Clock,
    limits: Limits,
    agent: Arc<Gate>,
}

impl House {
    fn new(policy: Arc<Policy>) -> Self {
        Self::at(NOON, policy, Vec::new())
    }

    /// A gateway that goes on from `seeds` at `wall`, on a clock whose origin lies a while back.
    fn at(wall: Timestamp, policy: Arc<Policy>, seeds: Vec<Seed>) -> Self {
        let clock = Clock::manual(wall.plus_micros(-1_000_000_000));
        clock.advance(Duration::from_secs(1_000));
        let limits = Limits::new(clock.clone(), policy, SECRET, seeds);
        let agent = Arc::new(Gate::new(1024));
        Self { clock, limits, agent }
    }

    fn direction(&self, own: &ConnectionLimits) -> Arc<Direction> {
        self.limits.direction(CONNECTION, TARGET, own, None)
    }

    fn ask(&self, subject: Subject<'_>, operation: Operation) -> Result<Permit, Refused> {
        self.limits.admit(&Ask { subject, operation, agent: &self.agent })
    }

    fn send(&self, subject: Subject<'_>) -> Result<Permit, Refused> {
        self.ask(subject, Operation::SendMessage)
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn verified() -> Subject<'static> {
    Subject::Verified { caller: CALLER, target: TARGET }
}

fn anonymous(source: &str) -> Subject<'static> {
    Subject::Anonymous { target: TARGET, source: ip(source) }
}

/// Asks from eight threads at once; how many are admitted.
fn admitted_in_parallel(house: &House, subject: Subject<'_>, asks: usize) -> usize {
    let admitted = AtomicUsize::new(0);
    let together = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                together.wait();
                for _ in 0..asks / 8 {
                    if house.send(subject).is_ok() {
                        admitted.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    admitted.into_inner()
}

fn fields(headroom: &Headroom) -> Vec<String> {
    headroom.headers().map(|(_, value)| value.to_str().expect("ASCII").to_owned()).collect()
}

#[test]
fn limits_and_permits_go_where_workers_need_them() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Limits>();
    sent::<Permit>();
}

#[test]
fn a_thousand_parallel_calls_of_a_connected_caller_pass_exactly_300_times() {
    // Again and again: one run of a few hundred microseconds may happen to meet no race.
    for _ in 0..50 {
        let house = House::new(policy(&[]));
        let direction = house.direction(&ConnectionLimits::default());
        assert_eq!(admitted_in_parallel(&house, Subject::Connected(&direction), 1000), 300);
        house.advance(1);
        assert_eq!(admitted_in_parallel(&house, Subject::Connected(&direction), 1000), 5, "five come back each second");
        assert_eq!(direction.account.daily(19_675).used, 305);
    }
}

#[test]
fn parallel_calls_under_one_key_pass_exactly_as_often_as_the_bucket_and_the_day_hold() {
    let wide = ("work = { rate = \"1/min\", burst = 1 }", "work = { rate = \"1/min\", burst = 300 }");
    for _ in 0..50 {
        let house = House::new(policy(&[wide]));
        assert_eq!(admitted_in_parallel(&house, verified(), 1000), 300);
        let house = House::new(policy(&[wide, ("daily = 1_000", "daily = 277")]));
        assert_eq!(admitted_in_parallel(&house, verified(), 1000), 277);
    }
}

#[test]
fn parallel_calls_hold_exactly_as_many_places_as_there_are() {
    let changes = [("burst = 300 }", "burst = 3000 }"), ("streams = 128", "streams = 300")];
    let policy = policy(&changes);
    for _ in 0..50 {
        let house = House::new(Arc::clone(&policy));
        let direction = house.direction(&ConnectionLimits::default());
        let together = Barrier::new(8);
        let stream = || house.ask(Subject::Connected(&direction), Operation::SendStreamingMessage).ok();
        let held: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        together.wait();
                        let permits: Vec<_> = std::iter::repeat_with(&stream).take(125).flatten().collect();
                        together.wait();
                        permits.len()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("threads end")).sum()
        });
        assert_eq!((held, house.agent.in_flight()), (300, 0));
    }
}

#[test]
fn one_in_five_minutes_is_one_every_300_seconds_to_the_nanosecond() {
    let house = House::new(policy(&[]));
    let caller = anonymous("192.0.2.1");
    for _ in 0..3 {
        let _ = house.send(caller).expect("the one call");
        let refused = house.send(caller).expect_err("a second one");
        assert_eq!((refused.kind, refused.rule), (RefusedKind::Rate, "tier.unverified.rate"));
        assert_eq!(refused.retry_after, Some(Duration::from_secs(300)));
        house.clock.advance(Duration::from_nanos(299_999_999_999));
        let refused = house.send(caller).expect_err("a nanosecond early");
        assert_eq!(refused.retry_after, Some(Duration::from_secs(1)));
        house.clock.advance(Duration::from_nanos(1));
    }
    let _ = house.send(anonymous("192.0.2.2")).expect("another address has its own");
}

#[test]
fn hammering_while_limited_does_not_lengthen_the_wait() {
    let house = House::new(policy(&[]));
    let _ = house.send(verified()).expect("the first");
    for _ in 0..59 {
        house.advance(1);
        house.send(verified()).expect_err("within the minute");
    }
    house.advance(1);
    let _ = house.send(verified()).expect("a minute after the first");
}

#[test]
fn a_day_holds_its_quota_and_says_how_long_it_lasts() {
    let house = House::new(policy(&[("daily = 10_000", "daily = 3")]));
    let direction = house.direction(&ConnectionLimits::default());
    let caller = Subject::Connected(&direction);
    for _ in 0..3 {
        let _ = house.send(caller).expect("within the quota");
    }
    let refused = house.send(caller).expect_err("the fourth");
    assert_eq!((refused.kind, refused.rule), (RefusedKind::Daily, "tier.connected.daily"));
    assert_eq!(refused.retry_after, Some(Duration::from_secs(43_200)));
    assert_eq!(fields(&refused.headroom)[1], "\"calls\";r=297;t=1, \"day\";r=0;t=43200");
    house.advance(43_200);
    let _ = house.send(caller).expect("a new day");
}

#[test]
fn the_wait_a_daily_refusal_tells_is_enough_for_the_bucket_too() {
    let house = House::new(policy(&[("daily = 1_000", "daily = 1"), ("\"1/min\"", "\"1/20h\"")]));
    let _ = house.send(verified()).expect("the first");
    let refused = house.send(verified()).expect_err("the quota is used");
    assert_eq!((refused.kind, refused.retry_after), (RefusedKind::Daily, Some(Duration::from_secs(72_000))));
}

#[test]
fn a_call_that_waiting_does_not_help_is_told_no_wait() {
    let house = House::new(policy(&[("daily = 1_000", "daily = 0")]));
    let refused = house.send(verified()).expect_err("no work at all");
    assert_eq!((refused.kind, refused.retry_after), (RefusedKind::Daily, None));

    let closed = ConnectionLimits { rate: Some(0), ..Default::default() };
    let direction = house.direction(&closed);
    let refused = house.send(Subject::Connected(&direction)).expect_err("closed");
    assert_eq!((refused.kind, refused.rule, refused.retry_after), (RefusedKind::Rate, "connection.rate", None));
    let _ = house.ask(Subject::Connected(&direction), Operation::GetTask).expect("reads have their own allowance");
    assert_eq!(direction.account.daily(19_675).used, 0, "given back");
}

#[test]
fn a_call_that_costs_more_than_a_connection_holds_is_told_no_wait() {
    let changes = [
        ("burst = 1 }", "burst = 5 }"),
        ("# SendMessage = { draws = \"work\", units = 1 }", "SendMessage = { draws = \"work\", units = 5 }"),
    ];
    let house = House::new(policy(&changes));
    let permit = house.send(verified()).expect("five of five");
    assert_eq!((permit.units(), permit.charge().expect("charged").units), (5, 5));
    let refused = house.send(verified()).expect_err("an empty bucket");
    assert_eq!(refused.retry_after, Some(Duration::from_secs(300)), "five minutes for five units");
    let direction = house.direction(&ConnectionLimits { burst: Some(4), ..Default::default() });
    let refused = house.send(Subject::Connected(&direction)).expect_err("never");
    assert_eq!((refused.kind, refused.retry_after), (RefusedKind::Rate, None));
}

#[test]
fn a_refused_call_keeps_nothing_it_took() {
    let house = House::new(policy(&[]));
    let direction = house.direction(&ConnectionLimits { streams: Some(1), burst: Some(2), ..Default::default() });
    let caller = Subject::Connected(&direction);
    let nothing_held = |house: &House, used| {
        assert_eq!(direction.account.daily(19_675).used, used);
        assert_eq!(house.agent.in_flight(), 0);
        let now = Now::read(&house.clock);
        assert!(direction.account.take_stream(Some(1), now).is_some() && direction.account.take_in_flight(Some(1)));
        direction.account.give_stream_back();
        direction.account.give_in_flight_back();
    };

    // By the agent.
    let shut = Arc::new(Gate::new(0));
    let ask = Ask { subject: caller, operation: Operation::SendStreamingMessage, agent: &shut };
    let refused = house.limits.admit(&ask).expect_err("the agent has no place");
    assert_eq!((refused.kind, refused.rule, refused.retry_after), (RefusedKind::AgentBusy, "agent.in_flight", None));
    nothing_held(&house, 0);

    // By the stream slots.
    let permit = house.ask(caller, Operation::SendStreamingMessage).expect("one stream");
    let refused = house.ask(caller, Operation::SubscribeToTask).expect_err("a second stream");
    assert_eq!((refused.kind, refused.rule), (RefusedKind::Streams, "connection.streams"));
    assert_eq!(house.agent.in_flight(), 1);
    drop(permit);
    nothing_held(&house, 1);

    // By the bucket.
    let _ = house.send(caller).expect("two of two");
    let refused = house.ask(caller, Operation::SendStreamingMessage).expect_err("an empty bucket");
    assert_eq!(refused.kind, RefusedKind::Rate);
    assert!(fields(&refused.headroom)[1].ends_with("\"day\";r=9998;t=43200"), "{:?}", fields(&refused.headroom));
    nothing_held(&house, 2);
}

#[test]
fn places_in_flight_are_held_as_long_as_the_permit_and_shared_by_all_callers_of_an_agent() {
    let wide = ("rate = \"1/min\", burst = 1 }", "rate = \"1/min\", burst = 100 }");
    let house = House::new(policy(&[wide, ("in_flight = 16", "in_flight = 2")]));
    let permits = [house.send(verified()), house.send(verified())];
    let refused = house.send(verified()).expect_err("a third in flight");
    assert_eq!((refused.kind, refused.rule), (RefusedKind::InFlight, "tier.verified.in_flight"));
    drop(permits);
    assert_eq!(house.agent.in_flight(), 0);

    let gate = Arc::new(Gate::new(1));
    let ask = |subject| house.limits.admit(&Ask { subject, operation: Operation::SendMessage, agent: &gate });
    let permit = ask(verified()).expect("one");
    assert_eq!(ask(anonymous("192.0.2.1")).expect_err("two").kind, RefusedKind::AgentBusy);
    gate.set_most(2);
    let _ = ask(anonymous("192.0.2.1")).expect("room for two now");
    drop(permit);
    assert_eq!(gate.in_flight(), 0);
}

#[test]
fn reads_draw_on_their_own_allowance_and_cost_no_unit() {
    let house = House::new(policy(&[]));
    let _ = house.send(verified()).expect("the one call of the minute");
    for _ in 0..60 {
        let permit = house.ask(verified(), Operation::GetTask).expect("a read");
        assert_eq!((permit.units(), permit.charge(), permit.rule()), (0, None, "tier.verified.reads"));
    }
    let refused = house.ask(verified(), Operation::ListTasks).expect_err("61 reads");
    assert_eq!((refused.rule, refused.retry_after), ("tier.verified.reads", Some(Duration::from_secs(1))));
    assert_eq!(fields(&refused.headroom), ["\"reads\";q=60;w=60", "\"reads\";r=0;t=60"]);
}

#[test]
fn what_is_free_takes_nothing() {
    let house = House::new(policy(&[]));
    for _ in 0..100 {
        let permit = house.ask(anonymous("192.0.2.1"), Operation::GetAgentCard).expect("free");
        assert_eq!((permit.units(), permit.rule()), (0, "free"));
    }
    assert_eq!(house.limits.keys(), [0, 0, 0]);
}

#[test]
fn an_operation_that_the_policy_gives_away_still_holds_its_places() {
    let free = ("# SendMessage = { draws = \"work\", units = 1 }", "SendMessage = { draws = \"work\", units = 0 }");
    let house = House::new(policy(&[free, ("in_flight = 16", "in_flight = 1")]));
    let permit = house.send(verified()).expect("given away");
    assert_eq!((permit.units(), permit.charge()), (0, None));
    assert_eq!(house.send(verified()).expect_err("one at a time").kind, RefusedKind::InFlight);
}

#[test]
fn a_permit_tells_what_is_left_and_what_a_restart_must_know() {
    let house = House::new(policy(&[]));
    let direction = house.direction(&ConnectionLimits::default());
    let permit = house.send(Subject::Connected(&direction)).expect("the first");
    assert_eq!(
        fields(&permit.headroom()),
        ["\"calls\";q=300;w=60, \"day\";q=10000;w=86400", "\"calls\";r=299;t=1, \"day\";r=9999;t=43200"]
    );
    assert_eq!(permit.rule(), "tier.connected.rate");
    let key = LimitNamer::new(SECRET).connection(CONNECTION, TARGET);
    assert_eq!(permit.charge(), Some(Charge { key, refill_us: 200_000, units: 1 }));

    let fast =
        house.limits.direction(CONNECTION, CALLER, &ConnectionLimits { burst: Some(299), ..Default::default() }, None);
    let permit = house.send(Subject::Connected(&fast)).expect("the first");
    assert_eq!(permit.charge().expect("charged").refill_us, 0, "full again in less than a minute");
    assert_eq!(
        house.limits.headroom(&Subject::Connected(&fast), Operation::SendMessage),
        permit.headroom(),
        "looking takes nothing"
    );
    assert_eq!(
        fields(&house.limits.headroom(&verified(), Operation::SendMessage))[1],
        "\"calls\";r=1;t=0, \"day\";r=1000;t=43200"
    );
}

#[test]
fn a_source_may_ask_so_often_for_what_costs_nothing() {
    let house = House::new(policy(&[]));
    let source = ip("2001:db8::1");
    for what in [Abuse::Card, Abuse::NotFound, Abuse::Envelope].repeat(20) {
        house.limits.abuse(source, what).expect("60 together");
    }
    let refused = house.limits.abuse(ip("2001:db8::2"), Abuse::Card).expect_err("the same /64");
    assert_eq!((refused.kind, refused.rule), (RefusedKind::Abuse, "abuse.source"));
    assert_eq!(refused.retry_after, Some(Duration::from_secs(1)));
    for _ in 0..20 {
        house.limits.abuse(source, Abuse::Credential).expect("an allowance of its own");
    }
    let refused = house.limits.abuse(source, Abuse::Credential).expect_err("21 failed credentials");
    assert_eq!((refused.rule, refused.retry_after), ("abuse.credentials", Some(Duration::from_secs(3))));
    assert_eq!(fields(&refused.headroom)[0], "\"credentials\";q=20;w=60");
    house.limits.abuse(ip("2001:db8:0:1::1"), Abuse::Card).expect("another /64");
}

#[test]
fn a_permit_names_the_limit_it_left_least_of_and_a_refusal_the_one_in_the_way() {
    let house = House::new(Arc::new(Policy::default()));
    // The only call of the minute leaves nothing of the rate, and 999 of the day's 1 000.
    let permit = house.send(verified()).expect("the first");
    assert_eq!(permit.nearest(), Some(LimitLeft { name: "tier.verified.rate", left: 0 }));
    let refused = house.send(verified()).expect_err("the second");
    assert_eq!(refused.limit(), LimitLeft { name: "tier.verified.rate", left: 0 });
    // Of its own connection's three a day, one call takes a third; of the rate, one of 300.
    let direction = house.direction(&ConnectionLimits { daily: Some(3), ..ConnectionLimits::default() });
    let permit = house.send(Subject::Connected(&direction)).expect("the first");
    assert_eq!(permit.nearest(), Some(LimitLeft { name: "connection.daily", left: 2 }));
    let free = house.ask(verified(), Operation::GetAgentCard).expect("free");
    assert_eq!(free.nearest(), None);
}
