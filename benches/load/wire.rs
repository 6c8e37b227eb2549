//! As little HTTP/1.1 as a load needs, by hand: what it costs is not the subject.

use std::io;

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One connection, either side of it.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    taken: usize,
}

/// The head of a message.
pub(crate) struct Head {
    /// The first line.
    pub(crate) line: String,
    /// How many bytes of body follow; `None` for chunks.
    pub(crate) length: Option<usize>,
}

impl Head {
    /// Of an answer.
    pub(crate) fn status(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(8 * 1024), taken: 0 })
    }

    pub(crate) async fn connect(address: std::net::SocketAddr) -> io::Result<Self> {
        Self::new(TcpStream::connect(address).await?)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    /// Reads more; `false` at the end.
    async fn fill(&mut self) -> io::Result<bool> {
        if self.taken == self.buffer.len() {
            self.buffer.clear();
            self.taken = 0;
        }
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// The next head; `None` when the peer is done.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            if let Some(at) = memmem::find(self.unread(), b"\r\n\r\n") {
                break at;
            }
            if !self.fill().await? {
                return if self.unread().is_empty() { Ok(None) } else { Err(invalid("a head broke off")) };
            }
        };
        let text = std::str::from_utf8(&self.unread()[..end]).map_err(|_| invalid("a head is not text"))?;
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let mut length = Some(0);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                length = None;
            }
        }
        self.taken += end + 4;
        Ok(Some(Head { line, length }))
    }

    /// Reads `length` bytes of body, and says whether `needle` is within the first of them.
    pub(crate) async fn body(&mut self, length: usize, needle: &[u8]) -> io::Result<bool> {
        let mut left = length;
        let mut found = None;
        while left > 0 {
            if self.unread().is_empty() && !self.fill().await? {
                return Err(invalid("a body broke off"));
            }
            let part = self.unread().len().min(left);
            found.get_or_insert_with(|| memmem::find(&self.unread()[..part], needle).is_some());
            self.taken += part;
            left -= part;
        }
        Ok(found.unwrap_or_default())
    }

    /// Reads chunked events until `count` of them are there or the body ends; says how many there were. An event is a chunk that
    /// ends with an empty line, which is how the agent here sends them; what the proxy joins is counted as it was sent.
    pub(crate) async fn events(&mut self, count: usize) -> io::Result<(usize, bool)> {
        let mut seen = 0;
        loop {
            let mut rest = self.unread();
            while let Some(at) = memmem::find(rest, b"\n\n") {
                seen += 1;
                rest = &rest[at + 2..];
            }
            let over = rest.ends_with(b"\r\n0\r\n\r\n") || rest == b"0\r\n\r\n";
            // What is left is framing, and less than an event.
            let keep = rest.len();
            self.taken = self.buffer.len() - keep;
            if over || seen >= count {
                return Ok((seen, over));
            }
            if self.taken > 0 {
                self.buffer.drain(..self.taken);
                self.taken = 0;
            }
            if !self.fill().await? {
                return Err(invalid("a stream broke off"));
            }
        }
    }
}
