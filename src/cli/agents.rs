//! `agents`: registering, finding, changing agents.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::{path, query};
use super::failure::Failure;
use super::history;
use super::session::{Session, contents, list, text};
use super::table::{Fit, Table};
use super::time::api_duration;
use super::{agent_limits, cards};

#[derive(Debug, Subcommand)]
pub(super) enum Agents {
    /// List agents.
    List(Filter),
    /// Find agents that can be called, by what they do.
    Find(Filter),
    /// Show one agent.
    Show(Name),
    /// Register an agent, or without --endpoint a client that only calls.
    Register(Register),
    /// Approve a registration that waits.
    Approve(Name),
    /// Reject a registration that waits.
    Reject(WithReason),
    /// Change an agent.
    Update(Update),
    /// Change what calls cost at an agent, and what each level's callers may do there (operators).
    Limits(agent_limits::Asked),
    /// Take an agent out of service.
    Disable(Name),
    /// Put an agent back into service.
    Enable(Name),
    /// Delete an agent, its keys and connections; the call log keeps its name.
    Delete(WithReason),
    /// Ask the agent now whether it is there and takes the gateway's credential.
    Probe(Name),
    /// Make a new signing secret, which the agent checks the gateway's calls with.
    RotateSecret(RotateSecret),
    /// The credential that the gateway shows to the agent.
    #[command(subcommand)]
    Credential(Credential),
    /// The card served for the agent, and a changed one that is held.
    #[command(subcommand)]
    Card(cards::Card),
    /// Every change of an agent: when, by whom, why.
    History(history::Asked),
}

#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Words in name, description, slug or skills.
    text: Vec<String>,
    /// A skill's id or name.
    #[arg(long)]
    skill: Option<String>,
    /// A skill's tag.
    #[arg(long)]
    tag: Option<String>,
    /// online, offline or unknown.
    #[arg(long, value_name = "HEALTH")]
    status: Option<String>,
    /// Who provides it.
    #[arg(long)]
    provider: Option<String>,
    /// pending, active or disabled (operators).
    #[arg(long)]
    state: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: u32,
    /// Which part of a longer list.
    #[arg(long, default_value_t = 1, value_name = "N")]
    page: u32,
}

#[derive(Debug, Args)]
pub(super) struct Name {
    /// The agent's slug or id.
    agent: String,
}

#[derive(Debug, Args)]
pub(super) struct WithReason {
    /// The agent's slug or id.
    pub(super) agent: String,
    /// Why; kept in the history.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Register {
    /// The slug it is called by; without it, made from the name.
    slug: Option<String>,
    /// An agent card or registration as JSON; - reads standard input.
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    /// The agent's slug or id.
    agent: String,
    /// A new slug; the old one goes on leading to it.
    #[arg(long)]
    slug: Option<String>,
    /// Members to change, as JSON; - reads standard input.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, Args)]
struct Form {
    /// Its name for people.
    #[arg(long)]
    name: Option<String>,
    /// What it does.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Where it listens, as the gateway reaches it.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Where its card is, if not at the usual place.
    #[arg(long, value_name = "URL")]
    card_url: Option<String>,
    /// Who provides it.
    #[arg(long)]
    provider: Option<String>,
    /// A skill by its name; may be repeated.
    #[arg(long = "skill", value_name = "NAME")]
    skills: Vec<String>,
    /// Whether strangers find it: true or false.
    #[arg(long, value_name = "BOOL")]
    listed: Option<bool>,
    /// Whether it accepts every request for a connection: true or false.
    #[arg(long, value_name = "BOOL")]
    auto_accept: Option<bool>,
    /// How many calls it takes at once.
    #[arg(long, value_name = "N")]
    max_in_flight: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct RotateSecret {
    /// The agent's slug or id.
    agent: String,
    /// When the new one takes over, such as 10m: time to give it to the agent.
    #[arg(long, value_name = "DURATION", value_parser = api_duration)]
    activate_after: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Credential {
    /// Set it, from a file or standard input; it is never shown again.
    Set {
        /// The agent's slug or id.
        agent: String,
        /// The header it travels in; without it, Authorization: Bearer.
        #[arg(long, value_name = "NAME")]
        header: Option<String>,
        /// The file that holds it; - reads standard input.
        #[arg(long, value_name = "FILE", default_value = "-")]
        from: PathBuf,
    },
    /// Take it away.
    Clear(Name),
}

pub(super) async fn run(command: Agents, session: &Session) -> Result<(), Failure> {
    match command {
        Agents::List(filter) => show_list(filter, session, "/api/agents").await,
        Agents::Find(filter) => show_list(filter, session, "/api/agents/find").await,
        Agents::Show(Name { agent }) => show(&agent, session).await,
        Agents::Register(form) => register(form, session).await,
        Agents::Approve(Name { agent }) => {
            state(&agent, "active", "approved: it can call and be called", session).await
        }
        Agents::Disable(Name { agent }) => state(&agent, "disabled", "out of service", session).await,
        Agents::Enable(Name { agent }) => state(&agent, "active", "in service", session).await,
        Agents::Reject(asked) => {
            session.confirm(&format!("The registration of {} will be deleted.", asked.agent))?;
            delete(asked, "rejected", session).await
        }
        Agents::Delete(asked) => {
            session.confirm(&format!("The agent {} will be deleted, its keys and connections end.", asked.agent))?;
            delete(asked, "deleted", session).await
        }
        Agents::Update(update) => {
            let mut body = match &update.from {
                Some(file) => object(file)?,
                None => Map::new(),
            };
            update.form.fill(&mut body);
            insert(&mut body, "slug", update.slug.map(Value::from));
            if body.is_empty() {
                return Err(Failure::usage("there is nothing to change: `agents update --help` lists what can be"));
            }
            let answer = session.client.patch(&path(&["agents", &update.agent]), &Value::Object(body)).await?;
            session.done(&answer, &format!("{} is changed.", text(&answer.json["slug"])))
        }
        Agents::Limits(asked) => agent_limits::run(asked, session).await,
        Agents::Probe(Name { agent }) => cards::probe(&agent, session).await,
        Agents::RotateSecret(asked) => rotate_secret(asked, session).await,
        Agents::Credential(command) => credential(command, session).await,
        Agents::Card(command) => cards::run(command, session).await,
        Agents::History(asked) => history::show("agents", asked, session).await,
    }
}

async fn show_list(filter: Filter, session: &Session, endpoint: &str) -> Result<(), Failure> {
    let words = Some(filter.text.join(" ")).filter(|words| !words.is_empty());
    let filtered = words.is_some() || filter.skill.is_some() || filter.tag.is_some() || filter.status.is_some();
    let filtered = filtered || filter.provider.is_some() || filter.state.is_some();
    let waiting = filter.state.as_deref() == Some("pending");
    let parameters = [
        ("q", words),
        ("skill", filter.skill),
        ("tag", filter.tag),
        ("status", filter.status),
        ("provider", filter.provider),
        ("state", filter.state),
        ("limit", Some(filter.limit.to_string())),
        ("page", Some(filter.page.to_string()).filter(|page| page != "1")),
    ];
    let answer = session.client.get(&query(endpoint, &parameters)).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let rows = list(&answer.json, "agents");
    let mut table = Table::new(&[
        ("AGENT", Fit::Whole),
        ("HEALTH", Fit::Cut),
        ("STATE", Fit::Spare),
        ("NAME", Fit::Cut),
        ("SKILLS", Fit::Cut),
        ("CONNECTED", Fit::Spare),
        ("PROVIDER", Fit::Spare),
    ]);
    for row in rows {
        let state = if row["client"] == true { "client".to_owned() } else { text(&row["state"]) };
        let health = if row["client"] == true { "-".to_owned() } else { text(&row["health_status"]) };
        let connected = row.get("connections_count").or(row.get("connections")).unwrap_or(&Value::Null);
        table.row([
            text(&row["slug"]),
            health,
            state,
            text(&row["name"]),
            skills(row),
            text(connected),
            text(&row["provider"]),
        ]);
    }
    let empty = if waiting {
        "No registration waits for approval."
    } else if filtered {
        "No agent matches. `trust-gateway agents list` shows all."
    } else {
        "No agents yet. `trust-gateway agents register SLUG --endpoint URL` registers one."
    };
    session.table(&table, rows.is_empty(), empty)?;
    let total = answer.json["total"].as_u64().unwrap_or(0);
    if total > rows.len() as u64 && !rows.is_empty() {
        session.note(&format!("{} of {total}; --page {} shows more.", rows.len(), filter.page + 1));
    }
    Ok(())
}

fn skills(row: &Value) -> String {
    let name = |skill: &Value| skill["name"].as_str().or(skill["id"].as_str()).map(str::to_owned);
    list(row, "skills").iter().filter_map(name).collect::<Vec<_>>().join(", ")
}

async fn show(agent: &str, session: &Session) -> Result<(), Failure> {
    let answer = session.client.get(&path(&["agents", agent])).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let row = &answer.json;
    let (client, held) = (row["client"] == true, row["card_state"] == "held");
    let mut health = text(&row["health_status"]);
    if let Some(reason) = row["health_reason"].as_str() {
        health.push_str(&format!(" ({reason})"));
    }
    let checked = session.time(&row["health_checked_at"]);
    if !checked.is_empty() {
        health.push_str(&format!(", seen {checked}"));
    }
    session.fields(
        &format!("{} - {}", text(&row["slug"]), text(&row["name"])),
        &[
            ("id", text(&row["id"])),
            ("what", if client { "a client: it calls and is never called".to_owned() } else { String::new() }),
            ("description", text(&row["description"])),
            ("provider", text(&row["provider"])),
            ("state", text(&row["state"])),
            ("health", if client { String::new() } else { health }),
            ("call it at", text(&row["url"])),
            ("listens at", text(&row["endpoint_url"])),
            ("skills", skills(row)),
            ("limits", if row["limits"].is_null() { String::new() } else { agent_limits::told(&row["limits"]) }),
            ("listed", text(&row["listed"])),
            ("auto-accept", text(&row["auto_accept_connections"])),
            ("card", if held { "a changed one is HELD".to_owned() } else { String::new() }),
            ("next", if held { format!("trust-gateway agents card show {agent} --held") } else { String::new() }),
            ("credential", if row["has_upstream_credential"] == true { "set".to_owned() } else { String::new() }),
            ("connections", text(&row["connections_count"])),
            ("registered", session.time(&row["created_at"])),
            ("changed", session.time(&row["updated_at"])),
        ],
    )
}

impl Form {
    fn fill(self, body: &mut Map<String, Value>) {
        insert(body, "name", self.name.map(Value::from));
        insert(body, "description", self.description.map(Value::from));
        insert(body, "endpoint_url", self.endpoint.map(Value::from));
        insert(body, "card_url", self.card_url.map(Value::from));
        insert(body, "provider", self.provider.map(Value::from));
        let skills = Some(self.skills).filter(|skills| !skills.is_empty());
        insert(body, "skills", skills.map(Value::from));
        insert(body, "listed", self.listed.map(Value::from));
        insert(body, "auto_accept_connections", self.auto_accept.map(Value::from));
        insert(body, "max_in_flight", self.max_in_flight.map(Value::from));
    }
}

fn insert(body: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        body.insert(name.to_owned(), value);
    }
}

fn object(file: &Path) -> Result<Map<String, Value>, Failure> {
    match serde_json::from_str(&contents(file)?) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Failure::usage(format!("{} must hold a JSON object", file.display()))),
        Err(error) => Err(Failure::usage(format!("{} is not JSON: {error}", file.display()))),
    }
}

async fn register(asked: Register, session: &Session) -> Result<(), Failure> {
    let mut body = match &asked.card {
        Some(file) => object(file)?,
        None => Map::new(),
    };
    asked.form.fill(&mut body);
    insert(&mut body, "slug", asked.slug.clone().map(Value::from));
    if !body.contains_key("name") {
        let Some(slug) = asked.slug else {
            return Err(Failure::usage("name it: `agents register SLUG --endpoint URL`, or --name, or --card FILE"));
        };
        body.insert("name".to_owned(), Value::from(slug));
    }
    let answer = session.client.post("/api/agents", &Value::Object(body)).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let row = &answer.json;
    let slug = text(&row["slug"]);
    session.note(&format!("Registered {slug} ({}).", text(&row["id"])));
    session.secret("API key", &row["api_key"])?;
    // A client is called by nobody: a script that registers one takes its key alone.
    if row["client"] == true {
        session.note(&format!(
            "Next: `trust-gateway connections request {slug} TARGET --accept` connects it to an agent."
        ));
        return Ok(());
    }
    session.secret("Signing secret, for the agent to check calls with", &row["signing_secret"])?;
    if row["state"] == "pending" {
        session.note("An operator must approve it before it calls or is called.");
    } else {
        session.note(&format!("Call it at {}", text(&row["url"])));
    }
    Ok(())
}

async fn state(agent: &str, state: &str, done: &str, session: &Session) -> Result<(), Failure> {
    let answer = session.client.patch(&path(&["agents", agent]), &json!({"state": state})).await?;
    session.done(&answer, &format!("{} is {done}.", text(&answer.json["slug"])))
}

async fn delete(asked: WithReason, done: &str, session: &Session) -> Result<(), Failure> {
    let body = asked.reason.map(|reason| json!({"reason": reason}));
    let answer = session.client.delete(&path(&["agents", &asked.agent]), body.as_ref()).await?;
    session.done(&answer, &format!("{} is {done}.", asked.agent))
}

async fn rotate_secret(asked: RotateSecret, session: &Session) -> Result<(), Failure> {
    if asked.activate_after.is_none() {
        session.confirm(&format!(
            "{} will be signed to with a new secret at once, and refuse calls until it knows it; --activate-after 10m leaves time.",
            asked.agent
        ))?;
    }
    let body = asked.activate_after.map_or(json!({}), |after| json!({"activate_after": after}));
    let answer = session.client.post(&path(&["agents", &asked.agent, "signing-secret"]), &body).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    session.secret("Signing secret", &answer.json["signing_secret"])?;
    session.note(&format!("It signs from {} on.", session.time(&answer.json["active_from"])));
    Ok(())
}

async fn credential(command: Credential, session: &Session) -> Result<(), Failure> {
    match command {
        Credential::Set { agent, header, from } => {
            let secret = contents(&from)?.trim().to_owned();
            if secret.is_empty() {
                return Err(Failure::usage(format!("{} holds no credential: it is empty", from.display())));
            }
            let body = match header {
                Some(header) => json!({"header": header, "value": secret}),
                None => json!({"bearer": secret}),
            };
            let changed =
                session.client.patch(&path(&["agents", &agent]), &json!({"upstream_credential": body})).await?;
            session.done(&changed, &format!("The credential is set. `trust-gateway agents probe {agent}` tries it."))
        }
        Credential::Clear(Name { agent }) => {
            session.confirm(&format!("The credential shown to {agent} will be deleted; it is stored nowhere else."))?;
            let body = json!({"upstream_credential": null});
            let changed = session.client.patch(&path(&["agents", &agent]), &body).await?;
            session.done(&changed, &format!("{agent} is shown no credential now."))
        }
    }
}
