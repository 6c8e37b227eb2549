//! Who is told by the gateway itself: other systems that are sent the rows of the log, witnesses that are sent its checkpoints,
//! webhooks that are sent events.
//!
//! Each is one table of a list, `[[audit.outlets]]`, `[[audit.witnesses]]` and `[[webhooks]]`; a list is one setting.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;
use url::Url;

use super::sections::Audit;
use super::values::{Written, Wrong, found, quoted, wrong};

/// The most rows of a batch.
pub const BATCH_MAX: usize = 500;

/// One of `[[audit.outlets]]`: where rows of the log are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Outlet {
    /// Names its position in the log; another name begins anew.
    pub name: String,
    /// Where to.
    pub destination: Destination,
    /// How many rows at once, at most.
    pub batch: usize,
    /// Which rows.
    pub rows: OutletRows,
}

/// One of `[[audit.witnesses]]`: where checkpoints of the log are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Witness {
    /// Names it in status; what it has had is remembered under this name.
    pub name: String,
    /// Where to.
    pub destination: Destination,
}

/// Where rows or checkpoints are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum Destination {
    /// They are appended to this file.
    File(PathBuf),
    /// They are posted to this address, with a bearer token out of a file.
    Http(Address, Option<PathBuf>),
}

impl Destination {
    /// Out of `file`, or `url` and `token_file`.
    fn take(members: &mut Members<'_, '_>, example: &str) -> Result<Self, Wrong> {
        // All of them are taken before one is found wrong: what is left over would be told of instead.
        let (file, url) = (members.take::<PathBuf>("file"), members.take::<Address>("url"));
        let token_file = members.take::<PathBuf>("token_file");
        match (file?, url?, token_file?) {
            (Some(_), None, Some(_)) => {
                wrong(members.table, "token_file: a file takes no token; leave it out, or write url")
            }
            (Some(file), None, None) => Ok(Self::File(file)),
            (None, Some(url), token_file) => Ok(Self::Http(url, token_file)),
            _ => {
                let advice = format!("{} has one destination; write {example}", members.what);
                wrong(members.table, advice)
            }
        }
    }

    /// The three of them as text.
    fn written(&self) -> [(&'static str, Option<String>); 3] {
        let [file, url, token_file] = match self {
            Self::File(file) => [file.written(), None, None],
            Self::Http(url, token) => [None, url.written(), token.written()],
        };
        [("file", file), ("url", url), ("token_file", token_file)]
    }
}

/// One of `[[webhooks]]`: who is sent events.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Webhook {
    /// Names it in status and on the command line.
    pub name: String,
    /// Where events are posted.
    pub url: Address,
    /// The file with the secret they are signed with.
    pub secret_file: PathBuf,
    /// Which of them; all where it is not said.
    pub events: Vec<WebhookEvent>,
}

/// An address the gateway posts to by itself: `http` or `https`, no name or password in it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Address(String);

impl Address {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Written for Address {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        let text = String::read(value)?;
        let advice = "write one such as \"https://siem.example.org/calls\"";
        match Url::parse(&text) {
            Err(error) => wrong(value, format!("{text:?} is not a URL ({error}); {advice}")),
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                wrong(value, format!("it is posted by http or https, not {:?}; {advice}", url.scheme()))
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                wrong(value, "a name or password in the URL would be shown; keep what proves the gateway in a file")
            }
            Ok(url) => Ok(Self(url.into())),
        }
    }

    fn written(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}

/// The members of one table of a list. Each is taken once; what is left over at the end is not known.
struct Members<'t, 'a> {
    table: &'t Spanned<DeValue<'a>>,
    what: &'static str,
    left: BTreeMap<&'t str, &'t Spanned<DeValue<'a>>>,
    asked: Vec<&'static str>,
}

impl<'t, 'a> Members<'t, 'a> {
    fn of(value: &'t Spanned<DeValue<'a>>, what: &'static str) -> Result<Self, Wrong> {
        match value.get_ref() {
            DeValue::Table(members) => {
                let left = members.iter().map(|(key, member)| (&**key.get_ref(), member)).collect();
                Ok(Self { table: value, what, left, asked: Vec::new() })
            }
            other => wrong(value, format!("expected {what}, found {}; write a table for each", found(other))),
        }
    }

    fn take<T: Written>(&mut self, name: &'static str) -> Result<Option<T>, Wrong> {
        self.asked.push(name);
        let Some(member) = self.left.remove(name) else { return Ok(None) };
        T::read(member).map(Some).map_err(|error| Wrong { message: format!("{name}: {}", error.message), ..error })
    }

    fn need<T: Written>(&mut self, name: &'static str, example: &str) -> Result<T, Wrong> {
        match self.take(name)? {
            Some(value) => Ok(value),
            None => wrong(self.table, format!("{} needs {name}; write {name} = {example}", self.what)),
        }
    }

    fn name(&mut self) -> Result<String, Wrong> {
        let name: String = self.need("name", "\"siem\"")?;
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
        match !name.is_empty() && name.len() <= 64 && name.bytes().all(fine) {
            true => Ok(name),
            false => wrong(self.table, "name: write 1 to 64 letters, digits, - or _, such as \"siem\""),
        }
    }

    fn end(self) -> Result<(), Wrong> {
        match self.left.first_key_value() {
            None => Ok(()),
            Some((name, member)) => {
                let known = self.asked.join(", ");
                wrong(member, format!("there is no {name:?} in {}; it has {known}", self.what))
            }
        }
    }
}

/// A list as one line of TOML that reads back the same.
fn inline(members: &[(&str, Option<String>)]) -> String {
    let members = members.iter().filter_map(|(name, value)| Some(format!("{name} = {}", value.as_ref()?)));
    format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
}

impl Written for Outlet {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        let mut members = Members::of(value, "an outlet")?;
        let name = members.name()?;
        let destination = Destination::take(&mut members, "file = \"/path/calls.jsonl\" or url = \"https://…\"");
        let batch = members.take("batch")?.unwrap_or(BATCH_MAX);
        let rows = members.take("rows")?.unwrap_or(OutletRows::All);
        members.end()?;
        if !(1..=BATCH_MAX).contains(&batch) {
            return wrong(value, format!("batch: {batch} is out of range; write a number from 1 to {BATCH_MAX}"));
        }
        Ok(Self { name, destination: destination?, batch, rows })
    }

    fn written(&self) -> Option<String> {
        let [file, url, token_file] = self.destination.written();
        let (batch, rows) = (("batch", self.batch.written()), ("rows", self.rows.written()));
        Some(inline(&[("name", self.name.written()), file, url, token_file, batch, rows]))
    }
}

impl Written for Witness {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        let mut members = Members::of(value, "a witness")?;
        let name = members.name()?;
        let destination = Destination::take(&mut members, "file = \"/path/checkpoints.txt\" or url = \"https://…\"");
        members.end()?;
        Ok(Self { name, destination: destination? })
    }

    fn written(&self) -> Option<String> {
        let [file, url, token_file] = self.destination.written();
        Some(inline(&[("name", self.name.written()), file, url, token_file]))
    }
}

impl Written for Webhook {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        let mut members = Members::of(value, "a webhook")?;
        let webhook = Self {
            name: members.name()?,
            url: members.need("url", "\"https://…\"")?,
            secret_file: members.need("secret_file", "\"/path/webhook.secret\"")?,
            events: members.take("events")?.unwrap_or_else(|| WebhookEvent::ALL.to_vec()),
        };
        members.end()?;
        Ok(webhook)
    }

    fn written(&self) -> Option<String> {
        Some(inline(&[
            ("name", self.name.written()),
            ("url", self.url.written()),
            ("secret_file", self.secret_file.written()),
            ("events", self.events.written()),
        ]))
    }
}

/// What is wrong with lists whose members are fine by themselves.
pub(super) fn faults(audit: &Audit, webhooks: &[Webhook]) -> Vec<(&'static str, String)> {
    let outlets = audit.outlets.iter().map(|outlet| outlet.name.as_str()).collect::<Vec<_>>();
    let witnesses = audit.witnesses.iter().map(|witness| witness.name.as_str()).collect::<Vec<_>>();
    let webhooks = webhooks.iter().map(|webhook| webhook.name.as_str()).collect::<Vec<_>>();
    let mut faults = Vec::new();
    for (setting, names) in [("audit.outlets", outlets), ("audit.witnesses", witnesses), ("webhooks", webhooks)] {
        let twice = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name));
        if let Some((_, name)) = twice {
            faults.push((setting, format!("two are named {name:?}; write another name for one of them")));
        }
    }
    faults
}

/// Addresses at which what is sent can be read on the way.
pub(super) fn in_the_clear<'a>(
    audit: &'a Audit,
    webhooks: &'a [Webhook],
) -> impl Iterator<Item = (&'static str, &'a str)> {
    fn of<'a>(
        setting: &'static str,
        name: &'a str,
        to: &'a Destination,
    ) -> Option<(&'static str, &'a str, &'a Address)> {
        match to {
            Destination::Http(url, _) => Some((setting, name, url)),
            Destination::File(_) => None,
        }
    }
    let outlets = audit.outlets.iter().filter_map(|outlet| of("audit.outlets", &outlet.name, &outlet.destination));
    let witnesses =
        audit.witnesses.iter().filter_map(|witness| of("audit.witnesses", &witness.name, &witness.destination));
    let webhooks = webhooks.iter().map(|webhook| ("webhooks", &*webhook.name, &webhook.url));
    let clear = |url: &Address| {
        let url = Url::parse(&url.0).ok();
        url.is_some_and(|url| url.scheme() == "http" && !url.host_str().is_some_and(super::check::is_this_machine))
    };
    outlets
        .chain(witnesses)
        .chain(webhooks)
        .filter(move |(_, _, url)| clear(url))
        .map(|(setting, name, _)| (setting, name))
}

super::kinds::words! {
    /// Which rows an outlet sends.
    OutletRows {
        /// Every row.
        All = "all",
        /// Rows of calls that were let through.
        Allowed = "allowed",
        /// Rows of calls that were refused.
        Refused = "refused",
    }
}

super::kinds::words! {
    /// What webhooks are told.
    WebhookEvent {
        /// An agent asks another for a connection.
        ConnectionRequested = "connection.requested",
        /// An agent waits for an operator's approval.
        AgentPending = "agent.pending",
        /// An agent does not answer.
        AgentOffline = "agent.offline",
        /// An agent that did not answer does again.
        AgentOnline = "agent.online",
        /// A changed card waits for an admin.
        CardHeld = "agent.card_held",
        /// Calls cannot be recorded, and are refused.
        JournalDown = "journal.down",
        /// The room for the journal is running out.
        JournalBudgetLow = "journal.budget_low",
        /// Checkpoints of the log have not left the machine for too long.
        Unwitnessed = "audit.unwitnessed",
        /// The database cannot be read.
        DatabaseAway = "database.away",
        /// Only connected callers are served.
        DirectoryStale = "directory.stale",
    }
}
