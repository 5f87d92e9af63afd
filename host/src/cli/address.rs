//! Which Redis, and with which password: flag over environment over file. Reads the environment and the
//! password file; must not connect.

use std::path::{Path, PathBuf};

use segmenter_redis::Address;

use super::Usage;
use super::args::Global;
use crate::config::RedisConfig;

const DEFAULT_URL: &str = "redis://127.0.0.1:6379";

/// What one place says about Redis.
#[derive(Debug, Clone, Default)]
struct Source {
    url: Option<String>,
    password_file: Option<PathBuf>,
}

pub(super) fn address(global: &Global, file: Option<&RedisConfig>) -> anyhow::Result<Address> {
    let flags = Source {
        url: global.redis.clone(),
        password_file: global.password_file.clone(),
    };
    let environment = Source {
        url: variable("SEGMENTER_REDIS")?,
        password_file: variable("SEGMENTER_PASSWORD_FILE")?.map(PathBuf::from),
    };
    let file = Source {
        url: file.and_then(|file| file.url.clone()),
        password_file: file.and_then(|file| file.password_file.clone()),
    };
    let (url, password_file) = choose(&[flags, environment, file]);
    let password = password_file.map(|path| password(&path)).transpose()?;
    Address::new(&url, password).map_err(|e| Usage(e.to_string()).into())
}

/// A variable that is set to nothing is not set: scripts clear them so.
pub(super) fn variable(name: &str) -> Result<Option<String>, Usage> {
    match std::env::var(name) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => Ok(Some(text)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Usage(format!("{name} in the environment is not UTF-8")))
        }
    }
}

/// The first URL, and the first password file, unless that URL brings a password of its own from a
/// place that goes before the file's.
fn choose(sources: &[Source]) -> (String, Option<PathBuf>) {
    let at = sources.iter().position(|source| source.url.is_some());
    let url = at.and_then(|at| sources[at].url.clone());
    let url = url.unwrap_or_else(|| DEFAULT_URL.to_owned());
    let file = sources
        .iter()
        .position(|source| source.password_file.is_some());
    let file = file.filter(|file| !(has_password(&url) && at.is_some_and(|at| at < *file)));
    (
        url,
        file.and_then(|file| sources[file].password_file.clone()),
    )
}

fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let credentials = rest
        .rsplit_once('@')
        .map_or("", |(credentials, _)| credentials);
    credentials.contains(':') || rest.contains("?pass=") || rest.contains("&pass=")
}

fn password(path: &Path) -> Result<String, Usage> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Usage(format!("reading the password file {}: {e}", path.display())))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Usage(format!(
            "the password file {} is empty",
            path.display()
        )));
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(url: &str, file: &str) -> Source {
        Source {
            url: Some(url.to_owned()).filter(|text| !text.is_empty()),
            password_file: Some(PathBuf::from(file)).filter(|_| !file.is_empty()),
        }
    }

    fn chosen(flags: Source, environment: Source, file: Source) -> (String, String) {
        let (url, file) = choose(&[flags, environment, file]);
        (url, file.unwrap_or_default().display().to_string())
    }

    #[test]
    fn flag_goes_before_environment_before_file() {
        let none = || source("", "");
        let is = |url: &str, file: &str| (url.to_owned(), file.to_owned());
        assert_eq!(chosen(none(), none(), none()), is(DEFAULT_URL, ""));
        assert_eq!(
            chosen(
                source("redis://f", ""),
                source("redis://e", "pe"),
                source("redis://c", "pc")
            ),
            is("redis://f", "pe")
        );
        assert_eq!(
            chosen(none(), source("redis://e", ""), source("redis://c", "pc")),
            is("redis://e", "pc")
        );
        assert_eq!(
            chosen(none(), none(), source("redis://:x@c", "pc")),
            is("redis://:x@c", "pc")
        );
    }

    #[test]
    fn a_password_in_the_url_goes_before_a_file_that_a_later_place_names() {
        for url in [
            "redis://:x@f",
            "redis://u:x@f:1/2",
            "redis+unix:///s?user=u&pass=x",
        ] {
            let (chosen_url, file) =
                chosen(source(url, ""), source("", ""), source("redis://c", "pc"));
            assert_eq!((chosen_url.as_str(), file.as_str()), (url, ""));
        }
        let (_, file) = chosen(
            source("redis://user@f", ""),
            source("", ""),
            source("", "pc"),
        );
        assert_eq!(file, "pc");
    }
}
