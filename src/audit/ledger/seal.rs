//! Sealing: the checkpoints of this node, signed as its tree grows.
//!
//! A checkpoint is signed when there is something new and a second has passed, or a thousand rows. It leaves only once every row
//! it speaks of survives a power cut. Promises never to sign two trees of which one is not the beginning of the other: what was
//! signed last is remembered outside the database, too, and a database that has less, or something else, is not signed for.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::note::{Checkpoint, Note, NoteError, Signer, VerifierKey};
use super::read::{ReadError, TreeReader};
use super::tree::Frontier;
use crate::clock::{Clock, Timestamp};
use crate::store::ledger::{CheckpointRow, LedgerKeyRow};
use crate::store::{Store, StoreError};

/// The longest that new rows wait for a checkpoint,
const INTERVAL: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1_000 });
/// unless there are so many.
const ROWS: u64 = 1_000;
/// The pause after a failure.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1_000 });

/// Why nothing is sealed.
#[derive(Debug)]
pub enum SealError {
    /// None of the keys that are there signed so far; holds the one that did.
    KeyMissing(String),
    /// The database does not hold what was signed: it was changed, or it is older.
    NotWhatWasSigned {
        /// How many rows were signed for.
        signed: u64,
        /// Why that does not hold.
        why: String,
    },
    /// A key took over for this tree already: what named that one would be lost.
    KeyIsNew,
    /// A new key could not be made.
    NoKey(String),
    /// What was signed last cannot be read or written.
    File(PathBuf, io::Error),
    /// A key or a name that cannot be used.
    Note(NoteError),
    /// The database.
    Store(StoreError),
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyMissing(key) => {
                write!(
                    f,
                    "the secret half of {key}, which signed so far, is missing: put its file back beside the others"
                )
            }
            Self::NotWhatWasSigned { signed, why } => write!(
                f,
                "this node has signed for {signed} rows, and the database does not hold them ({why}): it was changed, or \
                 restored by hand; nothing is signed until it is back. To go on with what is there, stop the gateway and \
                 run trust-gateway new-node"
            ),
            Self::KeyIsNew => {
                f.write_str("a new key took over, and no call was recorded since: ask again after the next call")
            }
            Self::NoKey(why) => write!(f, "a new key could not be made: {why}"),
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Note(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SealError {}

impl From<StoreError> for SealError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<NoteError> for SealError {
    fn from(error: NoteError) -> Self {
        Self::Note(error)
    }
}

impl SealError {
    /// Whether it may be gone by itself.
    fn passes(&self) -> bool {
        matches!(self, Self::Store(_) | Self::File(..))
    }
}

/// What was signed last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// How many rows it speaks of.
    pub size: u64,
    /// When, where it was since the start.
    pub at: Option<Timestamp>,
}

/// How sealing goes.
#[derive(Clone, Debug, Default)]
pub struct SealState {
    /// What signatures are checked with.
    pub key: Option<VerifierKey>,
    /// What was signed last.
    pub sealed: Sealed,
    /// Why nothing is signed.
    pub trouble: Option<String>,
}

/// How sealing goes, for those who look on.
#[derive(Clone, Debug, Default)]
pub struct SealView(Arc<Mutex<SealState>>);

impl SealView {
    /// Now.
    #[must_use]
    pub fn now(&self) -> SealState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut SealState)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What the sealer works with.
#[derive(Debug)]
pub struct SealerSettings {
    /// Whose rows.
    pub node: Uuid,
    /// The name of the log, should it have none yet: host, `audit` and node.
    pub origin: String,
    /// Secret keys, oldest first: the last signs.
    pub seeds: Vec<[u8; 32]>,
    /// Where what was signed last is remembered.
    pub file: PathBuf,
}

/// The one task of a node that signs.
#[derive(Debug)]
pub struct Sealer {
    store: Store,
    clock: Clock,
    settings: SealerSettings,
    tree: watch::Receiver<Option<Frontier>>,
    /// Asks for a new key to be announced.
    new_key: tokio::sync::mpsc::Receiver<NewKey>,
    view: SealView,
    sealed: watch::Sender<u64>,
}

/// Makes a secret key; why there is none, in words.
pub type MakeSeed = Box<dyn FnOnce() -> Result<[u8; 32], String> + Send>;

/// How to make a key that is to take over, and who wants to know how that went.
type NewKey = (MakeSeed, tokio::sync::oneshot::Sender<Result<VerifierKey, NotChanged>>);

/// Why a key did not take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotChanged {
    /// It must not now; none was made.
    Refused(String),
    /// It could not.
    Failed(String),
}

impl From<SealError> for NotChanged {
    fn from(error: SealError) -> Self {
        match error {
            SealError::KeyIsNew => Self::Refused(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// What others have of a sealer.
#[derive(Clone, Debug)]
pub struct SealHandle {
    /// How it goes.
    pub view: SealView,
    /// The size of the last checkpoint, each time there is one; it ends with the sealer.
    pub sealed: watch::Receiver<u64>,
    new_key: tokio::sync::mpsc::Sender<NewKey>,
}

impl SealHandle {
    /// Makes a key and lets it take over: the checkpoint that says so is signed with both.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn change_key(&self, make: MakeSeed) -> Result<VerifierKey, NotChanged> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let ended = || NotChanged::Failed("nothing is sealed now: the status says why".to_owned());
        self.new_key.send((make, tell)).await.map_err(|_| ended())?;
        told.await.map_err(|_| ended())?
    }
}

impl Sealer {
    /// Signs for what `tree` tells of.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Clock,
        settings: SealerSettings,
        tree: watch::Receiver<Option<Frontier>>,
    ) -> (Self, SealHandle) {
        let (view, (sealed, seen)) = (SealView::default(), watch::channel(0));
        let (ask, new_key) = tokio::sync::mpsc::channel(1);
        let handle = SealHandle { view: view.clone(), sealed: seen, new_key: ask };
        (Self { store, clock, settings, tree, new_key, view, sealed }, handle)
    }

    /// Goes on until the drain has ended and the last of its rows is signed for.
    pub async fn run(mut self) {
        let Some(mut signing) = self.begun().await else { return };
        loop {
            let more = tokio::select! {
                more = due(&mut self.tree, signing.size) => more,
                Some((make, tell)) = self.new_key.recv() => {
                    let taken = self.take_over(&mut signing, make).await;
                    // Whether the key was entered all the same, only the database knows: the former must not go on then.
                    let doubt = matches!(taken, Err(SealError::Store(_)));
                    // Whoever asked may have gone.
                    let _ = tell.send(taken.map_err(NotChanged::from));
                    if doubt {
                        let Some(now) = self.begun().await else { return };
                        signing = now;
                    }
                    continue;
                }
            };
            let Some(tree) = self.tree.borrow_and_update().clone() else { return };
            if tree.size() > signing.size {
                match self.seal(&mut signing, &tree, None).await {
                    Ok(()) => self.view.change(|state| state.trouble = None),
                    Err(error) => {
                        tracing::error!(%error, "a checkpoint cannot be signed; it will be tried again");
                        self.view.change(|state| state.trouble = Some(error.to_string()));
                        if !more {
                            return;
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            if !more {
                return;
            }
        }
    }

    /// As [`Self::begin`], for as long as that fails and may be gone by itself.
    async fn begun(&mut self) -> Option<Signing> {
        loop {
            match self.begin().await {
                Ok(Some(signing)) => return Some(signing),
                // The drain ended before it told of a tree.
                Ok(None) => return None,
                Err(error) => {
                    let passes = error.passes();
                    tracing::error!(%error, "checkpoints cannot be signed");
                    self.view.change(|state| state.trouble = Some(error.to_string()));
                    if !passes {
                        return None;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Which key signs and what was signed; the tree of now must have grown from that.
    async fn begin(&mut self) -> Result<Option<Signing>, SealError> {
        let Ok(tree) = self.tree.wait_for(Option::is_some).await.map(|tree| tree.clone().unwrap_or_default()) else {
            return Ok(None);
        };
        let SealerSettings { node, origin, seeds, .. } = &self.settings;
        let keys = self.store.ledger_keys(*node).await?;
        let last = keys.last().map(|last| VerifierKey::parse(&last.key)).transpose()?;
        // A log keeps its name, though the gateway may be given another address.
        let name = last.as_ref().map_or(origin.as_str(), VerifierKey::name).to_owned();
        let mut signers = seeds.iter().map(|seed| Signer::new(&name, seed)).collect::<Result<Vec<_>, _>>()?;
        let newest = signers.pop().ok_or_else(|| SealError::KeyMissing(name.clone()))?;
        let (signer, next) = match last {
            None => (newest, None),
            Some(last) if *newest.key() == last => (newest, None),
            Some(last) => match signers.into_iter().rfind(|signer| *signer.key() == last) {
                Some(signer) => (signer, Some(newest)),
                None => return Err(SealError::KeyMissing(last.to_string())),
            },
        };
        let size = self.signed_before(&keys).await?;
        if keys.is_empty() {
            let first = LedgerKeyRow { number: 1, key: signer.key().to_string(), size, added_at: self.clock.wall() };
            self.store.keep_ledger_key(*node, &first).await?;
        }
        let mut signing = Signing { number: keys.len().max(1) as u64, signer, size };
        self.view.change(|state| {
            state.key = Some(signing.signer.key().clone());
            (state.sealed.size, state.trouble) = (size, None);
        });
        self.sealed.send_replace(size);
        if let Some(next) = next {
            match self.may_announce(&tree).await {
                Ok(()) => self.seal(&mut signing, &tree, Some(next)).await?,
                Err(SealError::KeyIsNew) => tracing::warn!("{}", SealError::KeyIsNew),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(signing))
    }

    /// For how many rows was signed last; they must be the beginning of the tree.
    async fn signed_before(&self, keys: &[LedgerKeyRow]) -> Result<u64, SealError> {
        let reader = TreeReader::open(&self.store, self.settings.node).await?;
        let stored = self.store.last_checkpoint(self.settings.node).await?;
        let remembered = self.remembered(keys)?;
        let mut signed = 0;
        for (size, root) in
            stored.map(|last| (last.size, last.root)).into_iter().chain(remembered.map(|last| (last.size, last.root)))
        {
            let wrong = |why: String| SealError::NotWhatWasSigned { signed: size, why };
            let now = match reader.frontier(size).await {
                Ok(then) => then.root(),
                Err(ReadError::Store(error)) => return Err(error.into()),
                // Signed for, and gone since: what is left is held against the later one.
                Err(ReadError::Dropped(_)) => root,
                Err(error) => return Err(wrong(error.to_string())),
            };
            if now != root {
                return Err(wrong("they are not what they were".to_owned()));
            }
            signed = size.max(signed);
        }
        Ok(signed)
    }

    /// What this machine remembers of having signed for this log, with whichever key: a database that is older than a key does
    /// not know that one.
    fn remembered(&self, keys: &[LedgerKeyRow]) -> Result<Option<Checkpoint>, SealError> {
        let SealerSettings { file, origin, seeds, .. } = &self.settings;
        let note = match std::fs::read_to_string(file) {
            Ok(note) => Note::parse(&note)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SealError::File(file.clone(), error)),
        };
        let name = &note.unverified().origin;
        // Of another node, whose data this was copied from.
        if name.rsplit('/').next() != origin.rsplit('/').next() {
            return Ok(None);
        }
        let own = seeds.iter().filter_map(|seed| Some(Signer::new(name, seed).ok()?.key().clone()));
        let entered = keys.iter().filter_map(|row| VerifierKey::parse(&row.key).ok());
        let said = own.chain(entered).find_map(|key| note.verified_by(&key).ok().cloned());
        said.map(Some).ok_or_else(|| SealError::KeyMissing(format!("the key of {name} in {}", file.display())))
    }

    /// Lets a new key sign from now on.
    async fn take_over(&mut self, signing: &mut Signing, make: MakeSeed) -> Result<VerifierKey, SealError> {
        let tree = self.tree.borrow_and_update().clone().unwrap_or_default();
        // Before it is made: the next start would let it take over.
        self.may_announce(&tree).await?;
        let seed = make().map_err(SealError::NoKey)?;
        let next = Signer::new(signing.signer.key().name(), &seed)?;
        let key = next.key().clone();
        self.settings.seeds.push(seed);
        self.seal(signing, &tree, Some(next)).await?;
        Ok(key)
    }

    /// A checkpoint names one key: a second for the same tree would take its place.
    async fn may_announce(&self, tree: &Frontier) -> Result<(), SealError> {
        let announced = self.store.announcements(self.settings.node).await?;
        if announced.iter().any(|before| before.size == tree.size()) { Err(SealError::KeyIsNew) } else { Ok(()) }
    }

    /// Signs for `tree`, keeps what was signed, and tells. With `next` the checkpoint names that key, which signs from then on.
    async fn seal(&self, signing: &mut Signing, tree: &Frontier, next: Option<Signer>) -> Result<(), SealError> {
        let (node, now) = (self.settings.node, self.clock.wall());
        let checkpoint = Checkpoint {
            origin: signing.signer.key().name().to_owned(),
            size: tree.size(),
            root: tree.root(),
            next_key: next.as_ref().map(|next| next.key().clone()),
        };
        let signers: Vec<&Signer> = std::iter::once(&signing.signer).chain(&next).collect();
        let note = checkpoint.signed(&signers);
        let row = CheckpointRow {
            node_id: node,
            size: checkpoint.size,
            root: checkpoint.root,
            signed_at: now,
            announces: next.is_some(),
            note: note.clone(),
        };
        if let Some(next) = next {
            let number = signing.number + 1;
            let key = LedgerKeyRow { number, key: next.key().to_string(), size: tree.size(), added_at: now };
            self.store.keep_announcement(&row, &key).await?;
            (signing.signer, signing.number) = (next, number);
            tracing::info!(key = %signing.signer.key(), "checkpoints are signed with a new key");
        } else {
            self.store.keep_checkpoint(&row).await?;
        }
        self.remember(note).await?;
        signing.size = tree.size();
        self.view.change(|state| {
            state.key = Some(signing.signer.key().clone());
            state.sealed = Sealed { size: tree.size(), at: Some(now) };
        });
        self.sealed.send_replace(tree.size());
        Ok(())
    }

    /// Returns once it survives a power cut.
    async fn remember(&self, note: String) -> Result<(), SealError> {
        let file = self.settings.file.clone();
        let written = tokio::task::spawn_blocking(move || replace(&file, &note)).await.map_err(io::Error::other);
        written.flatten().map_err(|error| SealError::File(self.settings.file.clone(), error))
    }
}

/// Puts `text` in the place of what is in `file`: after a crash it is the one or the other.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let draft = file.with_extension("new");
    let mut out = File::create(&draft)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    std::fs::rename(&draft, file)?;
    file.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// What is signed with, and how far.
#[derive(Debug)]
struct Signing {
    signer: Signer,
    number: u64,
    size: u64,
}

/// Returns when it is time for a checkpoint; false: there will be no more rows.
async fn due(tree: &mut watch::Receiver<Option<Frontier>>, signed: u64) -> bool {
    let size = |tree: &Option<Frontier>| tree.as_ref().map_or(0, Frontier::size);
    if tree.wait_for(|tree| size(tree) > signed).await.is_err() {
        return false;
    }
    let many = async { tree.wait_for(|tree| size(tree) >= signed + ROWS).await.is_ok() };
    // An error is the end of the drain: then there is nothing to wait for.
    tokio::time::timeout(INTERVAL, many).await.unwrap_or(true)
}
