use super::flush::Chunk;
use std::io;

#[derive(Debug, Default)]
pub(super) struct Faults;
impl Faults {
    pub(super) fn on_create(&self) -> io::Result<()> { Ok(()) }
    pub(super) fn on_write(&self, _chunk: &Chunk) -> io::Result<()> { Ok(()) }
    pub(super) fn on_sync(&self) -> io::Result<()> { Ok(()) }
    pub(super) fn on_repair(&self) -> io::Result<()> { Ok(()) }
}
