//! A stream of server-sent events, as the gateway sends them.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
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
pub(super) struct EventStream<B = Incoming> {
    body: B,
    unread: Vec<u8>,
}

impl<B: Body<Data = Bytes, Error: Display> + Unpin> EventStream<B> {
    pub(super) fn new(body: B) -> Self {
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
    use futures_util::stream::{self, StreamExt as _};
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    /// What is told of `text` when it comes in pieces of that many bytes.
    async fn told(text: &str, pieces: usize) -> Vec<Event> {
        let frames =
            text.as_bytes().chunks(pieces).map(|piece| Ok::<_, String>(Frame::data(Bytes::copy_from_slice(piece))));
        let mut events = EventStream::new(StreamBody::new(stream::iter(frames.collect::<Vec<_>>())));
        let mut told = Vec::new();
        while let Some(event) = events.next().await.expect("well formed") {
            told.push(event);
        }
        told
    }

    #[tokio::test]
    async fn events_are_the_same_however_they_are_cut_into_pieces() {
        let text = ": hi\nretry: 1000\nid: a\n\nid: b\ndata: {\"x\": \"\u{e9}: y\"}\n\n: nothing new\nid: c\n\nid: d\ndata: cut";
        let event = |id: &str, data: Option<&str>| Event { id: Some(id.to_owned()), data: data.map(str::to_owned) };
        let expected = [event("a", None), event("b", Some("{\"x\": \"\u{e9}: y\"}")), event("c", None)];
        for pieces in 1..=text.len() {
            assert_eq!(told(text, pieces).await, expected, "{pieces}");
        }
    }

    #[tokio::test]
    async fn an_event_without_an_end_and_a_stream_that_breaks_off_are_failures() {
        let piece = || Ok(Frame::data(Bytes::from(vec![b'x'; EVENT_MAX / 2 + 1])));
        let endless = stream::iter([piece(), piece(), piece(), piece()]);
        let mut events = EventStream::new(StreamBody::new(endless.chain(stream::pending::<Result<_, String>>())));
        assert!(events.next().await.expect_err("too long").text().contains("no end"));
        let broken = stream::iter([Ok(Frame::data(Bytes::from_static(b"id: a\n\nid: b"))), Err("gone")]);
        let mut events = EventStream::new(StreamBody::new(broken));
        assert!(events.next().await.expect("an event").is_some());
        assert!(events.next().await.expect_err("broken").text().contains("broke off (gone)"));
    }

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
