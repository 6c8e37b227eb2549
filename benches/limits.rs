//! What a decision costs: a connected caller's, a keyed one's among many keys, and sweeping.

#![allow(missing_docs)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use divan::{Bencher, black_box};
use trust_gateway::a2a::Operation;
use trust_gateway::clock::Clock;
use trust_gateway::limit::{Abuse, Ask, Gate, Limits, Subject};
use trust_gateway::policy::Policy;
use trust_gateway::store::rows::ConnectionLimits;
use uuid::Uuid;

const TARGET: Uuid = Uuid::from_u128(1);

fn main() {
    divan::main();
}

/// Limits so wide that they admit, or the default ones.
fn limits(wide: bool) -> (Limits, Arc<Gate>) {
    let mut text = include_str!("../policies/default.toml").to_owned();
    if wide {
        text = text.replace("rate = \"300/min\", burst = 300", "rate = \"1000000/s\", burst = 1000000000");
        text = text.replace("rate = \"1/5min\", burst = 1 ", "rate = \"1000000/s\", burst = 1000000000 ");
        text = text.replace("daily = 10_000", "daily = \"unlimited\"").replace("daily = 288", "daily = \"unlimited\"");
    }
    let policy = Policy::load(&text, "bench").expect("a valid policy");
    let limits = Limits::new(Clock::system(), Arc::new(policy), [7; 32], Vec::new());
    let gate = Arc::new(Gate::new(1024));
    (limits, gate)
}

fn source(i: u32) -> IpAddr {
    Ipv4Addr::from(i.wrapping_mul(2_654_435_761)).into()
}

#[divan::bench(args = [true, false], threads = [1, 2])]
fn connected(bencher: Bencher<'_, '_>, admitted: bool) {
    let (limits, agent) = limits(admitted);
    let direction = limits.direction(Uuid::from_u128(2), TARGET, &ConnectionLimits::default(), None);
    let ask = Ask { subject: Subject::Connected(&direction), operation: Operation::SendMessage, agent: &agent };
    bencher.bench(|| limits.admit(black_box(&ask)).is_ok());
}

#[divan::bench(args = [1, 10_000, 1_000_000], threads = [1, 2])]
fn anonymous(bencher: Bencher<'_, '_>, keys: u32) {
    let (limits, agent) = limits(true);
    let admit = |i: u32| {
        let subject = Subject::Anonymous { target: TARGET, source: source(i % keys) };
        limits.admit(&Ask { subject, operation: Operation::SendMessage, agent: &agent }).is_ok()
    };
    for i in 0..keys {
        admit(i);
    }
    let next = std::sync::atomic::AtomicU32::new(0);
    bencher.bench(|| admit(next.fetch_add(7_919, std::sync::atomic::Ordering::Relaxed)));
}

#[divan::bench(sample_count = 10)]
fn sweep_a_million_that_stay(bencher: Bencher<'_, '_>) {
    let (limits, agent) = limits(false);
    for i in 0..1_000_000 {
        let subject = Subject::Anonymous { target: TARGET, source: source(i) };
        let _ = limits.admit(&Ask { subject, operation: Operation::SendMessage, agent: &agent });
    }
    bencher.bench(|| limits.sweep());
}

#[divan::bench(sample_count = 10)]
fn sweep_a_million_that_go(bencher: Bencher<'_, '_>) {
    bencher
        .with_inputs(|| {
            let (limits, _) = limits(false);
            let clock = Clock::manual(Clock::system().wall());
            let limits_on_hand = Limits::new(clock.clone(), limits.policy(), [7; 32], Vec::new());
            for i in 0..1_000_000 {
                let _ = limits_on_hand.abuse(source(i), Abuse::Card);
            }
            clock.advance(std::time::Duration::from_secs(3_600));
            limits_on_hand
        })
        .bench_refs(|limits| limits.sweep());
}
