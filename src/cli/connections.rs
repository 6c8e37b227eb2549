//! `connections`: asking, answering, blocking, limiting; `pending` is the inbox.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::{path, query};
use super::failure::Failure;
use super::history;
use super::limits::{Amounts, limits_told, merged};
use super::session::{Session, list, text};
use super::table::{Fit, Table};
use super::time::{When, when};

#[derive(Debug, Subcommand)]
pub(super) enum Connections {
    /// List connections.
    List {
        /// Those of this agent only.
        #[arg(long)]
        agent: Option<String>,
        /// pending, connected, declined, paused, ended, blocked or all; without it, those that are open.
        #[arg(long)]
        status: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u32,
    },
    /// The inbox: who asks to be connected to whom, and why.
    Pending {
        /// Requests to or from this agent only.
        #[arg(long)]
        agent: Option<String>,
    },
    /// Show one connection.
    Show(Name),
    /// Ask for a connection; with --accept an operator makes it at once.
    Request {
        /// Who asks; an agent with its own key leaves it out.
        #[arg(value_names = ["REQUESTER] [TARGET"], num_args = 1..=2, required = true)]
        agents: Vec<String>,
        /// What the target is told.
        #[arg(long)]
        message: Option<String>,
        /// Make it without asking the target (operators).
        #[arg(long)]
        accept: bool,
        #[command(flatten)]
        terms: Terms,
    },
    /// Accept a request.
    Accept(Change),
    /// Decline a request.
    Decline(Change),
    /// Let a connection rest (operators).
    Pause(Change),
    /// Put a paused connection to work again (operators).
    Resume(Change),
    /// End a connection.
    End(Change),
    /// Block: no calls either way, open ones are cut.
    Block(Change),
    /// Lift a block.
    Unblock(Change),
    /// Change what a connection allows (operators).
    Limits(Limits),
    /// Every change of a connection: when, by whom, why.
    History(history::Asked),
}

#[derive(Debug, Args)]
pub(super) struct Name {
    /// The connection: its id, or REQUESTER:TARGET.
    connection: String,
}

#[derive(Debug, Args)]
pub(super) struct Terms {
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    purpose: Option<String>,
    /// An operation it is for, such as SendMessage; may be repeated. Without it, all.
    #[arg(long = "operation", value_name = "NAME")]
    operations: Vec<String>,
    /// When it ends: 90d, 2026-12-31 or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = when)]
    ends: Option<When>,
    /// When to look at it again.
    #[arg(long, value_name = "TIME", value_parser = when)]
    review: Option<When>,
}

#[derive(Debug, Args)]
pub(super) struct Change {
    /// The connection: its id, or REQUESTER:TARGET.
    connection: String,
    /// Why; kept in the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// For an operator: the side it is done for.
    #[arg(long = "for", value_name = "AGENT")]
    side: Option<String>,
    /// When accepting: an operation that is allowed; may be repeated.
    #[arg(long = "operation", value_name = "NAME")]
    operations: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Limits {
    /// The connection: its id, or REQUESTER:TARGET.
    connection: String,
    #[command(flatten)]
    amounts: Amounts,
    /// Back to the limits of the agent or the policy.
    #[arg(long, conflicts_with_all = ["rate", "period", "burst", "daily", "streams"])]
    clear: bool,
    /// Why; kept in the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    terms: Terms,
}

impl Terms {
    fn fill(self, body: &mut Map<String, Value>, session: &Session) {
        let time = |when: Option<When>| when.map(|when| Value::from(when.after(session.now)));
        let operations = Some(self.operations).filter(|list| !list.is_empty()).map(Value::from);
        put(body, "purpose", self.purpose.map(Value::from));
        put(body, "operations", operations);
        put(body, "ends_at", time(self.ends));
        put(body, "review_at", time(self.review));
    }
}

fn put(body: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        body.insert(name.to_owned(), value);
    }
}

pub(super) async fn run(command: Connections, session: &Session) -> Result<(), Failure> {
    match command {
        Connections::List { agent, status, limit } => {
            let parameters = [("agent_id", agent), ("status", status), ("limit", Some(limit.to_string()))];
            let answer = session.client.get(&query("/api/connections", &parameters)).await?;
            if session.raw(&answer)? { Ok(()) } else { table(&answer.json, session) }
        }
        Connections::Pending { agent } => pending(agent, session).await,
        Connections::Show(Name { connection }) => show(&connection, session).await,
        Connections::Request { agents, message, accept, terms } => {
            let mut body = Map::new();
            let (requester, target) = match agents.as_slice() {
                [requester, target, ..] => (Some(requester.clone()), target),
                [target] => (None, target),
                [] => return Err(Failure::usage("name the target")),
            };
            put(&mut body, "requester_id", requester.map(Value::from));
            put(&mut body, "target_id", Some(Value::from(target.clone())));
            put(&mut body, "message", message.map(Value::from));
            put(&mut body, "status", accept.then(|| Value::from("connected")));
            terms.fill(&mut body, session);
            let answer = session.client.post("/api/connections", &Value::Object(body)).await?;
            let pair = pair(&answer.json);
            let next = match answer.json["status"].as_str() {
                Some("pending") => format!("; next: `trust-gateway connections accept {pair}`"),
                _ => String::new(),
            };
            session.done(&answer, &format!("{pair} is {}{next}.", text(&answer.json["status"])))
        }
        Connections::Accept(change) => act("accept", change, session).await,
        Connections::Decline(change) => act("decline", change, session).await,
        Connections::Pause(change) => act("pause", change, session).await,
        Connections::Resume(change) => act("resume", change, session).await,
        Connections::Unblock(change) => act("unblock", change, session).await,
        Connections::End(change) => {
            session.confirm(&format!("The connection {} will end.", change.connection))?;
            act("end", change, session).await
        }
        Connections::Block(change) => {
            session.confirm(&format!("{}: no calls either way, open ones are cut.", change.connection))?;
            act("block", change, session).await
        }
        Connections::Limits(limits) => change_limits(limits, session).await,
        Connections::History(asked) => {
            let name = find(&asked.name, session).await?;
            history::show("connections", history::Asked { name, ..asked }, session).await
        }
    }
}

fn side(row: &Value, side: &str) -> String {
    row[side]["slug"].as_str().or(row[side]["id"].as_str()).unwrap_or("?").to_owned()
}

/// `requester:target`, as commands take it.
pub(super) fn pair(row: &Value) -> String {
    format!("{}:{}", side(row, "requester"), side(row, "target"))
}

fn table(answer: &Value, session: &Session) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("CONNECTION", Fit::Whole),
        ("STATUS", Fit::Whole),
        ("SINCE", Fit::Cut),
        ("PURPOSE", Fit::Spare),
        ("OPERATIONS", Fit::Spare),
        ("ENDS", Fit::Spare),
    ]);
    let rows = list(answer, "connections");
    for row in rows {
        let since = if row["resolved_at"].is_null() { &row["created_at"] } else { &row["resolved_at"] };
        table.row([
            pair(row),
            text(&row["status"]),
            session.time(since),
            text(&row["purpose"]),
            text(&row["operations"]),
            session.time(&row["ends_at"]),
        ]);
    }
    let empty = "No connections. `trust-gateway connections request REQUESTER TARGET` asks for one.";
    session.table(&table, rows.is_empty(), empty)
}

async fn pending(agent: Option<String>, session: &Session) -> Result<(), Failure> {
    let parameters = [("agent_id", agent), ("status", Some("pending".to_owned()))];
    let answer = session.client.get(&query("/api/connections", &parameters)).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let rows = list(&answer.json, "connections");
    if rows.is_empty() {
        return session
            .print("Nobody waits for an answer. `trust-gateway connections list` shows the connections there are.\n");
    }
    for row in rows {
        let operations = if row["operations"].is_null() { "all".to_owned() } else { text(&row["operations"]) };
        session.fields(
            &format!(
                "{} asks for {}, {}",
                side(row, "requester"),
                side(row, "target"),
                session.time(&row["created_at"])
            ),
            &[
                ("message", text(&row["message"])),
                ("purpose", text(&row["purpose"])),
                ("operations", operations),
                ("id", text(&row["id"])),
                ("answer", format!("trust-gateway connections accept {}   (or decline, block)", pair(row))),
            ],
        )?;
        session.print("\n")?;
    }
    Ok(())
}

async fn show(name: &str, session: &Session) -> Result<(), Failure> {
    let id = find(name, session).await?;
    let answer = session.client.get(&path(&["connections", &id])).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let row = &answer.json;
    let by =
        [("requester", "blocked_by_requester"), ("target", "blocked_by_target"), ("operator", "blocked_by_operator")];
    let by: Vec<&str> = by.iter().filter(|(_, member)| row[*member] == true).map(|(name, _)| *name).collect();
    let operations = if row["operations"].is_null() { "all".to_owned() } else { text(&row["operations"]) };
    session.fields(
        &format!("{}: {}", pair(row), text(&row["status"])),
        &[
            ("id", text(&row["id"])),
            ("agreement", text(&row["agreement"])),
            ("blocked by", by.join(", ")),
            ("message", text(&row["message"])),
            ("purpose", text(&row["purpose"])),
            ("operations", operations),
            ("limits", limits_told(&row["limits"])),
            ("asked", session.time(&row["created_at"])),
            ("answered", session.time(&row["resolved_at"])),
            ("ends", session.time(&row["ends_at"])),
            ("review", session.time(&row["review_at"])),
        ],
    )
}

/// The id of the connection that is meant.
async fn find(name: &str, session: &Session) -> Result<String, Failure> {
    if uuid::Uuid::parse_str(name).is_ok() {
        return Ok(name.to_owned());
    }
    let Some((requester, target)) = name.split_once(':').filter(|(a, b)| !a.is_empty() && !b.is_empty()) else {
        return Err(Failure::usage(format!("{name:?} names no connection: write its id, or REQUESTER:TARGET")));
    };
    let all = |agent: Option<&str>, page: u32| {
        let status = ("status", Some("all".to_owned()));
        let limit = ("limit", Some("500".to_owned()));
        query(
            "/api/connections",
            &[("agent_id", agent.map(str::to_owned)), status, limit, ("page", Some(page.to_string()))],
        )
    };
    let mut agent = Some(requester);
    let mut page = 1;
    loop {
        let answer = match session.client.get(&all(agent, page)).await {
            // With an agent's own key its own are asked for, which need no name.
            Err(Failure::Refused { status: 403 | 404, .. }) if agent.is_some() => {
                agent = None;
                continue;
            }
            other => other?,
        };
        let rows = list(&answer.json, "connections");
        let is = |row: &Value, member: &str, name: &str| row[member]["slug"] == name || row[member]["id"] == name;
        if let Some(row) = rows.iter().find(|row| is(row, "requester", requester) && is(row, "target", target)) {
            return Ok(text(&row["id"]));
        }
        if rows.len() < 500 {
            let turned = rows.iter().any(|row| is(row, "requester", target) && is(row, "target", requester));
            let advice = if turned {
                format!("The other one asked: it is {target}:{requester}.")
            } else {
                format!("`trust-gateway connections request {requester} {target}` asks for one.")
            };
            return Err(Failure::NotFound(format!("there is no connection {name}"), vec![advice]));
        }
        page += 1;
    }
}

async fn act(action: &str, change: Change, session: &Session) -> Result<(), Failure> {
    let id = find(&change.connection, session).await?;
    let mut body = Map::new();
    put(&mut body, "action", Some(Value::from(action)));
    put(&mut body, "reason", change.reason.map(Value::from));
    put(&mut body, "agent_id", change.side.map(Value::from));
    put(&mut body, "operations", Some(change.operations).filter(|list| !list.is_empty()).map(Value::from));
    let answer = session.client.patch(&path(&["connections", &id]), &Value::Object(body)).await?;
    session.done(&answer, &format!("{} is {}.", pair(&answer.json), text(&answer.json["status"])))
}

async fn change_limits(asked: Limits, session: &Session) -> Result<(), Failure> {
    let id = find(&asked.connection, session).await?;
    let limits = asked.amounts.members();
    let mut body = Map::new();
    if asked.clear {
        put(&mut body, "limits", Some(Value::Null));
    } else if !limits.is_empty() {
        // The API replaces all limits at once: those that are not named stay as they are.
        let current = session.client.get(&path(&["connections", &id])).await?.json;
        put(&mut body, "limits", Some(merged(&current["limits"], limits)));
    }
    asked.terms.fill(&mut body, session);
    if body.is_empty() {
        return Err(Failure::usage(
            "there is nothing to change: name a limit, such as --rate 10 --period 1m, or --clear",
        ));
    }
    put(&mut body, "reason", asked.reason.map(|reason| json!(reason)));
    let answer = session.client.patch(&path(&["connections", &id]), &Value::Object(body)).await?;
    session.done(&answer, &format!("{} is changed.", pair(&answer.json)))
}
