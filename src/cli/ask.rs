//! Commands of one question: `status`, `me`, `import`.

use std::path::PathBuf;

use clap::Subcommand;
use http::Method;
use serde_json::Value;

use super::client::query;
use super::failure::Failure;
use super::session::{Session, contents, list, text};

#[derive(Debug, Subcommand)]
pub(super) enum Import {
    /// An export of OpenAgora: agents, keys by digest, connections. Shows what would happen; --apply does it.
    Openagora {
        /// The export as JSON; - reads standard input.
        file: PathBuf,
        /// Only show what would happen: the default.
        #[arg(long, conflicts_with = "apply")]
        dry_run: bool,
        /// Do it.
        #[arg(long)]
        apply: bool,
    },
}

/// How the gateway is.
pub(super) async fn status(session: &Session) -> Result<(), Failure> {
    let answer = session.client.get("/api/status").await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let fields = flat(&answer.json, session, &["warnings"]);
    let fields: Vec<(&str, String)> = fields.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    session.fields(session.client.url(), &fields)?;
    for warning in list(&answer.json, "warnings") {
        session.print(&format!("warning: {}\n", crate::telemetry::escaped(&text(warning))))?;
    }
    Ok(())
}

/// Who one is, and with a target, how one stands towards it.
pub(super) async fn me(target: Option<String>, session: &Session) -> Result<(), Failure> {
    let answer = session.client.get(&query("/api/me", &[("target", target.clone())])).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let me = &answer.json;
    if let Some(name) = me["operator"]["name"].as_str() {
        return session.print(&format!(
            "operator {} ({})\n",
            crate::telemetry::escaped(name),
            text(&me["operator"]["role"])
        ));
    }
    let limits = list(me, "limits").iter().map(|limit| {
        let members = limit.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        members.map(|(name, value)| format!("{name} {}", text(value))).collect::<Vec<_>>().join(" ")
    });
    let towards = target.map(|target| format!(" towards {target}")).unwrap_or_default();
    session.fields(
        &format!("agent {}{towards}", text(&me["agent"]["slug"])),
        &[
            ("id", text(&me["agent"]["id"])),
            ("key", text(&me["key"]["name"])),
            ("key expires", session.time(&me["key"]["expires_at"])),
            ("level", text(&me["trust_level"])),
            ("connection", text(&me["connection"]["status"])),
            ("operations", text(&me["operations"])),
            ("limits", limits.collect::<Vec<_>>().join("; ")),
        ],
    )
}

pub(super) async fn import(command: Import, session: &Session) -> Result<(), Failure> {
    let Import::Openagora { file, apply, .. } = command;
    let export = contents(&file)?;
    let endpoint = query("/api/import/openagora", &[("dry_run", Some((!apply).to_string()))]);
    let answer = session.client.send(Method::POST, &endpoint, Some(export)).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let counts = flat(&answer.json, session, &["problems", "dry_run", "note"]);
    let counts: Vec<(&str, String)> = counts.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    session.fields(if apply { "Imported" } else { "This would be imported" }, &counts)?;
    for problem in list(&answer.json, "problems") {
        let line = format!("{}: {}", text(&problem["row"]), text(&problem["problem"]));
        session.print(&format!("  problem  {}\n", crate::telemetry::escaped(&line)))?;
    }
    session.note(if apply { "Done." } else { "Nothing was changed. --apply does it." });
    Ok(())
}

/// Members as lines, those of objects on the line of the object.
fn flat(value: &Value, session: &Session, without: &[&str]) -> Vec<(String, String)> {
    let members = value.as_object().into_iter().flatten().filter(|(name, _)| !without.contains(&name.as_str()));
    let line = |(name, value): (&String, &Value)| {
        let shown = match value {
            Value::Object(inner) => {
                inner.iter().map(|(name, value)| format!("{name} {}", text(value))).collect::<Vec<_>>().join(", ")
            }
            value if name.ends_with("_at") => session.time(value),
            value => text(value),
        };
        (name.replace('_', " "), shown)
    };
    members.map(line).collect()
}
