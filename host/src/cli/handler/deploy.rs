//! `handler deploy`: check, store, move the pointer; `wait` does the rest.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use segmenter_core::limits;
use segmenter_core::names::{HandlerId, Version};
use segmenter_core::port::{
    Deploy, DeployReply, How, Reply, Request, StoreModule, StoreModuleReply,
};
use segmenter_core::rollout::Share;
use segmenter_redis::Broker;
use serde_json::json;

use super::super::args::{DeployArgs, Global};
use super::wait::{self, Wait};
use super::{by, check, short, span};
use crate::output::{Format, moment, preview};
use crate::points::{self, Point};

/// How much longer than the trial is waited unless told otherwise.
const WAIT_MORE: Duration = Duration::from_secs(60);
/// Another deploy may forget the bytes between our store and our deploy, if it does not know of it yet.
const STORES_MAX: u32 = 3;

pub(super) async fn run(global: &Global, args: DeployArgs) -> anyhow::Result<ExitCode> {
    let (bytes, module) = check::checked(&args.file, args.memory).await?;
    let version = module.version().clone();
    // Compiled code is of no use any more, and may be large.
    drop(module);
    let broker = global.connect().await?;
    let handler = global.handler_id(&args.name);
    let how = how(&args);
    let (result, revision) = put(&broker, &handler, &version, bytes, how, args.again).await?;
    let mut out = global.out();
    match out.format {
        Format::Json => out.object(&json!({
            "handler": handler.handler.as_str(),
            "version": version.as_str(),
            "result": result.as_str(),
            "revision": revision,
        }))?,
        Format::Human => out.line(&said(&handler, &version, how, result))?,
    }
    out.flush()?;
    if !args.wait {
        return Ok(ExitCode::SUCCESS);
    }
    let lasts = match how {
        How::Now => Duration::ZERO,
        How::Trial { lasts, .. } | How::Shadow { lasts } => lasts,
    };
    let wait = Wait {
        broker,
        handler,
        version,
        revision,
        timeout: args.timeout.unwrap_or(lasts + WAIT_MORE),
    };
    wait::run(&mut out, &wait).await
}

fn how(args: &DeployArgs) -> How {
    let lasts = args.lasts.unwrap_or(limits::TRIAL);
    match (args.now, args.shadow) {
        (true, _) => How::Now,
        (_, true) => How::Shadow { lasts },
        _ => How::Trial {
            share: args.canary.unwrap_or(Share::ALL),
            lasts,
        },
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Current,
    Trial,
    Shadow,
    Unchanged,
}

impl Done {
    fn as_str(self) -> &'static str {
        match self {
            Done::Current => "current",
            Done::Trial => "trial",
            Done::Shadow => "shadow",
            Done::Unchanged => "unchanged",
        }
    }
}

async fn put(
    broker: &Broker,
    handler: &HandlerId,
    version: &Version,
    bytes: Vec<u8>,
    how: How,
    again: bool,
) -> anyhow::Result<(Done, u64)> {
    let by = by();
    points::at(Point::Storing);
    for _ in 0..STORES_MAX {
        let store = StoreModule {
            namespace: handler.namespace.clone(),
            version: version.clone(),
            bytes: bytes.clone(),
        };
        let stored = broker.execute(Request::StoreModule(store)).await;
        let size = bytes.len();
        match stored.with_context(|| {
            format!(
                "storing version {} ({size} bytes); nothing was deployed",
                short(version)
            )
        })? {
            Reply::StoreModule(StoreModuleReply::Stored { .. }) => {}
            other => bail!("storing version {}: {other:?}", short(version)),
        }
        points::at(Point::Stored);
        let deploy = Deploy {
            handler: handler.clone(),
            version: version.clone(),
            how,
            by: by.clone(),
            again,
        };
        let reply = broker.execute(Request::Deploy(deploy)).await;
        let reply = reply.with_context(|| {
            format!(
                "deploying version {} of handler {handler}; `segmenter handler history {}` shows whether it was",
                short(version),
                handler.handler
            )
        })?;
        points::at(Point::Pointed);
        let Reply::Deploy(reply) = reply else {
            bail!("deploying version {}: {reply:?}", short(version));
        };
        match reply {
            DeployReply::Deployed { revision, current } => {
                let done = match (current, how) {
                    (true, _) => Done::Current,
                    (false, How::Shadow { .. }) => Done::Shadow,
                    (false, _) => Done::Trial,
                };
                return Ok((done, revision));
            }
            DeployReply::Current { revision } => return Ok((Done::Unchanged, revision)),
            DeployReply::NoModule => {}
            refused => bail!(why(handler, version, refused)),
        }
    }
    bail!(
        "the bytes of version {} were deleted {STORES_MAX} times before it could be deployed; try again",
        short(version)
    )
}

fn why(handler: &HandlerId, version: &Version, refused: DeployReply) -> String {
    let (name, digits) = (&handler.handler, short(version));
    match refused {
        DeployReply::Busy {
            version: busy,
            by,
            left,
        } => {
            let which = match busy == *version {
                true => format!("this version ({digits})"),
                false => format!("version {}", short(&busy)),
            };
            let left = match left.is_zero() {
                true => "its time is over, but no host has settled it: does one run?".to_owned(),
                false => format!("it ends in {}", span(left)),
            };
            let by = preview(&by, 100);
            format!(
                "another deploy of handler {name} is under way: {which} by {by}; {left}; `segmenter handler rollback {name}` ends it now"
            )
        }
        DeployReply::Bad { at_ms, reason } => {
            let (reason, at) = (preview(&reason, 1_000), moment(at_ms));
            format!(
                "version {digits} of handler {name} was rolled back before ({at}): {reason}; --again deploys it nevertheless"
            )
        }
        DeployReply::NothingToShadow => format!(
            "handler {name} has no current version that version {digits} could be compared with; deploy one without --shadow first"
        ),
        other => format!("deploying version {digits} of handler {name}: {other:?}"),
    }
}

fn said(handler: &HandlerId, version: &Version, how: How, done: Done) -> String {
    let name = &handler.handler;
    match (done, how) {
        (Done::Trial, How::Trial { share, lasts }) => {
            let lasts = span(lasts);
            let percent = share.as_percent();
            format!(
                "{name}: version {version} is on trial in {percent} % of the partitions for {lasts}"
            )
        }
        (Done::Shadow, How::Shadow { lasts }) => {
            format!("{name}: version {version} is a shadow for {}", span(lasts))
        }
        (Done::Unchanged, _) => format!("{name}: version {version} is the current one already"),
        _ => format!("{name}: version {version} is the current one"),
    }
}
