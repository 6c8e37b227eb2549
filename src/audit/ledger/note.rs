//! Signed checkpoints as C2SP `tlog-checkpoint` and `signed-note` have them, with Ed25519. Pure.
//!
//! A checkpoint is text: the origin, the number of leaves, the root in base64, then lines of ours, an empty line, and one line
//! for each signature. A line of ours is `next-key KEY`: the key that takes over. Such a checkpoint is signed with both, and
//! since the old key signs the new one's name, nobody else can name one.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::tree::{Hash, sha256};

/// What a line that names the next key begins with.
const NEXT_KEY: &str = "next-key ";
/// What a signature's line begins with: an em dash.
const SIGNATURE: &str = "\u{2014} ";
/// What says "Ed25519" before a public key.
const ED25519_TYPE: u8 = 1;
/// No kind of signature is shorter.
const SIGNATURE_MIN: usize = 64;
/// No note of ours is as long; one that is, is not read.
const NOTE_MAX: usize = 64 * 1024;

/// Why a note or a key is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoteError {
    /// It does not have the form; says where.
    Malformed(&'static str),
    /// It is not signed with the key asked for.
    NotSigned,
    /// The signature does not belong to the text.
    BadSignature,
    /// It speaks of another log; holds its origin.
    OtherOrigin(String),
}

impl fmt::Display for NoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "not a checkpoint: {what}"),
            Self::NotSigned => f.write_str("it is not signed with the given key"),
            Self::BadSignature => f.write_str("its signature does not belong to its text"),
            Self::OtherOrigin(origin) => write!(f, "it is a checkpoint of another log, {origin}"),
        }
    }
}

impl std::error::Error for NoteError {}

/// A log's public key: what `signed-note` calls a verifier key, `name+id+key`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VerifierKey {
    name: String,
    public: [u8; 32],
}

impl VerifierKey {
    /// The key of the log `name`, its origin.
    ///
    /// # Errors
    /// When the name is empty, or has a space or a plus sign in it.
    pub fn new(name: &str, public: [u8; 32]) -> Result<Self, NoteError> {
        if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+') {
            return Err(NoteError::Malformed("the name of a key is empty, or has a space or a plus sign in it"));
        }
        Ok(Self { name: name.to_owned(), public })
    }

    /// Reads `name+id+key`.
    ///
    /// # Errors
    /// When it is none, or the id is not that of name and key.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let form = NoteError::Malformed("a key is NAME+ID+KEY");
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else { return Err(form) };
        let bytes = STANDARD.decode(key).map_err(|_| form.clone())?;
        let Some((&ED25519_TYPE, public)) = bytes.split_first() else {
            return Err(NoteError::Malformed("only Ed25519 keys are known"));
        };
        let key = Self::new(name, public.try_into().map_err(|_| form)?)?;
        if key.id_text() != id {
            return Err(NoteError::Malformed("the id in the key is not that of its name and its bytes"));
        }
        Ok(key)
    }

    /// The log's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first bytes of SHA-256 over name and key: what a signature says of its key.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = sha256(&[self.name.as_bytes(), b"\n", &[ED25519_TYPE], &self.public]);
        [a, b, c, d]
    }

    fn id_text(&self) -> String {
        format!("{:08x}", u32::from_be_bytes(self.id()))
    }

    fn verify(&self, text: &str, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.public).verify(text.as_bytes(), signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = [ED25519_TYPE; 33];
        key[1..].copy_from_slice(&self.public);
        write!(f, "{}+{}+{}", self.name, self.id_text(), STANDARD.encode(key))
    }
}

/// What signs checkpoints.
pub struct Signer {
    pair: Ed25519KeyPair,
    key: VerifierKey,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the secret half.
        write!(f, "Signer({})", self.key)
    }
}

impl Signer {
    /// Of the log `name`, from a secret seed.
    ///
    /// # Errors
    /// When the name cannot be one.
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NoteError::Malformed("the secret key"))?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| NoteError::Malformed("the public key"))?;
        Ok(Self { key: VerifierKey::new(name, public)?, pair })
    }

    /// What others check its signatures with.
    #[must_use]
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    fn line(&self, text: &str) -> String {
        let signed = [&self.key.id()[..], self.pair.sign(text.as_bytes()).as_ref()].concat();
        format!("{SIGNATURE}{} {}\n", self.key.name, STANDARD.encode(signed))
    }
}

/// What a log says of itself at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: its key's name.
    pub origin: String,
    /// How many leaves it has.
    pub size: u64,
    /// The root of its tree.
    pub root: Hash,
    /// The key that takes over from the one that signed so far.
    pub next_key: Option<VerifierKey>,
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { origin, size, root, next_key } = self;
        let next_key = next_key.as_ref().map(|key| format!("{NEXT_KEY}{key}\n")).unwrap_or_default();
        format!("{origin}\n{size}\n{}\n{next_key}", STANDARD.encode(root))
    }

    /// The whole note.
    #[must_use]
    pub fn signed(&self, signers: &[&Signer]) -> String {
        let text = self.text();
        let lines: String = signers.iter().map(|signer| signer.line(&text)).collect();
        format!("{text}\n{lines}")
    }
}

/// A note that was read, its signatures unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    /// Names, key ids and signatures.
    signatures: Vec<(String, [u8; 4], Vec<u8>)>,
    checkpoint: Checkpoint,
}

impl Note {
    /// Reads a note. Lines that a log may add and we do not know are let be.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        let malformed = NoteError::Malformed;
        if note.len() > NOTE_MAX {
            return Err(malformed("it is too long"));
        }
        let (text, lines) =
            note.rsplit_once("\n\n").ok_or(malformed("there is no empty line before the signatures"))?;
        let text = format!("{text}\n");
        let mut signatures = Vec::new();
        let lines = lines.strip_suffix('\n').ok_or(malformed("the last line is not whole"))?;
        for line in lines.split('\n') {
            let line = line.strip_prefix(SIGNATURE).ok_or(malformed("a signature does not begin with a dash"))?;
            let (name, signature) = line.split_once(' ').ok_or(malformed("a signature has no key name"))?;
            let bytes = STANDARD.decode(signature).map_err(|_| malformed("a signature is not base64"))?;
            let (id, signature) = bytes.split_first_chunk::<4>().ok_or(malformed("a signature has no key id"))?;
            if signature.len() < SIGNATURE_MIN {
                return Err(malformed("a signature is not whole"));
            }
            signatures.push((name.to_owned(), *id, signature.to_vec()));
        }
        let checkpoint = read_text(&text)?;
        Ok(Self { text, signatures, checkpoint })
    }

    /// Reads a file of notes, one after the other, as checkpoints are appended to one; empty lines between them are let be. Each
    /// with the number of the line it begins at: what was not written whole is none, and those behind it are.
    #[must_use]
    pub fn parse_all(text: &str) -> Vec<(usize, Result<Self, NoteError>)> {
        let mut notes = Vec::new();
        let (mut note, mut begun) = (String::new(), 1);
        for (number, line) in (1..).zip(text.split_inclusive('\n')) {
            // Behind its signatures, or the empty line that these should follow, another one begins.
            let last = note.lines().next_back();
            let ends = last.is_some_and(|last| last.is_empty() || last.starts_with(SIGNATURE));
            if ends && !line.starts_with(SIGNATURE) {
                notes.push((begun, Self::parse(&std::mem::take(&mut note))));
            }
            if note.is_empty() {
                if line.trim().is_empty() {
                    continue;
                }
                begun = number;
            }
            note.push_str(line);
        }
        if !note.is_empty() {
            notes.push((begun, Self::parse(&note)));
        }
        notes
    }

    /// What it says, if `key` signed it.
    ///
    /// # Errors
    /// When it did not, or the note speaks of another log than the key's.
    pub fn verified_by(&self, key: &VerifierKey) -> Result<&Checkpoint, NoteError> {
        let of_key = |(name, id, _): &&(String, [u8; 4], Vec<u8>)| *name == key.name && *id == key.id();
        let (_, _, signature) = self.signatures.iter().find(of_key).ok_or(NoteError::NotSigned)?;
        if !key.verify(&self.text, signature) {
            return Err(NoteError::BadSignature);
        }
        if self.checkpoint.origin != key.name {
            return Err(NoteError::OtherOrigin(self.checkpoint.origin.clone()));
        }
        Ok(&self.checkpoint)
    }

    /// What it says, whoever signed it.
    #[must_use]
    pub fn unverified(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

fn read_text(text: &str) -> Result<Checkpoint, NoteError> {
    let malformed = NoteError::Malformed;
    let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
    let origin = lines.next().filter(|origin| !origin.is_empty()).ok_or(malformed("it has no origin"))?;
    let size_text = lines.next().ok_or(malformed("it has no size"))?;
    // `parse` takes a plus sign and zeros in front, the format does not.
    let size: u64 = size_text.parse().map_err(|_| malformed("its size is no number"))?;
    if size.to_string() != size_text {
        return Err(malformed("its size is not written plainly"));
    }
    let root = lines.next().and_then(|root| STANDARD.decode(root).ok()).and_then(|root| root.try_into().ok());
    let root = root.ok_or(malformed("its root is not the base64 of 32 bytes"))?;
    let mut next_key = None;
    for line in lines {
        if line.is_empty() {
            return Err(malformed("a line in it is empty"));
        }
        if let Some(key) = line.strip_prefix(NEXT_KEY) {
            next_key = Some(VerifierKey::parse(key)?);
        }
    }
    Ok(Checkpoint { origin: origin.to_owned(), size, root, next_key })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checkpoint(size: u64) -> Checkpoint {
        Checkpoint { origin: "gw.example/audit/1".to_owned(), size, root: [7; 32], next_key: None }
    }

    fn signer(seed: u8) -> Signer {
        Signer::new("gw.example/audit/1", &[seed; 32]).expect("a name")
    }

    /// A checkpoint of Go's checksum database with the key that the Go command has for it.
    #[test]
    fn a_note_of_a_public_log_verifies() {
        let key = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
        let key = VerifierKey::parse(key).expect("a key");
        assert_eq!(key.to_string(), "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8");
        let note = "go.sum database tree\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
            \u{2014} sum.golang.org Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";
        let note = Note::parse(note).expect("a note");
        assert_eq!(note.unverified().size, 20_852_163);
        // Signed by it, though its origin is not the key's name, which ours always is.
        assert_eq!(note.verified_by(&key), Err(NoteError::OtherOrigin("go.sum database tree".to_owned())));
        let mut other = note.clone();
        other.text = other.text.replace("20852163", "20852164");
        assert_eq!(other.verified_by(&key), Err(NoteError::BadSignature));
    }

    #[test]
    fn what_was_signed_verifies_with_that_key_only() {
        let (old, new) = (signer(1), signer(2));
        let said = Checkpoint { next_key: Some(new.key().clone()), ..checkpoint(12) };
        let note = Note::parse(&said.signed(&[&old, &new])).expect("a note");
        for key in [old.key(), new.key()] {
            assert_eq!(note.verified_by(key), Ok(&said));
            assert_eq!(VerifierKey::parse(&key.to_string()).as_ref(), Ok(key));
        }
        assert_eq!(note.verified_by(signer(3).key()), Err(NoteError::NotSigned));
    }

    #[test]
    fn notes_are_read_one_after_the_other() {
        let (old, new) = (signer(1), signer(2));
        let notes = [checkpoint(1).signed(&[&old]), checkpoint(2).signed(&[&old, &new]), checkpoint(3).signed(&[&new])];
        let read = notes.iter().map(|note| Note::parse(note).expect("a note")).collect::<Vec<_>>();
        let read_all = |text: &str| -> (Vec<usize>, Vec<Note>, Vec<usize>) {
            let mut all = (Vec::new(), Vec::new(), Vec::new());
            for (line, note) in Note::parse_all(text) {
                match note {
                    Ok(note) => {
                        all.0.push(line);
                        all.1.push(note);
                    }
                    Err(_) => all.2.push(line),
                }
            }
            all
        };
        for (between, lines) in [("", [1, 6, 12]), ("\n", [1, 7, 14]), ("\n\n", [1, 8, 16])] {
            assert_eq!(read_all(&notes.join(between)), (lines.to_vec(), read.clone(), vec![]));
        }
        assert_eq!(read_all("\n"), (vec![], vec![], vec![]));
        // Wherever writing one broke off, those before and behind it are read.
        for end in 1..notes[1].len() - 1 {
            let torn = String::from_utf8_lossy(&notes[1].as_bytes()[..end]);
            let ended = if torn.ends_with('\n') { "" } else { "\n" };
            let (_, whole, bad) = read_all(&format!("{}\n{torn}{ended}\n{}", notes[0], notes[2]));
            let [first, between @ .., last] = &whole[..] else { panic!("{end}: {whole:?}") };
            assert_eq!((first, last), (&read[0], &read[2]), "{end}");
            // With the first of two signatures it is one already.
            let said = between.iter().all(|note| note.checkpoint == read[1].checkpoint);
            assert!(said && between.len() + bad.len() > 0, "{end}: {bad:?}");
        }
    }

    #[test]
    fn what_has_not_the_form_is_refused() {
        let good = checkpoint(12).signed(&[&signer(1)]);
        assert!(Note::parse(&good).is_ok());
        for bad in [
            good.replace("\n12\n", "\n012\n"),
            good.replace("\n12\n", "\n+12\n"),
            good.replace("\n12\n", "\n-1\n"),
            good.replace("BwcH", "Bwc"),
            good.replace("\n\n", "\n"),
            good.replace("\u{2014} ", "- "),
            good.trim_end().to_owned(),
            format!("\n{good}"),
            String::new(),
        ] {
            assert!(Note::parse(&bad).is_err(), "{bad}");
        }
        for bad in [
            "",
            "a",
            "a+b",
            "a b+00000000+AQ==",
            "sum.golang.org+033de0af+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
        ] {
            assert!(VerifierKey::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_byte_of_a_note_can_be_changed(size in any::<u64>(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
            let signer = signer(1);
            let said = checkpoint(size);
            let mut bytes = said.signed(&[&signer]).into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let read = String::from_utf8(bytes).ok().and_then(|text| Note::parse(&text).ok());
            prop_assert!(read.is_none_or(|note| note.verified_by(signer.key()).is_err()));
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,200}") {
            let _ = Note::parse(&text);
            let _ = VerifierKey::parse(&text);
        }
    }
}
