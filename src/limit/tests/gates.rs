//! Every gate alone and every combination of gates, for callers of each level: the first that is closed refuses, and nothing
//! that was taken before it stays taken.

use super::*;

/// The gates in the order they are asked, and the word for what each refuses with.
const GATES: [RefusedKind; 6] = [
    RefusedKind::InFlight,
    RefusedKind::Streams,
    RefusedKind::AgentBusy,
    RefusedKind::GatewayBusy,
    RefusedKind::Daily,
    RefusedKind::Rate,
];

/// The same limits for every level: so many calls, streams, units a day, units at once.
fn limits_of(in_flight: u32, streams: u32, daily: u32, burst: u32) -> Arc<AgentLimits> {
    let shared = ConnectionLimits {
        rate: Some(1),
        period_ms: Some(3_600_000),
        burst: Some(burst),
        daily: Some(daily),
        streams: Some(streams),
    };
    let level = LevelLimits { shared, in_flight: Some(in_flight) };
    Arc::new(AgentLimits { costs: BTreeMap::new(), connected: level, verified: level, unverified: level })
}

/// A house in which the gates of `closed` have one place or unit left at most, and it is taken; the others have one spare.
fn house(closed: &[RefusedKind]) -> House {
    let room = |gate| if closed.contains(&gate) { 1 } else { 2 };
    let house = House::new(policy(&[]));
    let own = limits_of(
        room(RefusedKind::InFlight),
        room(RefusedKind::Streams),
        room(RefusedKind::Daily),
        room(RefusedKind::Rate),
    );
    house.limits.set_agents([(TARGET, own)].into_iter().collect());
    house.agent.set_most(room(RefusedKind::AgentBusy));
    house.limits.set_max_in_flight(room(RefusedKind::GatewayBusy));
    house
}

fn subjects(direction: &Arc<Direction>) -> [Subject<'_>; 3] {
    [Subject::Connected(direction), verified(), anonymous("192.0.2.1")]
}

/// What is held and used of everything that can be: calls, streams, units, places at the agent and the gateway.
fn held(house: &House, subject: Subject<'_>) -> Vec<u32> {
    let left = house.limits.left(&subject);
    let left = left.iter().filter(|left| left.name != "reads").map(|left| left.limit - left.remaining);
    left.chain([house.agent.in_flight(), house.limits.gate.in_flight()]).collect()
}

#[test]
fn the_first_closed_gate_refuses_and_nothing_stays_taken_whatever_else_is_closed() {
    for set in 0u32..1 << GATES.len() {
        let closed: Vec<_> =
            GATES.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1).map(|(_, gate)| *gate).collect();
        for who in 0..3 {
            let house = house(&closed);
            let direction = house.direction(&ConnectionLimits::default());
            let subject = subjects(&direction)[who];
            let first = house.ask(subject, Operation::SendStreamingMessage).expect("everything has room for one");
            let before = held(&house, subject);
            assert_eq!(before, [1; 6], "work, daily, streams, in flight, agent, gateway");

            let second = house.ask(subject, Operation::SendStreamingMessage);
            let refused = second.as_ref().err().map(|refused| refused.kind);
            assert_eq!(refused, closed.first().copied(), "{closed:?}, caller {who}");
            if second.is_err() {
                assert_eq!(held(&house, subject), before, "{closed:?}, caller {who}");
            }
            drop((first, second));
            assert_eq!(held(&house, subject)[2..], [0; 4], "what can be given back is back");
        }
    }
}

#[test]
fn a_gate_that_opens_again_leaves_the_decision_to_the_next() {
    for who in 0..3 {
        let house = house(&GATES);
        let direction = house.direction(&ConnectionLimits::default());
        let subject = subjects(&direction)[who];
        let ask = || house.ask(subject, Operation::SendStreamingMessage);
        let _first = ask().expect("room for one");
        let reopen = |in_flight, streams, daily, burst| {
            house.limits.set_agents([(TARGET, limits_of(in_flight, streams, daily, burst))].into_iter().collect());
        };
        let steps: [&dyn Fn(); 6] = [
            &|| reopen(9, 1, 1, 1),
            &|| reopen(9, 9, 1, 1),
            &|| house.agent.set_most(9),
            &|| house.limits.set_max_in_flight(9),
            &|| reopen(9, 9, 9, 1),
            // A larger bucket is none for somebody who has used the smaller one up; the hour is.
            &|| house.advance(3_600),
        ];
        for (gate, open) in GATES.iter().zip(steps) {
            let refused = ask().expect_err("closed");
            assert_eq!(refused.kind, *gate, "caller {who}");
            let waits = matches!(gate, RefusedKind::Daily | RefusedKind::Rate);
            assert_eq!(refused.retry_after.is_some(), waits, "nobody knows when a call ends");
            open();
        }
        let _second = ask().expect("all are open");
    }
}

#[test]
fn a_level_that_is_limited_at_an_agent_leaves_other_agents_and_levels_alone() {
    const OTHER: Uuid = Uuid::from_u128(9);
    let house = House::new(policy(&[]));
    let mut own = AgentLimits::default();
    own.verified.shared.daily = Some(0);
    house.limits.set_agents([(TARGET, Arc::new(own))].into_iter().collect());
    let refused = house.send(verified()).expect_err("nothing a day");
    assert_eq!((refused.kind, refused.rule), (RefusedKind::Daily, "agent.verified.daily"));
    let _ = house.send(Subject::Verified { caller: CALLER, target: OTHER }).expect("another agent");
    let _ = house.send(anonymous("192.0.2.1")).expect("another level");
}

#[test]
fn an_operation_costs_what_the_agent_says_and_the_answer_counts_calls_like_it() {
    let house = House::new(policy(&[]));
    let costs = [(Operation::SendMessage, 5), (Operation::GetTask, 20), (Operation::GetAgentCard, 7)].into();
    let mut own = AgentLimits { costs, ..AgentLimits::default() };
    own.verified.shared =
        ConnectionLimits { rate: Some(60), period_ms: Some(60_000), burst: Some(12), ..Default::default() };
    house.limits.set_agents([(TARGET, Arc::new(own))].into_iter().collect());

    let permit = house.send(verified()).expect("five of twelve");
    assert_eq!((permit.units(), permit.charge().map(|charge| charge.units)), (5, Some(5)));
    assert_eq!(
        fields(&permit.headroom()),
        ["\"calls\";q=2;w=12, \"day\";q=200;w=86400", "\"calls\";r=1;t=5, \"day\";r=199;t=43200"]
    );
    let _ = house.send(verified()).expect("ten of twelve");
    let refused = house.send(verified()).expect_err("two are left");
    assert_eq!((refused.rule, refused.retry_after), ("agent.verified.rate", Some(Duration::from_secs(3))));
    assert_eq!((refused.limit().left, refused.headroom.cost.get()), (2, 5), "in units");
    // The policy's price for what the agent does not name, and reads stay reads.
    assert_eq!(house.ask(verified(), Operation::CancelTask).expect("one unit").units(), 1);
    for _ in 0..3 {
        let _ = house.ask(verified(), Operation::GetTask).expect("20 of 60 reads");
    }
    assert_eq!(house.ask(verified(), Operation::GetTask).expect_err("no reads left").rule, "tier.verified.reads");
    assert_eq!(house.ask(verified(), Operation::GetAgentCard).expect("free").units(), 0);
}

#[test]
fn a_price_that_no_bucket_holds_cannot_be_set() {
    let house = House::new(policy(&[]));
    let mut own = AgentLimits { costs: [(Operation::SendMessage, 3)].into(), ..AgentLimits::default() };
    let error = house.limits.check(&own).expect_err("one at once");
    assert!(error.contains("verified") && error.contains("larger burst"), "{error}");
    own.verified.shared.burst = Some(3);
    own.unverified.shared.burst = Some(3);
    assert_eq!(house.limits.check(&own), Ok(()));
    own.costs = [(Operation::ListTasks, 13)].into();
    assert!(house.limits.check(&own).expect_err("12 reads").contains("unverified"));
}
