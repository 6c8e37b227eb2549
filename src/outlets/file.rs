//! A file that something is appended to, line by line: rows, or checkpoints.
//!
//! Promises: what was taken is on the disk; a line that was not written whole is ended, so that the next one is whole; a file
//! that was moved away or deleted is made anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::post::Failure;

/// The file, lent to a thread that may wait for the disk.
#[derive(Clone, Debug)]
pub struct LineFile(Arc<Mutex<Appended>>);

impl LineFile {
    /// The file with that name; it is made when it is written to, and who may read it then is what `mode` says.
    #[must_use]
    pub fn new(path: PathBuf, mode: u32) -> Self {
        Self(Arc::new(Mutex::new(Appended { path, mode, open: None })))
    }

    /// Appends whole lines; they are on the disk when it returns.
    ///
    /// # Errors
    /// When they are not, or not all of them.
    pub async fn append(&self, lines: String) -> Result<(), Failure> {
        let file = Arc::clone(&self.0);
        let appending = move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.append(lines.as_bytes()).map_err(|error| format!("{} cannot be written: {error}", file.path.display()))
        };
        let done = tokio::task::spawn_blocking(appending).await;
        done.unwrap_or_else(|error| Err(error.to_string())).map_err(Failure::passing)
    }
}

/// The file, open once it was written to.
#[derive(Debug)]
struct Appended {
    path: PathBuf,
    mode: u32,
    open: Option<File>,
}

impl Appended {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let file = match self.open.take().filter(|file| is_at(file, &self.path)) {
            Some(file) => file,
            None => open(&self.path, self.mode)?,
        };
        // Kept only when all went well: part of a line may be in it otherwise, which opening it anew finds.
        (&file).write_all(lines)?;
        file.sync_data()?;
        self.open = Some(file);
        Ok(())
    }
}

/// Whether it is this file that has the name.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

fn open(path: &Path, mode: u32) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(mode).open(path)?;
    if file.metadata()?.is_file() && !ends_a_line(&mut file)? {
        file.write_all(b"\n")?;
    }
    // That it exists has to survive, too.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()?;
    Ok(file)
}

fn ends_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf, Appended) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("calls.jsonl");
        let file = Appended { path: path.clone(), mode: 0o600, open: None };
        (dir, path, file)
    }

    #[test]
    fn a_line_that_was_cut_off_is_ended_before_the_next() {
        let (_dir, path, mut file) = place();
        file.append(b"1\n").expect("written");
        fs::write(&path, "1\n{\"half").expect("written");
        Appended { path: path.clone(), mode: 0o600, open: None }.append(b"2\n").expect("written");
        file.append(b"3\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "1\n{\"half\n2\n3\n");
    }

    #[test]
    fn a_file_that_was_moved_away_deleted_or_emptied_is_gone_on_with_by_its_name() {
        let (dir, path, mut file) = place();
        file.append(b"1\n").expect("written");
        let rotated = dir.path().join("calls.jsonl.1");
        fs::rename(&path, &rotated).expect("moved");
        file.append(b"2\n").expect("written");
        // As logrotate's `create` leaves it.
        fs::rename(&path, dir.path().join("calls.jsonl.2")).expect("moved");
        File::create_new(&path).expect("made");
        file.append(b"5\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "5\n");
        fs::remove_file(&path).expect("deleted");
        file.append(b"3\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "3\n");
        File::options().write(true).truncate(true).open(&path).expect("emptied");
        file.append(b"4\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "4\n");
        assert_eq!(fs::read_to_string(&rotated).expect("readable"), "1\n");
    }

    #[test]
    fn only_those_read_it_who_may() {
        let (_dir, path, mut file) = place();
        file.append(b"1\n").expect("written");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
    }
}
