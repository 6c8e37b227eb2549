//! The arithmetic of changing over, tried at random: whatever each node knew, and whenever the server was away or forgot.

use proptest::prelude::*;

use super::scripts::{NOON, holds, question, shape};
use crate::clock::Timestamp;
use crate::limit::account::{Account, Draws, Now};
use crate::limit::bucket::Parts;
use crate::limit::key::LimitKey;
use crate::limit::shared::script::{Known, Verdict, answer};

const KEY: LimitKey = [12; 16];

/// What befalls nodes that share a limit.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// One of them has calls, so many.
    Calls(usize, u32),
    /// One of them loses the server.
    Lost(usize),
    /// One of them comes back to it.
    Back(usize),
    /// The server forgets everything; those that see it come back to it.
    Emptied,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let node = 0..3usize;
    let event = prop_oneof![
        4 => (node.clone(), 1u32..200).prop_map(|(node, calls)| Event::Calls(node, calls)),
        1 => node.clone().prop_map(Event::Lost),
        1 => node.prop_map(Event::Back),
        1 => Just(Event::Emptied),
    ];
    prop::collection::vec(event, 1..20)
}

#[test]
fn nodes_that_lose_the_server_in_any_way_admit_at_most_half_a_burst_more_together() {
    holds((2usize..=3, 10u32..=300, events()), |bench, (count, burst, events)| {
        let _ = bench.fresh(KEY);
        // Too slow a refill to matter.
        let shape = shape(1_000_000_000, burst);
        let now = Now { nanos: 1, wall: Timestamp(i64::try_from(NOON).expect("of this age")) };
        let parts = Parts::new(2 * (u32::try_from(count).expect("few") - 1));
        let mut nodes: Vec<(Account, bool)> = (0..count).map(|_| (Account::default(), true)).collect();
        let mut admitted = 0;

        let full_in =
            |account: &Account| (account.cell(Draws::Work) - now.nanos.min(account.cell(Draws::Work))).div_ceil(1_000);
        let tell = |account: &Account| {
            let buckets = [Some((shape, full_in(account))), None];
            bench.tell(&Known { key: KEY, buckets, ..Known::default() });
        };
        for event in events {
            match event {
                Event::Calls(node, calls) => {
                    let Some((account, there)) = nodes.get(node) else { continue };
                    if *there {
                        let ask = |_| {
                            let question = question(KEY, shape, 1);
                            bench.names.admit(&bench.names.admit, "epoch", &question)
                        };
                        for value in bench.run(&bench.names, NOON, (0..calls).map(ask)) {
                            let answer = answer(value).expect("an answer");
                            account.raise_cell(Draws::Work, now.nanos + answer.full_in * 1_000);
                            admitted += u32::from(answer.verdict == Verdict::Passes);
                        }
                    } else {
                        let one = std::num::NonZeroU32::MIN;
                        let draw = |_: &u32| account.draw_part(Draws::Work, shape, one, parts, now).is_ok();
                        admitted += u32::try_from((0..calls).filter(draw).count()).expect("few");
                    }
                }
                Event::Lost(node) => nodes.iter_mut().skip(node).take(1).for_each(|(_, there)| *there = false),
                Event::Back(node) => nodes.iter_mut().skip(node).take(1).for_each(|(account, there)| {
                    tell(account);
                    *there = true;
                }),
                Event::Emptied => {
                    let _ = bench.fresh(KEY);
                    // Nobody asks before all have told.
                    nodes.iter().for_each(|(account, _)| tell(account));
                }
            }
        }
        prop_assert!(admitted <= burst + burst / 2, "{} of {}", admitted, burst);
        Ok(())
    });
}
