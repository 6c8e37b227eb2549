//! One gateway serves from a data directory: a second one would hand out the same limits again and number the same rows.
//!
//! The lock is held while a gateway takes calls, not while it stops: a successor may start as soon as the calls of the one
//! before are only being finished. The drain has a lock of its own for that time.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::Path;

use super::StartError;

/// The name of the file that a serving gateway holds locked.
const FILE: &str = "gateway.lock";

/// The right to serve from a data directory; given up when dropped, or with the process.
#[derive(Debug)]
pub(super) struct Serving(#[allow(dead_code)] File); // held, never read

impl Serving {
    /// Takes the right to serve from `data_dir`, which exists.
    ///
    /// # Errors
    /// When another gateway serves from it, or the file cannot be made.
    pub(super) fn take(data_dir: &Path) -> Result<Self, StartError> {
        let path = data_dir.join(FILE);
        let failed = |error| StartError::File(path.clone(), error);
        let options = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = options.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message, which is understood without it.
                let _ = file.read_to_string(&mut holder);
                return Err(StartError::InUse { data_dir: data_dir.to_owned(), process: holder.trim().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gateway_is_told_which_process_serves_and_the_next_one_may() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Serving::take(dir.path()).expect("nobody serves");
        let refused = Serving::take(dir.path()).expect_err("one does").to_string();
        assert!(refused.contains(&format!("(process {})", std::process::id())), "{refused}");
        drop(first);
        Serving::take(dir.path()).expect("nobody serves any more");
    }
}
