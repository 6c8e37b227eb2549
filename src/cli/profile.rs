//! Which gateway is spoken to and with which token: flags, then the environment, then a profile that `login` wrote, then
//! the defaults of a gateway on this machine.
//!
//! Promises: a token is never an argument, where the list of processes would show it; the file is the user's alone; a
//! token is only sent to the gateway it was stored for.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// Where a gateway on this machine takes its operators.
const LOCAL_URL: &str = "http://127.0.0.1:8081";
/// Where its first start leaves a token, seen from its working directory.
const LOCAL_TOKEN: &str = "data/admin-token";
const ADVICE: &str =
    "arguments show in the list of processes: use --token-file FILE, or --token - to read it from standard input";

/// How the gateway is reached; the same for all commands that speak to one.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Access {
    /// The gateway: its operators' listener, or with an agent's key its public one.
    #[arg(long, global = true, value_name = "URL", help_heading = "Gateway")]
    pub(super) url: Option<String>,
    /// A file that holds the token: an operator's, or an agent's key.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "token", help_heading = "Gateway")]
    pub(super) token_file: Option<PathBuf>,
    /// `-`: read the token from standard input. Never the token itself: arguments show in the list of processes.
    #[arg(long, global = true, value_name = "-", allow_hyphen_values = true, value_parser = from_stdin, help_heading = "Gateway")]
    pub(super) token: Option<()>,
    /// The profile to use, or to write with login.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Gateway")]
    pub(super) profile: Option<String>,
    /// A PEM file of authorities that vouch for the gateway's certificate, beside the public ones.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Gateway")]
    pub(super) ca_file: Option<PathBuf>,
}

fn from_stdin(text: &str) -> Result<(), &'static str> {
    if text == "-" { Ok(()) } else { Err(ADVICE) }
}

/// What is known after looking everywhere.
#[derive(Clone)]
pub(super) struct Resolved {
    pub(super) url: String,
    pub(super) token: Option<String>,
    /// Where the token comes from, to say so when it is refused.
    pub(super) token_from: String,
    pub(super) ca_file: Option<PathBuf>,
}

impl Resolved {
    /// Whether the token leaves this machine unencrypted.
    pub(super) fn in_the_clear(&self) -> bool {
        let Ok(url) = url::Url::parse(&self.url) else { return false };
        let here = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        url.scheme() == "http" && !here
    }
}

/// The file: the profile used without `--profile`, and all of them by name.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profiles {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) default: Option<String>,
    #[serde(default)]
    pub(super) profiles: BTreeMap<String, Profile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    pub(super) url: String,
    pub(super) token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ca_file: Option<PathBuf>,
}

/// The environment, as far as it matters here; a parameter, so that tests need not change the process's own.
pub(super) struct Surroundings<'a> {
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
    pub(super) directory: &'a Path,
}

impl Surroundings<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    /// Where the profiles are kept.
    pub(super) fn file(&self) -> Result<PathBuf, Failure> {
        let absolute = |path: &PathBuf| path.is_absolute();
        let base = self.variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(absolute);
        let base = base.or_else(|| self.variable("HOME").map(|home| PathBuf::from(home).join(".config")));
        let base = base.ok_or_else(|| Failure::usage("neither XDG_CONFIG_HOME nor HOME is set: set one of them"))?;
        Ok(base.join("trust-gateway/profile.toml"))
    }
}

impl Access {
    /// Looks for address and token in the order that the module promises.
    pub(super) fn resolve(&self, around: &Surroundings<'_>) -> Result<Resolved, Failure> {
        let stored = match &self.profile {
            // Whoever names one wants that one, and not what else happens to be there.
            Some(name) => Some(named(around, name)?),
            None => default_profile(around)?,
        };
        let asked = self.url.clone().map(|url| (url, "--url"));
        let from_env = || around.variable("TRUST_GATEWAY_URL").map(|url| (url, "TRUST_GATEWAY_URL"));
        let said = asked.or_else(|| if self.profile.is_some() { None } else { from_env() });
        let (url, url_from) = match (said, &stored) {
            (Some(said), _) => said,
            (None, Some((_, profile))) => (profile.url.clone(), "the profile"),
            (None, None) => (LOCAL_URL.to_owned(), "the default"),
        };
        let url = origin(&url).map_err(|why| Failure::usage(format!("{url_from}: {why}")))?;
        let ours = stored.filter(|(_, profile)| origin(&profile.url).is_ok_and(|stored| stored == url));
        let (token, token_from) = self.token(around, &url, ours.as_ref())?;
        let ca_file = self.ca_file.clone().or_else(|| ours.and_then(|(_, profile)| profile.ca_file));
        Ok(Resolved { url, token, token_from, ca_file })
    }

    /// The token that the flags name, if they do.
    pub(super) fn token_said(&self) -> Result<Option<String>, Failure> {
        if let Some(file) = &self.token_file {
            let text = std::fs::read_to_string(file);
            let text = text.map_err(|error| Failure::usage(format!("{} cannot be read: {error}", file.display())))?;
            return clean(&text, &file.display().to_string()).map(Some);
        }
        if self.token.is_some() {
            let mut text = String::new();
            let read = std::io::stdin().lock().take(64 * 1024).read_to_string(&mut text);
            read.map_err(|error| Failure::usage(format!("standard input cannot be read: {error}")))?;
            return clean(&text, "standard input").map(Some);
        }
        Ok(None)
    }

    fn token(
        &self,
        around: &Surroundings<'_>,
        url: &str,
        stored: Option<&(String, Profile)>,
    ) -> Result<(Option<String>, String), Failure> {
        if let Some(token) = self.token_said()? {
            let from = if self.token.is_some() { "standard input" } else { "--token-file" };
            return Ok((Some(token), from.to_owned()));
        }
        if self.profile.is_none()
            && let Some(token) = around.variable("TRUST_GATEWAY_TOKEN")
        {
            return Ok((Some(clean(&token, "TRUST_GATEWAY_TOKEN")?), "TRUST_GATEWAY_TOKEN".to_owned()));
        }
        if let Some((name, profile)) = stored {
            return Ok((Some(profile.token.clone()), format!("the profile {name}")));
        }
        // A file that lies in the working directory is for the gateway on this machine, not for any other.
        if url == LOCAL_URL
            && let Ok(text) = std::fs::read_to_string(around.directory.join(LOCAL_TOKEN))
        {
            return Ok((Some(clean(&text, LOCAL_TOKEN)?), LOCAL_TOKEN.to_owned()));
        }
        Ok((None, "nowhere".to_owned()))
    }
}

/// A token as it is sent: one word of visible ASCII.
fn clean(text: &str, from: &str) -> Result<String, Failure> {
    let token = text.trim();
    if token.is_empty() {
        return Err(Failure::usage(format!("{from} holds no token: it is empty")));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::usage(format!("{from} holds no token: a token is one word without spaces")));
    }
    Ok(token.to_owned())
}

/// Scheme and authority, and a path where the gateway is below one; without a slash at the end.
fn origin(text: &str) -> Result<String, String> {
    let example = "write it as http://127.0.0.1:8081";
    let url = url::Url::parse(text).map_err(|error| format!("{text:?} is no address: {error}; {example}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("{text:?} is no address of a gateway; {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("an address has no user, query or fragment; {example}"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The profiles that are stored; none where there is no file.
pub(super) fn read(file: &Path) -> Result<Profiles, Failure> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Profiles::default()),
        Err(error) => return Err(Failure::usage(format!("{} cannot be read: {error}", file.display()))),
    };
    // Not the parser's words: they quote the line, and the line may hold a token.
    toml::from_str(&text)
        .map_err(|_| Failure::usage(format!("{} is not a profile file: delete it and log in again", file.display())))
}

/// Writes the profiles, for the user's eyes only from the first byte on, whole or not at all.
pub(super) fn write(file: &Path, profiles: &Profiles) -> Result<(), Failure> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    let wrong = |error: std::io::Error| Failure::Running(format!("{} cannot be written: {error}", file.display()));
    if let Some(directory) = file.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(wrong)?;
    }
    let text = toml::to_string(profiles).map_err(|error| Failure::Running(error.to_string()))?;
    let new = file.with_extension(format!("new-{}", std::process::id()));
    let _ = std::fs::remove_file(&new);
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(wrong)?;
    out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(wrong)?;
    std::fs::rename(&new, file).map_err(wrong)
}

fn named(around: &Surroundings<'_>, name: &str) -> Result<(String, Profile), Failure> {
    let mut profiles = read(&around.file()?)?;
    match profiles.profiles.remove(name) {
        Some(profile) => Ok((name.to_owned(), profile)),
        None => Err(Failure::usage(format!(
            "there is no profile {name:?}: `trust-gateway login --profile {name}` writes it"
        ))),
    }
}

fn default_profile(around: &Surroundings<'_>) -> Result<Option<(String, Profile)>, Failure> {
    let Ok(file) = around.file() else { return Ok(None) };
    let mut profiles = read(&file)?;
    let name = profiles.default.clone();
    Ok(name.and_then(|name| profiles.profiles.remove(&name).map(|profile| (name, profile))))
}

#[cfg(test)]
#[path = "profile_tests.rs"]
mod tests;
