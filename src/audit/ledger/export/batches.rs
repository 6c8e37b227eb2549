//! The records of a file, worked on by as many threads as the machine has, and taken in their order.

use std::io::{self, BufRead, Read as _};
use std::sync::mpsc::sync_channel;
use std::thread;

/// Records per batch; a few batches are in memory for each thread.
const BATCH: usize = if cfg!(test) { 50 } else { 1_000 };
/// No record of ours is as long.
const RECORD_MAX: u64 = 4 << 20;

/// Where a record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// With its line.
    Line,
    /// With its line, unless that is within quotes.
    QuotedLine,
}

/// Does `work` with each record of `file` and hands over what comes of it, in the order of the file.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn in_order<T: Send>(
    file: impl BufRead + Send,
    ends: Ends,
    work: impl Fn(&str) -> T + Sync,
    mut take: impl FnMut(T),
) -> io::Result<()> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let work = &work;
        let (inputs, outputs): (Vec<_>, Vec<_>) = (0..workers)
            .map(|_| {
                let (input, batches) = sync_channel::<Vec<String>>(2);
                let (done, output) = sync_channel::<Vec<T>>(2);
                scope.spawn(move || {
                    for batch in batches {
                        if done.send(batch.iter().map(|record| work(record)).collect()).is_err() {
                            return;
                        }
                    }
                });
                (input, output)
            })
            .unzip();
        let reading = scope.spawn(move || read(file, ends, &inputs));
        for output in outputs.iter().cycle() {
            // The first that has no more is the one whose turn it is: none has.
            let Ok(batch) = output.recv() else { break };
            batch.into_iter().for_each(&mut take);
        }
        reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn read(mut file: impl BufRead, ends: Ends, inputs: &[std::sync::mpsc::SyncSender<Vec<String>>]) -> io::Result<()> {
    for input in inputs.iter().cycle() {
        let mut batch = Vec::with_capacity(BATCH);
        while batch.len() < BATCH {
            match record(&mut file, ends)? {
                Some(record) => batch.push(record),
                None => break,
            }
        }
        let last = batch.len() < BATCH;
        if input.send(batch).is_err() || last {
            break;
        }
    }
    Ok(())
}

/// The next record, with the end of its line if it has one.
pub(super) fn record(file: &mut impl BufRead, ends: Ends) -> io::Result<Option<String>> {
    let mut record = Vec::new();
    loop {
        let read = file.by_ref().take(RECORD_MAX).read_until(b'\n', &mut record)?;
        let open = ends == Ends::QuotedLine && record.iter().filter(|byte| **byte == b'"').count() % 2 == 1;
        if record.len() as u64 >= RECORD_MAX {
            return Err(io::Error::other("a line is longer than any in an export"));
        }
        if read == 0 || !open {
            break;
        }
    }
    Ok((!record.is_empty()).then(|| String::from_utf8_lossy(&record).into_owned()))
}
