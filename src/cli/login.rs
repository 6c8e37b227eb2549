//! `login` and `logout`: the profile file.

use std::path::PathBuf;

use serde_json::json;

use super::client::Client;
use super::failure::Failure;
use super::profile::{self, Access, Profile, Resolved, Surroundings};
use super::session::{Common, Session};

fn around<T>(with: impl FnOnce(&Surroundings<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
    let directory = std::env::current_dir().unwrap_or_default();
    let variable = |name: &str| std::env::var(name).ok();
    with(&Surroundings { variable: &variable, directory: &directory })
}

/// Asks the gateway whether it takes the token, and stores both.
pub(super) async fn login(common: &Common) -> Result<(), Failure> {
    let name = common.access.profile.clone().unwrap_or_else(|| "default".to_owned());
    // The profile that is written is not what is looked for.
    let access = Access { profile: None, ..common.access.clone() };
    let resolved = around(|around| access.resolve(around))?;
    let Some(token) = resolved.token.clone() else {
        return Err(Failure::Usage(
            "there is no token to log in with",
            vec![
                "--token-file FILE names one (the gateway's first start writes data/admin-token),".to_owned(),
                "--token - reads one from standard input.".to_owned(),
            ],
        ));
    };
    let ca_file = resolved.ca_file.as_deref().map(std::path::absolute).transpose();
    let ca_file: Option<PathBuf> =
        ca_file.map_err(|error| Failure::usage(format!("--ca-file cannot be found: {error}")))?;
    let client = Client::new(Resolved { ca_file: ca_file.clone(), ..resolved.clone() })?;
    let who = who(&client).await?;
    let (file, default) = around(|around| {
        let file = around.file()?;
        let mut profiles = profile::read(&file)?;
        profiles.profiles.insert(name.clone(), Profile { url: resolved.url.clone(), token, ca_file });
        let default = profiles.default.get_or_insert_with(|| name.clone()).clone();
        profile::write(&file, &profiles)?;
        Ok((file, default))
    })?;
    let session = Session::open(&Common {
        access: Access { profile: Some(name.clone()), ..Access::default() },
        ..common.clone()
    })?;
    if session.json {
        return session.print(&format!("{}\n", json!({"profile": name, "url": resolved.url, "as": who})));
    }
    if resolved.in_the_clear() {
        session.note("WARNING: this is http to another machine: whoever is on the way can read the token. Use https.");
    }
    let used = if default == name { String::new() } else { format!(" (--profile {name} uses it)") };
    session.fields(
        &format!("Logged in to {} as {who}", resolved.url),
        &[("profile", format!("{name}{used}")), ("stored in", file.display().to_string())],
    )
}

/// Who the token says one is. Only whoever is known may read the call log.
async fn who(client: &Client) -> Result<String, Failure> {
    match client.get("/api/me").await {
        Ok(answer) => {
            let me = answer.json;
            if let (Some(name), Some(role)) = (me["operator"]["name"].as_str(), me["operator"]["role"].as_str()) {
                return Ok(format!("operator {name} ({role})"));
            }
            Ok(me["agent"]["slug"].as_str().map_or("an agent".to_owned(), |slug| format!("agent {slug}")))
        }
        Err(Failure::Refused { status: 404, .. }) => {
            client.get("/api/calls?limit=1").await.map(|_| "somebody the gateway knows".to_owned())
        }
        Err(failure) => Err(failure),
    }
}

/// Takes a profile out of the file.
pub(super) fn logout(common: &Common) -> Result<(), Failure> {
    let gone = around(|around| {
        let file = around.file()?;
        let mut profiles = profile::read(&file)?;
        let name = common.access.profile.clone().or_else(|| profiles.default.clone());
        let Some(name) = name.filter(|name| profiles.profiles.remove(name).is_some()) else {
            return Ok(None);
        };
        if profiles.default.as_ref() == Some(&name) {
            profiles.default = profiles.profiles.keys().next().cloned();
        }
        profile::write(&file, &profiles)?;
        Ok(Some(name))
    })?;
    let Some(gone) = gone else {
        return Err(Failure::NotFound("there is no such profile: nothing was changed".to_owned(), Vec::new()));
    };
    let session = Session::open(&Common {
        access: Access { url: Some("http://127.0.0.1".to_owned()), ..Access::default() },
        ..common.clone()
    })?;
    session.print(&format!(
        "Logged out: the profile {} is deleted. Its token goes on working until it is removed.\n",
        crate::telemetry::escaped(&gone)
    ))
}
