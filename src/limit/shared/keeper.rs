//! What keeps a node among the others: signs of life, open streams, and the way back.
//!
//! A node that comes back, or finds the server emptied, first tells what its accounts know, then shows itself, and asks the
//! server again only when the others it knew have shown themselves too, or are not seen any more. Runs beside the calls.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, FromRedisValue as _};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};
use uuid::Uuid;

use super::connection::{Connection, Failure, within};
use super::counts::Cause;
use super::node::Node;
use super::script::{Beat, Known, beat, told};
use crate::limit::Limits;
use crate::limit::account::{Draws, Now, Slots};
use crate::limit::key::LimitKey;

/// Between two signs of life.
const BEAT: Duration = Duration::from_millis(250);
/// So many beats after which all open streams are told anew.
const BEATS_PER_ROUND: u32 = 40;
/// Between two looks at whether the others are back.
const LOOK: Duration = Duration::from_millis(50);
/// An instance that was not seen for longer is not waited for, in microseconds of the server's clock; as the scripts have it.
const SEEN_US: u64 = 3_000_000;
/// Accounts that are told together.
const BATCH: usize = 256;
/// A keeper that has nothing else to do waits at least so long for an answer.
const PATIENCE: Duration = Duration::from_millis(250);

/// Keeps a node among the others.
#[derive(Debug)]
pub struct Keeper {
    node: Arc<Node>,
    limits: Arc<Limits>,
    generations: watch::Receiver<u64>,
    /// The instances that shared limits when this one last did.
    others: HashSet<String>,
    /// Accounts with open streams, and those of which it was not told yet that they have none.
    open: HashSet<LimitKey>,
    /// The server was asked what it does when its memory is full.
    looked_at_memory: bool,
}

/// An account as it is, on this node's clock.
struct Seen {
    known: Known,
    cells: [u64; 2],
}

impl Keeper {
    /// A keeper of `limits`, which are shared by `node`.
    #[must_use]
    pub fn new(node: Arc<Node>, limits: Arc<Limits>) -> Self {
        let generations = node.generations();
        Self { node, limits, generations, others: HashSet::new(), open: HashSet::new(), looked_at_memory: false }
    }

    /// Goes on until it is dropped.
    pub async fn run(mut self) {
        loop {
            let generation = *self.generations.borrow_and_update();
            if let Err(failure) = self.keep(generation).await {
                debug!(cause = failure.cause.as_str(), why = failure.why, "the server of shared limits is away");
                self.node.fall(generation, &failure);
            }
            // Not at once: a server that refuses would be asked without end.
            sleep(LOOK).await;
        }
    }

    /// One time among the others, from coming back until something goes wrong or a worker says so.
    async fn keep(&mut self, generation: u64) -> Result<(), Failure> {
        let connection = Connection::open(&self.node.server, self.node.names.scripts()).await?;
        self.look_at_memory(&connection).await;
        let Beat { epoch, now: begun, .. } = self.beat(&connection, None).await?;
        self.tell_all(&connection, &epoch).await?;
        loop {
            let Beat { now, live, .. } = self.beat(&connection, Some(&epoch)).await?;
            // More than were known is worth knowing at once; fewer may be still on their way.
            if live.len() > self.node.nodes() as usize {
                self.node.count(live.len());
            }
            let missing = self.others.iter().any(|other| !live.contains(other));
            if self.node.is_prepared(generation) && (!missing || now.saturating_sub(begun) > SEEN_US) {
                self.met(live);
                break;
            }
            if self.is_over(LOOK).await {
                return Ok(());
            }
        }
        self.node.rise(generation, &epoch);
        for beats in 1u32.. {
            if self.is_over(BEAT).await {
                break;
            }
            let Beat { live, .. } = self.beat(&connection, Some(&epoch)).await?;
            self.met(live);
            self.tell_streams(&connection, &epoch, beats.is_multiple_of(BEATS_PER_ROUND)).await?;
        }
        Ok(())
    }

    /// Waits; whether a worker was let down meanwhile.
    async fn is_over(&mut self, wait: Duration) -> bool {
        timeout(wait, self.generations.changed()).await.is_ok()
    }

    fn met(&mut self, live: Vec<String>) {
        self.node.count(live.len());
        self.others = live.into_iter().collect();
    }

    async fn ask(&self, connection: &Connection, commands: &[Cmd]) -> Result<Vec<redis::Value>, Failure> {
        let patience = self.node.patience.max(PATIENCE);
        within(patience, connection.ask(commands, self.node.names.scripts())).await
    }

    async fn beat(&self, connection: &Connection, told_under: Option<&str>) -> Result<Beat, Failure> {
        let command = self.node.names.beat(told_under, &Uuid::new_v4().simple().to_string());
        let answer = self.ask(connection, &[command]).await?.pop().ok_or(Cause::Failed)?;
        let beat = beat(answer)?;
        match told_under {
            Some(epoch) if epoch != beat.epoch => Err(Cause::Emptied.into()),
            _ => Ok(beat),
        }
    }

    /// Tells what every account knows that a new one would not.
    async fn tell_all(&mut self, connection: &Connection, epoch: &str) -> Result<(), Failure> {
        let limits = Arc::clone(&self.limits);
        let clock = self.node.clock.clone();
        // A million accounts are looked at: not on a thread that answers.
        let look = tokio::task::spawn_blocking(move || seen(&limits, Now::read(&clock)));
        let seen = look.await.map_err(|_| Cause::Failed)?;
        for part in seen.chunks(BATCH) {
            let now = Now::read(&self.node.clock);
            let known: Vec<Known> = part.iter().map(|seen| seen.at(now)).collect();
            self.tell(connection, epoch, &known).await?;
        }
        self.open.extend(seen.iter().filter(|seen| seen.known.slots.count > 0).map(|seen| seen.known.key));
        Ok(())
    }

    /// Tells how many streams are open, where that has changed; now and then of all of them.
    async fn tell_streams(&mut self, connection: &Connection, epoch: &str, all: bool) -> Result<(), Failure> {
        let changed = self.node.changed().take();
        self.open.extend(&changed);
        let keys = if all { self.open.clone() } else { changed };
        let slots = |key: LimitKey| Known { key, slots: self.limits.slots(&key), ..Known::default() };
        let known: Vec<Known> = keys.into_iter().map(slots).collect();
        for part in known.chunks(BATCH) {
            self.tell(connection, epoch, part).await?;
        }
        for Known { key, .. } in known.iter().filter(|known| known.slots.count == 0) {
            self.open.remove(key);
        }
        Ok(())
    }

    async fn tell(&self, connection: &Connection, epoch: &str, known: &[Known]) -> Result<(), Failure> {
        let commands: Vec<Cmd> = known.iter().map(|known| self.node.names.tell(epoch, known)).collect();
        for answer in self.ask(connection, &commands).await? {
            told(answer)?;
        }
        Ok(())
    }

    /// A server that drops keys when its memory is full forgets what callers have used. One that does not say is trusted.
    async fn look_at_memory(&mut self, connection: &Connection) {
        if std::mem::replace(&mut self.looked_at_memory, true) {
            return;
        }
        let mut command = Cmd::new();
        command.arg("CONFIG").arg("GET").arg("maxmemory-policy");
        let Ok(mut answers) = self.ask(connection, &[command]).await else { return };
        let policy = answers.pop().and_then(|answer| <Vec<String>>::from_redis_value(answer).ok()?.pop());
        if let Some(policy) = policy.filter(|policy| policy != "noeviction") {
            warn!(
                policy,
                "the server of shared limits may forget what callers have used when its memory is full; set its maxmemory-policy \
                 to noeviction"
            );
        }
    }
}

/// The accounts that know more than a new one would.
fn seen(limits: &Limits, now: Now) -> Vec<Seen> {
    let mut all = Vec::new();
    limits.each_account(|key, account, bounds| {
        let buckets = [Draws::Work, Draws::Reads];
        // All of it is told, owed or not; what is charged from here on is owed anew.
        let cells = buckets.map(|draws| account.tell(draws).1);
        let slots = account.slots();
        let known = Known { key, slots, used: account.daily(now.day()).used, day: now.day(), ..Known::default() };
        if known.used == 0 && slots == Slots::default() && cells.iter().all(|cell| *cell <= now.nanos) {
            return;
        }
        let shapes = buckets.map(|draws| bounds.bucket(draws).limit.map(|shape| (shape, 0)));
        all.push(Seen { known: Known { buckets: shapes, ..known }, cells });
    });
    all
}

impl Seen {
    /// As it is told at `now`.
    fn at(&self, now: Now) -> Known {
        let mut known = self.known;
        for (bucket, cell) in known.buckets.iter_mut().zip(self.cells) {
            *bucket = bucket.and_then(|(shape, _)| {
                let full_in = cell.saturating_sub(now.nanos).div_ceil(1_000);
                (full_in > 0).then_some((shape, full_in))
            });
        }
        known
    }
}
