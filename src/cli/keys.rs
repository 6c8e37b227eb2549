//! `keys`: what agents show to prove who they are.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::client::{path, query};
use super::failure::Failure;
use super::session::{Session, list, text};
use super::table::{Fit, Table};
use super::time::{When, api_duration, when};

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// List an agent's keys; never the keys themselves.
    List {
        /// The agent's slug or id; with the agent's own key it may be left out.
        agent: Option<String>,
    },
    /// Make another key.
    Create {
        /// The agent's slug or id; with the agent's own key it may be left out.
        agent: Option<String>,
        #[command(flatten)]
        new: New,
    },
    /// Make a key that takes over from another one.
    Rotate {
        #[command(flatten)]
        key: Key,
        /// How long the old one goes on working after the new one's first use, such as 1h; 0s: not at all.
        #[arg(long, value_name = "DURATION", value_parser = api_duration)]
        grace: Option<String>,
        #[command(flatten)]
        new: New,
    },
    /// Revoke a key: it is worthless at once.
    Revoke(Key),
}

#[derive(Debug, Args)]
pub(super) struct New {
    /// A name to tell it by.
    #[arg(long)]
    name: Option<String>,
    /// When it ends: 90d, 2026-12-31 or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = when)]
    expires: Option<When>,
}

#[derive(Debug, Args)]
pub(super) struct Key {
    /// The key's id, or with --agent its hint, its name or the beginning of its id.
    key: String,
    /// Whose key it is.
    #[arg(long)]
    agent: Option<String>,
}

impl New {
    fn body(self, session: &Session) -> Map<String, Value> {
        let mut body = Map::new();
        if let Some(name) = self.name {
            body.insert("name".to_owned(), Value::from(name));
        }
        if let Some(when) = self.expires {
            body.insert("expires_at".to_owned(), Value::from(when.after(session.now)));
        }
        body
    }
}

pub(super) async fn run(command: Keys, session: &Session) -> Result<(), Failure> {
    match command {
        Keys::List { agent } => show(agent, session).await,
        Keys::Create { agent, new } => {
            let mut body = new.body(session);
            if let Some(agent) = agent {
                body.insert("agent_id".to_owned(), Value::from(agent));
            }
            made("/api/keys", body, session).await
        }
        Keys::Rotate { key, grace, new } => {
            let id = find(&key, session).await?;
            if grace.as_deref().is_some_and(|grace| grace.starts_with('0')) {
                session.confirm(&format!("The key {} will be worthless as soon as the new one is made.", key.key))?;
            }
            let mut body = new.body(session);
            if let Some(grace) = grace {
                body.insert("grace".to_owned(), Value::from(grace));
            }
            made(&path(&["keys", &id, "rotate"]), body, session).await
        }
        Keys::Revoke(key) => {
            let id = find(&key, session).await?;
            session.confirm(&format!("The key {} will be worthless at once.", key.key))?;
            let answer = session.client.delete(&path(&["keys", &id]), None).await?;
            session.done(&answer, &format!("The key {} is revoked.", key.key))
        }
    }
}

async fn keys_of(agent: Option<&String>, session: &Session) -> Result<super::client::Answer, Failure> {
    let answer = session.client.get(&query("/api/keys", &[("agent_id", agent.cloned())])).await;
    answer.map_err(|failure| match failure {
        Failure::Refused { status: 400, .. } if agent.is_none() => {
            Failure::usage("whose keys? Name the agent: `keys list AGENT`, elsewhere --agent AGENT")
        }
        other => other,
    })
}

async fn show(agent: Option<String>, session: &Session) -> Result<(), Failure> {
    let answer = keys_of(agent.as_ref(), session).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let mut table = Table::new(&[
        ("ID", Fit::Whole),
        ("NAME", Fit::Cut),
        ("HINT", Fit::Cut),
        ("USED", Fit::Cut),
        ("EXPIRES", Fit::Cut),
        ("CREATED", Fit::Spare),
    ]);
    let rows = list(&answer.json, "keys");
    let or = |time: String, otherwise: &str| if time.is_empty() { otherwise.to_owned() } else { time };
    for row in rows {
        table.row([
            text(&row["id"]),
            text(&row["name"]),
            text(&row["hint"]),
            or(session.time(&row["last_used_at"]), "never"),
            or(session.time(&row["expires_at"]), "never"),
            session.time(&row["created_at"]),
        ]);
    }
    session.table(&table, rows.is_empty(), "No keys: `trust-gateway keys create AGENT` makes one.")
}

/// The id of the key that is meant.
async fn find(key: &Key, session: &Session) -> Result<String, Failure> {
    if key.agent.is_none() && uuid::Uuid::parse_str(&key.key).is_ok() {
        return Ok(key.key.clone());
    }
    let answer = keys_of(key.agent.as_ref(), session).await?;
    let meant = |row: &&Value| {
        let id = row["id"].as_str().unwrap_or_default();
        row["hint"] == *key.key || row["name"] == *key.key || (key.key.len() >= 4 && id.starts_with(&key.key))
    };
    let found: Vec<&Value> = list(&answer.json, "keys").iter().filter(meant).collect();
    match found.as_slice() {
        [one] => Ok(text(&one["id"])),
        [] => Err(Failure::NotFound(
            format!("no key is called {:?}", key.key),
            vec!["`trust-gateway keys list AGENT` shows an agent's keys.".to_owned()],
        )),
        _ => {
            Err(Failure::usage(format!("{:?} could be {} keys: give its hint, or its id whole", key.key, found.len())))
        }
    }
}

async fn made(path: &str, body: Map<String, Value>, session: &Session) -> Result<(), Failure> {
    let answer = session.client.post(path, &Value::Object(body)).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let ends = session.time(&answer.json["expires_at"]);
    let ends = if ends.is_empty() { String::new() } else { format!(", expires {ends}") };
    session.note(&format!("Key {} ({}{ends}).", text(&answer.json["name"]), text(&answer.json["id"])));
    session.secret("API key", &answer.json["key"])?;
    if let Some(warning) = answer.json["warning"].as_str() {
        session.note(warning);
    }
    Ok(())
}
