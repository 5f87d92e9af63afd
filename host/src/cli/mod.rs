//! The command line: arguments in, exit status out. Knows how commands are called and how errors are
//! told; each family has a file of its own.
//!
//! Exit status: 0 done; 1 failed; 2 wrong usage, which is whatever can be refused by looking at
//! arguments and configuration alone.

mod address;
mod append;
mod args;
mod dead;
mod doctor;
#[doc(hidden)]
pub mod fuzz;
mod group;
mod handler;
mod jsonl;
mod new;
mod numbers;
mod operate;
mod read_ahead;
mod redrive;
mod run;
mod send;
mod stream;
mod tail;
mod time;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use segmenter_core::names::{HandlerId, HandlerName, Namespace, StreamId, StreamName};
use segmenter_redis::admin::{self, StreamInfo};
use segmenter_redis::{Broker, ConnectError};

use crate::output::{Closed, Format, Out, preview};
use args::{Cli, Command, Global};

pub(crate) const FAILED: u8 = 1;
pub(crate) const USAGE: u8 = 2;

/// For commands other than `run`: the shell that called them waits.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Refused by looking at arguments and configuration alone.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    let format = cli.global.format;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = runtime
        .context("starting the async runtime")
        .and_then(|runtime| {
            let result = runtime.block_on(dispatch(cli));
            // Requests that nobody waits for any more must not hold the exit up.
            runtime.shutdown_timeout(Duration::from_millis(100));
            result
        });
    match result {
        Ok(code) => code,
        Err(error) if error.downcast_ref::<Closed>().is_some() => ExitCode::SUCCESS,
        Err(error) => {
            tell(format, &error);
            let usage = error.downcast_ref::<Usage>().is_some();
            ExitCode::from(if usage { USAGE } else { FAILED })
        }
    }
}

/// clap tells help and version the same way as mistakes. Arguments did not parse, so neither did
/// `--format`; whoever asked for JSON gets it nevertheless.
fn misused(error: &clap::Error) -> ExitCode {
    // Not `args`, which panics at what is not UTF-8; that may be the very mistake.
    let json = std::env::args_os().any(|arg| arg == "--format=json")
        || std::env::args_os()
            .zip(std::env::args_os().skip(1))
            .any(|(a, b)| a == "--format" && b == "json");
    if error.use_stderr() && json {
        let text = error.render().to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        eprintln!(
            "{}",
            serde_json::json!({"event": "error", "error": text.trim_end()})
        );
    } else {
        // Nothing can be done about a closed stderr.
        let _ = error.print();
    }
    ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
}

fn tell(format: Format, error: &anyhow::Error) {
    match format {
        Format::Json => {
            let object = serde_json::json!({"event": "error", "error": format!("{error:#}")});
            eprintln!("{object}");
        }
        Format::Human => {
            eprintln!("error: {}", shown(error));
            for cause in error.chain().skip(1) {
                eprintln!("  because: {}", shown(cause));
            }
        }
    }
}

/// Its lines stay, but it cannot steer the terminal: a module's names and a guest's last words may be in it.
fn shown(error: impl std::fmt::Display) -> String {
    let lines: Vec<_> = error
        .to_string()
        .lines()
        .map(|line| preview(line, usize::MAX))
        .collect();
    lines.join("\n")
}

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { global, command } = cli;
    let global = global.complete()?;
    match command {
        Command::Stream(command) => stream::run(&global, command).await,
        Command::Send(args) => send::run(&global, args).await,
        Command::Tail(args) => tail::run(&global, args).await,
        Command::Run(args) => run::run(&global, args).await,
        Command::Group(command) => group::run(&global, command).await,
        Command::Handler(command) => handler::run(&global, command).await,
        Command::Dead(command) => dead::run(&global, command).await,
        Command::New(args) => new::run(&global, args),
        Command::Doctor => doctor::run(&global).await,
    }
}

impl Global {
    fn out(&self) -> Out {
        Out::new(self.format)
    }

    /// Fills in from the environment what no flag said.
    fn complete(mut self) -> anyhow::Result<Global> {
        if self.namespace.is_none()
            && let Some(text) = address::variable("SEGMENTER_NAMESPACE")?
        {
            let namespace = Namespace::new(text)
                .map_err(|e| Usage(format!("SEGMENTER_NAMESPACE in the environment: {e}")))?;
            self.namespace = Some(namespace);
        }
        Ok(self)
    }

    fn namespace(&self) -> Namespace {
        self.namespace.clone().unwrap_or_else(|| {
            Namespace::new(crate::config::NAMESPACE).expect("a constant that is a name")
        })
    }

    fn stream_id(&self, stream: &StreamName) -> StreamId {
        StreamId {
            namespace: self.namespace(),
            stream: stream.clone(),
        }
    }

    fn handler_id(&self, handler: &HandlerName) -> HandlerId {
        HandlerId {
            namespace: self.namespace(),
            handler: handler.clone(),
        }
    }

    async fn connect(&self) -> anyhow::Result<Broker> {
        let address = address::address(self, None)?;
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, Broker::connect(&address)).await;
        let Ok(connected) = connected else {
            bail!(
                "Redis at {address} did not answer within {} s",
                CONNECT_TIMEOUT.as_secs()
            );
        };
        connected.map_err(|error| {
            let what = match &error {
                ConnectError::Unreachable(_) => format!(
                    "Redis at {address} cannot be reached; start one there, or name another with --redis URL or SEGMENTER_REDIS"
                ),
                ConnectError::Authentication(_) => format!(
                    "Redis at {address} lets nobody in without the right password; give it with --password-file FILE, or in the URL"
                ),
                _ => format!("Redis at {address} cannot be used"),
            };
            anyhow::Error::new(error).context(what)
        })
    }

    /// The stream, which must exist.
    async fn stream(
        &self,
        broker: &Broker,
        name: &StreamName,
    ) -> anyhow::Result<(StreamId, StreamInfo)> {
        let id = self.stream_id(name);
        let found = admin::find_stream(broker, &id)
            .await
            .with_context(|| format!("looking up stream {id}"))?;
        match found {
            Some(info) if info.deleting => {
                bail!(
                    "stream {id} is being deleted; `segmenter stream delete {name}` finishes that"
                )
            }
            Some(info) => Ok((id, info)),
            None => {
                let namespace = match id.namespace.as_str() {
                    crate::config::NAMESPACE => String::new(),
                    other => format!("--namespace {other} "),
                };
                bail!(
                    "stream {id} does not exist; `segmenter {namespace}stream list` shows which do, `segmenter {namespace}stream create {name} --partitions N --capacity N` creates it"
                )
            }
        }
    }
}
