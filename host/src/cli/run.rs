//! `run`: from arguments or a file to a configuration, and on to the host.

use std::path::Path;
use std::process::ExitCode;

use segmenter_core::names::HandlerName;
use segmenter_core::port::Start;

use super::Usage;
use super::args::{From, Global, RunArgs};
use crate::config::{
    BACKOFF, Config, DRAIN_TIMEOUT, HandlerConfig, Limits, RedisConfig, SESSION_TIMEOUT,
};
use crate::host::{self, RunOptions};

pub(super) async fn run(global: &Global, args: RunArgs) -> anyhow::Result<ExitCode> {
    let (check, wait) = (args.check, args.wait);
    let mut config = configuration(global, args)?;
    if let Some(namespace) = &global.namespace {
        config.namespace = namespace.clone();
    }
    if config.handlers.is_empty() {
        return Err(Usage(
            "the configuration has no [[handler]]: there is nothing to run".to_owned(),
        )
        .into());
    }
    let address = global.address(Some(&config.redis))?;
    host::run(RunOptions {
        config,
        address,
        format: global.format,
        wait,
        check,
    })
    .await
}

fn configuration(global: &Global, args: RunArgs) -> anyhow::Result<Config> {
    if let Some(grant) = args.grant.first() {
        let why = format!(
            "--grant {grant}: grants are not available in this version; handlers run without any"
        );
        return Err(Usage(why).into());
    }
    if let Some(path) = &args.config {
        let mut config = Config::load(path).map_err(|e| Usage(e.to_string()))?;
        if args.member.is_some() {
            config.member = args.member;
        }
        return Ok(config);
    }
    let (Some(module), Some(stream), Some(group)) = (args.module, args.stream, args.group) else {
        return Err(Usage(
            "give a configuration with -c, or HANDLER.wasm with --stream and --group".to_owned(),
        )
        .into());
    };
    let handler = HandlerConfig {
        name: name_of(&module)?,
        stream,
        group,
        module,
        start: match args.from {
            From::Beginning => Start::Beginning,
            From::End => Start::End,
        },
        session_timeout: SESSION_TIMEOUT,
        limits: Limits::default(),
        backoff: BACKOFF,
    };
    Ok(Config {
        namespace: global.namespace(),
        member: args.member,
        drain_timeout: DRAIN_TIMEOUT,
        redis: RedisConfig::default(),
        streams: Vec::new(),
        handlers: vec![handler],
    })
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
