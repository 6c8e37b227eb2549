//! `audit`: the log as evidence: checked, exported, proved call by call.

mod export;
mod keeping;
mod verify;

use clap::Subcommand;
use serde_json::Value;

use super::calls::Id;
use super::client::{path, query};
use super::failure::Failure;
use super::session::{Common, Session, list, text};

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Check that the log is what was recorded, and all of it: the database itself, or files, without a gateway.
    #[command(
        after_help = "trust-gateway audit verify --key log.key --checkpoints /mnt/worm/checkpoints.txt\ntrust-gateway audit verify --export calls.jsonl --key log.key\n\nExit code 7: something was changed, or is missing."
    )]
    Verify(verify::Verify),
    /// Write rows to a file that proves itself.
    #[command(
        after_help = "trust-gateway audit export calls.jsonl --since 2026-01-01 --until 2026-02-01\ntrust-gateway audit export calls.csv --format csv --from-seq 1000001"
    )]
    Export(export::Export),
    /// Prove that a call is in the log: prints what `audit verify --export` and docs/verify_export.py check.
    Prove(Id),
    /// Prove that the first A rows of a log are the beginning of its first B.
    Consistency {
        /// The smaller number of rows.
        #[arg(value_name = "A")]
        from: u64,
        /// The larger one.
        #[arg(value_name = "B")]
        to: u64,
        /// Whose log; without it, that of the node that answers.
        #[arg(long, value_name = "NODE_ID")]
        node: Option<String>,
    },
    /// Print the newest checkpoint of every node, as it was signed.
    Checkpoint,
    /// Let a new key sign this node's checkpoints; the one before names it in a checkpoint that both sign.
    RotateKey,
    #[command(flatten)]
    Keeping(keeping::Keeping),
}

pub(super) async fn run(command: Audit, common: &Common) -> Result<(), Failure> {
    let session = || Session::open(common);
    match command {
        Audit::Verify(asked) => verify::verify(asked, common.json).await,
        Audit::Export(asked) => export::export(asked, &session()?).await,
        Audit::Prove(call) => raw(&path(&["audit", "proof", &call.id]), &session()?).await,
        Audit::Consistency { from, to, node } => {
            let asked = [("node", node), ("from", Some(from.to_string())), ("to", Some(to.to_string()))];
            raw(&query("/api/audit/consistency", &asked), &session()?).await
        }
        Audit::Checkpoint => checkpoint(&session()?).await,
        Audit::RotateKey => rotate_key(&session()?).await,
        Audit::Keeping(command) => keeping::run(command, &session()?).await,
    }
}

/// What is for programs alone is JSON either way.
async fn raw(path: &str, session: &Session) -> Result<(), Failure> {
    let answer = session.client.get(path).await?;
    session.print(&format!("{}\n", answer.text.trim_end()))
}

async fn checkpoint(session: &Session) -> Result<(), Failure> {
    let answer = session.client.get("/api/audit/checkpoint").await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let checkpoints = list(&answer.json, "checkpoints");
    if checkpoints.is_empty() {
        session.note("Nothing was signed yet.");
    }
    // As they are, so that they can be kept: a checkpoint that is kept elsewhere is what later ones are held against.
    checkpoints.iter().try_for_each(|checkpoint| session.print(&text(&checkpoint["note"])))
}

async fn rotate_key(session: &Session) -> Result<(), Failure> {
    let answer = session.client.post("/api/audit/rotate-key", &Value::Null).await?;
    session
        .note("Checkpoints are signed with this key from now on; who trusts the one before learns of it from the log:");
    session.done(&answer, &text(&answer.json["key"]))
}
