//! Somebody at a shell with the real program: what they type, what they read, what scripts get.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use super::process::Process;
use super::within;

/// How a command went.
pub(crate) struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// A person at a shell, with a home of their own and no terminal. No command ever shows them the first operator's token.
pub(crate) struct Person<'a> {
    pub home: &'a Path,
}

impl Person<'_> {
    /// The command, ready to be started.
    pub(crate) fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trust-gateway"));
        command.args(line).current_dir(self.home).env_clear().env("XDG_CONFIG_HOME", self.home.join("config"));
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    pub(crate) async fn types(&self, line: &[&str]) -> Said {
        let output = within(&line.join(" "), self.command(line).output()).await.expect("the program starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let said =
            Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) };
        if let Ok(token) = std::fs::read_to_string(self.home.join("data/admin-token")) {
            assert!(!said.out.contains(token.trim()) && !said.err.contains(token.trim()), "{line:?} shows the token");
        }
        said
    }

    pub(crate) async fn does(&self, line: &[&str]) -> String {
        let said = self.types(line).await;
        assert_eq!(said.code, 0, "{line:?}: {}{}", said.out, said.err);
        said.out
    }

    /// With `--json`.
    pub(crate) async fn reads(&self, line: &[&str]) -> Value {
        let out = self.does(&[line, &["--json"]].concat()).await;
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{line:?}: {error}: {out}"))
    }

    pub(crate) async fn fails(&self, code: i32, line: &[&str]) -> String {
        let said = self.types(line).await;
        assert_eq!(said.code, code, "{line:?}: {}{}", said.out, said.err);
        assert!(said.err.starts_with("error: ") && said.out.is_empty(), "{line:?}: {}{}", said.out, said.err);
        said.err
    }
}

/// A gateway that lets agents on this machine register, and somebody who is logged in to it.
pub(crate) async fn at_work<'a>(dir: &'a Path, settings: &[(&str, &str)]) -> (Process, Person<'a>) {
    let local = ("AGENTS__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]");
    let gateway = Process::start(dir, &[&[local], settings].concat()).await;
    let person = Person { home: dir };
    let url = format!("http://{}", gateway.admin);
    person.does(&["login", "--url", &url, "--token-file", "data/admin-token"]).await;
    (gateway, person)
}
