//! What a command that speaks to a gateway works with: the client, the screen, and the questions it may ask.
//!
//! Promises: with `--json` standard output holds the API's JSON and nothing else; what a script wants is on standard output,
//! what only people read beside it is not; nothing is destroyed without a yes.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use serde_json::Value;

use super::client::{Answer, Client};
use super::failure::Failure;
use super::profile::{Access, Surroundings};
use super::table::{Table, wrapped};
use super::time;
use crate::clock::Timestamp;
use crate::telemetry::escaped;

/// What all commands that speak to a gateway take.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) access: Access,
    /// Print the API's JSON as it is.
    #[arg(long, global = true, help_heading = "Output")]
    pub(super) json: bool,
    /// Exact times in UTC instead of relative ones.
    #[arg(long, global = true, help_heading = "Output")]
    pub(super) utc: bool,
    /// Do not ask before something is destroyed.
    #[arg(long, short = 'y', global = true, help_heading = "Output")]
    pub(super) yes: bool,
}

/// One run of a command.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) json: bool,
    utc: bool,
    yes: bool,
    colour: bool,
    pub(super) width: usize,
    pub(super) now: Timestamp,
}

impl Session {
    pub(super) fn open(common: &Common) -> Result<Self, Failure> {
        let directory = std::env::current_dir().unwrap_or_default();
        let variable = |name: &str| std::env::var(name).ok();
        let resolved = common.access.resolve(&Surroundings { variable: &variable, directory: &directory })?;
        let terminal = std::io::stdout().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Ok(Self {
            client: Client::new(resolved)?,
            json: common.json,
            utc: common.utc,
            yes: common.yes,
            colour: terminal && !no_colour,
            width: width(terminal),
            now: time::now(),
        })
    }

    /// Writes to standard output what is shown as it is: escape what is from outside.
    pub(super) fn print(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::ReaderGone),
            Err(error) => Err(Failure::Running(format!("the output cannot be written: {error}"))),
        }
    }

    /// One line for people, where the output for scripts is something else.
    pub(super) fn note(&self, text: &str) {
        if !self.json {
            let _ = writeln!(std::io::stderr().lock(), "{}", escaped(text));
        }
    }

    /// The API's answer as it is, with `--json`; yields whether it was asked for.
    pub(super) fn raw(&self, answer: &Answer) -> Result<bool, Failure> {
        if self.json && !answer.text.is_empty() {
            let end = if answer.text.ends_with('\n') { "" } else { "\n" };
            self.print(&format!("{}{end}", answer.text))?;
        }
        Ok(self.json)
    }

    /// One line that says what was done.
    pub(super) fn done(&self, answer: &Answer, text: &str) -> Result<(), Failure> {
        if self.raw(answer)? { Ok(()) } else { self.print(&format!("{}\n", escaped(text))) }
    }

    /// A secret that is shown this once: alone on its line of standard output, so that a script can take it.
    pub(super) fn secret(&self, what: &str, secret: &Value) -> Result<(), Failure> {
        let Some(secret) = secret.as_str() else { return Ok(()) };
        self.note(&format!("{what}, shown this once:"));
        self.print(&format!("{}\n", escaped(secret)))
    }

    /// The table, or where it is empty these lines.
    pub(super) fn table(&self, table: &Table, empty: bool, otherwise: &str) -> Result<(), Failure> {
        if empty {
            return self.print(&format!("{otherwise}\n"));
        }
        self.print(&self.drawn(table))
    }

    /// The table as it is printed.
    pub(super) fn drawn(&self, table: &Table) -> String {
        table.text(self.width, self.colour)
    }

    /// The lines a terminal has; 24 where that is unknown.
    pub(super) fn height(&self) -> usize {
        let seen = rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_row));
        seen.filter(|height| *height > 0).unwrap_or(24)
    }

    /// A heading with `name: value` lines below it; values that are empty are left out.
    pub(super) fn fields(&self, heading: &str, fields: &[(&str, String)]) -> Result<(), Failure> {
        let widest = fields.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name.len()).max();
        let heading = escaped(heading);
        let mut out = if self.colour { format!("\u{1b}[1m{heading}\u{1b}[0m\n") } else { format!("{heading}\n") };
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            let named = widest.unwrap_or(0);
            // A command is copied: it stays one line.
            let room =
                if value.starts_with("trust-gateway ") { usize::MAX } else { self.width.saturating_sub(named + 4) };
            for (at, line) in wrapped(&escaped(value), room.max(24)).iter().enumerate() {
                out.push_str(&format!("  {:<named$}  {line}\n", if at == 0 { name } else { "" }));
            }
        }
        self.print(&out)
    }

    /// A time of the API, as the user wants to read times.
    pub(super) fn time(&self, value: &Value) -> String {
        let Some(text) = value.as_str() else { return String::new() };
        match Timestamp::parse(text) {
            Ok(at) if self.utc => time::exact(at),
            Ok(at) => time::relative(at, self.now),
            Err(_) => text.to_owned(),
        }
    }

    /// Asks before something is destroyed; without a terminal there is nobody to ask.
    pub(super) fn confirm(&self, question: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err(Failure::Usage(
                "this needs a yes, and there is no terminal to ask at",
                vec![format!("{question} If so, type:"), format!("{} --yes", typed(std::env::args()))],
            ));
        }
        let _ = write!(std::io::stderr().lock(), "{} [y/N] ", escaped(question));
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        match (read, line.trim().to_ascii_lowercase().as_str()) {
            (Ok(_), "y" | "yes") => Ok(()),
            _ => Err(Failure::Running("nothing was changed".to_owned())),
        }
    }
}

/// The text in a file, or that comes in by standard input.
pub(super) fn contents(file: &Path) -> Result<String, Failure> {
    let text = String::from_utf8(bytes(file)?);
    text.map_err(|_| Failure::usage(format!("{} cannot be read: it is not UTF-8 text", file.display())))
}

/// What is in a file, or comes in by standard input.
pub(super) fn bytes(file: &Path) -> Result<Vec<u8>, Failure> {
    let read = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    read.map_err(|error| Failure::usage(format!("{} cannot be read: {error}", file.display())))
}

/// The columns there are; 80 where that is unknown.
fn width(terminal: bool) -> usize {
    let given = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|width| *width > 0);
    let seen = || rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_col));
    given.or_else(|| if terminal { seen().filter(|width| *width > 0) } else { None }).unwrap_or(80)
}

/// The command line as it would be typed.
fn typed(arguments: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
    let words = arguments.enumerate().map(|(at, word)| match word {
        _ if at == 0 => "trust-gateway".to_owned(),
        word if !word.is_empty() && word.chars().all(plain) => word,
        word => format!("'{}'", word.replace('\'', "'\\''")),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A member's text; empty where there is none. Numbers and flags are texts here.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// The rows of a list.
pub(super) fn list<'a>(answer: &'a Value, member: &str) -> &'a [Value] {
    answer[member].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_type_is_what_a_shell_reads_back() {
        let words = ["target/x", "agents", "delete", "it's", ""].map(str::to_owned);
        assert_eq!(typed(words.into_iter()), "trust-gateway agents delete 'it'\\''s' ''");
    }
}
