//! What a decision costs: a connected caller's, a keyed one's among many keys; what a million sources cost: memory, a sweep, a
//! change of policy.

#![allow(missing_docs)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use divan::{Bencher, black_box};
use trust_gateway::a2a::Operation;
use trust_gateway::clock::Clock;
use trust_gateway::limit::{Abuse, Ask, Gate, Limits, Subject};
use trust_gateway::policy::Policy;
use trust_gateway::store::rows::ConnectionLimits;
use uuid::Uuid;

const TARGET: Uuid = Uuid::from_u128(1);

/// Sources in the large cases.
const MANY: u32 = 1_000_000;

fn main() {
    memory();
    divan::main();
}

/// What a million sources take of memory that were all admitted once.
#[allow(clippy::print_stdout)] // the figure is the bench's output
fn memory() {
    let before = resident();
    let (limits, agent) = limits(false);
    for i in 0..MANY {
        black_box(admit(&limits, &agent, i));
    }
    let bytes = resident().saturating_sub(before);
    println!("{MANY} sources: {} MiB, {} bytes each", bytes >> 20, bytes / u64::from(MANY));
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().map_or(0, |kib| kib << 10)
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

fn admit(limits: &Limits, agent: &Arc<Gate>, i: u32) -> bool {
    let subject = Subject::Anonymous { target: TARGET, source: source(i) };
    limits.admit(&Ask { subject, operation: Operation::SendMessage, agent }).is_ok()
}

#[divan::bench(args = [true, false], threads = [1, 2])]
fn connected(bencher: Bencher<'_, '_>, admitted: bool) {
    let (limits, agent) = limits(admitted);
    let direction = limits.direction(Uuid::from_u128(2), TARGET, &ConnectionLimits::default(), None);
    let ask = Ask { subject: Subject::Connected(&direction), operation: Operation::SendMessage, agent: &agent };
    bencher.bench(|| limits.admit(black_box(&ask)).is_ok());
}

#[divan::bench(args = [1, 10_000, MANY], threads = [1, 2])]
fn anonymous(bencher: Bencher<'_, '_>, keys: u32) {
    let (limits, agent) = limits(true);
    for i in 0..keys {
        admit(&limits, &agent, i);
    }
    let next = AtomicU32::new(0);
    bencher.bench(|| admit(&limits, &agent, next.fetch_add(7_919, Ordering::Relaxed) % keys));
}

/// Each call is a source's first, until there is no room for more: then they share accounts.
#[divan::bench(sample_count = 10, sample_size = 100_000)]
fn anonymous_newcomers(bencher: Bencher<'_, '_>) {
    let (limits, agent) = limits(true);
    let next = AtomicU32::new(0);
    bencher.bench(|| admit(&limits, &agent, next.fetch_add(1, Ordering::Relaxed)));
}

#[divan::bench]
fn anonymous_newcomers_without_room(bencher: Bencher<'_, '_>) {
    let (limits, agent) = limits(true);
    for i in 0..MANY * 9 / 8 {
        admit(&limits, &agent, i);
    }
    let next = AtomicU32::new(MANY * 2);
    bencher.bench(|| admit(&limits, &agent, next.fetch_add(1, Ordering::Relaxed)));
}

/// Every account goes on from what it has used.
#[divan::bench(sample_count = 10)]
fn policy_changes_for_a_million(bencher: Bencher<'_, '_>) {
    let (limits, agent) = limits(false);
    for i in 0..MANY {
        admit(&limits, &agent, i);
    }
    let other = include_str!("../policies/default.toml").replace("rate = \"1/5min\"", "rate = \"1/min\"");
    let policies = [limits.policy(), Arc::new(Policy::load(&other, "bench").expect("a valid policy"))];
    let next = AtomicU32::new(1);
    bencher.bench(|| limits.set_policy(Arc::clone(&policies[next.fetch_add(1, Ordering::Relaxed) as usize % 2])));
}

#[divan::bench(sample_count = 10)]
fn sweep_a_million_that_stay(bencher: Bencher<'_, '_>) {
    let (limits, agent) = limits(false);
    for i in 0..MANY {
        admit(&limits, &agent, i);
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
            for i in 0..MANY {
                let _ = limits_on_hand.abuse(source(i), Abuse::Card);
            }
            clock.advance(std::time::Duration::from_secs(3_600));
            limits_on_hand
        })
        .bench_refs(|limits| limits.sweep());
}
