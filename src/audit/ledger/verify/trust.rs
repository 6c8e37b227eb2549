//! Which checkpoints count: those signed with the trusted key or a successor that it announced. Pure.

use uuid::Uuid;

use super::report::{Kind, LogReport};
use crate::audit::ledger::note::{Note, NoteError, VerifierKey};
use crate::audit::ledger::tree::Hash;

/// A checkpoint, and where it comes from.
#[derive(Clone, Debug)]
pub struct Collected {
    /// As it was signed.
    pub note: Note,
    /// The file, or the table.
    pub from: String,
}

/// What a checkpoint that counts says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// How many rows
    pub size: u64,
    /// have which root.
    pub root: Hash,
    /// Where it comes from.
    pub from: String,
}

/// A key, and the sizes it may sign for.
#[derive(Debug)]
struct Reign {
    key: VerifierKey,
    from: u64,
    until: u64,
}

/// Whether a log of this name is that of `node`: the name ends in it.
#[must_use]
pub fn is_of(name: &str, node: Uuid) -> bool {
    name.rsplit('/').next().is_some_and(|last| last == node.to_string())
}

/// The claims that count, ordered by size; notes in the report what is wrong with the others.
pub fn claims(trusted: &VerifierKey, collected: &[Collected], report: &mut LogReport) -> Vec<Claim> {
    let reigns = reigns(trusted, collected);
    report.keys = reigns.iter().map(|reign| reign.key.to_string()).collect();
    let mut claims = Vec::new();
    let mut others = Vec::new();
    for Collected { note, from } in collected {
        let said = note.unverified();
        let wrong = |report: &mut LogReport, what: &str| {
            let what = format!("the checkpoint of {} rows from {from} {what}", said.size);
            report.integrity.add(Kind::Untrusted, said.size, said.size, what);
        };
        let signed = reigns.iter().map(|reign| (reign, note.verified_by(&reign.key)));
        let in_reign = |reign: &Reign| (reign.from..=reign.until).contains(&said.size);
        let (mut counts, mut replaced, mut bad) = (false, false, false);
        for (reign, signed) in signed {
            match signed {
                Ok(_) if in_reign(reign) => counts = true,
                Ok(_) => replaced = true,
                Err(NoteError::BadSignature) => bad = true,
                Err(_) => {}
            }
        }
        match (bad, counts, replaced) {
            (true, ..) => wrong(report, "does not have the signature that was made for it"),
            (false, true, _) => claims.push(Claim { size: said.size, root: said.root, from: from.clone() }),
            (false, false, true) => wrong(report, "is signed with a key that another had replaced by then"),
            (false, false, false) => others.push((said.size, from)),
        }
    }
    claims.sort_by_key(|claim| claim.size);
    claims.dedup_by(|later, earlier| (later.size, later.root) == (earlier.size, earlier.root));
    let last = claims.last().map_or(0, |claim| claim.size);
    for (size, from) in others {
        if size > last {
            let what = format!("the checkpoint of {size} rows from {from} is not signed with a key that is trusted");
            report.integrity.add(Kind::Untrusted, size, size, what);
        } else {
            report.checkpoints_of_others += 1;
        }
    }
    claims
}

/// The trusted key and its successors: each is named by a checkpoint that the one before and it itself have signed.
fn reigns(trusted: &VerifierKey, collected: &[Collected]) -> Vec<Reign> {
    let mut announcing: Vec<&Note> =
        collected.iter().map(|one| &one.note).filter(|note| note.unverified().next_key.is_some()).collect();
    announcing.sort_by_key(|note| note.unverified().size);
    let mut reigns = Vec::new();
    let mut reign = Reign { key: trusted.clone(), from: 0, until: u64::MAX };
    loop {
        let next = announcing.iter().find_map(|note| {
            let said = note.verified_by(&reign.key).ok()?;
            let next = said.next_key.as_ref().filter(|next| **next != reign.key)?;
            let known = |before: &Reign| before.key == *next;
            let new = said.size >= reign.from && !reigns.iter().any(known) && note.verified_by(next).is_ok();
            new.then(|| Reign { key: next.clone(), from: said.size, until: u64::MAX })
        });
        let Some(next) = next else { break };
        reign.until = next.from;
        reigns.push(std::mem::replace(&mut reign, next));
    }
    reigns.push(reign);
    reigns
}
