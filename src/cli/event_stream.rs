//! A stream of server-sent events, as the gateway sends them.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::failure::Failure;

/// The gateway says something every 15 seconds; without that it is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest event.
const EVENT_MAX: usize = 1024 * 1024;

/// One event: what it says, and where to go on behind it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: Option<String>,
    pub(super) data: Option<String>,
}

/// Events as they come.
pub(super) struct EventStream {
    body: Incoming,
    unread: Vec<u8>,
}

impl EventStream {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, unread: Vec::new() }
    }

    /// The next event; `None`: the gateway has ended the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(event) = take(&mut self.unread) {
                return Ok(Some(event));
            }
            if self.unread.len() > EVENT_MAX {
                return Err(Failure::Running("the gateway sends an event that has no end".to_owned()));
            }
            match timeout(SILENCE, self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.unread.extend_from_slice(data);
                    }
                }
                Ok(Some(Err(error))) => return Err(Failure::Running(format!("the stream broke off ({error})"))),
                Err(_) => return Err(Failure::Running("the gateway has fallen silent".to_owned())),
            }
        }
    }
}

/// Takes the first whole event out of `unread`.
fn take(unread: &mut Vec<u8>) -> Option<Event> {
    let end = unread.windows(2).position(|end| end == b"\n\n")?;
    let block: Vec<u8> = unread.drain(..end + 2).collect();
    let mut event = Event::default();
    for line in String::from_utf8_lossy(&block).lines() {
        match line.split_once(": ") {
            Some(("id", id)) => event.id = Some(id.to_owned()),
            Some(("data", data)) => event.data = Some(data.to_owned()),
            _ => {}
        }
    }
    Some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_whole_and_comments_say_nothing() {
        let mut unread = b": hello\nid: a\n\nid: b\ndata: {\"x\": 1}\n\nid: c\nda".to_vec();
        let event = |id: &str, data: Option<&str>| Event { id: Some(id.to_owned()), data: data.map(str::to_owned) };
        assert_eq!(take(&mut unread), Some(event("a", None)));
        assert_eq!(take(&mut unread), Some(event("b", Some("{\"x\": 1}"))));
        assert_eq!(take(&mut unread), None);
        unread.extend_from_slice(b"ta: y\n\n");
        assert_eq!(take(&mut unread), Some(event("c", Some("y"))));
    }
}
