//! The call log at the command line: `tail --follow`, `why`.

use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader, Lines};
use tokio::process::Command;

use crate::support::agent::Agent;
use crate::support::client::Client;
use crate::support::person::{Person, at_work};
use crate::support::process::Process;
use crate::support::{rpc, within};

/// The id at the beginning of the next line.
async fn next_id<R: AsyncRead + Unpin>(lines: &mut Lines<BufReader<R>>) -> String {
    let line = within("a call is shown", lines.next_line()).await.expect("readable").expect("it goes on");
    line.split(' ').next().unwrap_or_default().to_owned()
}

/// One call with the key; the id it went by.
async fn call(gateway: &Process, key: &str, status: u16) -> String {
    let mut client = Client::connect(gateway.public).await;
    client.call("/api/proxy/weather", Some(key), &rpc(1, "SendMessage")).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, status, "{}", answer.text());
    answer.header("x-openagora-request-id").expect("every answer has one").to_owned()
}

async fn two_agents(person: &Person<'_>, agent: &Agent) -> String {
    person.does(&["agents", "register", "weather", "--endpoint", &agent.url()]).await;
    let key = person.does(&["agents", "register", "planner"]).await;
    person.does(&["connections", "request", "planner", "weather", "--accept"]).await;
    key.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_shows_each_call_once_over_a_restart_of_the_gateway_and_ends_well_when_told_to() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (gateway, person) = at_work(dir.path(), &[]).await;
    let agent = Agent::echo().await;
    let key = two_agents(&person, &agent).await;
    let mut made = vec![call(&gateway, &key, 200).await, call(&gateway, &key, 200).await];

    let mut tail = person.command(&["calls", "tail", "--follow"]);
    let mut tail = tail.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut out = BufReader::new(tail.stdout.take().expect("piped")).lines();
    let mut err = BufReader::new(tail.stderr.take().expect("piped")).lines();
    let mut shown = vec![next_id(&mut out).await, next_id(&mut out).await];
    made.push(call(&gateway, &key, 200).await);
    shown.push(next_id(&mut out).await);

    let addresses = (gateway.public.to_string(), gateway.admin.to_string());
    gateway.signal("TERM").await;
    gateway.ended().await;
    let said =
        within("the tail says that nobody answers", err.next_line()).await.expect("readable").expect("it goes on");
    assert!(said.contains("trying again"), "{said}");
    let gateway =
        Process::start(dir.path(), &[("SERVER__LISTEN", &addresses.0), ("ADMIN__LISTEN", &addresses.1)]).await;
    for _ in 0..3 {
        made.push(call(&gateway, &key, 200).await);
        shown.push(next_id(&mut out).await);
    }
    // In the order they were recorded, which is nearly that of the calls.
    shown.sort();
    made.sort();
    assert_eq!(shown, made);

    let id = tail.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().await.expect("kill is there").success());
    let ended: ExitStatus = within("the tail ends", tail.wait()).await.expect("it can be waited for");
    assert_eq!(ended.code(), Some(0));
    let mut rest = String::new();
    out.into_inner().read_to_string(&mut rest).await.expect("readable");
    assert_eq!(rest, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_tells_of_a_call_what_decided_it_what_was_left_and_what_to_do_next() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (gateway, person) = at_work(dir.path(), &[]).await;
    let agent = Agent::echo().await;
    let key = two_agents(&person, &agent).await;
    person.does(&["connections", "limits", "planner:weather", "--rate", "2", "--period", "1h", "--burst", "2"]).await;
    let (allowed, _, refused) =
        (call(&gateway, &key, 200).await, call(&gateway, &key, 200).await, call(&gateway, &key, 429).await);

    let told = person.does(&["why", &allowed]).await;
    assert!(told.starts_with("planner called weather, "), "{told}");
    for expected in ["200 completed", "connection.rate, 1 left after this call", "TASK_STATE_COMPLETED", &allowed] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    assert!(!told.contains("Next:"), "{told}");
    let told = person.does(&["calls", "show", &refused]).await;
    assert!(told.contains("429 rate_limited") && told.contains("the agent was not asked"), "{told}");
    assert!(told.ends_with("Next: trust-gateway connections limits planner:weather --rate N --period 1m\n"), "{told}");
    assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");

    let unknown = person.fails(3, &["why", "0b9a2c3e-0000-4000-8000-000000000001"]).await;
    assert!(unknown.contains("X-OpenAgora-Request-ID"), "{unknown}");
    person.fails(2, &["why", "x"]).await;

    // The list, the tail that does not follow, and what is open now.
    let list = person.does(&["calls", "list", "--reason", "rate_limited"]).await;
    assert!(list.contains(&refused) && !list.contains(&allowed), "{list}");
    let tail = person.does(&["calls", "tail", "-n", "2"]).await;
    assert!(tail.lines().count() == 2 && tail.contains(&refused) && tail.contains("429 rate_limited"), "{tail}");
    assert!(tail.lines().all(|line| line.chars().count() <= 80), "{tail}");
    assert_eq!(person.does(&["calls", "active"]).await, "No call is open now.\n");

    // With its own key at the public listener, an agent reads its own.
    std::fs::write(dir.path().join("key"), key).expect("writable");
    let url = format!("http://{}", gateway.public);
    let own = ["--url", url.as_str(), "--token-file", "key"];
    assert!(person.does(&[&["why", &refused], &own[..]].concat()).await.contains("connection.rate"));
    let me = person.does(&[&["me", "--target", "weather"], &own[..]].concat()).await;
    assert!(me.starts_with("agent planner towards weather\n") && me.contains("connected"), "{me}");
    let work = me.lines().find(|line| line.starts_with("work")).expect("the limit of calls");
    assert_eq!(work.split_whitespace().take(3).collect::<Vec<_>>(), ["work", "0", "2"], "{me}");
    assert!(person.fails(3, &[&["status"], &own[..]].concat()).await.contains("public listener"));
}
