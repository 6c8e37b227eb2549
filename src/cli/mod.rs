//! The commands: what is asked for, and how it went.
//!
//! Failures go to standard error as one block, results to standard output; exit codes are in `failure`. Commands that work
//! on a running gateway are clients of its HTTP API and know nothing else of it: one file for each noun.

mod agent_limits;
mod agents;
mod ask;
mod audit;
mod backup;
mod calls;
mod cards;
mod check;
mod client;
mod connections;
mod demo;
mod event_stream;
mod failure;
mod history;
mod keys;
mod limits;
mod login;
mod names;
mod operators;
mod profile;
mod serve;
mod session;
mod status;
mod table;
mod time;
mod webhooks;
mod why;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::{Config, LoadSource};
use failure::{EXIT_CODES, Failure};
use session::{Common, Session};

/// A reverse proxy for A2A agents: knows who is calling, holds callers to their limits, records every call.
#[derive(Debug, Parser)]
#[command(name = "trust-gateway", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the gateway.
    Serve(FromFile),
    /// Read everything the gateway would read at its start, and tell what is wrong; starts nothing.
    CheckConfig(FromFile),
    /// Seal all stored secrets under a new key; the gateway must be stopped.
    RotateSecretsKey(FromFile),
    /// Copy database, journal and keys into a new directory; the gateway may be serving.
    Backup {
        /// The directory to make.
        to: PathBuf,
        #[command(flatten)]
        file: FromFile,
    },
    /// Make a gateway's data of a backup, as a new node; nothing that is there is overwritten.
    Restore {
        /// The directory that `backup` made.
        from: PathBuf,
        #[command(flatten)]
        file: FromFile,
    },
    /// Make a node of its own of a data directory that was copied from another; the gateway must be stopped.
    NewNode(FromFile),
    /// Start a gateway with two agents behind it, make the calls that show the point, and keep serving.
    Demo(Demo),
    #[command(flatten)]
    Client(Box<Client>),
    /// Print completions for a shell: bash, zsh, fish, elvish or powershell.
    #[command(after_help = "trust-gateway completions bash > ~/.local/share/bash-completion/completions/trust-gateway")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Commands that speak to a running gateway.
#[derive(Debug, Subcommand)]
enum Client {
    /// Check a token against a gateway and keep both for the commands below.
    #[command(
        after_help = "trust-gateway login --token-file data/admin-token\ntrust-gateway login --url https://gw.example:8081 --profile work --token - < token"
    )]
    Login(Common),
    /// Forget a profile.
    Logout(Common),
    /// How the gateway is, and what wants attention.
    Status(Common),
    /// What waits for an answer, or comes up within a week.
    Notifications(Asking<ask::Notifications>),
    /// Agents: register, find, change.
    #[command(
        after_help = "trust-gateway agents register weather --endpoint http://127.0.0.1:9000/\nKEY=$(trust-gateway agents register planner)   a client: its key is all there is on standard output\ntrust-gateway agents find weather --status online"
    )]
    Agents(Noun<agents::Agents>),
    /// Connections between agents: ask, answer, block, limit.
    #[command(
        after_help = "trust-gateway connections pending\ntrust-gateway connections request planner weather --accept\ntrust-gateway connections block planner:weather --reason 'too loud'"
    )]
    Connections(Noun<connections::Connections>),
    /// Keys that agents prove themselves with.
    #[command(
        after_help = "KEY=$(trust-gateway keys create planner --name laptop --expires 90d)\ntrust-gateway keys rotate KEY_ID --grace 1h"
    )]
    Keys(Noun<keys::Keys>),
    /// Operators and their tokens.
    Operators(Noun<operators::Operators>),
    /// What was changed, by whom.
    Events(Noun<history::Events>),
    /// The call log.
    #[command(
        after_help = "trust-gateway calls list --caller planner --since 10m\ntrust-gateway calls tail --follow --decision refused\ntrust-gateway calls top"
    )]
    Calls(Noun<calls::Calls>),
    /// The log as evidence: check it, export it, prove what is in it, and say what must go and what must stay.
    Audit(Noun<audit::Audit>),
    /// Why a call went as it did.
    #[command(after_help = "The id is in each answer's X-OpenAgora-Request-ID, and in `trust-gateway calls list`.")]
    Why(Asking<calls::Id>),
    /// Webhooks: who is sent events.
    #[command(after_help = "trust-gateway webhooks test pager")]
    Webhooks(Noun<webhooks::Webhooks>),
    /// Who the gateway takes you for, and what is left of your limits.
    Me(Asking<Me>),
    /// Take over what another registry exported.
    Import(Noun<ask::Import>),
}

#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
struct Noun<C: Subcommand> {
    #[command(subcommand)]
    command: C,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Asking<A: clap::Args> {
    #[command(flatten)]
    asked: A,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Me {
    /// How you stand towards this agent.
    #[arg(long, value_name = "AGENT")]
    target: Option<String>,
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

/// Does what the command line says.
pub fn run() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(output) => {
            // Whoever closed the pipe has read enough.
            let _ = std::io::stdout().lock().write_all(output.as_bytes());
            ExitCode::SUCCESS
        }
        // Not even nothing is written: whoever reads standard error may have stopped reading.
        Err(Failure::Told(code)) => ExitCode::from(code),
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
        Command::Backup { to, file } => {
            let config = load(LoadSource::process(file.config))?;
            control_runtime()?.block_on(backup::back_up(&config, &to))
        }
        Command::Restore { from, file } => {
            let config = load(LoadSource::process(file.config))?;
            control_runtime()?.block_on(backup::restore(&config, &from))
        }
        Command::NewNode(args) => backup::become_new_node(&load(LoadSource::process(args.config))?),
        Command::CheckConfig(args) => {
            let config = load(LoadSource::process(args.config))?;
            check::check(&config).map_err(|lines| Failure::Usage("the configuration cannot be used", lines))?;
            Ok(check::report(&config))
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "trust-gateway", &mut script);
            Ok(String::from_utf8_lossy(&script).into_owned())
        }
        Command::Client(client) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| Failure::Running(format!("nothing can be started: {error}")))?;
            runtime.block_on(ask(*client)).map(|()| String::new())
        }
    }
}

async fn ask(command: Client) -> Result<(), Failure> {
    match command {
        Client::Login(common) => login::login(&common).await,
        Client::Logout(common) => login::logout(&common),
        Client::Status(common) => status::show(&Session::open(&common)?).await,
        Client::Notifications(asking) => ask::notifications(asking.asked, &Session::open(&asking.common)?).await,
        Client::Agents(noun) => agents::run(noun.command, &Session::open(&noun.common)?).await,
        Client::Connections(noun) => connections::run(noun.command, &Session::open(&noun.common)?).await,
        Client::Keys(noun) => keys::run(noun.command, &Session::open(&noun.common)?).await,
        Client::Operators(noun) => operators::run(noun.command, &Session::open(&noun.common)?).await,
        Client::Events(noun) => history::run(noun.command, &Session::open(&noun.common)?).await,
        Client::Calls(noun) => calls::run(noun.command, &Session::open(&noun.common)?).await,
        Client::Webhooks(noun) => webhooks::run(noun.command, &Session::open(&noun.common)?).await,
        Client::Audit(noun) => audit::run(noun.command, &noun.common).await,
        Client::Why(why) => why::why(&why.asked.id, &Session::open(&why.common)?).await,
        Client::Me(me) => ask::me(me.asked.target, &Session::open(&me.common)?).await,
        Client::Import(noun) => ask::import(noun.command, &Session::open(&noun.common)?).await,
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
