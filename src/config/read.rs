//! From text to a configuration: the file, the environment over it, and where each value was written.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::errors::{ConfigError, ConfigErrors, Place};
use super::values::Wrong;
use super::{Config, check, table};

/// What environment variables that set something begin with.
const PREFIX: &str = "TRUST_GATEWAY__";

/// The file that is read when none is named.
const FILE: &str = "trust-gateway.toml";

/// What a file looks like from outside: differs once it has been changed.
pub type Fingerprint = (SystemTime, u64, u64);

/// The fingerprint of `file`, if there is such a file.
#[must_use]
pub fn fingerprint(file: &Path) -> Option<Fingerprint> {
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct LoadSource {
    /// The file; it must exist.
    file: Option<PathBuf>,
    /// A file that is read if it exists and no other is named.
    fallback: Option<PathBuf>,
    /// Environment variables, of which only our own are looked at.
    env: Vec<(String, String)>,
}

impl LoadSource {
    /// The defaults alone.
    #[must_use]
    pub fn defaults() -> Self {
        Self::default()
    }

    /// What the running program was given: `file`, or `trust-gateway.toml` in the working directory if that exists, and the
    /// process's environment.
    #[must_use]
    pub fn process(file: Option<PathBuf>) -> Self {
        let text = |part: std::ffi::OsString| part.to_string_lossy().into_owned();
        let env = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        Self { file, fallback: Some(PathBuf::from(FILE)), env: Vec::new() }.with_env(env)
    }

    /// This file alone.
    #[must_use]
    pub fn file(file: impl Into<PathBuf>) -> Self {
        Self { file: Some(file.into()), ..Self::default() }
    }

    /// Something that differs once the file has been changed.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        fingerprint(self.file.as_ref().or(self.fallback.as_ref())?)
    }

    /// The same with these environment variables; those that are not ours are ignored.
    #[must_use]
    pub fn with_env(mut self, env: impl IntoIterator<Item = (String, String)>) -> Self {
        self.env.extend(env.into_iter().filter(|(name, _)| name.starts_with(PREFIX)));
        self.env.sort();
        self
    }
}

pub(super) fn load(source: LoadSource) -> Result<Config, ConfigErrors> {
    let mut reader = Reader::default();
    if let Some((name, text)) = reader.open(source.file.as_deref(), source.fallback.as_deref()) {
        reader.file(&name, &text);
    }
    for (name, value) in &source.env {
        reader.variable(name, value);
    }
    reader.check();
    ConfigErrors::of(reader.errors)?;
    Ok(reader.config)
}

/// A configuration in the making.
#[derive(Default)]
struct Reader {
    config: Config,
    /// Where each value that is not a default was written.
    places: BTreeMap<&'static str, Place>,
    errors: Vec<ConfigError>,
}

impl Reader {
    fn error(&mut self, place: Place, key: &str, message: impl Into<String>) {
        self.errors.push(ConfigError { place, key: key.to_owned(), message: message.into() });
    }

    /// The name and text of the file to read, if there is one.
    fn open(&mut self, file: Option<&Path>, fallback: Option<&Path>) -> Option<(String, String)> {
        let path = file.or(fallback)?;
        let name = path.display().to_string();
        match std::fs::read(path) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => return Some((name, text)),
                Err(error) => {
                    let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
                    self.error(Place::Line { file: name, line }, "", "this is not UTF-8; save the file as UTF-8 text");
                }
            },
            Err(error) if error.kind() == ErrorKind::NotFound && file.is_none() => {}
            Err(error) => {
                self.error(
                    Place::File(name),
                    "",
                    format!("cannot be read: {error}; name a file that can with --config"),
                );
            }
        }
        None
    }

    fn file(&mut self, name: &str, text: &str) {
        let lines = Lines { file: name, text };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let at = error.span().map_or(0, |span| span.start);
            self.error(lines.place(at), "", error.message());
        }
        // A broken line leaves pieces that look like settings; errors about those would only hide the real one.
        if errors.is_empty() {
            self.section("", table.get_ref(), &lines);
        }
    }

    fn section(&mut self, prefix: &str, table: &DeTable<'_>, lines: &Lines<'_>) {
        for (key, value) in table {
            let place = lines.place(key.span().start);
            let name =
                if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
            if table::find(&name).is_some() {
                match self.set(&name, value, place) {
                    Ok(()) => {}
                    Err(wrong) => self.error(lines.place(wrong.at), &name, wrong.message),
                }
            } else if table::is_section(&name) {
                match value.get_ref() {
                    DeValue::Table(table) => self.section(&name, table, lines),
                    other => {
                        let message =
                            format!("this is a section, not a {}; write [{name}] above its settings", other.type_str());
                        self.error(place, &name, message);
                    }
                }
            } else {
                self.error(place, &name, unknown(&name, str::to_owned));
            }
        }
    }

    /// Takes over one value.
    fn set(&mut self, name: &str, value: &Spanned<DeValue<'_>>, place: Place) -> Result<(), Wrong> {
        if let Some(setting) = table::find(name) {
            (setting.read)(&mut self.config, value)?;
            self.places.insert(setting.name, place);
        }
        Ok(())
    }

    fn variable(&mut self, variable: &str, text: &str) {
        let name = variable.strip_prefix(PREFIX).unwrap_or(variable).replace("__", ".").to_ascii_lowercase();
        let place = Place::Variable(variable.to_owned());
        if table::find(&name).is_none() || variable != variable_of(&name) {
            return self.error(place, &name, unknown(&name, variable_of));
        }
        let string = || Spanned::new(0..text.len(), DeValue::String(text.into()));
        // `["10.0.0.0/8"]` and `true` are TOML, `10s` is not; a text that happens to be TOML (`1.2`) may still be meant
        // as a string.
        let result = match DeValue::parse(text) {
            Err(_) => self.set(&name, &string(), place.clone()),
            Ok(value) => self.set(&name, &value, place.clone()).or_else(|wrong| match value.get_ref() {
                DeValue::Array(_) | DeValue::Table(_) | DeValue::String(_) => Err(wrong),
                _ => self.set(&name, &string(), place.clone()).map_err(|_| wrong),
            }),
        };
        if let Err(wrong) = result {
            self.error(place, &name, wrong.message);
        }
    }

    /// Checks what goes together, and what is out of range, where the single values are fine.
    fn check(&mut self) {
        for (name, message) in check::faults(&self.config) {
            let place = self.places.get(name).cloned().unwrap_or(Place::Default);
            // A refused value left its default behind, which may clash with the rest without being at fault.
            if !self.errors.iter().any(|error| error.key == name) {
                self.error(place, name, message);
            }
        }
    }
}

/// The environment variable of a setting.
fn variable_of(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('.', "__").to_ascii_uppercase())
}

/// What to say about a name that does not exist; `spell` turns a setting's name into what is to be written.
fn unknown(name: &str, spell: impl Fn(&str) -> String) -> String {
    match table::meant(name) {
        Some(meant) => format!("there is no such setting; did you mean {}?", spell(meant)),
        None => "there is no such setting; see trust-gateway.example.toml for all of them".to_owned(),
    }
}

/// Lines of a file by byte offset.
struct Lines<'a> {
    file: &'a str,
    text: &'a str,
}

impl Lines<'_> {
    fn place(&self, at: usize) -> Place {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Place::Line { file: self.file.to_owned(), line }
    }
}
