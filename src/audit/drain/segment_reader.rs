//! Entries out of one segment file, and telling a torn tail from damage. Must not know what entries mean.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::audit::journal::entry::{self, ENTRY_MAX, Kind, Next};
use crate::audit::journal::segment::{HEADER, Header};

/// How much is read at once.
const READ: usize = 256 * 1024;

/// What the reader found next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An entry; [`SegmentReader::bytes`] has its payload until the next call.
    Entry { kind: Kind, payload: Range<usize> },
    /// Nothing more, for now or for good.
    Nothing,
    /// Bytes from this offset on that are no entries, where there should be some. The reader has moved to the end.
    Damage(u64),
}

/// How a segment's end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All bytes before this offset are entries: its writer said so.
    Known(u64),
    /// Its writer, dead by now, went on to another: there are at most this many bytes, and behind the entries only zeros.
    Left(u64),
    /// Its writer died writing it: there are at most this many bytes, and entries end somewhere among them.
    AtMost(u64),
}

impl Extent {
    pub(super) fn end(self) -> u64 {
        let (Self::Known(end) | Self::Left(end) | Self::AtMost(end)) = self;
        end
    }
}

#[derive(Debug)]
pub(super) struct SegmentReader {
    /// `None`: it is not there.
    file: Option<File>,
    /// A piece of the file.
    buffer: Vec<u8>,
    /// Where in the file the piece begins.
    base: u64,
    /// Where in the piece the next entry begins.
    next: usize,
}

impl SegmentReader {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = match File::open(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { file, buffer: Vec::new(), base: 0, next: 0 })
    }

    /// Whether there is no such file.
    pub(super) fn is_gone(&self) -> bool {
        self.file.is_none()
    }

    /// Reads the header: `None` if the bytes are none. To be called once, first.
    pub(super) fn header(&mut self, extent: Extent) -> io::Result<Option<Header>> {
        self.load(extent.end())?;
        let Some((header, len)) = Header::from_bytes(&self.buffer) else { return Ok(None) };
        self.next = len;
        Ok(Some(header))
    }

    /// Whether there is anything but zeros where the header should be.
    pub(super) fn is_written(&self) -> bool {
        self.buffer.iter().take(HEADER).any(|byte| *byte != 0)
    }

    /// The offset of the next entry.
    pub(super) fn offset(&self) -> u64 {
        self.base + self.next as u64
    }

    /// Leaves out everything before `end`.
    pub(super) fn skip_to(&mut self, end: u64) {
        self.base = end;
        self.next = 0;
        self.buffer.clear();
    }

    /// The next entry.
    pub(super) fn next(&mut self, extent: Extent) -> io::Result<Found> {
        let end = extent.end();
        let ahead = self.buffer.len() - self.next;
        if ahead < ENTRY_MAX + 8 && self.base + (self.buffer.len() as u64) < end {
            self.load(end)?;
        }
        let found = entry::next(&self.buffer[self.next..]);
        if let Next::Entry { kind, payload, len } = found {
            self.next += len;
            return Ok(Found::Entry { kind, payload: self.next - payload.len()..self.next });
        }
        let (from, ended) = (self.offset(), found == Next::End);
        if from >= end {
            return Ok(Found::Nothing);
        }
        // In the last segment of a dead writer this is where it stopped; half an entry is what it was writing, and nobody was told that
        // it was done. Only entries behind it make it damage.
        let damage = match extent {
            Extent::Known(_) => true,
            Extent::Left(_) => !ended || self.more_entries(end)?,
            Extent::AtMost(_) => self.more_entries(end)?,
        };
        self.skip_to(end);
        Ok(if damage { Found::Damage(from) } else { Found::Nothing })
    }

    /// The payload of the entry found last.
    pub(super) fn bytes(&self, payload: Range<usize>) -> &[u8] {
        &self.buffer[payload]
    }

    /// Reads the piece that begins at the next entry.
    fn load(&mut self, end: u64) -> io::Result<()> {
        let base = self.offset();
        let len = usize::try_from(end.saturating_sub(base)).unwrap_or(READ).min(READ);
        self.buffer.resize(len, 0);
        let mut filled = 0;
        while filled < len {
            match read_at(self.file.as_ref(), &mut self.buffer[filled..], base + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.clear();
                    (self.base, self.next) = (base, 0);
                    return Err(error);
                }
            }
        }
        self.buffer.truncate(filled);
        (self.base, self.next) = (base, 0);
        Ok(())
    }

    /// Whether an entry can be read anywhere after the next offset.
    fn more_entries(&self, end: u64) -> io::Result<bool> {
        let from = self.offset();
        let mut rest = vec![0; usize::try_from(end.saturating_sub(from)).map_err(io::Error::other)?];
        let mut filled = 0;
        while filled < rest.len() {
            match read_at(self.file.as_ref(), &mut rest[filled..], from + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        rest.truncate(filled);
        let used = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // An entry may end in zeros itself: look a little further than the last other byte.
        let rest = &rest[..rest.len().min(used + ENTRY_MAX)];
        Ok((1..used).any(|at| matches!(entry::next(&rest[at..]), Next::Entry { .. })))
    }
}

/// Reads of a file; of one that is not there, nothing.
fn read_at(file: Option<&File>, into: &mut [u8], offset: u64) -> io::Result<usize> {
    file.map_or(Ok(0), |file| file.read_at(into, offset))
}
