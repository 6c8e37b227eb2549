//! What leaves the gateway proves itself to those who have nothing but a key: to `audit verify`, and to the Python program.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::support::agent::Agent;
use crate::support::client::Client;
use crate::support::gateway::TestGateway;
use crate::support::person::{Person, at_work};
use crate::support::process::Process;
use crate::support::{rpc, within};

const NOT_WHOLE: i32 = 7;

/// What docs/verify_export.py says, and its exit code.
async fn python(dir: &Path, key: &str, files: &[&str]) -> (i32, String) {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/verify_export.py");
    let mut command = Command::new("python3");
    command.current_dir(dir).arg(program).arg(key).args(files).kill_on_drop(true);
    let output = within("the program checks", command.output()).await.expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), said)
}

/// Calls of all kinds; the id of the first.
async fn calls(gateway: &Process, person: &Person<'_>, agent: &Agent) -> String {
    person.does(&["agents", "register", "weather", "--endpoint", &agent.url()]).await;
    let key = person.does(&["agents", "register", "planner"]).await;
    person.does(&["connections", "request", "planner", "weather", "--accept"]).await;
    let mut first = None;
    for n in 0..9 {
        let mut client = Client::connect(gateway.public).await;
        let mut body = rpc(n, "SendMessage");
        // Whatever a caller may call its task and its method.
        body["id"] = Value::from(["a \"b\", c", "é\r\nü", "", "7"][usize::try_from(n % 4).expect("small")]);
        if n == 3 {
            body["method"] = Value::from("what,\n\"is\" this");
        }
        let key = (n != 5).then(|| key.trim());
        client.call("/api/proxy/weather", key, &body).await;
        let answer = client.answer().await;
        first = first.or(answer.header("x-openagora-request-id").map(str::to_owned));
    }
    first.expect("every answer has one")
}

/// Returns once all rows are signed for; the key.
async fn sealed(person: &Person<'_>, rows: u64) -> String {
    for _ in 0..500 {
        let status = person.reads(&["status"]).await;
        if status["ledger"]["sealed_rows"] == rows {
            return status["ledger"]["key"].as_str().expect("a key").to_owned();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{rows} rows are not signed for");
}

#[tokio::test]
async fn the_documented_records_are_those_of_the_python_program() {
    let check = "import json, sys; sys.dont_write_bytecode = True; sys.path.insert(0, 'docs'); import verify_export\n\
        for line in open('docs/record_vectors.jsonl'): print(verify_export.leaf(json.loads(line)['row']).hex())";
    let mut command = Command::new("python3");
    let output =
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["-c", check]).output().await.expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exports_and_proofs_hold_and_no_changed_one_does() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dir = dir.path();
    let (gateway, person) = at_work(dir, &[]).await;
    let agent = Agent::echo().await;
    let call = calls(&gateway, &person, &agent).await;
    let key = sealed(&person, 9).await;
    std::fs::write(dir.join("log.key"), &key).expect("written");
    let rotated = gateway.operate("POST", "/api/audit/rotate-key", &Value::Null).await;
    assert_eq!(rotated.status, 200, "{}", rotated.text());
    let mut client = Client::connect(gateway.public).await;
    client.call("/api/proxy/weather", None, &rpc(1, "SendMessage")).await;
    client.answer().await;
    sealed(&person, 10).await;

    person.does(&["audit", "export", "all.jsonl"]).await;
    person.does(&["audit", "export", "all.csv", "--format", "csv"]).await;
    person.does(&["audit", "export", "some.jsonl", "--from-seq", "3", "--to-seq", "7", "--since", "1h"]).await;
    person.does(&["audit", "export", "one.csv", "--format", "csv", "--from-seq", "10"]).await;
    std::fs::write(dir.join("call.json"), person.does(&["audit", "prove", &call]).await).expect("written");
    let all = ["all.jsonl", "all.csv", "some.jsonl", "one.csv", "call.json"];
    let (code, said) = python(dir, "log.key", &all).await;
    assert_eq!((code, said.lines().count()), (0, all.len()), "{said}");
    person.does(&[&["audit", "verify", "--key", "log.key", "--export"], &all[..]].concat()).await;
    let stranger = rotated.json()["key"].as_str().expect("a key").replace("/audit/", "/audits/");
    assert_eq!(python(dir, &stranger, &all).await.0, NOT_WHOLE);

    // Nothing of a file can be changed. What is not looked at is the list of keys, which nobody believes.
    for file in all {
        let text = std::fs::read_to_string(dir.join(file)).expect("text");
        let believed = |at: usize| {
            text.find("\"keys\"").is_none_or(|keys| at < keys || at > text[keys..].find(']').expect("a list") + keys)
        };
        let digits = text.match_indices(|c: char| c.is_ascii_digit()).filter(|(at, _)| believed(*at));
        let digits: Vec<_> = digits.collect();
        for (at, digit) in digits.iter().step_by(digits.len() / 12) {
            let mut other = text.clone();
            other.replace_range(at..=at, if *digit == "1" { "2" } else { "1" });
            let name = format!("changed-{file}");
            std::fs::write(dir.join(&name), other).expect("written");
            if file.ends_with("csv") {
                let beside = |name: &str| dir.join(format!("{name}.proof.json"));
                std::fs::copy(beside(file), beside(&name)).expect("copied");
            }
            let (code, said) = python(dir, "log.key", &[&name]).await;
            assert_eq!(code, NOT_WHOLE, "{at} of {file}: {said}");
            let said = person.types(&["audit", "verify", "--key", "log.key", "--export", &name]).await;
            assert!([NOT_WHOLE, 2].contains(&said.code), "{at} of {file}: {}", said.out);
        }
    }
    // Nor can a file be made to say something else of which the hashes are the same, or nothing be asked of what it says.
    let text = std::fs::read_to_string(dir.join("all.jsonl")).expect("text");
    let line = text.lines().nth(1).expect("a row");
    let row: Value = serde_json::from_str(line).expect("JSON");
    let (ip, salt) = (row["client_ip"].as_str().expect("one"), row["personal_salt"].as_str().expect("one"));
    let moved = format!("{salt}{:02x}", ip.as_bytes()[0]);
    let others = [
        line.replace(ip, &ip[1..]).replace(salt, &moved),
        line.replace("\"decision\":\"allowed\"", "\"decision\":\"refused\",\"decision\":\"allowed\""),
        line.replace("\"seq\":1,", "\"seq\":1,\"erased\":true,").replace("\"units\":1", "\"units\":7"),
        line.replace("\"seq\":1,", "\"seq\":1,\"erased\":\"yes\",").replace("\"units\":1", "\"units\":7"),
    ];
    for other in others {
        assert_ne!(other, line);
        std::fs::write(dir.join("other.jsonl"), text.replace(line, &other)).expect("written");
        let (code, said) = python(dir, "log.key", &["other.jsonl"]).await;
        assert_eq!(code, NOT_WHOLE, "{other}: {said}");
        let said = person.types(&["audit", "verify", "--key", "log.key", "--export", "other.jsonl"]).await;
        assert_eq!(said.code, NOT_WHOLE, "{other}: {}{}", said.out, said.err);
    }
    // Lines that are missing, there twice or swapped; a file that was cut off.
    for file in ["all.jsonl", "all.csv"] {
        let text = std::fs::read_to_string(dir.join(file)).expect("text");
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let (front, back) = lines.split_at(3);
        let swapped = [&lines[..1], &[lines[2], lines[1]], back].concat();
        let changed = [[&front[..2], back].concat(), [front, &front[2..], back].concat(), swapped, front.to_vec()];
        let cut = &text[..text.len() - 2];
        for changed in changed.iter().map(|lines| lines.concat()).chain([cut.to_owned()]) {
            std::fs::write(dir.join(file), changed).expect("written");
            let (code, said) = python(dir, "log.key", &[file]).await;
            assert_eq!(code, NOT_WHOLE, "{said}");
            let said = person.types(&["audit", "verify", "--key", "log.key", "--export", file]).await;
            assert_eq!(said.code, NOT_WHOLE, "{}{}", said.out, said.err);
        }
    }
    let events = person.reads(&["events", "list", "--action", "audit.export"]).await;
    assert_eq!(events["events"].as_array().map(Vec::len), Some(4), "{events}");
    let refused = person.fails(3, &["audit", "export", "none.jsonl", "--from-seq", "11"]).await;
    assert!(refused.contains("no rows from 11 to 10"), "{refused}");
    assert!(!dir.join("none.jsonl").exists() && !dir.join("none.jsonl.part").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_verified_beside_the_gateway_and_without_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dir = dir.path();
    let (gateway, person) = at_work(dir, &[]).await;
    let agent = Agent::echo().await;
    calls(&gateway, &person, &agent).await;
    let key = sealed(&person, 9).await;
    let told = person.does(&["audit", "verify"]).await;
    assert!(told.contains("integrity     holds") && told.contains("only as good as"), "{told}");
    let told = person.reads(&["audit", "verify", "--key", &key]).await;
    assert_eq!((&told["whole"], &told["logs"][0]["signed"]), (&Value::from(true), &Value::from(9)), "{told}");
    std::fs::write(dir.join("kept.txt"), person.does(&["audit", "checkpoint"]).await).expect("written");
    let consistent: Value =
        serde_json::from_str(&person.does(&["audit", "consistency", "4", "9"]).await).expect("JSON");
    assert!(consistent["hashes"].as_array().is_some_and(|hashes| !hashes.is_empty()), "{consistent}");
    gateway.signal("TERM").await;
    gateway.ended().await;

    let verify = ["audit", "verify", "--key", &key, "--checkpoints", "kept.txt"];
    person.does(&verify).await;
    let tamper = async |sql: &str| {
        let done = Command::new("python3")
            .args([
                "-c",
                "import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None).executescript(sys.argv[2])",
            ])
            .arg(dir.join("data/gateway.db"))
            .arg(format!(
                "DROP TRIGGER IF EXISTS proxy_calls_changed; DROP TRIGGER IF EXISTS proxy_calls_deleted; {sql}"
            ))
            .status();
        assert!(done.await.expect("python3 runs").success());
    };
    tamper("UPDATE proxy_calls SET status_code = 418 WHERE seq = 4").await;
    let said = person.types(&verify).await;
    assert_eq!(said.code, NOT_WHOLE, "{}{}", said.out, said.err);
    assert!(said.out.contains("row 4: what it holds") && said.out.contains("NOT WHOLE"), "{}", said.out);
    tamper(
        "DELETE FROM proxy_calls; DELETE FROM ledger_heads; DELETE FROM ledger_checkpoints; DELETE FROM ledger_keys",
    )
    .await;
    let said = person.types(&verify).await;
    assert_eq!(said.code, NOT_WHOLE);
    assert!(said.out.contains("not there at all"), "{}", said.out);
    person.fails(2, &["audit", "verify", "--checkpoints", "log"]).await;
    person.fails(2, &["audit", "verify", "--config", "none.toml"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exports_are_for_operators_and_few_at_a_time() {
    let gateway = TestGateway::start().await;
    let answer = gateway.operate("GET", "/api/audit/export", None).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert!(answer.text().contains("nothing was signed"), "{}", answer.text());
    for (path, status) in [
        ("/api/audit/export?from_seq=x", 400),
        ("/api/audit/export?format=xml", 400),
        ("/api/audit/proof/x", 400),
        ("/api/audit/proof/0b9a2c3e-0000-4000-8000-000000000001", 404),
        ("/api/audit/consistency?from=1", 400),
        ("/api/audit/consistency?from=1&to=2", 404),
    ] {
        assert_eq!(gateway.operate("GET", path, None).await.status, status, "{path}");
    }
    gateway.stop().await;
}
