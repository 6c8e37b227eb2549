//! Processes: started, spoken to, measured by what the operating system counts for them and their children, stopped.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Fallible;

/// Ends with the value.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Starts `command`; its standard output is read by [`Process::lines`], its standard input stays open until it ends.
    pub(crate) fn start(command: &mut Command) -> Fallible<Self> {
        Ok(Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?))
    }

    /// What it says on standard output.
    pub(crate) fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        self.0.stdout.take().map(|out| BufReader::new(out).lines().map_while(Result::ok)).into_iter().flatten()
    }

    /// Processor time so far, user and system, all threads.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(self.0.id())
    }

    /// Resident memory in KiB.
    pub(crate) fn rss(&self) -> u64 {
        let resident = |pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
            line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default()
        };
        family(self.0.id()).iter().map(resident).sum()
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(&mut self) -> Fallible<()> {
        Command::new("kill").arg(self.0.id().to_string()).status()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// A process, its children, and theirs.
fn family(first: u32) -> Vec<u32> {
    let mut pids = vec![first];
    let mut at = 0;
    while let Some(pid) = pids.get(at).copied() {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        pids.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        at += 1;
    }
    pids
}

/// Processor time so far of a process and its children, user and system, all threads.
pub(crate) fn cpu_of(process: u32) -> Duration {
    let ticks = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
    };
    // The kernel tells these in hundredths of a second on every architecture we know.
    Duration::from_millis(family(process).iter().map(ticks).sum::<u64>() * 10)
}

/// One request on a connection of its own; the body of a successful answer.
pub(crate) fn ask(address: SocketAddr, head: &str, body: &str) -> Fallible<String> {
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    write!(stream, "{head}\r\nHost: bench\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    match head.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(body.to_owned()),
        _ => Err(answer.into()),
    }
}
