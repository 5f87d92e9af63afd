//! `[handler.grants]` and `run --grant`: how what a handler may touch is written down. Must not know what
//! a grant does.

use std::path::Path;

use segmenter_wasm::{Folder, Grants};

use super::ConfigError;
use super::keys::Keys;

type Result<T> = std::result::Result<T, ConfigError>;

pub(super) const KEYS: &[&str] = &["emit", "state", "http", "files", "env", "config"];
const FILES: &[&str] = &["host", "guest", "write"];

pub(super) fn read(mut keys: Keys<'_>, folder: &Path) -> Result<Grants> {
    let emit = keys.list("emit")?.into_iter().collect();
    let state = keys.flag("state")?.unwrap_or(false);
    let http = keys.list("http")?.into_iter().collect();
    let mut files: Vec<Folder> = Vec::new();
    for keys in keys.tables("files", FILES)? {
        files.push(file(keys, folder, &files)?);
    }
    let env = keys.texts("env")?.unwrap_or_default();
    for (name, value) in &env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(keys.error(format!(
                "env: {name:?} cannot be a variable: a name has letters and no =, and nothing holds a zero byte"
            )));
        }
    }
    let config = keys.texts("config")?;
    Ok(Grants {
        emit,
        state,
        http,
        files,
        env,
        config,
    })
}

fn file(mut keys: Keys<'_>, folder: &Path, before: &[Folder]) -> Result<Folder> {
    let host = folder.join(keys.needed_text("host")?);
    let guest = keys.needed_text("guest")?;
    let parts = guest.strip_prefix('/').map(|rest| rest.split('/'));
    let legal = guest == "/"
        || parts.is_some_and(|mut parts| parts.all(|part| !["", ".", ".."].contains(&part)));
    if !legal || guest.contains('\0') {
        return Err(keys.error(format!(
            "guest is {guest:?}; write the absolute path that the handler sees, such as \"/data\""
        )));
    }
    if before.iter().any(|other| other.guest == guest) {
        return Err(keys.error(format!("two folders are {guest:?} for the handler")));
    }
    let write = keys.flag("write")?.unwrap_or(false);
    Ok(Folder { host, guest, write })
}

/// One `--grant`, added to those before it.
pub(crate) fn flag(grants: &mut Grants, text: &str) -> std::result::Result<(), String> {
    match text.split_once('=') {
        None if text == "state" => grants.state = true,
        Some(("emit", stream)) => {
            grants
                .emit
                .insert(stream.parse().map_err(|e| format!("{e}"))?);
        }
        Some(("http", origin)) => {
            grants
                .http
                .insert(origin.parse().map_err(|e| format!("{e}"))?);
        }
        _ => {
            return Err(
                "known are: state, emit=STREAM, http=https://HOST; files, env and config need a configuration file"
                    .to_owned(),
            );
        }
    }
    Ok(())
}
