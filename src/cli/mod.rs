//! The commands: what is asked for, and how it went.
//!
//! Exit codes: 0, all well; 1, it failed while running (a port is taken, the disk is full); 2, the command line or the
//! configuration is wrong, and nothing was started. Failures go to standard error as one block, results to standard output.

mod check;
mod demo;
mod serve;
mod table;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, LoadSource};
use crate::telemetry::escaped;

/// A reverse proxy for A2A agents: knows who is calling, holds callers to their limits, records every call.
#[derive(Debug, Parser)]
#[command(name = "trust-gateway", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 all well; 1 failed while running; 2 wrong command line or configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the gateway.
    Serve(FromFile),
    /// Read everything the gateway would read at its start, and tell what is wrong; starts nothing.
    CheckConfig(FromFile),
    /// Seal all stored secrets under a new key; the gateway must be stopped.
    RotateSecretsKey(FromFile),
    /// Start a gateway with two agents behind it, make the calls that show the point, and keep serving.
    Demo(Demo),
}

#[derive(Debug, clap::Args)]
struct Demo {
    /// End after the calls instead of serving on.
    #[arg(long)]
    once: bool,
    /// An empty directory for its data; without it, a new one below data/.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct FromFile {
    /// The configuration file; without it, trust-gateway.toml in the working directory if there is one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line or the configuration is wrong: a heading, and everything that is wrong, one line each.
    Usage(&'static str, Vec<String>),
    /// It went wrong while running.
    Running(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Running(_) => 1,
            Self::Usage(..) => 2,
        }
    }

    /// One block of lines that a terminal shows as they are.
    fn text(&self) -> String {
        match self {
            Self::Running(message) => format!("error: {}\n", escaped(message)),
            Self::Usage(heading, lines) => {
                let lines = lines.iter().map(|line| format!("  {}\n", escaped(line)));
                format!("error: {heading}\n{}", lines.collect::<String>())
            }
        }
    }
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(output) => {
            // Whoever closed the pipe has read enough.
            let _ = std::io::stdout().lock().write_all(output.as_bytes());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = std::io::stderr().lock().write_all(failure.text().as_bytes());
            ExitCode::from(failure.code())
        }
    }
}

/// What the command prints.
fn execute(command: Command) -> Result<String, Failure> {
    match command {
        Command::Serve(args) => {
            let source = LoadSource::process(args.config);
            serve::serve(load(source.clone())?, source).map(|()| String::new())
        }
        Command::Demo(args) => {
            let options = demo::Options { once: args.once, data_dir: args.data_dir };
            let ran = control_runtime()?.block_on(demo::run(options, &mut std::io::stdout()));
            ran.map(|()| String::new()).map_err(|error| Failure::Running(error.to_string()))
        }
        Command::RotateSecretsKey(args) => {
            let config = load(LoadSource::process(args.config))?;
            let done = control_runtime()?.block_on(crate::gateway::change_secrets_key(&config));
            let done = done.map_err(|error| Failure::Running(error.to_string()))?;
            let mut text = format!("{} secrets are sealed under the new key {}\n", done.secrets, done.file.display());
            for file in &done.retired {
                text += &format!("out of use: {} (backups of the database made before need it)\n", file.display());
            }
            Ok(text)
        }
        Command::CheckConfig(args) => {
            let config = load(LoadSource::process(args.config))?;
            check::check(&config).map_err(|lines| Failure::Usage("the configuration cannot be used", lines))?;
            Ok(check::report(&config))
        }
    }
}

/// The runtime of the control plane: its API, probes and the database. Calls have runtimes of their own.
fn control_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build();
    runtime.map_err(|error| Failure::Running(format!("no threads can be started: {error}")))
}

fn load(source: LoadSource) -> Result<Config, Failure> {
    Config::load(source).map_err(|errors| {
        let lines = errors.iter().map(ToString::to_string).collect();
        Failure::Usage("the configuration cannot be used", lines)
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn executed(args: &[&str]) -> Result<String, Failure> {
        let cli = Cli::try_parse_from([&["trust-gateway"], args].concat()).expect("a command line");
        execute(cli.command)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_configuration_ends_with_2_and_one_block_of_errors() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("gw.toml");
        std::fs::write(&file, "[log]\nlevel = \"loud\"\n[\"\\u001b[31m\"]\n").expect("write");
        let name = file.to_str().expect("a plain path");
        let failure = executed(&["check-config", "--config", name]).expect_err("wrong");
        assert_eq!(failure.code(), 2);
        let text = failure.text();
        assert!(text.starts_with("error: the configuration cannot be used\n  ") && text.lines().count() == 3, "{text}");
        assert!(text.contains("gw.toml:2: log.level: ") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_good_configuration_is_ok() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("gw.toml");
        std::fs::write(&file, "[log]\nlevel = \"debug\"\n").expect("write");
        let output = executed(&["check-config", "--config", file.to_str().expect("a plain path")]).expect("good");
        assert!(output.starts_with("OK\n") && output.contains("log.level"), "{output}");
    }
}
