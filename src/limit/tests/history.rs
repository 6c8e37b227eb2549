//! Random histories of several callers at several agents against a model of them: calls that stay open, streams, prices, edits of
//! every kind, restarts, days. Never more is admitted than the model allows, and no refusal is one it does not explain.

use proptest::prelude::*;

use super::*;

const X: Uuid = Uuid::from_u128(10);
const Y: Uuid = Uuid::from_u128(11);
const AGENTS: [Uuid; 2] = [X, Y];
const A: Uuid = Uuid::from_u128(20);
const B: Uuid = Uuid::from_u128(21);
/// Whom each account calls, as which level: two over connections, two verified, three anonymous.
const ACCOUNTS: [(usize, Level); 7] = [
    (0, Level::Connected),
    (1, Level::Connected),
    (1, Level::Verified),
    (0, Level::Verified),
    (0, Level::Unverified),
    (1, Level::Unverified),
    (0, Level::Unverified),
];
const OPERATIONS: [Operation; 4] =
    [Operation::SendMessage, Operation::SendStreamingMessage, Operation::GetTask, Operation::SubscribeToTask];
/// Places at each agent, and at the gateway.
const PLACES: (usize, usize) = (5, 8);
const SECOND: u64 = 1_000_000_000;
/// A bucket that fills faster is not rebuilt at a restart.
const REBUILT: u64 = 60 * SECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Connected,
    Verified,
    Unverified,
}

/// What one of the three, tier, agent or connection, may say: rate with its burst, day, streams, calls.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    bucket: Option<(u32, u32, u32)>,
    daily: Option<u32>,
    streams: Option<u32>,
    in_flight: Option<u32>,
}

impl Said {
    fn shared(&self) -> ConnectionLimits {
        ConnectionLimits {
            rate: self.bucket.map(|(calls, _, _)| calls),
            period_ms: self.bucket.map(|(_, seconds, _)| u64::from(seconds) * 1_000),
            burst: self.bucket.map(|(_, _, burst)| burst),
            daily: self.daily,
            streams: self.streams,
        }
    }

    fn before(self, other: Self) -> Self {
        Self {
            bucket: self.bucket.or(other.bucket),
            daily: self.daily.or(other.daily),
            streams: self.streams.or(other.streams),
            in_flight: self.in_flight.or(other.in_flight),
        }
    }
}

/// Everything that is said about limits now.
#[derive(Clone, Debug)]
struct Terms {
    tier: Said,
    agents: [(Said, u32); 2],
    connections: [Said; 2],
}

impl Terms {
    fn of(&self, account: usize) -> Said {
        let (agent, level) = ACCOUNTS[account];
        let below = self.agents[agent].0.before(self.tier);
        if level == Level::Connected { self.connections[account].before(below) } else { below }
    }

    fn policy(&self) -> Arc<Policy> {
        let Said { bucket, daily, streams, in_flight } = self.tier;
        let (calls, seconds, burst) = bucket.expect("a tier says everything");
        let tier = format!(
            "work = {{ rate = \"{calls}/{seconds}s\", burst = {burst} }}\nreads = {{ rate = \"2/s\", burst = 4 }}\n\
             daily = {}\nstreams = {}\nin_flight = {}\n",
            daily.expect("said"),
            streams.expect("said"),
            in_flight.expect("said"),
        );
        let allowance = "{ rate = \"1/s\", burst = 1 }";
        let text = format!(
            "admit_anonymous = true\n[tiers.connected]\n{tier}[tiers.verified]\n{tier}[tiers.unverified]\n{tier}\
             [abuse]\nsource = {allowance}\ncredentials = {allowance}\napi = {allowance}\n"
        );
        Arc::new(Policy::load(&text, "test").expect("a valid policy"))
    }

    fn agents(&self) -> OwnLimits {
        let own = |(said, cost): &(Said, u32)| {
            let level = LevelLimits { shared: said.shared(), in_flight: said.in_flight };
            let costs = [(Operation::SendMessage, *cost)].into();
            Arc::new(AgentLimits { costs, connected: level, verified: level, unverified: level })
        };
        AGENTS.into_iter().zip(self.agents.iter().map(own)).collect()
    }
}

/// A bucket: what it lacks, in nanoseconds of refilling.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    lacks: u64,
    /// As much more may be lacking: a restart knows charges to the microsecond, and rounds against the caller.
    unsure: u64,
    at: u64,
}

impl Bucket {
    fn settle(&mut self, now: u64) {
        let passed = now - self.at;
        // The unsure part lies behind the lacking one: it is waited for last.
        self.unsure =
            (self.lacks + self.unsure).saturating_sub(passed).saturating_sub(self.lacks.saturating_sub(passed));
        self.lacks = self.lacks.saturating_sub(passed);
        self.at = now;
    }

    /// What was used stays used, and a larger bucket counts what it is larger by as used, unless it was full.
    fn change(&mut self, (old, old_burst): (u64, u32), (new, new_burst): (u64, u32), now: u64) {
        self.settle(now);
        if (old, old_burst) == (new, new_burst) {
            return;
        }
        let restate = |lacks: u64| {
            if lacks == 0 {
                return 0;
            }
            let larger = u64::from(new_burst.saturating_sub(old_burst)) * old;
            let nanos = u128::from(lacks.min(old * u64::from(old_burst)) + larger) * u128::from(new);
            u64::try_from(nanos.div_ceil(u128::from(old))).expect("small numbers").min(new * u64::from(new_burst))
        };
        let most = restate(self.lacks + self.unsure);
        self.lacks = restate(self.lacks);
        self.unsure = most - self.lacks;
    }
}

#[derive(Clone, Debug, Default)]
struct Account {
    work: Bucket,
    reads: Bucket,
    day: i64,
    used: u32,
    calls: usize,
    streams: usize,
    /// When, at which price for a unit, how many; as a restart will find them.
    charges: Vec<(u64, u64, u32)>,
}

struct Open {
    account: usize,
    streams: bool,
    _permit: Permit,
}

struct World {
    house: House,
    gates: [Arc<Gate>; 2],
    directions: [Arc<Direction>; 2],
    terms: Terms,
    accounts: Vec<Account>,
    open: Vec<Open>,
    charges: Vec<(Timestamp, Charge)>,
    /// Nanoseconds since noon.
    now: u64,
}

fn interval(said: Said) -> (u64, u32) {
    let (calls, seconds, burst) = said.bucket.expect("a tier says everything");
    ((u64::from(seconds) * SECOND).div_ceil(u64::from(calls)), burst)
}

const READS: (u64, u32) = (SECOND / 2, 4);

impl World {
    fn new(terms: Terms) -> Self {
        Self::begin(NOON, terms, vec![Account::default(); ACCOUNTS.len()], Vec::new(), 0)
    }

    fn begin(
        wall: Timestamp,
        terms: Terms,
        accounts: Vec<Account>,
        charges: Vec<(Timestamp, Charge)>,
        now: u64,
    ) -> Self {
        let house = House::at(wall, terms.policy(), seeds_from(charges.iter().copied()));
        house.limits.set_agents(terms.agents());
        house.limits.set_max_in_flight(u32::try_from(PLACES.1).expect("few"));
        let own = [0, 1].map(|n| terms.connections[n].shared());
        let direction = |n: usize| house.limits.direction(Uuid::from_u128(30 + n as u128), AGENTS[n], &own[n], None);
        let directions = [direction(0), direction(1)];
        let gates = [(); 2].map(|()| Arc::new(Gate::new(u32::try_from(PLACES.0).expect("few"))));
        Self { house, gates, directions, terms, accounts, open: Vec::new(), charges, now }
    }

    fn subject(&self, account: usize) -> Subject<'_> {
        let target = AGENTS[ACCOUNTS[account].0];
        match account {
            0 | 1 => Subject::Connected(&self.directions[account]),
            2 => Subject::Verified { caller: A, target },
            3 => Subject::Verified { caller: B, target },
            4 | 5 => Subject::Anonymous { target, source: ip("192.0.2.1") },
            _ => Subject::Anonymous { target, source: ip("192.0.2.2") },
        }
    }

    /// What the model says of a call: why it must be refused, and whether it may be admitted all the same.
    fn expected(&mut self, account: usize, operation: Operation) -> (Option<RefusedKind>, bool) {
        let (agent, _) = ACCOUNTS[account];
        let said = self.terms.of(account);
        let at_agent = self.open.iter().filter(|open| ACCOUNTS[open.account].0 == agent).count();
        let everywhere = self.open.len();
        let day = self.house.clock.wall().utc_day();
        let now = self.now;
        let own = &mut self.accounts[account];
        if day > own.day {
            (own.day, own.used) = (day, 0);
        }
        let full = |limit: Option<u32>, taken: usize| limit.is_some_and(|limit| taken >= limit as usize);
        if full(said.in_flight, own.calls) {
            return (Some(RefusedKind::InFlight), false);
        }
        if operation.streams() && full(said.streams, own.streams) {
            return (Some(RefusedKind::Streams), false);
        }
        if at_agent >= PLACES.0 {
            return (Some(RefusedKind::AgentBusy), false);
        }
        if everywhere >= PLACES.1 {
            return (Some(RefusedKind::GatewayBusy), false);
        }
        let cost = if operation == Operation::SendMessage { self.terms.agents[agent].1 } else { 1 };
        let work = operation.effect() == Effect::Work;
        if work && said.daily.is_some_and(|daily| own.used + cost > daily) {
            return (Some(RefusedKind::Daily), false);
        }
        let ((interval, burst), bucket) = if work { (interval(said), &mut own.work) } else { (READS, &mut own.reads) };
        bucket.settle(now);
        // A bucket that never holds that many is never enough.
        let room = (interval * u64::from(burst)).checked_sub(interval * u64::from(cost));
        match room {
            Some(room) if bucket.lacks + bucket.unsure <= room => (None, true),
            Some(room) if bucket.lacks <= room => (Some(RefusedKind::Rate), true),
            _ => (Some(RefusedKind::Rate), false),
        }
    }

    fn ask(&mut self, account: usize, operation: Operation, stays: bool) -> Result<(), TestCaseError> {
        let (refusal, may_pass) = self.expected(account, operation);
        let agent = ACCOUNTS[account].0;
        let ask = Ask { subject: self.subject(account), operation, agent: &self.gates[agent] };
        match self.house.limits.admit(&ask) {
            Err(refused) => {
                prop_assert_eq!(Some(refused.kind), refusal, "account {}: {:?}", account, refused);
            }
            Ok(permit) => {
                prop_assert!(may_pass, "account {account} was to be refused: {refusal:?}");
                let cost = if operation == Operation::SendMessage { self.terms.agents[agent].1 } else { 1 };
                let (interval, burst) = interval(self.terms.of(account));
                let own = &mut self.accounts[account];
                if operation.effect() == Effect::Work {
                    own.work.lacks += interval * u64::from(cost);
                    own.used += cost;
                    prop_assert_eq!(permit.units(), cost);
                    let remembered = if interval * u64::from(burst) >= REBUILT { interval } else { 0 };
                    own.charges.push((self.now, remembered, cost));
                } else {
                    own.reads.lacks += READS.0;
                    prop_assert_eq!(permit.units(), 0);
                }
                self.charges.extend(permit.charge().map(|charge| (self.house.clock.wall(), charge)));
                if stays {
                    own.calls += 1;
                    own.streams += usize::from(operation.streams());
                    self.open.push(Open { account, streams: operation.streams(), _permit: permit });
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, nth: usize) {
        if self.open.is_empty() {
            return;
        }
        let ended = self.open.swap_remove(nth % self.open.len());
        self.accounts[ended.account].calls -= 1;
        self.accounts[ended.account].streams -= usize::from(ended.streams);
    }

    fn edit(&mut self, edit: impl FnOnce(&mut Terms)) {
        let before = self.terms.clone();
        edit(&mut self.terms);
        for (account, own) in self.accounts.iter_mut().enumerate() {
            own.work.change(interval(before.of(account)), interval(self.terms.of(account)), self.now);
        }
        self.house.limits.set_policy(self.terms.policy());
        self.house.limits.set_agents(self.terms.agents());
        self.directions = [0, 1].map(|n| {
            let own = self.terms.connections[n].shared();
            let previous = Some(&self.directions[n]);
            self.house.limits.direction(Uuid::from_u128(30 + n as u128), AGENTS[n], &own, previous)
        });
    }

    /// A new process that knows what was charged, and nothing else.
    fn restart(&mut self) {
        self.open.clear();
        let mut accounts = std::mem::take(&mut self.accounts);
        for (account, own) in accounts.iter_mut().enumerate() {
            let (interval, burst) = interval(self.terms.of(account));
            let mut work = Bucket::default();
            for (at, price, units) in &own.charges {
                work.settle(*at);
                if *price > 0 {
                    work.lacks += price * u64::from(*units);
                    work.unsure += 1_000 * u64::from(*units);
                }
            }
            work.settle(self.now);
            work.unsure += 2_000;
            let fill = interval * u64::from(burst);
            let most = (work.lacks + work.unsure).min(fill);
            work.lacks = work.lacks.min(fill);
            work.unsure = most - work.lacks;
            (own.work, own.reads) = (work, Bucket { at: self.now, ..Bucket::default() });
            (own.calls, own.streams) = (0, 0);
        }
        let charges = std::mem::take(&mut self.charges);
        *self = Self::begin(self.house.clock.wall(), self.terms.clone(), accounts, charges, self.now);
        // What is known from before is restated for the limits in force when it is first looked at.
        for account in 0..ACCOUNTS.len() {
            let _ = self.house.limits.left(&self.subject(account));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ask(usize, usize, bool),
    End(usize),
    Advance(u64),
    Sweep,
    Reload(Said),
    EditAgent(usize, Said, u32),
    EditConnection(usize, Said),
    Restart,
}

fn bucket() -> impl Strategy<Value = (u32, u32, u32)> {
    (1u32..6, 1u32..120, 3u32..12)
}

fn own() -> impl Strategy<Value = Said> {
    let maybe = |range: std::ops::Range<u32>| prop::option::of(range);
    (prop::option::of(bucket()), maybe(0..30), maybe(0..4), maybe(1..6))
        .prop_map(|(bucket, daily, streams, in_flight)| Said { bucket, daily, streams, in_flight })
}

fn tier() -> impl Strategy<Value = Said> {
    (bucket(), 3u32..40, 1u32..4, 2u32..6).prop_map(|(bucket, daily, streams, in_flight)| Said {
        bucket: Some(bucket),
        daily: Some(daily),
        streams: Some(streams),
        in_flight: Some(in_flight),
    })
}

/// Connections say nothing about calls in flight.
fn connection() -> impl Strategy<Value = Said> {
    own().prop_map(|said| Said { in_flight: None, ..said })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (0..ACCOUNTS.len(), 0..OPERATIONS.len(), any::<bool>()).prop_map(|(who, what, stays)| Step::Ask(who, what, stays)),
        8 => (0usize..100).prop_map(Step::End),
        8 => (1u64..30_000_000).prop_map(|us| Step::Advance(us * 1_000)),
        1 => (1u64..90_000).prop_map(|s| Step::Advance(s * SECOND)),
        1 => Just(Step::Sweep),
        2 => tier().prop_map(Step::Reload),
        2 => (0usize..2, own(), 1u32..4).prop_map(|(agent, said, cost)| Step::EditAgent(agent, said, cost)),
        2 => (0usize..2, connection()).prop_map(|(n, said)| Step::EditConnection(n, said)),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 3, ..ProptestConfig::default() })]

    #[test]
    fn histories_go_as_the_model_says(tier in tier(), steps in prop::collection::vec(step(), 1..250)) {
        let terms = Terms { tier, agents: [(Said::default(), 1); 2], connections: [Said::default(); 2] };
        let mut world = World::new(terms);
        for step in steps {
            match step {
                Step::Ask(who, what, stays) => world.ask(who, OPERATIONS[what], stays)?,
                Step::End(nth) => world.end(nth),
                Step::Advance(nanos) => {
                    world.house.clock.advance(Duration::from_nanos(nanos));
                    world.now += nanos;
                }
                Step::Sweep => world.house.limits.sweep(),
                Step::Reload(tier) => world.edit(|terms| terms.tier = tier),
                Step::EditAgent(agent, said, cost) => world.edit(|terms| terms.agents[agent] = (said, cost)),
                Step::EditConnection(n, said) => world.edit(|terms| terms.connections[n] = said),
                Step::Restart => world.restart(),
            }
        }
        world.open.clear();
        prop_assert_eq!(world.gates.map(|gate| gate.in_flight()), [0, 0]);
    }
}
