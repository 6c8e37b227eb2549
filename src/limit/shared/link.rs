//! A worker's way to the server: the calls of one moment go out together, on one connection.
//!
//! A call leaves what it holds with its question. What comes back is entered in the account and handed to whoever waits; if
//! nobody does any more, what was held goes back by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep};

use super::connection::{Connection, Failure, within};
use super::counts::Cause;
use super::node::Node;
use super::script::{Answer, Question, answer};
use crate::limit::account::{Draws, Now};
use crate::limit::permit::Hold;

/// Questions that go out together.
const BATCH: usize = 128;
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(100);

/// A call's question, and what it holds until it is answered.
#[derive(Debug)]
pub(in crate::limit) struct Order {
    pub(super) question: Question,
    pub(super) hold: Hold,
}

impl Order {
    /// Enters what the server knows in the node's own account.
    fn learn(&self, answer: &Answer, now: Now) {
        let Question { draws, shape, units, .. } = self.question;
        if units == 0 {
            return;
        }
        let cell = now.nanos.saturating_add(answer.full_in.saturating_mul(1_000));
        self.hold.account_and_bounds(|account, bounds| {
            // The limits may have changed since it was asked.
            account.raise_cell(draws, bounds.shape(draws).carry(shape, cell, now.nanos));
            if draws == Draws::Work {
                account.raise_daily(day_of(answer.now), answer.used);
            }
        });
    }

    /// Takes back that what the node charged alone is told with this question.
    fn untold(&self) {
        if self.question.owed {
            self.hold.account(|account| account.owe(self.question.draws));
        }
    }
}

/// The UTC day of an instant of the server's clock.
pub(super) fn day_of(micros: i64) -> u32 {
    u32::try_from(micros.div_euclid(86_400_000_000).max(0)).unwrap_or(u32::MAX)
}

type Decided = Result<(Order, Answer), Cause>;

#[derive(Debug)]
struct Waiting {
    order: Order,
    tell: oneshot::Sender<Decided>,
}

/// A worker's way to the server.
#[derive(Debug)]
pub struct Link {
    pub(super) node: Arc<Node>,
    number: usize,
    orders: mpsc::UnboundedSender<Waiting>,
    inbox: Mutex<Option<mpsc::UnboundedReceiver<Waiting>>>,
}

impl Link {
    pub(super) fn new(node: Arc<Node>, number: usize) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        Self { node, number, orders, inbox: Mutex::new(Some(inbox)) }
    }

    /// What the server decides.
    pub(super) async fn decide(&self, order: Order) -> Decided {
        let (tell, told) = oneshot::channel();
        if let Err(mpsc::error::SendError(waiting)) = self.orders.send(Waiting { order, tell }) {
            waiting.order.untold();
            return Err(Cause::Unreachable);
        }
        told.await.unwrap_or(Err(Cause::Unreachable))
    }

    /// Connects whenever the server has let the node down, and asks what there is to ask. To be run once, on the worker's own
    /// runtime; goes on until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut orders) = inbox else { return };
        let node = &self.node;
        let mut generations = node.generations();
        let mut waiting = Vec::with_capacity(BATCH);
        let mut batches = JoinSet::new();
        loop {
            let generation = *generations.borrow_and_update();
            // Before the next connection: nobody waits on the one before any longer.
            batches.shutdown().await;
            let connection = tokio::select! {
                connection = connect(node) => Arc::new(connection),
                _ = generations.changed() => continue,
                more = orders.recv_many(&mut waiting, BATCH) => {
                    if more == 0 {
                        return;
                    }
                    // Asked while the server was thought to be there.
                    waiting.drain(..).for_each(|waiting| give_up(waiting, Cause::Unreachable));
                    continue;
                }
            };
            node.linked(self.number, generation);
            loop {
                tokio::select! {
                    biased;
                    _ = generations.changed() => break,
                    more = orders.recv_many(&mut waiting, BATCH) => {
                        if more == 0 {
                            return;
                        }
                        // Calls that are ready now join.
                        yield_now().await;
                        while waiting.len() < BATCH && let Ok(late) = orders.try_recv() {
                            waiting.push(late);
                        }
                        let waiting = std::mem::take(&mut waiting);
                        let batch = Batch { node: Arc::clone(node), waiting };
                        batches.spawn(batch.ask(Arc::clone(&connection), generation));
                    }
                    _ = batches.join_next(), if !batches.is_empty() => {}
                }
            }
        }
    }
}

async fn connect(node: &Node) -> Connection {
    loop {
        if let Ok(connection) = Connection::open(&node.server, node.names.scripts()).await {
            return connection;
        }
        sleep(RETRY).await;
    }
}

/// Calls that are asked about together. Given up as a whole when it is dropped unanswered.
struct Batch {
    node: Arc<Node>,
    waiting: Vec<Waiting>,
}

impl Batch {
    async fn ask(mut self, connection: Arc<Connection>, generation: u64) {
        let begun = Instant::now();
        match self.answers(&connection).await {
            Ok(answers) => {
                self.node.counts.shared(answers.len() as u64, begun.elapsed());
                let now = Now::read(&self.node.clock);
                for (Waiting { order, tell }, answer) in self.waiting.drain(..).zip(answers) {
                    order.learn(&answer, now);
                    // Nobody waits any more: dropped with the order, and everything it holds.
                    let _ = tell.send(Ok((order, answer)));
                }
            }
            Err(failure) => {
                self.node.fall(generation, &failure);
                self.waiting.drain(..).for_each(|waiting| give_up(waiting, failure.cause));
            }
        }
    }

    async fn answers(&self, connection: &Connection) -> Result<Vec<Answer>, Failure> {
        let (node, names) = (&self.node, &self.node.names);
        let epoch = node.epoch().as_ref().map(Arc::clone).ok_or(Cause::Unreachable)?;
        let ask = |waiting: &Waiting| names.admit(&names.admit, &epoch, &waiting.order.question);
        let commands: Vec<_> = self.waiting.iter().map(ask).collect();
        let answers = within(node.patience, connection.ask(&commands, names.scripts())).await?;
        Ok(answers.into_iter().map(answer).collect::<Result<_, _>>()?)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.waiting.drain(..).for_each(|waiting| give_up(waiting, Cause::Unreachable));
    }
}

fn give_up(Waiting { order, tell }: Waiting, cause: Cause) {
    order.untold();
    drop(order);
    let _ = tell.send(Err(cause));
}
