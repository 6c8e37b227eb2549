//! `operators`: the people and programs that run the gateway.

use clap::Subcommand;
use serde_json::json;

use super::client::path;
use super::failure::Failure;
use super::session::{Session, list, text};
use super::table::{Fit, Table};
use super::time::{When, when};

#[derive(Debug, Subcommand)]
pub(super) enum Operators {
    /// List operators; never their tokens.
    List,
    /// Make an operator and its token.
    Create {
        /// A name, which every change it makes is kept under.
        name: String,
        /// admin (changes everything) or auditor (reads everything, changes nothing).
        #[arg(long, default_value = "admin", value_parser = ["admin", "auditor"])]
        role: String,
        /// When its token ends: 90d, 2026-12-31 or RFC 3339.
        #[arg(long, value_name = "TIME", value_parser = when)]
        expires: Option<When>,
    },
    /// Replace an operator's token: the old one is worthless at once.
    Rotate {
        /// Its name or id.
        operator: String,
    },
    /// Remove an operator: its token is worthless at once.
    Remove {
        /// Its name or id.
        operator: String,
    },
}

pub(super) async fn run(command: Operators, session: &Session) -> Result<(), Failure> {
    let made = match command {
        Operators::List => return show(session).await,
        Operators::Remove { operator } => {
            session.confirm(&format!("The operator {operator} will be removed."))?;
            let answer = session.client.delete(&path(&["operators", &operator]), None).await?;
            return session.done(&answer, &format!("{operator} is removed."));
        }
        Operators::Create { name, role, expires } => {
            let mut body = json!({"name": name, "role": role});
            if let Some(when) = expires {
                body["expires_at"] = json!(when.after(session.now));
            }
            session.client.post("/api/operators", &body).await?
        }
        Operators::Rotate { operator } => {
            session.confirm(&format!("The present token of {operator} will be worthless at once."))?;
            session.client.post(&path(&["operators", &operator, "rotate"]), &json!({})).await?
        }
    };
    if session.raw(&made)? {
        return Ok(());
    }
    session.note(&format!("Operator {} ({}).", text(&made.json["name"]), text(&made.json["role"])));
    session.secret("Token", &made.json["token"])?;
    session.note("`trust-gateway login --token -` takes it from standard input.");
    Ok(())
}

async fn show(session: &Session) -> Result<(), Failure> {
    let answer = session.client.get("/api/operators").await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let mut table = Table::new(&[
        ("NAME", Fit::Whole),
        ("ROLE", Fit::Whole),
        ("USED", Fit::Cut),
        ("EXPIRES", Fit::Cut),
        ("CREATED", Fit::Spare),
    ]);
    let rows = list(&answer.json, "operators");
    let or = |time: String| if time.is_empty() { "never".to_owned() } else { time };
    for row in rows {
        let (used, expires) = (session.time(&row["last_used_at"]), session.time(&row["expires_at"]));
        table.row([text(&row["name"]), text(&row["role"]), or(used), or(expires), session.time(&row["created_at"])]);
    }
    session.table(&table, rows.is_empty(), "No operators.")
}
