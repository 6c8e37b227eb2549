//! An event stream, watched as it passes: how many events went by and what they said.
//!
//! Fed with whatever slices the network delivers, it promises the same counts and notices however the stream is cut, and
//! with LF, CR or CRLF as line ends (WHATWG HTML section 9.2.6). It never holds back or changes a byte, never fails, and keeps
//! at most [`NOTICE_LIMIT`] bytes of one event; larger events are counted, not looked at.

use std::ops::Range;

use super::answer::{NOTICE_LIMIT, Noticed, notice_unary};

const BOM: [u8; 3] = [0xef, 0xbb, 0xbf];
const FIELD: &[u8] = b"data";

/// The incremental scanner of one event stream.
#[derive(Debug)]
pub struct EventScanner {
    events: u64,
    /// How much of a byte-order mark the stream began with; 3 once that question is settled.
    bom: usize,
    line: Line,
    /// The last byte was a CR: an LF now belongs to it.
    after_cr: bool,
    /// Whether the current block holds any line at all.
    in_block: bool,
    /// Data lines of the current block that have begun.
    data_lines: u32,
    /// Bytes of the current block's data, joints included, though `data` may not hold them all.
    data_len: usize,
    /// The data of an event that could not be borrowed whole.
    data: Vec<u8>,
}

/// Where in a line the scanner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// So many bytes of `data` have matched; 0 is the start of the line.
    Name(usize),
    /// In the value of a data line. The space that may follow the colon is kept: JSON does not mind.
    Value,
    /// In a line of no interest: a comment, another field.
    Other,
}

impl Default for EventScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl EventScanner {
    /// A scanner at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self {
            events: 0,
            bom: 0,
            line: Line::Name(0),
            after_cr: false,
            in_block: false,
            data_lines: 0,
            data_len: 0,
            data: Vec::new(),
        }
    }

    /// The number of events that have ended: blocks with at least one data line, ended by a blank line.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Whether a new event could be written here without damage. After a lone CR it could, but an LF may be on its way and
    /// simple readers look for whole blank lines only: false.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        !self.in_block && !self.after_cr && self.line == Line::Name(0) && matches!(self.bom, 0 | 3)
    }

    /// Watches the next bytes of the stream go by.
    pub fn feed(&mut self, chunk: &[u8], noticed: &mut Noticed) {
        let mut at = self.skip_bom(chunk);
        // The value of the block's only data line so far, while it lies in this chunk.
        let mut held: Option<Range<usize>> = None;
        while at < chunk.len() {
            if self.after_cr {
                self.after_cr = false;
                if chunk[at] == b'\n' {
                    at += 1;
                    continue;
                }
            }
            let end = memchr::memchr2(b'\r', b'\n', &chunk[at..]).map(|found| at + found);
            self.segment(chunk, at..end.unwrap_or(chunk.len()), &mut held);
            let Some(end) = end else { break };
            self.after_cr = chunk[end] == b'\r';
            self.end_line(chunk, &mut held, noticed);
            at = end + 1;
        }
        if let Some(range) = held {
            self.data.extend_from_slice(&chunk[range]);
        }
    }

    /// Steps over a byte-order mark, which only the very start of a stream may have.
    fn skip_bom(&mut self, chunk: &[u8]) -> usize {
        let mut at = 0;
        while self.bom < BOM.len() && at < chunk.len() {
            if chunk[at] == BOM[self.bom] {
                self.bom += 1;
                at += 1;
            } else {
                if self.bom > 0 {
                    self.line = Line::Other;
                    self.in_block = true;
                }
                self.bom = BOM.len();
            }
        }
        at
    }

    /// Takes a piece of one line, without its end.
    fn segment(&mut self, chunk: &[u8], piece: Range<usize>, held: &mut Option<Range<usize>>) {
        let mut at = piece.start;
        while at < piece.end {
            match self.line {
                Line::Name(matched) => {
                    self.in_block = true;
                    let byte = chunk[at];
                    self.line = match FIELD.get(matched) {
                        Some(&expected) if byte == expected => Line::Name(matched + 1),
                        None if byte == b':' => {
                            self.begin_data(chunk, held);
                            Line::Value
                        }
                        _ => Line::Other,
                    };
                    at += 1;
                }
                Line::Value => {
                    self.value(chunk, at..piece.end, held);
                    return;
                }
                Line::Other => return,
            }
        }
    }

    /// A data line has begun; what came before it in the block is joined to it by a line feed.
    fn begin_data(&mut self, chunk: &[u8], held: &mut Option<Range<usize>>) {
        self.data_lines = self.data_lines.saturating_add(1);
        if self.data_lines > 1 {
            if let Some(range) = held.take() {
                self.data.extend_from_slice(&chunk[range]);
            }
            self.push(b"\n");
        }
    }

    fn value(&mut self, chunk: &[u8], range: Range<usize>, held: &mut Option<Range<usize>>) {
        if self.data_lines == 1 && self.data_len == 0 && range.len() <= NOTICE_LIMIT {
            self.data_len = range.len();
            *held = Some(range);
        } else {
            self.push(&chunk[range]);
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.data_len = self.data_len.saturating_add(bytes.len());
        if self.data_len > NOTICE_LIMIT {
            // What is left is no JSON, so nothing will be noticed in it.
            self.data.clear();
        } else {
            self.data.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self, chunk: &[u8], held: &mut Option<Range<usize>>, noticed: &mut Noticed) {
        match std::mem::replace(&mut self.line, Line::Name(0)) {
            Line::Name(0) => self.end_block(chunk, held, noticed),
            // A field name alone is a field with an empty value.
            Line::Name(matched) if matched == FIELD.len() => self.begin_data(chunk, held),
            _ => {}
        }
    }

    fn end_block(&mut self, chunk: &[u8], held: &mut Option<Range<usize>>, noticed: &mut Noticed) {
        let whole = held.take();
        if self.data_lines > 0 {
            self.events += 1;
            notice_unary(whole.map_or(self.data.as_slice(), |range| &chunk[range]), noticed);
        }
        self.in_block = false;
        self.data_lines = 0;
        self.data_len = 0;
        self.data.clear();
        // An event in many pieces may have grown the buffer; idle streams are many and should weigh little.
        self.data.shrink_to(4096);
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
