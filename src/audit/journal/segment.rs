//! One file of the journal: its name, its header, the room in it.
//!
//! A segment is `w<worker>-<number>.tgj`: a header, then entries, then zeros up to the size it was given when it was made. Numbers
//! are without gaps. Must not know what entries mean.
//!
//! A header is, in little-endian integers: `"tgjrnl\r\n"`, `u32` version, `u32` worker, 16 bytes instance, 16 bytes node, `u64`
//! number, `u32` carried, from version 2 on `u64` begun, `u32` CRC-32 of all that. Version 1 is still read; its numbers may have gaps.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use uuid::Uuid;

const MAGIC: &[u8; 8] = b"tgjrnl\r\n";
const VERSION: u32 = 2;

/// Bytes before the first entry.
pub(crate) const HEADER: usize = 72;
/// The same in version 1.
const HEADER_V1: usize = 64;

/// The number of a worker's first segment.
pub(crate) const FIRST: u64 = 1;

/// What the first bytes of a segment say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) instance: Uuid,
    pub(crate) node_id: Uuid,
    pub(crate) worker: u32,
    pub(crate) number: u64,
    /// How many of the entries that follow are intents copied from the segment before. A call that was open there and is
    /// not among them was given up: its outcome could not be written.
    pub(crate) carried: u32,
    /// How many calls the worker had begun in the segments before: what can be read of them falls short of it by what is missing.
    /// `None`: version 1 does not say.
    pub(crate) begun: Option<u64>,
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.worker.to_le_bytes());
        out[16..32].copy_from_slice(self.instance.as_bytes());
        out[32..48].copy_from_slice(self.node_id.as_bytes());
        out[48..56].copy_from_slice(&self.number.to_le_bytes());
        out[56..60].copy_from_slice(&self.carried.to_le_bytes());
        out[60..68].copy_from_slice(&self.begun.unwrap_or_default().to_le_bytes());
        let crc = crc32fast::hash(&out[..68]);
        out[68..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header that `bytes` begin with, and its length. `None` when it is not that of a segment this program can read.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<(Self, usize)> {
        let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let len = match u32_at(8)? {
            1 => HEADER_V1,
            VERSION => HEADER,
            _ => return None,
        };
        if !bytes.starts_with(MAGIC) || crc32fast::hash(bytes.get(..len - 4)?) != u32_at(len - 4)? {
            return None;
        }
        let header = Self {
            worker: u32_at(12)?,
            instance: Uuid::from_slice(&bytes[16..32]).ok()?,
            node_id: Uuid::from_slice(&bytes[32..48]).ok()?,
            number: u64_at(48)?,
            carried: u32_at(56)?,
            begun: if len == HEADER { Some(u64_at(60)?) } else { None },
        };
        Some((header, len))
    }
}

/// The file name of a segment.
pub(crate) fn file_name(worker: u32, number: u64) -> String {
    format!("w{worker}-{number}.tgj")
}

/// Worker and number of a segment's file name; `None` for other files.
pub(crate) fn parse_file_name(name: &str) -> Option<(u32, u64)> {
    let (worker, number) = name.strip_prefix('w')?.strip_suffix(".tgj")?.split_once('-')?;
    let parsed = (worker.parse().ok()?, number.parse().ok()?);
    (file_name(parsed.0, parsed.1) == name).then_some(parsed)
}

/// A segment that is being written.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) capacity: u64,
    pub(super) file: File,
}

impl Segment {
    /// Makes the file with all its room, or leaves nothing behind.
    pub(super) fn create(dir: &Path, worker: u32, number: u64, capacity: u64, disk: bool) -> io::Result<Self> {
        let path = dir.join(file_name(worker, number));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let made = reserve(&file, capacity).and_then(|()| {
            // The name must survive a power loss as surely as what is written under it.
            if disk { file.sync_all().and_then(|()| File::open(dir)?.sync_all()) } else { Ok(()) }
        });
        if let Err(error) = made {
            drop(file);
            std::fs::remove_file(&path)?;
            return Err(error);
        }
        Ok(Self { number, path, capacity, file })
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }
}

/// Takes `capacity` bytes of the disk now, so that a full disk shows here and not at an outcome.
fn reserve(file: &File, capacity: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, capacity) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = vec![0; 1 << 20];
            let mut at = 0;
            while at < capacity {
                let step = zeros.len().min(usize::try_from(capacity - at).unwrap_or(zeros.len()));
                file.write_all_at(&zeros[..step], at)?;
                at += step as u64;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_any_flipped_bit_is_noticed() {
        let header = Header {
            instance: Uuid::from_u128(7),
            node_id: Uuid::from_u128(8),
            worker: 3,
            number: 1 << 40 | 5,
            carried: 9,
            begun: Some(1 << 33 | 6),
        };
        let bytes = header.to_bytes();
        assert_eq!(Header::from_bytes(&bytes), Some((header, HEADER)));
        for bit in 0..HEADER * 8 {
            let mut broken = bytes;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::from_bytes(&broken), None, "bit {bit}");
        }
        for len in 0..HEADER {
            assert_eq!(Header::from_bytes(&bytes[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn a_header_of_version_1_is_read_without_what_it_does_not_say() {
        let header = Header {
            instance: Uuid::from_u128(7),
            node_id: Uuid::from_u128(8),
            worker: 3,
            number: 5,
            carried: 9,
            begun: None,
        };
        let mut bytes = header.to_bytes();
        bytes[8] = 1;
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::from_bytes(&bytes), Some((header, HEADER_V1)));
    }

    #[test]
    fn only_the_names_we_give_are_segments() {
        assert_eq!(parse_file_name(&file_name(2, 31)), Some((2, 31)));
        for other in ["w2-31.tgj.damaged", "w02-31.tgj", "w2-+31.tgj", "lock", "w-1.tgj", "w1.tgj"] {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_new_segment_has_all_its_room_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let segment = Segment::create(dir.path(), 0, 1, 1 << 20, true).expect("a segment");
        assert_eq!(segment.file.metadata().expect("metadata").len(), 1 << 20);
        assert!(Segment::create(dir.path(), 0, 1, 1 << 20, false).is_err(), "never one over another");
    }
}
