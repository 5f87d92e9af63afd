//! `run`: from arguments or a file to a configuration, and on to the host.

use std::path::Path;
use std::process::ExitCode;

use segmenter_core::consumer::Exhausted;
use segmenter_core::names::HandlerName;
use segmenter_core::port::Start;
use segmenter_wasm::{Grants, Recycle};

use super::Usage;
use super::address;
use super::args::{From, Global, RunArgs};
use crate::config::{
    self, ATTEMPTS, BACKOFF, BATCH, Config, ConfigFile, DRAIN_TIMEOUT, HandlerConfig, Limits,
    ModuleSource, READ_AHEAD_BYTES, RedisConfig, SESSION_TIMEOUT,
};
use crate::host::{self, RunOptions};

/// What `run` reads when it is told neither a file nor a handler.
const DEFAULT_FILE: &str = "segmenter.toml";

pub(super) async fn run(global: &Global, args: RunArgs) -> anyhow::Result<ExitCode> {
    let (check, wait, coredump) = (args.check, args.wait, args.coredump.clone());
    let (config, file) = configuration(global, args)?;
    if config.handlers.is_empty() {
        return Err(Usage(
            "the configuration has no [[handler]]: there is nothing to run".to_owned(),
        )
        .into());
    }
    let address = address::address(global, Some(&config.redis))?;
    host::run(RunOptions {
        config,
        file,
        address,
        format: global.format,
        wait,
        check,
        coredump,
    })
    .await
}

/// And the file that it was read from, if it was.
fn configuration(global: &Global, args: RunArgs) -> anyhow::Result<(Config, Option<ConfigFile>)> {
    let Some(module) = args.module else {
        let path = args.config.unwrap_or_else(|| DEFAULT_FILE.into());
        if path == Path::new(DEFAULT_FILE) && !path.exists() {
            return Err(Usage(format!(
                "there is no {DEFAULT_FILE} here; name a configuration with -c FILE, or give HANDLER.wasm with --stream and --group"
            ))
            .into());
        }
        let file = ConfigFile {
            path,
            namespace: global.namespace.clone(),
            member: args.member,
            read_ahead: args.read_ahead,
        };
        let config = file.load().map_err(|e| Usage(e.to_string()))?;
        return Ok((config, Some(file)));
    };
    if module.extension() == Some("toml".as_ref()) {
        let why = format!(
            "{0} is a configuration, not a handler; write `segmenter run -c {0}`",
            module.display()
        );
        return Err(Usage(why).into());
    }
    let (Some(stream), Some(group)) = (args.stream, args.group) else {
        return Err(Usage(format!(
            "{} needs --stream S (what it reads) and --group G (which remembers how far it is)",
            module.display()
        ))
        .into());
    };
    let mut grants = Grants::default();
    for text in &args.grant {
        config::grant(&mut grants, text).map_err(|e| Usage(format!("--grant {text}: {e}")))?;
    }
    let handler = HandlerConfig {
        name: name_of(&module)?,
        stream,
        group,
        module: ModuleSource::File(module),
        allow: None,
        start: match args.from {
            From::Beginning => Start::Beginning,
            From::End => Start::End,
        },
        session_timeout: SESSION_TIMEOUT,
        limits: Limits::default(),
        batch: BATCH,
        recycle: Recycle::default(),
        backoff: BACKOFF,
        attempts: ATTEMPTS,
        exhausted: Exhausted::default(),
        grants,
    };
    let config = Config {
        namespace: global.namespace(),
        member: args.member,
        drain_timeout: DRAIN_TIMEOUT,
        read_ahead: args.read_ahead.unwrap_or(READ_AHEAD_BYTES),
        redis: RedisConfig::default(),
        streams: Vec::new(),
        handlers: vec![handler],
    };
    Ok((config, None))
}

/// The file's name without `.wasm`, with what no name may hold replaced.
fn name_of(module: &Path) -> anyhow::Result<HandlerName> {
    let stem = module
        .file_stem()
        .map(|stem| stem.to_string_lossy())
        .unwrap_or_default();
    let name: String = stem
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '_'
            }
        })
        .take(segmenter_core::limits::NAME_CHARS_MAX)
        .collect();
    HandlerName::new(name).map_err(|e| Usage(format!("{}: {e}", module.display())).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_named_after_its_file() {
        let name = |path: &str| name_of(Path::new(path)).map(|name| name.to_string());
        assert_eq!(name("dir/tally.wasm").unwrap(), "tally");
        assert_eq!(name("my handler (2).wasm").unwrap(), "my_handler__2_");
        assert_eq!(
            name(&format!("{}.wasm", "x".repeat(100))).unwrap(),
            "x".repeat(64)
        );
        assert!(name("..").unwrap_err().downcast_ref::<Usage>().is_some());
    }
}
