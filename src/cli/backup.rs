//! `backup`, `restore` and `new-node`: what becomes of a gateway's data outside of it.

use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::config::Config;
use crate::gateway::{self, Copied};

const MIB: u64 = 1 << 20;

/// Copies the gateway's data to `to`.
pub(super) async fn back_up(config: &Config, to: &Path) -> Result<String, Failure> {
    let copied = gateway::back_up(config, to).await.map_err(|error| Failure::Running(error.to_string()))?;
    let mut text = format!("{}: {}\n", to.display(), told(&copied));
    text += match copied.database {
        Some(_) => "Keep keys/ apart from the rest: together they open every secret.\n",
        None => "The database is on its server: back it up as well, after this, with pg_dump.\n",
    };
    Ok(text)
}

/// Makes a gateway's data of the backup in `from`.
pub(super) async fn restore(config: &Config, from: &Path) -> Result<String, Failure> {
    let copied = gateway::restore(config, from).await.map_err(|error| Failure::Running(error.to_string()))?;
    Ok(format!(
        "{}: {}\nIt is a new node; operators' tokens and agents' keys are those of the backup.\n",
        config.data_dir.display(),
        told(&copied)
    ))
}

/// Makes a node of its own of a copied data directory.
pub(super) fn become_new_node(config: &Config) -> Result<String, Failure> {
    let aside: Option<PathBuf> =
        gateway::become_new_node(config).map_err(|error| Failure::Running(error.to_string()))?;
    let mut text = format!("{} becomes a new node at its next start\n", config.data_dir.display());
    if let Some(aside) = aside {
        text += &format!("{}: the journal that came with the copy; the original records its calls\n", aside.display());
    }
    Ok(text)
}

fn told(copied: &Copied) -> String {
    let Copied { database, keys, journal } = copied;
    let database = match database {
        Some(bytes) => format!("database ({} MiB), ", bytes.div_ceil(MIB)),
        None => String::new(),
    };
    format!("{database}{keys} key files, {journal} files of the journal")
}
