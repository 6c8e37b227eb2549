//! What limits remember: reloads, changes of the directory, restarts, sweeping, the cap on keys.

use std::sync::atomic::AtomicBool;

use super::*;

const WIDE: (&str, &str) = ("work = { rate = \"1/min\", burst = 1 }", "work = { rate = \"20/min\", burst = 10 }");
/// A smaller bucket, refilled more slowly.
const NARROW: (&str, &str) = ("rate = \"300/min\", burst = 300", "rate = \"100/min\", burst = 150");

fn left(house: &House, subject: Subject<'_>) -> usize {
    std::iter::repeat_with(|| house.send(subject)).take_while(Result::is_ok).count()
}

#[test]
fn a_reload_carries_over_what_was_used() {
    let house = House::new(policy(&[]));
    let direction = house.direction(&ConnectionLimits::default());
    let _ = house.send(verified()).expect("the first");
    for _ in 0..100 {
        let _ = house.send(Subject::Connected(&direction)).expect("within the burst");
    }
    house.limits.set_policy(policy(&[WIDE, NARROW]));
    assert_eq!(house.limits.policy().digest, policy(&[WIDE, NARROW]).digest);
    assert_eq!(left(&house, Subject::Connected(&direction)), 50);
    assert_eq!(left(&house, verified()), 0, "a larger burst is none for those who had used theirs");
    house.advance(3);
    assert_eq!(left(&house, verified()), 1, "but the faster rate is theirs at once");

    let fresh = Subject::Verified { caller: TARGET, target: CALLER };
    assert_eq!(left(&house, fresh), 10);
}

#[test]
fn a_slower_rate_holds_from_the_reload_on_also_for_those_who_do_not_call_meanwhile() {
    let house = House::new(policy(&[]));
    let direction = house.direction(&ConnectionLimits::default());
    assert_eq!(left(&house, Subject::Connected(&direction)), 300);
    assert_eq!(left(&house, verified()), 1);
    house
        .limits
        .set_policy(policy(&[("rate = \"300/min\"", "rate = \"1/min\""), ("{ rate = \"1/min\"", "{ rate = \"1/h\"")]));
    house.advance(120);
    assert_eq!(left(&house, Subject::Connected(&direction)), 0);
    assert_eq!(left(&house, verified()), 0);
}

#[test]
fn a_reload_in_the_midst_of_calls_hands_nothing_out() {
    let house = House::new(policy(&[]));
    let direction = house.direction(&ConnectionLimits::default());
    let policies = [policy(&[("rate = \"300/min\"", "rate = \"3/min\"")]), policy(&[])];
    let over = AtomicBool::new(false);
    let reloading = Barrier::new(2);
    let admitted = std::thread::scope(|scope| {
        scope.spawn(|| {
            reloading.wait();
            for policy in policies.iter().cycle().take_while(|_| !over.load(Ordering::SeqCst)) {
                house.limits.set_policy(Arc::clone(policy));
                std::thread::yield_now();
            }
        });
        reloading.wait();
        let admitted = admitted_in_parallel(&house, Subject::Connected(&direction), 20_000);
        over.store(true, Ordering::SeqCst);
        admitted
    });
    assert_eq!(admitted, 300);
}

#[test]
fn a_reload_reaches_network_sources() {
    let house = House::new(policy(&[]));
    for _ in 0..60 {
        house.limits.abuse(ip("192.0.2.1"), Abuse::Card).expect("within the burst");
    }
    house.limits.set_policy(policy(&[("source = { rate = \"60/min\"", "source = { rate = \"1/min\"")]));
    let refused = house.limits.abuse(ip("192.0.2.1"), Abuse::Card).expect_err("used");
    assert_eq!(refused.retry_after, Some(Duration::from_secs(60)));
}

#[test]
fn a_connection_that_leaves_the_directory_and_comes_back_goes_on_from_where_it_was() {
    let house = House::new(policy(&[]));
    let direction = house.direction(&ConnectionLimits::default());
    assert_eq!(left(&house, Subject::Connected(&direction)), 300);
    drop(direction);
    house.limits.sweep();
    let direction = house.direction(&ConnectionLimits::default());
    assert_eq!(left(&house, Subject::Connected(&direction)), 0);
    let other = house.limits.direction(CONNECTION, CALLER, &ConnectionLimits::default(), Some(&direction));
    assert_eq!(left(&house, Subject::Connected(&other)), 300, "the other direction has its own");
}

#[test]
fn a_change_of_a_connections_own_limits_takes_effect_on_the_direction_in_use() {
    let house = House::new(policy(&[]));
    let direction = house.direction(&ConnectionLimits::default());
    let _ = house.send(Subject::Connected(&direction)).expect("one of 300");
    let own = ConnectionLimits { burst: Some(10), daily: Some(5), ..Default::default() };
    let same = house.limits.direction(CONNECTION, TARGET, &own, Some(&direction));
    assert!(Arc::ptr_eq(&same, &direction));
    assert_eq!(left(&house, Subject::Connected(&direction)), 4, "the fifth unit of the day is the last");
    house.limits.set_policy(policy(&[("burst = 300 }", "burst = 200 }")]));
    let refused = house.send(Subject::Connected(&direction)).expect_err("own limits stay");
    assert_eq!(refused.rule, "connection.daily");
}

/// The same node after a restart at the same moment: a new clock, seeded from what was charged.
fn restarted(house: &House, policy: Arc<Policy>, charges: Vec<(Timestamp, Charge)>) -> House {
    House::at(house.clock.wall(), policy, seeds_from(charges))
}

#[test]
fn a_restart_hands_out_nothing() {
    let house = House::new(policy(&[("daily = 1_000", "daily = 2")]));
    let direction = house.direction(&ConnectionLimits::default());
    let callers = [verified(), anonymous("192.0.2.1"), Subject::Connected(&direction)];
    let mut charges = Vec::new();
    for caller in callers {
        while let Ok(permit) = house.send(caller) {
            charges.push((house.clock.wall(), permit.charge().expect("work is charged")));
        }
    }
    assert_eq!(charges.len(), 302);

    house.advance(10);
    let after = restarted(&house, policy(&[("daily = 1_000", "daily = 2")]), charges);
    let direction = after.direction(&ConnectionLimits::default());
    assert_eq!(after.send(verified()).expect_err("50 s to go").retry_after, Some(Duration::from_secs(51)));
    assert_eq!(left(&after, anonymous("192.0.2.1")), 0);
    assert!(left(&after, Subject::Connected(&direction)) <= 50, "what ten seconds gave back");
    after.advance(51);
    let _ = after.send(verified()).expect("the second of two a day");
    after.advance(60);
    assert_eq!(after.send(verified()).expect_err("the third").kind, RefusedKind::Daily, "the day is remembered");
    after.advance(43_200);
    let _ = after.send(verified()).expect("a new day");
}

#[test]
fn a_restart_with_a_smaller_bucket_does_not_lock_a_caller_out_for_longer_than_it_takes_to_fill() {
    let house = House::new(policy(&[]));
    let permit = house.send(anonymous("192.0.2.1")).expect("the first");
    let charges = vec![(house.clock.wall(), permit.charge().expect("charged"))];
    let after = restarted(&house, policy(&[("\"1/5min\", burst", "\"1/min\", burst")]), charges);
    let refused = after.send(anonymous("192.0.2.1")).expect_err("used");
    assert_eq!(refused.retry_after, Some(Duration::from_secs(60)));
}

#[test]
fn sweeping_forgets_the_idle_and_never_the_exhausted_or_the_open() {
    let house = House::new(policy(&[("daily = 1_000", "daily = \"unlimited\"")]));
    let _ = house.send(verified()).expect("charged today");
    let _ = house.ask(anonymous("192.0.2.1"), Operation::GetTask).expect("a read");
    let stream = house.ask(anonymous("192.0.2.2"), Operation::SubscribeToTask).expect("a stream");
    house.limits.abuse(ip("192.0.2.3"), Abuse::Card).expect("the first");
    house.limits.sweep();
    assert_eq!(house.limits.keys(), [1, 2, 1], "no bucket is full yet");

    house.advance(3_600);
    house.limits.sweep();
    assert_eq!(house.limits.keys(), [1, 1, 0], "units of today and an open stream stay");
    drop(stream);
    house.advance(43_200);
    house.limits.sweep();
    assert_eq!(house.limits.keys(), [0, 0, 0]);
}

#[test]
fn beyond_the_cap_new_anonymous_callers_share_a_limit_with_their_network() {
    let clock = Clock::manual(NOON);
    let limits = Limits::with_key_cap(clock.clone(), policy(&[]), SECRET, Vec::new(), 8);
    let agent = Arc::new(Gate::new(1024));
    let house = House { clock, limits, agent };
    for i in 1..=8 {
        assert_eq!(left(&house, anonymous(&format!("192.0.2.{i}"))), 1);
    }
    assert_eq!(left(&house, anonymous("192.0.2.9")), 1, "the first of 192.0.2.0/24");
    assert_eq!(left(&house, anonymous("192.0.2.10")), 0, "its neighbour shares that");
    assert_eq!(left(&house, anonymous("198.51.100.1")), 1, "the first of everybody else");
    assert_eq!(left(&house, anonymous("2001:db8::1")), 0);
    house.limits.sweep();
    assert_eq!(left(&house, anonymous("192.0.2.1")), 0, "an exhausted key is not evicted");
    assert_eq!(house.limits.keys()[1], 10);

    assert_eq!(left(&house, verified()), 1, "known callers feel nothing of it");
    // Past the day and the buckets, there is room again.
    house.advance(43_200);
    house.limits.sweep();
    assert_eq!(house.limits.keys(), [0, 0, 0]);
    assert_eq!(left(&house, anonymous("192.0.2.10")), 1);
}

#[test]
fn the_cap_holds_and_the_count_of_keys_is_exact_when_many_arrive_at_once() {
    let clock = Clock::manual(NOON);
    let limits = Limits::with_key_cap(clock.clone(), policy(&[]), SECRET, Vec::new(), 100);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for i in 0..=255u8 {
                    let _ = limits.abuse(IpAddr::from([10, 0, i, i]), Abuse::Card);
                }
            });
        }
    });
    // 100 of their own, 12 networks, one for the rest; a key that two threads open at once may leave one of them unused.
    assert!((100..=113).contains(&limits.keys()[2]), "{:?}", limits.keys());
    clock.advance(Duration::from_secs(3_600));
    limits.sweep();
    assert_eq!(limits.keys()[2], 0);
}
