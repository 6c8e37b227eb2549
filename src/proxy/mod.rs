//! The path of a call.
//!
//! [`Worker::serve`] is the life of a call, top to bottom; each numbered step is one module, and what a step proved is in the value
//! it hands on. A step that fails yields a [`Refusal`], and there is one place where refusals are recorded and rendered.
//!
//! Decisions come from the [`Directory`]: no database, no file and no name resolution before the call is forwarded. Knows no SQL
//! and no control plane.

mod access;
mod attribution;
mod body;
mod call;
mod card;
pub mod dial;
mod forward;
pub mod headers;
mod holder;
mod live;
mod memory;
mod read;
mod reason;
pub mod refusal;
mod refuse;
pub mod roots;
mod route;
pub mod sign;
mod trace;
mod upstream;

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, header};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::a2a::{Dialect, Operation, envelope};
use crate::audit::journal::WorkerJournal;
use crate::audit::record::{bound, bounded};
use crate::clock::Clock;
use crate::directory::{self, Agent, Directory, LastConfirmed};
use crate::identity::{self, Caller, TrustedProxies};
use crate::limit::shared::Link;
use crate::limit::{Ask, Headroom, Limits, Permit};
use crate::meter::Meter;
use crate::policy::{self, Policy};
use crate::store::rows::{AdminState, PushMode};
use crate::trust::{self, Standing, TrustLevel};

pub use body::{Body, CutShort};
use call::{Call, OpenCount};
use forward::Order;
use holder::Holder;
pub use live::{Cut, Live, Parties, taken_back};
pub use memory::BodyMemory;
use memory::Whose;
pub use read::BodyLimits;
pub use reason::Reason;
use refusal::Refusal;
use route::Surface;
pub use route::is_call;
use trace::Trace;
use upstream::Pools;
pub use upstream::UpstreamTls;

/// What all workers share.
pub struct Shared {
    /// The snapshot in force.
    pub directory: directory::Current,
    /// Whether it can still be gone by.
    pub confirmed: Arc<LastConfirmed>,
    /// Buckets, quotas and slots.
    pub limits: Arc<Limits>,
    /// The policy in force.
    pub policy: Arc<ArcSwap<Policy>>,
    /// The time.
    pub clock: Clock,
    /// What can change while the gateway runs.
    pub settings: Arc<ArcSwap<Settings>>,
    /// What callers' bodies may take of this node's memory.
    pub body_memory: BodyMemory,
    /// How this node calls itself in `Via`.
    pub pseudonym: String,
}

/// Settings of the path that can change while the gateway runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose word about their clients' addresses is taken.
    pub trusted_proxies: TrustedProxies,
    /// What a request's body may cost.
    pub body: BodyLimits,
    /// Whether the caller's `Accept-Encoding` reaches the agent.
    pub pass_accept_encoding: bool,
    /// Whether answers tell what is left in the older `X-RateLimit-*` fields, too.
    pub x_ratelimit: bool,
}

/// Among an answer's extensions: the caller may still be sending its request's body, and nobody will read it.
#[derive(Clone, Copy, Debug)]
pub struct BodyUnread;

/// The other end of a caller's connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address, as the socket says.
    pub address: IpAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
}

/// One worker's share of the path: everything a call needs, held by the worker's own thread.
pub struct Worker {
    shared: Arc<Shared>,
    journal: Arc<WorkerJournal>,
    pools: Pools,
    live: Arc<Live>,
    meter: Arc<Meter>,
    open_calls: Arc<AtomicUsize>,
    /// Where limits are shared with other nodes.
    link: Option<Arc<Link>>,
}

impl Worker {
    /// A worker without connections yet; idle ones to agents are closed after `pool_idle`. With a `link`, limits are shared.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        journal: Arc<WorkerJournal>,
        tls: UpstreamTls,
        pool_idle: Duration,
        link: Option<Arc<Link>>,
    ) -> Self {
        let pools = Pools::new(tls, pool_idle);
        let (live, meter, open_calls) = (Arc::default(), Arc::default(), Arc::default());
        Self { shared, journal, pools, live, meter, open_calls, link }
    }

    /// Its journal, whose flusher it runs.
    #[must_use]
    pub fn journal(&self) -> &Arc<WorkerJournal> {
        &self.journal
    }

    /// The calls it is forwarding.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// What it has counted.
    #[must_use]
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Its way to the limits shared with other nodes, which it runs.
    #[must_use]
    pub fn link(&self) -> Option<&Arc<Link>> {
        self.link.as_ref()
    }

    /// How many calls it has open.
    #[must_use]
    pub fn open_calls(&self) -> &Arc<AtomicUsize> {
        &self.open_calls
    }

    /// Lets go of what is kept for agents that no longer exist.
    pub fn forget(&self, directory: &Directory) {
        self.pools.retain(|id| directory.agent(id).is_some());
        self.meter.retain(|id| directory.agent(id).is_some());
    }

    /// Answers one call, whatever comes of it. Dropping the future records the call as far as it came.
    pub async fn serve(&self, peer: &Peer, request: Request<Incoming>) -> Response<Body> {
        let (head, mut body) = request.into_parts();
        let settings = self.shared.settings.load_full();
        let source = identity::source_address(peer.address, &head.headers, &settings.trusted_proxies);
        let open = OpenCount::enter(&self.open_calls);
        let mut call = Call::arrive(&self.shared.clock, &self.journal, &self.meter, open, source);
        match self.path(&mut call, peer, &settings, &head, &mut body).await {
            Ok(response) => response,
            Err(refusal) => {
                let mut response = self.refuse(call, refusal, &settings, &head, &mut body).await;
                if !body.is_end_stream() {
                    response.extensions_mut().insert(BodyUnread);
                }
                response
            }
        }
    }

    /// The path. What fails before the record is open is a refusal; from then on every end is the record's own.
    async fn path(
        &self,
        call: &mut Call,
        peer: &Peer,
        settings: &Settings,
        head: &Parts,
        body: &mut Incoming,
    ) -> Result<Response<Body>, Refusal> {
        let directory = self.shared.directory.load_full();
        let policy = self.shared.policy.load_full();
        call.intent.policy_digest = Some(policy.digest.clone());

        // Hygiene first: what cannot be read safely is not interpreted at all.
        headers::check(head.version, &head.uri, &head.headers)?;

        // 2. Route, 3. identify, 4. classify.
        let asked = route::split(&head.uri)?;
        let mut known = self.know(call, head, asked, &directory)?;
        // Where records have little room left, those trusted least go first. After classify, which tells who that is; before the
        // body is read and a unit charged, since it is not the caller's fault.
        self.journal.admits(call.intent.trust_level)?;
        if let Surface::Card = known.surface {
            return self.card(call, &known.target, settings, head).await;
        }

        // 5. Read: the whole body, bounded, and one borrowed look at it.
        check_content_type(&known.surface, head)?;
        let place = self.shared.body_memory.place(Whose::of(&known.caller, call.source()));
        let read = read::whole(body, head.version, &settings.body, place).await?;
        let bytes = &read.bytes;
        call.request_bytes = bytes.len() as u64;
        // Reading takes as long as the caller likes: what was taken back meanwhile, or cannot be looked up any more, is no longer
        // this caller's.
        let latest = self.shared.directory.load_full();
        if !Arc::ptr_eq(&latest, &directory) || self.shared.confirmed.is_stale() {
            // A refusal from here on still echoes the id.
            call.intent.rpc_id = envelope::find_id(bytes).and_then(|id| id.as_json().map(Into::into));
            known = self.know(call, head, asked, &latest)?;
        }
        let Known { surface, caller, standing, target } = known;
        let inline_push = look(call, &surface, bytes)?;

        // 6. Authorize.
        policy::authorize(&policy, call.intent.trust_level)?;
        let agreed = standing.connection().and_then(|connection| connection.operations_towards(target.id));
        policy::agreed(call.intent.operation, agreed)?;
        let push = inline_push || call.intent.operation.is_push_config();
        if push && target.push == PushMode::Refuse {
            return Err(Reason::PushRefused.into());
        }
        if call.intent.operation == Operation::GetExtendedAgentCard {
            return Err(Reason::ExtendedCard.into());
        }
        let endpoint = in_service(&target)?;

        // An agent that does not answer is left alone for a while: a refusal for that costs the caller nothing.
        let passage = target.vitals.breaker.enter(&self.shared.clock)?;

        // 7. Admit: after this the caller has paid.
        let permit = self.admit(call, &target).await?;

        // A trace that begins here is found by its row, as one that the caller began.
        let trace = Trace::of(&head.headers);
        call.intent.trace_id = Some(trace.id().to_string().into());

        // 8. Open the record. Nothing is forwarded before its intent is in the journal.
        let headroom = self.left(call, permit.headroom());
        let (mut open, written) = call.open(&permit)?;
        if let Err(down) = written.await {
            open.not_forwarded();
            return Err(down.into());
        }

        // 9. Forward, 10. answer, 11. close the record: from here on the record knows its end.
        let parties = parties(&caller, &standing, &target, call.intent.operation);
        let entered = self.live.enter(call.intent.request_id, parties, permit);
        // A change of the directory since it was looked at has not found this call among the live ones; one from now on does.
        if let Some(cut) = taken_back(&self.shared.directory.load(), &parties, self.shared.clock.wall()) {
            entered.tap.cut(cut);
        }
        open.entered = Some(entered);
        open.vitals = Some(Arc::clone(&target.vitals));
        let order = Order {
            intent: &call.intent,
            caller: &caller,
            target: &target,
            endpoint,
            head,
            rest: if matches!(surface, Surface::Rpc) { "" } else { asked.rest },
            peer,
            settings,
            body: bytes.clone(),
            headroom,
            trace,
        };
        Ok(self.forward(open, passage, order).await)
    }

    /// Steps 2 to 4: what is asked of whom, by whom, and what that caller is to that agent.
    fn know<'a>(
        &self,
        call: &mut Call,
        head: &Parts,
        asked: route::Reference<'a>,
        directory: &Directory,
    ) -> Result<Known<'a>, Refusal> {
        let now = call.intent.called_at;
        call.holder = None;
        // "Nobody there" is told only after the caller is known, so that it looks like "not for you".
        let target = directory.find(asked.agent).filter(|agent| agent.state != AdminState::Pending);
        let surface = route::surface(&head.method, asked.rest, target.map(|agent| &**agent));
        note_route(call, head, asked.rest, &surface, target);

        // Before the loop guard and everything else that costs more than a hash.
        let caller = identity::identify(&head.headers, directory, now)?;
        note_caller(call, &caller);

        let standing = trust::classify(directory, &caller, target.map(|agent| &**agent), now);
        call.intent.trust_level = standing.level();
        call.intent.connection_id = standing.connection().map(|connection| connection.id);
        if asked.agent == route::WELL_KNOWN {
            return Err(Reason::BaseUrlWithoutSlash.into());
        }
        let target = Arc::clone(visible(target, &standing, &caller)?);
        // What two agents have agreed is still so; what strangers may do could have changed while nobody could read it.
        if self.shared.confirmed.is_stale() && standing.connection().is_none() {
            return Err(Reason::DirectoryStale.into());
        }
        // Not before: that an agent which is hidden has limits would tell that it exists.
        call.holder = Holder::of(&standing, &caller, target.id, call.source());
        if headers::loops(&head.headers, &self.shared.pseudonym) {
            return Err(Reason::Loop.into());
        }
        match surface {
            Surface::WrongMethod { allow } => Err(Reason::MethodNotAllowed { allow }.into()),
            Surface::Nothing => Err(Reason::PathNotFound.into()),
            Surface::Card | Surface::Rpc | Surface::Rest { .. } | Surface::Listed => {
                Ok(Known { surface, caller, standing, target })
            }
        }
    }

    async fn admit(&self, call: &Call, target: &Agent) -> Result<Permit, Refusal> {
        // Only the blocked have none, and they have been refused.
        let holder = call.holder.as_ref().ok_or(Reason::Blocked)?;
        let ask = Ask { subject: holder.subject(), operation: call.intent.operation, agent: &target.gate };
        let limits = &self.shared.limits;
        Ok(match &self.link {
            Some(link) => limits.admit_shared(&ask, link).await?,
            None => limits.admit(&ask)?,
        })
    }

    /// What a call's answer tells of what is left: what it drew on, or else what a known caller has left of its own.
    fn left(&self, call: &Call, drawn: Headroom) -> Headroom {
        match &call.holder {
            Some(holder) if drawn.is_empty() && holder.is_known() => {
                self.shared.limits.headroom(&holder.subject(), call.intent.operation)
            }
            _ => drawn,
        }
    }
}

/// What is known of a call before its body is read.
struct Known<'a> {
    surface: Surface<'a>,
    caller: Caller,
    standing: Standing,
    target: Arc<Agent>,
}

fn note_route(call: &mut Call, head: &Parts, rest: &str, surface: &Surface<'_>, target: Option<&Arc<Agent>>) {
    let intent = &mut call.intent;
    intent.target_agent_id = target.map(|agent| agent.id);
    intent.binding = surface.binding();
    intent.protocol_version = head
        .headers
        .get("a2a-version")
        .and_then(|value| value.to_str().ok())
        .map(|version| bounded(version, bound::WORD));
    intent.trace_id = Trace::continued(&head.headers).map(|trace| trace.id().to_string().into());
    match surface {
        Surface::Card => intent.operation = Operation::GetAgentCard,
        Surface::Rest { operation, task_id } => {
            intent.operation = *operation;
            intent.task_id = task_id.map(|id| bounded(id, bound::ID));
        }
        _ => {}
    }
    if !matches!(surface, Surface::Rpc) {
        intent.method = Some(bounded(&format!("{} {}", head.method, rest), bound::METHOD));
    }
}

fn note_caller(call: &mut Call, caller: &Caller) {
    call.intent.caller_agent_id = caller.agent_id();
    call.intent.credential_id = caller.credential_id();
    call.intent.auth_method = caller.auth_method();
    if let Caller::Agent(_) = caller {
        call.intent.trust_level = TrustLevel::Verified;
    }
}

/// The target, if this caller may know of it: a listed agent, or one it is connected with, or itself.
fn visible<'a>(
    target: Option<&'a Arc<Agent>>,
    standing: &Standing,
    caller: &Caller,
) -> Result<&'a Arc<Agent>, Refusal> {
    let target = target.ok_or(Reason::AgentNotFound)?;
    let itself = caller.agent_id() == Some(target.id);
    match standing {
        Standing::Connected(_) => Ok(target),
        Standing::Blocked(_) if target.listed => Err(Reason::Blocked.into()),
        Standing::Verified | Standing::Unverified if target.listed || itself => Ok(target),
        _ => Err(Reason::AgentNotFound.into()),
    }
}

/// The endpoint of an agent that takes calls.
fn in_service(target: &Agent) -> Result<&Arc<directory::Endpoint>, Refusal> {
    match (&target.endpoint, target.state) {
        (Some(endpoint), AdminState::Active) => Ok(endpoint),
        (None, _) => Err(Reason::AgentNotFound.into()),
        _ => Err(Reason::AgentDisabled.into()),
    }
}

/// A JSON-RPC or REST body is JSON; what a listed path takes is the agent's business.
fn check_content_type(surface: &Surface<'_>, head: &Parts) -> Result<(), Refusal> {
    let Some(value) = head.headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    if matches!(surface, Surface::Listed) {
        return Ok(());
    }
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || essence.ends_with("+json") { Ok(()) } else { Err(Reason::ContentType.into()) }
}

/// One borrowed look at the body: fills in what the record needs, and says whether a push configuration rides along.
fn look(call: &mut Call, surface: &Surface<'_>, body: &Bytes) -> Result<bool, Refusal> {
    let intent = &mut call.intent;
    let id = |text: &str| bounded(text, bound::ID);
    match surface {
        Surface::Rpc => {
            let seen = envelope::look(body)?;
            intent.operation = seen.operation();
            intent.method = Some(bounded(&seen.method, bound::METHOD));
            intent.rpc_id = seen.id.as_json().map(Into::into);
            intent.task_id = seen.task_id.as_deref().map(id);
            intent.context_id = seen.context_id.as_deref().map(id);
            intent.message_id = seen.message_id.as_deref().map(id);
            Ok(seen.inline_push)
        }
        Surface::Rest { .. } if !body.is_empty() => {
            let seen = envelope::look_rest(body)?;
            intent.rpc_id = seen.id.as_json().map(Into::into);
            if intent.task_id.is_none() {
                intent.task_id = seen.task_id.as_deref().map(id);
            }
            intent.context_id = seen.context_id.as_deref().map(id);
            intent.message_id = seen.message_id.as_deref().map(id);
            Ok(seen.inline_push)
        }
        _ => Ok(false),
    }
}

/// Which generation of A2A the caller speaks; decides the form of what the gateway itself says in a stream.
fn dialect(head: &Parts, method: Option<&str>) -> Dialect {
    match method {
        Some(method) if !method.contains(' ') => Dialect::of_method(method),
        _ => Dialect::of_rest_path(head.uri.path()),
    }
}

fn parties(caller: &Caller, standing: &Standing, target: &Agent, operation: Operation) -> Parties {
    Parties {
        caller: caller.agent_id(),
        credential: caller.credential_id(),
        target: target.id,
        connected_for: matches!(standing, Standing::Connected(_)).then_some(operation),
    }
}

/// Lets every task that is ready now run once, without a turn of the event loop.
async fn again() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
