//! A Redis server of the test's own: on a free port, nothing on disk, stopped with the test. Shared with the library's tests.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A Redis server of the test's own.
#[derive(Debug)]
pub(crate) struct Redis {
    child: Child,
    pub(crate) port: u16,
    dir: tempfile::TempDir,
}

impl Redis {
    /// Starts one, and waits until it answers.
    pub(crate) fn start() -> Self {
        let dir = tempfile::TempDir::new().expect("a temporary directory");
        // Another program may take the port between being found free and being used: then the next.
        for _ in 0..10 {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            let port = free.expect("a free port").port();
            if let Some(child) = serve(port, &dir) {
                return Self { child, port, dir };
            }
        }
        panic!("no redis-server would start on a free port");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it, and all it knows with it.
    pub(crate) fn stop(&mut self) {
        // Also one that is frozen.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, empty, where it was.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let again = Instant::now();
        while again.elapsed() < Duration::from_secs(10) {
            if let Some(child) = serve(self.port, &self.dir) {
                self.child = child;
                return;
            }
        }
        panic!("redis-server would not start again on port {}", self.port);
    }

    /// It takes connections and answers nothing, until it is thawed.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// What it answers to a command, as it is on the wire.
    pub(crate) fn ask(&self, command: &str) -> String {
        ask(self.port, command).expect("it answers")
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill is a program everywhere").success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(port: u16, dir: &tempfile::TempDir) -> Option<Child> {
    let mut child = Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
        ])
        .arg("--dir")
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server must be on the PATH: run tests/run.sh, which installs it");
    loop {
        if ask(port, "PING").is_some_and(|answer| answer.starts_with("+PONG")) {
            return Some(child);
        }
        if child.try_wait().expect("it is our child").is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ask(port: u16, command: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
    let mut answer = vec![0; 64 * 1024];
    let n = stream.read(&mut answer).ok().filter(|n| *n > 0)?;
    Some(String::from_utf8_lossy(&answer[..n]).into_owned())
}
