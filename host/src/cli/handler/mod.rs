//! `handler …`: files that may be handlers, and versions of handlers in Redis. What several of its commands
//! need; each has a file.

mod check;
mod deploy;
mod history;
mod inspect;
mod list;
mod rollback;
mod test;
mod wait;

use std::process::ExitCode;

use anyhow::{Context, anyhow};
use segmenter_core::names::{HandlerId, Version};
use segmenter_redis::Broker;
use segmenter_redis::handlers::{self, HandlerInfo};

use super::args::{Global, HandlerCommand};

/// Of a digest, for people: enough to name one, and to give to `--to`.
const DIGITS: usize = 12;

pub(super) async fn run(global: &Global, command: HandlerCommand) -> anyhow::Result<ExitCode> {
    match command {
        HandlerCommand::Inspect { file } => return inspect::run(global, file),
        HandlerCommand::Test(args) => return test::run(global, args).await,
        HandlerCommand::Deploy(args) => return deploy::run(global, args).await,
        HandlerCommand::List { name } => list::run(global, &name).await?,
        HandlerCommand::History { name } => history::run(global, &name).await?,
        HandlerCommand::Rollback { name, to, reason } => {
            rollback::run(global, &name, to.as_deref(), reason).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn short(version: &Version) -> String {
    version.as_str().chars().take(DIGITS).collect()
}

/// The handler, which must have been deployed.
async fn found(broker: &Broker, handler: &HandlerId) -> anyhow::Result<HandlerInfo> {
    let found = handlers::describe_handler(broker, handler)
        .await
        .with_context(|| format!("looking up handler {handler}"))?;
    match found {
        Some(info) => Ok(info),
        None => Err(unknown(broker, handler).await),
    }
}

/// Says which handlers there are instead.
async fn unknown(broker: &Broker, handler: &HandlerId) -> anyhow::Error {
    let namespace = &handler.namespace;
    let there = match handlers::list_handlers(broker, namespace).await {
        Ok(names) if names.is_empty() => "none was".to_owned(),
        Ok(names) => {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            format!("those that were: {}", names.join(", "))
        }
        Err(failure) => format!("which were is not known: {failure}"),
    };
    let name = &handler.handler;
    anyhow!(
        "handler {name} was never deployed in namespace {namespace} ({there}); `segmenter handler deploy {name} FILE` does that"
    )
}

/// Who types this, for a history: as far as the system tells.
fn by() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(std::env::var_os);
    let user = user.map(|user| user.to_string_lossy().into_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match (user.filter(|user| !user.is_empty()), host.trim()) {
        (Some(user), "") => user,
        (Some(user), host) => format!("{user}@{host}"),
        (None, "") => "somebody".to_owned(),
        (None, host) => format!("somebody@{host}"),
    }
}

/// `5 s`, `1 min 30 s`.
fn span(span: std::time::Duration) -> String {
    let ms = span.as_millis();
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 if !ms.is_multiple_of(1_000) => format!("{:.1} s", span.as_secs_f64()),
        1_000..60_000 => format!("{} s", ms / 1_000),
        60_000..3_600_000 if !(ms / 1_000).is_multiple_of(60) => {
            format!("{} min {} s", ms / 60_000, ms / 1_000 % 60)
        }
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_its_two_largest_units() {
        for (ms, says) in [
            (0, "0 ms"),
            (5_000, "5 s"),
            (4_321, "4.3 s"),
            (90_000, "1 min 30 s"),
            (300_000, "5 min"),
            (3_660_000, "1 h 1 min"),
        ] {
            assert_eq!(span(std::time::Duration::from_millis(ms)), says);
        }
    }
}
