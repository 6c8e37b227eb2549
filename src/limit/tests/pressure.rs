//! Many callers and little room for accounts: whoever is exhausted stays so, wherever its account is.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// A call from the host of a network.
    Call(u8, u8),
    Advance(u64),
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0u8..4, 0u8..6).prop_map(|(network, host)| Step::Call(network, host)),
        3 => (1u64..400).prop_map(Step::Advance),
        1 => (80_000u64..90_000).prop_map(Step::Advance),
        2 => Just(Step::Sweep),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 2, ..ProptestConfig::default() })]

    /// Whatever account a source is found under, it gets no more than its own bucket and day would have let through.
    #[test]
    fn no_source_gets_more_under_pressure_than_it_would_alone(steps in steps(), cap in 1usize..12) {
        let clock = Clock::manual(NOON);
        let limits = Limits::with_key_cap(clock.clone(), policy(&[("daily = 288", "daily = 3")]), SECRET, Vec::new(), cap);
        let house = House { clock, limits, agent: Arc::new(Gate::new(1024)) };
        let mut admitted: HashMap<IpAddr, Vec<Timestamp>> = HashMap::new();
        for step in steps {
            match step {
                Step::Advance(seconds) => house.advance(seconds),
                Step::Sweep => house.limits.sweep(),
                Step::Call(network, host) => {
                    let source = IpAddr::from([10, 0, network, host]);
                    let now = house.clock.wall();
                    if house.send(Subject::Anonymous { target: TARGET, source }).is_err() {
                        continue;
                    }
                    let before = admitted.entry(source).or_default();
                    if let Some(last) = before.last() {
                        prop_assert!(now.0 - last.0 >= 300_000_000, "{source} {} us after", now.0 - last.0);
                    }
                    let today = before.iter().filter(|at| at.utc_day() == now.utc_day()).count();
                    prop_assert!(today < 3, "{source} has had its day");
                    before.push(now);
                }
            }
            // Fine ones, an eighth for networks, one for the rest.
            prop_assert!(house.limits.keys()[1] <= cap + cap / 8 + 1);
        }
    }
}

#[test]
fn a_caller_that_shared_a_limit_begins_its_own_where_that_stood() {
    let clock = Clock::manual(NOON);
    let limits =
        Limits::with_key_cap(clock.clone(), policy(&[("daily = 288", "daily = \"unlimited\"")]), SECRET, Vec::new(), 1);
    let house = House { clock, limits, agent: Arc::new(Gate::new(1024)) };
    let _ = house.send(anonymous("192.0.2.1")).expect("an account of its own");
    house.advance(299);
    let _ = house.send(anonymous("198.51.100.1")).expect("shared with everybody else");
    // The first one's account holds nothing any more: there is room.
    house.advance(1);
    let day_over = || {
        house.limits.sweep();
        house.limits.keys()[1]
    };
    assert_eq!(day_over(), 2, "units of today stay");
    house.advance(43_200 - 300);
    let _ = house.send(anonymous("198.51.100.1")).expect("the next day");
    assert_eq!(day_over(), 1, "the shared one");
    assert_eq!(
        house.send(anonymous("198.51.100.1")).expect_err("in an account of its own now").kind,
        RefusedKind::Rate
    );
}
