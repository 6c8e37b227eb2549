//! Nodes against a real server: together exact, and what happens when it is away, slow or forgetful.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use super::redis::Redis;
use super::scripts::server;
use crate::a2a::Operation;
use crate::clock::Clock;
use crate::limit::shared::{Cause, Keeper, Link, Node, Settings};
use crate::limit::{Ask, Direction, Gate, LimitNamer, Limits, Permit, Refused, RefusedKind, Room, Subject};
use crate::policy::Policy;
use crate::store::rows::{AgentLimits, ConnectionLimits};

const SECRET: [u8; 32] = [7; 32];
const CONNECTION: Uuid = Uuid::from_u128(1);
const TARGET: Uuid = Uuid::from_u128(3);
const BURST: usize = 300;
/// Long enough that a busy machine is not taken for an absent server.
const PATIENT: Duration = Duration::from_secs(5);
const HASTY: Duration = Duration::from_millis(20);

/// 300 at once, one per hour.
fn slow() -> ConnectionLimits {
    ConnectionLimits { rate: Some(1), period_ms: Some(3_600_000), burst: Some(300), ..ConnectionLimits::default() }
}

/// One node: its limits, its worker's link, its keeper.
struct Site {
    limits: Arc<Limits>,
    node: Arc<Node>,
    link: Arc<Link>,
    agent: Arc<Gate>,
    direction: Arc<Direction>,
    tasks: Vec<JoinHandle<()>>,
}

impl Site {
    fn start(redis: &Redis, patience: Duration, own: &ConnectionLimits) -> Self {
        let settings = Settings { server: server(redis.port), namespace: "test".to_owned(), patience, links: 1 };
        let clock = Clock::system();
        let node = Arc::new(Node::new(settings, clock.clone()));
        let limits = Limits::new(clock, Arc::new(Policy::default()), SECRET, Vec::new());
        let limits = Arc::new(limits.shared_by(Arc::clone(&node)));
        let link = node.link(0);
        let keeper = Keeper::new(Arc::clone(&node), Arc::clone(&limits));
        let tasks = vec![tokio::spawn(keeper.run()), tokio::spawn(Arc::clone(&link).run())];
        let (agent, direction) = (Arc::new(Gate::new(u32::MAX)), limits.direction(CONNECTION, TARGET, own, None));
        Self { limits, node, link, agent, direction, tasks }
    }

    async fn ask(&self, operation: Operation) -> Result<Permit, Refused> {
        self.ask_as(Subject::Connected(&self.direction), operation).await
    }

    async fn ask_as(&self, subject: Subject<'_>, operation: Operation) -> Result<Permit, Refused> {
        let ask = Ask { subject, operation, agent: &self.agent };
        self.limits.admit_shared(&ask, &self.link).await
    }

    /// So many calls at once; how many pass.
    async fn send(&self, calls: usize) -> usize {
        let answers = join_all((0..calls).map(|_| self.ask(Operation::SendMessage))).await;
        answers.iter().filter(|answer| answer.is_ok()).count()
    }

    async fn stream(&self) -> Result<Permit, Refused> {
        self.ask(Operation::SubscribeToTask).await
    }

    fn alone(&self) -> u64 {
        self.node.counted().alone.iter().sum()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Waits until something holds that comes about by itself.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn all_share(sites: &[&Site]) {
    all_share_with(sites, u32::try_from(sites.len()).expect("few")).await;
}

async fn all_share_with(sites: &[&Site], nodes: u32) {
    until("all share", || sites.iter().all(|site| site.node.is_shared() && site.node.nodes() == nodes)).await;
}

async fn two(redis: &Redis, patience: Duration, own: &ConnectionLimits) -> (Site, Site) {
    let sites = (Site::start(redis, patience, own), Site::start(redis, patience, own));
    all_share(&[&sites.0, &sites.1]).await;
    sites
}

#[tokio::test]
async fn two_nodes_admit_a_burst_together_and_not_one_call_more() {
    let redis = Redis::start();
    let (one, two) = two(&redis, PATIENT, &slow()).await;
    let (a, b) = tokio::join!(one.send(1_000), two.send(1_000));
    assert_eq!(a + b, BURST);
    assert!(a > 0 && b > 0, "{a} {b}");
    assert_eq!((one.alone(), two.alone()), (0, 0));
    let refused = one.ask(Operation::SendMessage).await.expect_err("used");
    assert_eq!((refused.kind, refused.rule), (RefusedKind::Rate, "connection.rate"));
    let wait = refused.retry_after.expect("a wait").as_secs();
    assert!((3_500..=3_600).contains(&wait), "{wait}");
    // Each knows it by its own counts too.
    for site in [&one, &two] {
        assert_eq!(
            site.limits
                .headroom(&Subject::Connected(&site.direction), Operation::SendMessage)
                .bucket
                .map(|room| room.remaining),
            Some(0)
        );
    }
}

#[tokio::test]
async fn the_day_and_the_open_streams_are_counted_over_both() {
    let redis = Redis::start();
    let own = ConnectionLimits { daily: Some(10), streams: Some(5), ..ConnectionLimits::default() };
    let (one, two) = two(&redis, PATIENT, &own).await;
    let (a, b) = tokio::join!(one.send(20), two.send(20));
    assert_eq!(a + b, 10);
    let refused = two.ask(Operation::SendMessage).await.expect_err("used");
    assert_eq!((refused.kind, refused.rule), (RefusedKind::Daily, "connection.daily"));

    let opened = |site: &Site| {
        let (limits, link) = (Arc::clone(&site.limits), Arc::clone(&site.link));
        let (direction, agent) = (Arc::clone(&site.direction), Arc::clone(&site.agent));
        async move {
            let subject = Subject::Connected(&direction);
            let ask = Ask { subject, operation: Operation::SubscribeToTask, agent: &agent };
            limits.admit_shared(&ask, &link).await.ok()
        }
    };
    let (mut held, others) =
        tokio::join!(join_all((0..4).map(|_| opened(&one))), join_all((0..4).map(|_| opened(&two))));
    held.extend(others);
    assert_eq!(held.iter().flatten().count(), 5);
    assert_eq!(one.stream().await.expect_err("full").kind, RefusedKind::Streams);
    // Given back on one node, it is there for the other: without that node asking anything.
    held.retain(Option::is_some);
    held.pop();
    let taken = async {
        loop {
            match one.stream().await {
                Ok(permit) => return permit,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let _sixth = tokio::time::timeout(Duration::from_secs(10), taken).await.expect("it comes back");
}

#[tokio::test]
async fn the_streams_of_a_node_that_is_gone_come_back() {
    let redis = Redis::start();
    let own = ConnectionLimits { streams: Some(1), ..ConnectionLimits::default() };
    let (one, two) = two(&redis, PATIENT, &own).await;
    let held = one.stream().await.expect("the only one");
    assert!(two.stream().await.is_err());
    drop(one);
    until("one is missed", || two.node.nodes() == 1).await;
    assert!(two.stream().await.is_ok());
    drop(held);
}

#[tokio::test]
async fn nodes_that_never_met_the_server_admit_a_half_each() {
    let mut redis = Redis::start();
    redis.stop();
    let (one, two) = (Site::start(&redis, HASTY, &slow()), Site::start(&redis, HASTY, &slow()));
    assert_eq!((one.send(1_000).await, two.send(1_000).await), (BURST / 2, BURST / 2));
    // Told before the first is asked for: nobody gets any more.
    redis.restart();
    all_share(&[&one, &two]).await;
    assert_eq!((one.send(100).await, two.send(100).await), (0, 0));
}

#[tokio::test]
async fn a_frozen_server_is_left_alone_at_once_and_asked_again_when_it_is_back() {
    let redis = Redis::start();
    let (one, two) = two(&redis, HASTY, &slow()).await;
    let mut admitted = one.send(100).await;
    redis.freeze();
    // All of them wait together for the first answer that does not come; those after them for none.
    admitted += one.send(500).await + two.send(500).await;
    assert!(!one.node.is_shared() && !two.node.is_shared());
    assert_eq!((one.send(1).await, two.send(1).await), (0, 0));
    assert!(admitted <= BURST + BURST / 2, "{admitted}");
    assert!(admitted >= BURST / 2, "{admitted}");

    redis.thaw();
    all_share(&[&one, &two]).await;
    admitted += one.send(500).await + two.send(500).await;
    assert!(admitted <= BURST + BURST / 2, "{admitted}");
}

#[tokio::test]
async fn a_server_that_comes_back_empty_is_told_what_was_admitted_before_it_is_asked() {
    let mut redis = Redis::start();
    let (one, two) = two(&redis, PATIENT, &slow()).await;
    let mut admitted = one.send(BURST).await;
    redis.restart();
    admitted += two.send(BURST).await;
    until("it is noticed", || two.node.cause() != Cause::Starting).await;
    all_share(&[&one, &two]).await;
    assert_eq!((one.send(100).await, two.send(100).await), (0, 0));
    assert!(admitted <= BURST + BURST / 2, "{admitted}");
}

#[tokio::test]
async fn a_server_that_forgets_while_it_runs_is_noticed_by_the_next_call() {
    let redis = Redis::start();
    let (one, two) = two(&redis, PATIENT, &slow()).await;
    assert_eq!(one.send(BURST).await, BURST);
    let _ = redis.ask("FLUSHALL");
    assert!(one.send(1).await == 0 && !one.node.is_shared());
    assert_eq!(one.node.cause(), Cause::Emptied);
    let admitted = two.send(BURST).await;
    assert!(admitted <= BURST / 2, "{admitted}");
    all_share(&[&one, &two]).await;
    assert_eq!((one.send(100).await, two.send(100).await), (0, 0));
}

#[tokio::test]
async fn a_key_that_was_dropped_is_made_up_for_by_what_the_node_knows() {
    let redis = Redis::start();
    let (one, _two) = two(&redis, PATIENT, &slow()).await;
    assert_eq!(one.send(BURST).await, BURST);
    let key = LimitNamer::new(SECRET).connection(CONNECTION, TARGET);
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(redis.ask(&format!("DEL {{test}}:a:{key}")), ":1\r\n");
    assert_eq!(one.send(10).await, 0);
    assert!(one.node.is_shared());
}

#[tokio::test]
async fn a_call_that_is_dropped_while_the_server_is_asked_leaves_nothing_taken() {
    let redis = Redis::start();
    let own = ConnectionLimits { streams: Some(1), ..ConnectionLimits::default() };
    let (one, two) = two(&redis, PATIENT, &own).await;
    // The question is on its way, and nobody waits for the answer.
    assert!(Box::pin(one.stream()).now_or_never().is_none());
    until("the place is back", || one.direction.account.in_flight() == 0).await;
    assert_eq!((one.direction.account.streams(), one.agent.in_flight()), (0, 0));
    let taken = async { while two.stream().await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(10), taken).await.expect("the other node learns of it");
}

#[tokio::test]
async fn a_thread_that_was_busy_does_not_blame_the_server() {
    let redis = Redis::start();
    let site = Site::start(&redis, Duration::from_millis(200), &slow());
    all_share(&[&site]).await;
    redis.freeze();
    let busy = async {
        // Once the question has left. The answer comes while nobody looks.
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        redis.thaw();
        std::thread::sleep(Duration::from_millis(600));
    };
    let (passed, ()) = tokio::join!(site.send(1), busy);
    assert_eq!((passed, site.alone()), (1, 0));
}

#[tokio::test]
async fn what_one_node_knows_the_others_are_held_to_once_the_server_is_told_anew() {
    let redis = Redis::start();
    let (one, two) = two(&redis, PATIENT, &slow()).await;
    assert_eq!(one.send(BURST).await, BURST);
    let _ = redis.ask("FLUSHALL");
    until("both notice", || !one.node.is_shared() && !two.node.is_shared()).await;
    all_share(&[&one, &two]).await;
    // It has asked nothing before, and knows nothing by itself.
    assert_eq!(two.send(100).await, 0);
}

#[tokio::test]
async fn a_server_that_was_emptied_is_not_asked_before_all_that_were_there_have_told_it() {
    let redis = Redis::start();
    let site = Site::start(&redis, PATIENT, &slow());
    all_share(&[&site]).await;
    let clock = || {
        let time = redis.ask("TIME");
        let parts: Vec<u64> = time.lines().filter_map(|line| line.parse().ok()).collect();
        parts[0] * 1_000_000 + parts[1]
    };
    let show_up = || redis.ask(&format!("ZADD {{test}}:nodes {} another", clock()));
    let _ = show_up();
    until("the other is known", || site.node.nodes() == 2).await;
    let _ = redis.ask("FLUSHALL");
    let begun = clock();
    until("it is noticed", || !site.node.is_shared()).await;
    until("it has told what it knows", || redis.ask("ZCARD {test}:nodes") == ":1\r\n").await;
    // For two seconds on the server's clock, or as long as this machine takes for it.
    until("a while is over", || clock() > begun + 2_000_000).await;
    assert!(!site.node.is_shared() || clock() > begun + 3_000_000);
    let _ = show_up();
    all_share_with(&[&site], 2).await;
}

#[tokio::test]
async fn what_a_node_admits_between_telling_and_asking_is_told_with_its_first_question() {
    let redis = Redis::start();
    let (one, two) = two(&redis, PATIENT, &slow()).await;
    // As if the node were still on its way back.
    let ask = Ask { subject: Subject::Connected(&one.direction), operation: Operation::SendMessage, agent: &one.agent };
    let alone = std::iter::repeat_with(|| one.limits.admit(&ask)).take_while(Result::is_ok).count();
    assert_eq!(alone, BURST / 2);
    assert_eq!(one.send(1).await, 0);
    assert_eq!(two.send(100).await, 0);
}

#[tokio::test]
async fn limits_that_change_carry_over_what_was_used_on_all_nodes() {
    let redis = Redis::start();
    let (one, two) = two(&redis, PATIENT, &slow()).await;
    assert_eq!(one.send(200).await, 200);
    let smaller = ConnectionLimits { burst: Some(250), ..slow() };
    for site in [&one, &two] {
        let _ = site.limits.direction(CONNECTION, TARGET, &smaller, Some(&site.direction));
    }
    assert_eq!(two.send(300).await, 50);
    assert_eq!(one.send(300).await, 0);
}

#[tokio::test]
async fn limits_that_change_while_the_server_is_asked_hold_for_what_it_answers() {
    let redis = Redis::start();
    let (one, _two) = two(&redis, PATIENT, &slow()).await;
    assert_eq!(one.send(BURST).await, BURST);
    redis.freeze();
    let mut asked = Box::pin(one.ask(Operation::SendMessage));
    assert!(asked.as_mut().now_or_never().is_none());
    // 300 at once as before, and each of them back in a second: 300 hours have become five minutes.
    let faster = ConnectionLimits { period_ms: Some(1_000), ..slow() };
    let _ = one.limits.direction(CONNECTION, TARGET, &faster, Some(&one.direction));
    redis.thaw();
    assert!(asked.await.is_err());
    let headroom = one.limits.headroom(&Subject::Connected(&one.direction), Operation::SendMessage);
    let reset = headroom.bucket.expect("a bucket").reset;
    assert!((290..=300).contains(&reset), "{reset}");
}

#[tokio::test]
async fn a_stream_that_ended_is_told_also_when_its_account_is_forgotten_first() {
    let redis = Redis::start();
    let (one, two) = two(&redis, PATIENT, &slow()).await;
    let mut own = AgentLimits::default();
    own.verified.shared.streams = Some(1);
    // Free, so that nothing but the stream keeps the account.
    own.costs.insert(Operation::SubscribeToTask, 0);
    for site in [&one, &two] {
        site.limits.set_agents([(TARGET, Arc::new(own.clone()))].into_iter().collect());
    }
    let verified = Subject::Verified { caller: CONNECTION, target: TARGET };
    let held = one.ask_as(verified, Operation::SubscribeToTask).await.expect("the only one");
    assert!(two.ask_as(verified, Operation::SubscribeToTask).await.is_err());
    drop(held);
    one.limits.sweep();
    assert_eq!(one.limits.keys()[0], 0);
    let taken = async { while two.ask_as(verified, Operation::SubscribeToTask).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(10), taken).await.expect("it comes back");
}

#[tokio::test]
async fn a_node_that_decides_alone_tells_its_part_of_what_is_left() {
    let mut redis = Redis::start();
    redis.stop();
    let own = ConnectionLimits { daily: Some(100), ..slow() };
    let site = Site::start(&redis, HASTY, &own);
    let permit = site.ask(Operation::SendMessage).await.expect("there is enough");
    let drawn = permit.headroom();
    let looked_up = site.limits.headroom(&Subject::Connected(&site.direction), Operation::SendMessage);
    assert_eq!(looked_up, drawn);
    let left = site.limits.left(&Subject::Connected(&site.direction));
    let of = |name| left.iter().find(|left| left.name == name).map(|left| left.remaining);
    let remaining = |room: Option<Room>| room.map(|room| room.remaining);
    assert_eq!((of("work"), of("daily")), (remaining(drawn.bucket), remaining(drawn.day)));
}
