//! Why a command did not do what it was asked for: what is shown, and which exit code says so.

use std::fmt::Write as _;

use crate::telemetry::escaped;

/// What every command's help says at its end.
pub(super) const EXIT_CODES: &str = "\
Exit codes: 0 all well; 1 failed (network, the gateway itself); 2 wrong command
line or configuration; 3 not found; 4 not allowed; 5 conflict; 6 too many
requests; 7 the log is not whole (audit verify).";
/// The exit code of `audit verify` for a log that was changed, or of which something is missing.
pub(super) const NOT_WHOLE: u8 = 7;

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line or the configuration is wrong: a heading, and everything that is wrong, one line each.
    Usage(&'static str, Vec<String>),
    /// It went wrong while running.
    Running(String),
    /// The gateway refused it: with this status, in these words, and what to do about it.
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the gateway said.
        said: String,
        /// What to do, one line each.
        todo: Vec<String>,
    },
    /// What was named does not exist, as far as the asker may know.
    NotFound(String, Vec<String>),
    /// Whoever read the output has read enough: no failure at all.
    ReaderGone,
    /// It went wrong with this exit code, and why was said already.
    Told(u8),
}

impl Failure {
    pub(super) fn usage(line: impl Into<String>) -> Self {
        Self::Usage("this cannot be done so", vec![line.into()])
    }

    pub(super) fn code(&self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::Told(code) => *code,
            Self::Running(_) => 1,
            Self::Usage(..) => 2,
            Self::NotFound(..) => 3,
            Self::Refused { status, .. } => match status {
                400 | 405 | 411 | 413 | 415 | 422 => 2,
                404 | 410 => 3,
                401 | 403 => 4,
                409 | 412 => 5,
                429 => 6,
                _ => 1,
            },
        }
    }

    /// One block of lines that a terminal shows as they are.
    pub(super) fn text(&self) -> String {
        let block = |heading: &str, lines: &[String]| {
            let mut text = format!("error: {}\n", escaped(heading));
            for line in lines {
                let _ = writeln!(text, "  {}", escaped(line));
            }
            text
        };
        match self {
            Self::ReaderGone | Self::Told(_) => String::new(),
            Self::Running(message) => block(message, &[]),
            Self::Usage(heading, lines) => block(heading, lines),
            Self::Refused { said, todo, .. } => block(said, todo),
            Self::NotFound(what, todo) => block(what, todo),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_refusal_has_its_exit_code() {
        let code = |status| Failure::Refused { status, said: String::new(), todo: Vec::new() }.code();
        let statuses = [400, 401, 403, 404, 409, 429, 500, 502, 503];
        assert_eq!(statuses.map(code), [2, 4, 4, 3, 5, 6, 1, 1, 1]);
        assert_eq!(Failure::ReaderGone.code(), 0);
    }

    #[test]
    fn what_a_gateway_says_does_not_reach_the_terminal_raw() {
        let said = "x\u{1b}[31m\nerror: y".to_owned();
        let text = Failure::Refused { status: 404, said, todo: vec!["a\rb".to_owned()] }.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains(['\u{1b}', '\r']), "{text}");
    }
}
