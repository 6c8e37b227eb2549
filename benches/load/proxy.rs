//! What is measured: the gateway as it is delivered, another build of it, and nginx made to do the nearest to the same work.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _};
use tempfile::TempDir;

use crate::Fallible;
use crate::postgres::Postgres;
use crate::process::{Process, ask, cpu_of};

/// What nginx knows instead of a registered key.
const NGINX_KEY: &str = "oag_0123456789abcdef0123456789abcdef0123456789abcdef";

/// How a proxy is started.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// A build of the gateway.
    Gateway(PathBuf),
    /// A build of the gateway whose limits are shared through redis-server from the path.
    Sharing(PathBuf),
    /// A build of the gateway with its state on PostgreSQL.
    OnPostgres(PathBuf),
    /// nginx from the path.
    Nginx,
}

/// Where the rows are.
enum Log {
    File(PathBuf),
    Server(Postgres),
}

/// A running proxy with the agent behind it.
pub(crate) struct Proxy {
    pub(crate) name: String,
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    key: String,
    log: Option<Log>,
    _redis: Option<Process>,
    _dir: TempDir,
}

impl Proxy {
    pub(crate) fn start(name: &str, kind: &Kind, agent: SocketAddr) -> Fallible<Self> {
        let dir = TempDir::new()?;
        match kind {
            Kind::Gateway(program) => gateway(name, &mut Command::new(program), agent, dir),
            Kind::Sharing(program) => {
                let (redis, url) = redis(&dir)?;
                let mut command = Command::new(program);
                command.env("TRUST_GATEWAY__LIMITS__SHARED", url);
                Ok(Self { _redis: Some(redis), ..gateway(name, &mut command, agent, dir)? })
            }
            Kind::OnPostgres(program) => {
                let postgres = Postgres::start();
                let mut command = Command::new(program);
                command.env("TRUST_GATEWAY__STORE__URL", postgres.url());
                Ok(Self { log: Some(Log::Server(postgres)), ..gateway(name, &mut command, agent, dir)? })
            }
            Kind::Nginx => nginx(name, agent, dir),
        }
    }

    /// A call with this body, as bytes.
    pub(crate) fn request(&self, body: &str, close: bool) -> Vec<u8> {
        let mut head =
            format!("POST /api/proxy/echo HTTP/1.1\r\nHost: {}\r\nX-API-Key: {}\r\n", self.address, self.key);
        head.push_str("Content-Type: application/json\r\nA2A-Version: 1.0\r\nAccept: */*\r\nUser-Agent: bench\r\n");
        if close {
            head.push_str("Connection: close\r\n");
        }
        // Writing to a string cannot fail.
        let _ = write!(head, "Content-Length: {}\r\n\r\n{body}", body.len());
        head.into_bytes()
    }

    /// Waits until every call is a row, so that what this costs is counted with the calls.
    pub(crate) async fn settle(&self, calls: u64) -> Fallible<()> {
        if !self.audits() {
            return Ok(());
        }
        let begun = Instant::now();
        while self.rows().await? < calls {
            if begun.elapsed() > Duration::from_secs(60) {
                return Err(format!("{}: {calls} calls, {} rows after a minute", self.name, self.rows().await?).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// How many calls the audit log holds; 0 where there is none.
    pub(crate) async fn rows(&self) -> Fallible<u64> {
        let rows = "SELECT CAST(coalesce(sum(calls), 0) AS bigint) FROM proxy_calls";
        let rows: i64 = match &self.log {
            None => 0,
            Some(Log::File(file)) => {
                let mut log = SqliteConnectOptions::new().filename(file).read_only(true).connect().await?;
                sqlx::query(rows).fetch_one(&mut log).await?.try_get(0)?
            }
            Some(Log::Server(postgres)) => postgres.rows(rows).await[0].try_get(0)?,
        };
        Ok(u64::try_from(rows)?)
    }

    /// Processor time so far of the database server, where there is one.
    pub(crate) fn database_cpu(&self) -> Duration {
        match &self.log {
            Some(Log::Server(postgres)) => cpu_of(postgres.id()),
            _ => Duration::ZERO,
        }
    }

    /// Whether there is an audit log.
    pub(crate) fn audits(&self) -> bool {
        self.log.is_some()
    }
}

/// A server that lives as long as the proxy, and its URL.
fn redis(dir: &TempDir) -> Fallible<(Process, String)> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"]).arg(dir.path());
    let mut server = Process::start(&mut command)?;
    let ready = server.lines().any(|line| line.contains("Ready to accept connections"));
    if ready { Ok((server, format!("redis://127.0.0.1:{port}"))) } else { Err("redis-server does not start".into()) }
}

/// Whether limits can be shared here.
pub(crate) fn has_redis() -> bool {
    Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn gateway(name: &str, command: &mut Command, agent: SocketAddr, dir: TempDir) -> Fallible<Proxy> {
    let data = dir.path().join("data");
    command
        .arg("serve")
        .current_dir(dir.path())
        .env("TRUST_GATEWAY__DATA_DIR", &data)
        .env("TRUST_GATEWAY__SERVER__LISTEN", "127.0.0.1:0")
        .env("TRUST_GATEWAY__ADMIN__LISTEN", "127.0.0.1:0")
        .stderr(File::create(dir.path().join("log"))?);
    let mut process = Process::start(command)?;
    let (mut public, mut admin) = (None, None);
    for line in process.lines() {
        let address = |url: &str| url.trim_start_matches("http://").parse::<SocketAddr>().ok();
        match line.split_once(' ') {
            Some(("public", url)) => public = address(url),
            Some(("admin", url)) => admin = address(url),
            _ => {}
        }
        if public.is_some() && admin.is_some() {
            break;
        }
    }
    let (Some(address), Some(admin)) = (public, admin) else {
        return Err(format!("{name} does not start: {}", std::fs::read_to_string(dir.path().join("log"))?).into());
    };
    let token = std::fs::read_to_string(data.join("admin-token"))?;
    let operate = |path: &str, body: Value| -> Fallible<Value> {
        let authorization = format!("Authorization: Bearer {}\r\nContent-Type: application/json", token.trim());
        let answer = ask(admin, &format!("POST {path} HTTP/1.1\r\n{authorization}"), &body.to_string())?;
        Ok(serde_json::from_str(&answer)?)
    };
    let echo = json!({"name": "Echo", "slug": "echo", "url": format!("http://{agent}/")});
    let echo = operate("/api/agents", echo)?;
    let caller = operate("/api/agents", json!({"name": "Caller", "slug": "caller"}))?;
    let limits =
        json!({"rate": 1_000_000, "period_ms": 1000, "burst": 1_000_000, "daily": 1_000_000_000, "streams": 512});
    let connection =
        json!({"requester_id": caller["id"], "target_id": echo["id"], "status": "connected", "limits": limits});
    operate("/api/connections", connection)?;
    Ok(Proxy {
        name: name.to_owned(),
        process,
        address,
        key: caller["api_key"].as_str().unwrap_or_default().to_owned(),
        log: Some(Log::File(data.join("gateway.db"))),
        _redis: None,
        _dir: dir,
    })
}

/// Whether nginx can be measured against.
pub(crate) fn has_nginx() -> bool {
    Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn nginx(name: &str, agent: SocketAddr, dir: TempDir) -> Fallible<Proxy> {
    // It cannot tell the port it was given, so it is given one that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let path = dir.path().display();
    let configuration = format!(
        r#"
daemon off; worker_processes auto; pid {path}/pid; error_log {path}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/fastcgi;
    uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;
    map_hash_bucket_size 128;
    map $http_x_api_key $caller {{ default ""; "{NGINX_KEY}" caller; }}
    limit_req_zone $caller zone=calls:1m rate=100000r/s;
    log_format call escape=json '{{"id":"$request_id","at":"$time_iso8601","caller":"$caller","address":"$remote_addr",'
        '"method":"$request_method","uri":"$request_uri","status":$status,"upstream_status":"$upstream_status",'
        '"request_bytes":$request_length,"bytes":$body_bytes_sent,"time":$request_time,"upstream":"$upstream_response_time"}}';
    access_log {path}/access.log call buffer=64k flush=1s;
    upstream agent {{ server {agent}; keepalive 1024; }}
    server {{
        listen {address} backlog=4096;
        keepalive_requests 1000000000;
        tcp_nodelay on;
        client_max_body_size 10m; client_body_buffer_size 2m;
        location = /api/proxy/echo {{
            if ($caller = "") {{ return 401; }}
            limit_req zone=calls burst=100000 nodelay;
            proxy_pass http://agent/;
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_buffer_size 16k; proxy_buffers 8 16k;
            proxy_set_header Connection "";
            proxy_set_header X-API-Key "";
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Request-ID $request_id;
        }}
    }}
}}
"#
    );
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, configuration)?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&file).arg("-p").arg(dir.path()).stderr(File::create(dir.path().join("log"))?);
    let process = Process::start(&mut command)?;
    let begun = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        if begun.elapsed() > Duration::from_secs(5) {
            return Err(format!("nginx does not start: {}", std::fs::read_to_string(dir.path().join("log"))?).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let (name, key) = (name.to_owned(), NGINX_KEY.to_owned());
    Ok(Proxy { name, process, address, key, log: None, _redis: None, _dir: dir })
}
