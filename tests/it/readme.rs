//! The README's first quarter of an hour, run line by line as it stands there.

use std::process::Stdio;

use tokio::process::Command;

use crate::support::agent::Agent;
use crate::support::postgres::Postgres;
use crate::support::process::Process;
use crate::support::within;

/// The shell blocks below a heading, as one script.
fn script(heading: &str) -> String {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the README");
    let section = readme.split_once(&format!("\n{heading}\n")).expect("its heading").1;
    let section = section.split("\n## ").next().unwrap_or(section);
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    blocks.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admins_first_quarter_of_an_hour_goes_as_the_readme_says() {
    first_quarter_of_an_hour("sqlite").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_so_it_goes_with_postgresql() {
    let postgres = Postgres::start();
    first_quarter_of_an_hour(&postgres.url()).await;
}

async fn first_quarter_of_an_hour(store: &str) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let gateway = Process::start(dir.path(), &[("STORE__URL", store)]).await;
    let agent = Agent::echo().await;
    let script = script("### Run it");
    assert!(script.lines().filter(|line| line.starts_with("trust-gateway")).count() > 12, "{script}");
    // Where things are is all that differs from the README.
    let script = script
        .replace("http://127.0.0.1:8080", &format!("http://{}", gateway.public))
        .replace("http://127.0.0.1:9000/", &agent.url());
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_trust-gateway")).parent().expect("it is in a directory");
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
    let run = Command::new("bash")
        .args(["-euxo", "pipefail", "-c", &script])
        .current_dir(dir.path())
        .env("PATH", path)
        .env("TRUST_GATEWAY_URL", format!("http://{}", gateway.admin))
        .env("XDG_CONFIG_HOME", dir.path().join("config"))
        .env("COLUMNS", "80")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let run = within("the README's commands end", run).await.expect("bash is there");
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}\n{err}");
    for expected in ["TASK_STATE_COMPLETED", "planner", "connected", "299", "too many calls"] {
        assert!(out.contains(expected), "{expected}: {out}\n{err}");
    }
    let key = err.lines().find_map(|line| line.strip_prefix("+ KEY=")).unwrap_or_default();
    assert!(key.starts_with("oag_") && !out.contains(key), "the client's key is kept, not shown: {out}");

    let rows = gateway.rows().await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((&rows[0]["trust_level"], &rows[0]["outcome"]), (&"connected".into(), &"completed".into()));
}
