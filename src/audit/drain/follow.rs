//! The journal of one process start, batch after batch: read, commit, delete.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::DrainError;
use super::batch::Gathering;
use super::segment_reader::{Extent, SegmentReader};
use super::worker_reader::{Listed, Place, WorkerReader};
use crate::audit::journal::segment::{file_name, parse_file_name};
use crate::audit::journal::{DAMAGED_DIR, JournalSource, SegmentEnd};
use crate::audit::ledger::tree::Frontier;
use crate::clock::Clock;
use crate::store::calls::JournalPosition;
use crate::store::{Store, StoreError};

/// A journal being turned into rows.
#[derive(Debug)]
pub(super) struct Follower {
    instance: Uuid,
    dir: PathBuf,
    /// The journal's owner, if it lives.
    living: Option<JournalSource>,
    /// Of a dead one: its segments.
    segments: BTreeMap<u32, Vec<Listed>>,
    workers: Vec<WorkerReader>,
    gathering: Gathering,
    /// The batch is complete: nothing is added before it is committed.
    ready: bool,
    /// A commit of this batch has failed, perhaps after it took effect.
    tried: bool,
    /// It was not done in time: the batch may be too large.
    too_large: bool,
    /// The last batch is committed.
    done: bool,
}

impl Follower {
    /// Follows the journal of this process from its beginning.
    pub(super) fn living(source: JournalSource, tree: Frontier) -> Self {
        Self {
            instance: source.instance(),
            dir: source.dir().to_owned(),
            workers: source.workers().map(|worker| WorkerReader::new(worker, Place::default())).collect(),
            gathering: Gathering::new(source.node_id(), tree, source.disk(), source.clock()),
            living: Some(source),
            segments: BTreeMap::new(),
            ready: false,
            tried: false,
            too_large: false,
            done: false,
        }
    }

    /// Continues the journal of a process that has ended, after `positions`.
    pub(super) fn dead(
        instance: Uuid,
        dir: &Path,
        node_id: Uuid,
        tree: Frontier,
        positions: &[JournalPosition],
        clock: &Clock,
    ) -> io::Result<Self> {
        let segments = list(dir)?;
        let resume = |worker: u32| {
            let found = positions.iter().find(|position| (position.instance, position.worker) == (instance, worker));
            found.map_or_else(Place::default, |found| Place { segment: found.segment, offset: found.offset })
        };
        Ok(Self {
            instance,
            dir: dir.to_owned(),
            living: None,
            workers: segments.keys().map(|worker| WorkerReader::new(*worker, resume(*worker))).collect(),
            segments,
            // How its owner kept it is unknown.
            gathering: Gathering::new(node_id, tree, true, clock),
            ready: false,
            tried: false,
            too_large: false,
            done: false,
        })
    }

    /// The node's tree as it is in the database.
    pub(super) fn tree(&self) -> &Frontier {
        self.gathering.tree()
    }

    fn segments_of(&self, worker: u32) -> Vec<Listed> {
        match &self.living {
            Some(source) => {
                let known = |SegmentEnd { number, end, .. }| Listed { number, extent: Extent::Known(end) };
                source.segments(worker).into_iter().map(known).collect()
            }
            None => self.segments.get(&worker).cloned().unwrap_or_default(),
        }
    }

    /// Reads the next batch. After an error, what was read is still there.
    pub(super) fn gather(&mut self, finish: bool) -> io::Result<()> {
        for at in 0..self.workers.len() {
            let segments = self.segments_of(self.workers[at].worker);
            let worker = &mut self.workers[at];
            worker.read(&self.dir, &segments, &mut self.gathering)?;
            if let (Some(source), Some(damaged)) = (&self.living, worker.waits_in()) {
                source.leave(worker.worker, damaged);
            }
        }
        let last = finish && !self.gathering.full();
        if last {
            for worker in &mut self.workers {
                worker.interrupt_open(&mut self.gathering);
            }
        }
        let Self { gathering, workers, instance, .. } = self;
        let batch = &mut gathering.batch;
        // Segments without rows have to go as well: where they end, the database has to know.
        self.ready = last || !batch.rows.is_empty() || workers.iter().any(WorkerReader::has_moved_on);
        batch.finished = last.then_some(*instance);
        batch.positions = workers
            .iter()
            .filter_map(|worker| {
                let Place { segment, offset } = worker.place()?;
                Some(JournalPosition { instance: *instance, worker: worker.worker, segment, offset })
            })
            .collect();
        Ok(())
    }

    pub(super) async fn commit(&mut self, store: &Store) -> Result<(), DrainError> {
        if self.tried {
            if self.has_landed(store).await? {
                return Ok(());
            }
        } else if self.living.is_none() {
            // The journal may be an older copy: a backup's, whose database was copied later.
            let known = store.known_calls(&self.gathering.batch.rows).await?;
            if !known.is_empty() {
                self.gathering.leave_out(&known);
            }
        }
        if !self.tried {
            self.gathering.seal();
        }
        self.tried = true;
        let committed = store.commit_drained(&self.gathering.batch).await;
        self.too_large = committed.as_ref().is_err_and(StoreError::is_slow);
        Ok(committed?)
    }

    /// Commits the batch and begins the next one; says whether this was the last.
    pub(super) async fn commit_and_clear(&mut self, store: &Store) -> Result<bool, DrainError> {
        self.commit(store).await?;
        self.clear();
        Ok(self.done)
    }

    /// After a commit: the batch is in the database.
    fn clear(&mut self) {
        let batch = &self.gathering.batch;
        for worker in &mut self.workers {
            if let Some(position) = batch.positions.iter().find(|position| position.worker == worker.worker) {
                worker.committed(Place { segment: position.segment, offset: position.offset });
            }
        }
        self.done = batch.finished.is_some();
        self.gathering.committed();
        (self.ready, self.tried, self.too_large) = (false, false, false);
    }

    /// Whether the batch was not committed in time, and can be made smaller.
    pub(super) fn is_too_large(&self) -> bool {
        self.too_large && self.gathering.batch.rows.len() > 1
    }

    /// After a commit that was not done in time: unless it was after all, reads the same again, half as much at once.
    pub(super) async fn divide(&mut self, store: &Store) -> Result<(), DrainError> {
        if self.has_landed(store).await? {
            self.clear();
        } else {
            let rows = self.gathering.batch.rows.len();
            tracing::warn!(rows, "the database does not take as many rows at once in time: half of them are tried");
            self.gathering.give_up();
            for worker in &mut self.workers {
                worker.go_back();
            }
            (self.ready, self.tried, self.too_large) = (false, false, false);
        }
        Ok(())
    }

    /// Whether the batch is in the database although its commit failed.
    async fn has_landed(&self, store: &Store) -> Result<bool, DrainError> {
        let batch = &self.gathering.batch;
        store.settled(batch.node).await?;
        if let Some(instance) = batch.finished {
            return Ok(store.finished_journals().await?.contains(&instance));
        }
        let stored = store.journal_positions().await?;
        Ok(batch.positions.iter().all(|position| stored.contains(position)))
    }

    /// Deletes what is a row by now.
    fn clean(&self) -> io::Result<()> {
        for worker in &self.workers {
            for segment in self.segments_of(worker.worker) {
                if self.done || worker.is_past(segment.number) {
                    self.remove(worker, segment.number)?;
                }
            }
        }
        if self.done {
            match std::fs::remove_dir_all(&self.dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn remove(&self, worker: &WorkerReader, number: u64) -> io::Result<()> {
        let name = file_name(worker.worker, number);
        let path = self.dir.join(&name);
        let removed = if worker.is_damaged(number) {
            let aside = self.dir.with_file_name(DAMAGED_DIR);
            std::fs::create_dir_all(&aside)?;
            std::fs::rename(&path, aside.join(format!("{}-{name}.damaged", self.instance)))
        } else if self.living.is_some() {
            std::fs::remove_file(&path)
        } else {
            // They go with the directory, once all of it is rows: until then a torn segment needs the one before.
            return Ok(());
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(source) = &self.living {
            source.forget(worker.worker, number);
        }
        Ok(())
    }
}

/// Reads a batch and commits it. `Ok(true)`: there may be more. With `finish`, and once there is nothing more, what is still open
/// becomes `interrupted` and the directory goes; this may only be asked for when nobody writes any more. After an error, call
/// it again with the same follower: nothing is lost, nothing is committed twice.
pub(super) async fn step(mut follower: Follower, store: &Store, finish: bool) -> (Follower, Result<bool, DrainError>) {
    if follower.is_too_large()
        && let Err(error) = follower.divide(store).await
    {
        return (follower, Err(error));
    }
    if !follower.ready && !follower.done {
        let reading = tokio::task::spawn_blocking(move || {
            let result = follower.gather(finish);
            (follower, result)
        });
        let result;
        (follower, result) = match reading.await {
            Ok(read) => read,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is ending, and this task with it.
                Err(_) => std::future::pending().await,
            },
        };
        if let Err(error) = result {
            return (follower, Err(error.into()));
        }
    }
    let result = finish_step(&mut follower, store).await;
    (follower, result)
}

async fn finish_step(follower: &mut Follower, store: &Store) -> Result<bool, DrainError> {
    let committed = follower.ready;
    if follower.ready {
        follower.commit_and_clear(store).await?;
    }
    // Of a dead journal nothing is deleted before all of it is in the database.
    if follower.living.is_some() || follower.done {
        follower.clean()?;
    }
    if follower.done {
        store.forget_journal(follower.instance).await?;
    }
    Ok(committed && !follower.done)
}

/// The segments in a directory, by worker, oldest first.
pub(super) fn list(dir: &Path) -> io::Result<BTreeMap<u32, Vec<Listed>>> {
    let mut segments = BTreeMap::<u32, Vec<Listed>>::new();
    for file in std::fs::read_dir(dir)? {
        let file = file?;
        if let Some((worker, number)) = file.file_name().to_str().and_then(parse_file_name) {
            let extent = Extent::AtMost(file.metadata()?.len());
            segments.entry(worker).or_default().push(Listed { number, extent });
        }
    }
    for (worker, listed) in &mut segments {
        listed.sort_unstable_by_key(|listed| listed.number);
        for listed in left(dir, *worker, listed)? {
            listed.extent = Extent::Left(listed.extent.end());
        }
    }
    Ok(segments)
}

/// Those of a worker's segments that it had left: it had begun to write another. That one was made is not enough.
fn left<'a>(dir: &Path, worker: u32, segments: &'a mut [Listed]) -> io::Result<&'a mut [Listed]> {
    let mut last = segments.len();
    while last > 0 {
        last -= 1;
        let Listed { number, extent } = segments[last];
        let mut reader = SegmentReader::open(&dir.join(file_name(worker, number)))?;
        reader.header(extent)?;
        if reader.is_written() {
            break;
        }
    }
    Ok(&mut segments[..last])
}
