//! `trust-gateway demo`: the gateway with two agents behind it, and the calls that show the point.

mod agents;
mod client;

use std::io::Write;
use std::path::PathBuf;

use http::Method;
use serde_json::{Value, json};

use super::table;
use crate::clock::Clock;
use crate::config::Config;
use crate::gateway::{Gateway, Signals};
use client::{Answered, Caller, Trouble};

/// What the command line asks of the demonstration.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Exit after the calls instead of serving on.
    pub once: bool,
    /// Where its data goes; a new directory of its own under `data/` where not given.
    pub data_dir: Option<PathBuf>,
}

/// Runs the demonstration.
///
/// # Errors
/// When the gateway cannot be started, or does not answer as it should.
pub(super) async fn run(options: Options, out: &mut (impl Write + Send)) -> Result<(), Trouble> {
    let gateway = Box::pin(start(&options)).await?;
    let mut story = Story::begin(&gateway, out).await?;
    story.tell().await?;
    story.log().await?;
    if options.once {
        gateway.shutdown().await;
        return Ok(());
    }
    let signals = Signals::listen()?;
    story.invite()?;
    gateway.until_stopped(signals).await;
    gateway.shutdown().await;
    Ok(())
}

async fn start(options: &Options) -> Result<Gateway, Trouble> {
    let data_dir = match &options.data_dir {
        Some(dir) => dir.clone(),
        None => {
            let started = Clock::system().wall().to_string();
            let name: String = started[..19].chars().filter(|c| c.is_ascii_alphanumeric()).collect();
            PathBuf::from("data").join(format!("demo-{name}"))
        }
    };
    let used = std::fs::read_dir(&data_dir).is_ok_and(|mut entries| entries.next().is_some());
    if used {
        let message = format!("{} is not empty: the demonstration needs a directory of its own", data_dir.display());
        return Err(message.into());
    }
    let mut config = Config { data_dir, ..Config::default() };
    for listen in [&mut config.server.listen, &mut config.admin.listen] {
        // The usual ports if they are free, any others if not: a demonstration must not fail for that.
        if std::net::TcpListener::bind(*listen).is_err() {
            listen.set_port(0);
        }
    }
    Ok(Gateway::start(config, Clock::system()).await?)
}

struct Story<'a, W> {
    out: &'a mut W,
    caller: Caller,
    public: String,
    admin: String,
    operator: String,
    planner: Value,
    newcomer: Value,
    step: u32,
}

impl<'a, W: Write> Story<'a, W> {
    /// Starts and registers the agents, and connects one caller.
    async fn begin(gateway: &Gateway, out: &'a mut W) -> Result<Self, Trouble> {
        let caller = Caller::new();
        let (public, admin) = (gateway.public_url(), gateway.admin_url());
        let operator = gateway.operator_token()?;
        let post = |path: &'static str, body: Value| {
            let (caller, admin, operator) = (&caller, &admin, &operator);
            async move { caller.expect(Method::POST, &format!("{admin}{path}"), Some(operator), Some(&body)).await }
        };
        let (weather_url, archive_url) = (agents::weather().await?, agents::archive().await?);
        let weather = json!({"name": "Weather", "slug": "weather", "url": weather_url});
        let weather = post("/api/agents", weather).await?;
        let archive = json!({"name": "Archive", "slug": "archive", "url": archive_url});
        let archive = post("/api/agents", archive).await?;
        let planner = post("/api/agents", json!({"name": "Planner", "slug": "planner"})).await?;
        let newcomer = post("/api/agents", json!({"name": "Newcomer", "slug": "newcomer"})).await?;
        for target in [&weather, &archive] {
            let body = json!({"requester_id": planner["id"], "target_id": target["id"], "status": "connected"});
            post("/api/connections", body).await?;
        }
        writeln!(out, "Trust Gateway, demonstration")?;
        writeln!(out, "  agents call      {public}")?;
        writeln!(out, "  operators call   {admin}")?;
        writeln!(out, "  data             {}", gateway.data_dir().display())?;
        writeln!(out, "  registered       weather (A2A 0.3 and 1.0), archive (legacy tasks/send)")?;
        writeln!(out, "  callers          planner (connected to both), newcomer (has a key, no connection)\n")?;
        Ok(Self { out, caller, public, admin, operator, planner, newcomer, step: 0 })
    }

    async fn tell(&mut self) -> Result<(), Trouble> {
        let planner = key(&self.planner)?;
        let newcomer = key(&self.newcomer)?;
        self.title("Nobody in particular calls weather: unverified, one call per five minutes")?;
        self.call("weather", None, &send("How is the weather?")).await?;
        self.call("weather", None, &send("And now?")).await?;
        self.title("newcomer shows its key: verified, one call per minute")?;
        self.call("weather", Some(&newcomer), &send("How is the weather?")).await?;
        self.call("weather", Some(&newcomer), &send("And now?")).await?;
        self.title("planner is connected: 300 at once, then five per second")?;
        for question in ["Paris?", "Rome?", "Oslo?"] {
            self.call("weather", Some(&planner), &send(question)).await?;
        }
        self.title("planner asks for a stream: each event arrives when the agent sends it")?;
        let mut stream = send("The whole day, please");
        stream["method"] = json!("SendStreamingMessage");
        self.call("weather", Some(&planner), &stream).await?;
        self.title("planner calls the legacy agent: unknown dialects pass as they are")?;
        let legacy = json!({"jsonrpc": "2.0", "id": "old-1", "method": "tasks/send", "params": {
            "id": "task-1", "message": {"role": "user", "parts": [{"type": "text", "text": "Anything on proxies?"}]}}});
        self.call("archive", Some(&planner), &legacy).await?;
        self.title("Somebody guesses a key: refused, never downgraded to anonymous")?;
        self.call("weather", Some("oag_guessed"), &send("Let me in")).await
    }

    fn title(&mut self, text: &str) -> Result<(), Trouble> {
        self.step += 1;
        writeln!(self.out, "{}. {text}", self.step)?;
        Ok(())
    }

    async fn call(&mut self, agent: &str, key: Option<&str>, body: &Value) -> Result<(), Trouble> {
        let url = format!("{}/api/proxy/{agent}", self.public);
        let answer = self.caller.send(Method::POST, &url, key, Some(body)).await?;
        let method = body["method"].as_str().unwrap_or_default();
        let level = answer.header("x-openagora-trust-level").unwrap_or("-").to_owned();
        write!(self.out, "   {method:<21} {level:<11} {}", answer.status.as_u16())?;
        if let Some(seconds) = answer.header("retry-after") {
            write!(self.out, "  Retry-After: {seconds}")?;
        }
        if let Some(left) = answer.header("ratelimit") {
            write!(self.out, "  RateLimit: {left}")?;
        }
        writeln!(self.out)?;
        self.show(&answer)
    }

    fn show(&mut self, answer: &Answered) -> Result<(), Trouble> {
        let streamed = answer.header("content-type").is_some_and(|value| value.starts_with("text/event-stream"));
        if !streamed {
            writeln!(self.out, "      {}", gist(&answer.json()))?;
            return Ok(());
        }
        for (after, piece) in &answer.pieces {
            for data in String::from_utf8_lossy(piece).lines().filter_map(|line| line.strip_prefix("data: ")) {
                let event: Value = serde_json::from_str(data).unwrap_or_default();
                writeln!(self.out, "      +{:>5} ms  {}", after.as_millis(), gist(&event))?;
            }
        }
        Ok(())
    }

    /// The rows of `proxy_calls` that the calls above have become.
    async fn log(&mut self) -> Result<(), Trouble> {
        let url = format!("{}/api/calls?limit=50", self.admin);
        let answer = self.caller.expect(Method::GET, &url, Some(&self.operator), None).await?;
        let names = [(&self.planner, "planner"), (&self.newcomer, "newcomer")];
        let text = |value: &Value| match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut rows: Vec<Vec<String>> = Vec::new();
        for call in answer["calls"].as_array().into_iter().flatten().rev() {
            let caller = names.iter().find(|(agent, _)| agent["id"] == call["caller_agent_id"]);
            let mut row = vec![text(&call["called_at"]).chars().skip(11).take(12).collect::<String>()];
            row.push(caller.map_or("-", |(_, name)| name).to_owned());
            for column in
                ["trust_level", "method", "status_code", "outcome", "reason", "stream_events", "units", "latency_ms"]
            {
                row.push(text(&call[column]));
            }
            rows.push(row);
        }
        let headings =
            ["called_at", "caller", "trust_level", "method", "status", "outcome", "reason", "events", "units", "ms"];
        writeln!(self.out, "\nEvery call is a row of proxy_calls, refused ones included:\n")?;
        writeln!(self.out, "{}", table::render(&headings, &rows))?;
        Ok(())
    }

    /// Lines to paste.
    fn invite(&mut self) -> Result<(), Trouble> {
        let (public, admin, operator) = (&self.public, &self.admin, &self.operator);
        let planner = key(&self.planner)?;
        let body = send("How is the weather?").to_string();
        let stream = body.replace("SendMessage", "SendStreamingMessage");
        writeln!(self.out, "Still serving; Ctrl-C ends it. To try by hand:\n")?;
        writeln!(self.out, "  curl {public}/api/proxy/weather/.well-known/agent-card.json\n")?;
        for (options, body) in [("-s", body), ("-sN", stream)] {
            writeln!(
                self.out,
                "  curl {options} {public}/api/proxy/weather \\\n    -H 'Authorization: Bearer {planner}' \\\n    -H 'A2A-Version: 1.0' -H 'Content-Type: application/json' \\\n    -d '{body}'\n"
            )?;
        }
        writeln!(self.out, "  curl -s '{admin}/api/calls?limit=5' -H 'Authorization: Bearer {operator}'\n")?;
        self.out.flush()?;
        Ok(())
    }
}

fn key(agent: &Value) -> Result<String, Trouble> {
    agent["api_key"].as_str().map(str::to_owned).ok_or_else(|| "the registration returned no key".into())
}

fn send(text: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": {
        "messageId": uuid::Uuid::new_v4().to_string(), "role": "ROLE_USER", "parts": [{"text": text}]}}})
}

/// What matters of an answer or an event, in one line.
fn gist(answer: &Value) -> String {
    if let Some(message) = answer["error"]["message"].as_str() {
        return format!("error {}: {message}", answer["error"]["code"]);
    }
    let result = &answer["result"];
    for inside in ["task", "artifactUpdate", "statusUpdate"] {
        if !result[inside].is_null() {
            return gist_of_result(&result[inside]);
        }
    }
    gist_of_result(result)
}

fn gist_of_result(result: &Value) -> String {
    let state = result["status"]["state"].as_str().unwrap_or_default();
    let artifact = if result["artifact"].is_null() { &result["artifacts"][0] } else { &result["artifact"] };
    let text = artifact["parts"][0]["text"].as_str().unwrap_or_default();
    [state, text].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}
