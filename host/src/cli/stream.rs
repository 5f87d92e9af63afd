//! `stream create|list|describe|delete`.

use std::process::ExitCode;

use anyhow::{Context, bail};
use segmenter_core::names::{Shape, Uid};
use segmenter_core::port::{Register, RegisterReply, Reply, Request};
use segmenter_core::source::Source;
use segmenter_redis::admin::{self, Deleted, Streams};
use serde_json::{Value, json};

use super::Usage;
use super::args::{CreateArgs, Global, StreamCommand};
use crate::host::random_name;
use crate::host::telemetry::{self, Event};
use crate::output::{Format, preview};

pub(super) async fn run(global: &Global, command: StreamCommand) -> anyhow::Result<ExitCode> {
    match command {
        StreamCommand::Create(args) => create(global, &args).await?,
        StreamCommand::List => return list(global).await,
        StreamCommand::Describe { name } => describe(global, &name).await?,
        StreamCommand::Delete { name, force } => delete(global, &name, force).await?,
    }
    Ok(ExitCode::SUCCESS)
}

type Name = segmenter_core::names::StreamName;

/// What is asked for, as far as arguments alone tell.
fn wanted(args: &CreateArgs) -> Result<(Shape, Option<Source>), Usage> {
    let word = |text: &Option<String>| text.clone().unwrap_or_default();
    let source = args.source_key.as_ref().map(|redis_key| {
        let fields = (word(&args.key_field), word(&args.payload_field));
        Source::new(redis_key, fields.0, fields.1).map_err(|e| Usage(e.to_string()))
    });
    let shape = match &source {
        Some(_) => Ok(Shape::SOURCE),
        None => {
            // Neither is missing then.
            let capacity = args.capacity.unwrap_or_default();
            if let Some(retain) = args.retain.filter(|retain| *retain > capacity) {
                let why = format!("--retain {retain}: use 0 to the capacity, {capacity}");
                return Err(Usage(why));
            }
            Shape::new(args.partitions.unwrap_or_default(), capacity)
        }
    };
    let shape = match args.payload_max {
        Some(bytes) => shape.and_then(|shape| shape.with_payload_max(bytes)),
        None => shape,
    };
    Ok((
        shape.map_err(|e| Usage(e.to_string()))?,
        source.transpose()?,
    ))
}

async fn create(global: &Global, args: &CreateArgs) -> anyhow::Result<()> {
    let (shape, bound) = wanted(args)?;
    let name = &args.name;
    let broker = global.connect().await?;
    let stream = global.stream_id(name);
    let uid = Uid::new(random_name()).context("uid")?;
    let request = Request::Register(Register {
        stream: stream.clone(),
        shape,
        retain: args.retain,
        source: bound.clone(),
        uid,
    });
    let reply = broker
        .execute(request)
        .await
        .with_context(|| format!("creating stream {stream}"))?;
    let existed = match reply {
        Reply::Register(RegisterReply::Registered { existed, .. }) => existed,
        Reply::Register(RegisterReply::ShapeDiffers { found }) => bail!(
            "stream {stream} exists with {found}; {shape} was asked for, but a stream's shape never changes. Use another name, or delete it first"
        ),
        Reply::Register(RegisterReply::SourceDiffers { found }) => bail!(
            "stream {stream} exists and {}, and it was to be one that {}; that never changes. Use another name, or delete it first",
            crate::host::bound(found.as_ref()),
            crate::host::bound(bound.as_ref())
        ),
        Reply::Register(RegisterReply::Deleting) => bail!(
            "stream {stream} is being deleted; `segmenter stream delete {name}` finishes that"
        ),
        other => bail!("the broker answered something else: {other:?}"),
    };
    let mut out = global.out();
    match out.format {
        Format::Json => out.object(&json!({
            "stream": name.as_str(),
            "partitions": shape.partitions(),
            "capacity": shape.capacity(),
            "payload_max": shape.payload_max(),
            "source": source(&bound),
            "created": !existed,
        }))?,
        Format::Human => {
            let done = if existed {
                "exists already with"
            } else {
                "created with"
            };
            let reads = bound.map_or(String::new(), |source| format!("; it reads {source}"));
            out.line(&format!("stream {stream} {done} {shape}{reads}"))?;
        }
    }
    out.flush()
}

async fn list(global: &Global) -> anyhow::Result<ExitCode> {
    let broker = global.connect().await?;
    let namespace = global.namespace();
    let Streams { streams, odd } = admin::list_streams(&broker, &namespace)
        .await
        .context("listing streams")?;
    let mut out = global.out();
    match out.format {
        Format::Json => {
            for (name, info) in &streams {
                out.object(&json!({
                    "stream": name.as_str(),
                    "partitions": info.shape.partitions(),
                    "capacity": info.shape.capacity(),
                    "payload_max": info.shape.payload_max(),
                    "retain": info.retain,
                    "source": source(&info.source),
                    "deleting": info.deleting,
                }))?;
            }
        }
        Format::Human => {
            let rows: Vec<_> = streams
                .iter()
                .map(|(name, info)| {
                    vec![
                        name.to_string(),
                        info.shape.partitions().to_string(),
                        info.shape
                            .capacity()
                            .map_or("-".to_owned(), |capacity| capacity.to_string()),
                        info.shape.payload_max().to_string(),
                        info.retain.to_string(),
                        match &info.source {
                            _ if info.deleting => "deleting".to_owned(),
                            Some(source) => format!("reads {source}"),
                            None => String::new(),
                        },
                    ]
                })
                .collect();
            let empty = format!("no streams in namespace {namespace}");
            out.table(
                &[
                    "STREAM",
                    "PARTITIONS",
                    "CAPACITY",
                    "PAYLOAD MAX",
                    "RETAIN",
                    "STATE",
                ],
                &rows,
                &empty,
            )?;
        }
    }
    out.flush()?;
    for (key, why) in &odd {
        let text = format!(
            "the key {key} is no stream that can be listed: {}",
            preview(why, 400)
        );
        telemetry::say(global.format, &Event::Warning { text: &text });
    }
    Ok(ExitCode::from(match odd.is_empty() {
        true => 0,
        false => super::FAILED,
    }))
}

fn source(source: &Option<Source>) -> Value {
    source.as_ref().map_or(Value::Null, |source| {
        json!({
            "redis_key": source.redis_key(),
            "key_field": source.key_field(),
            "payload_field": source.payload_field(),
        })
    })
}

async fn describe(global: &Global, name: &Name) -> anyhow::Result<()> {
    let broker = global.connect().await?;
    let (stream, info) = global.stream(&broker, name).await?;
    let partitions = admin::describe_stream(&broker, &stream, info.shape)
        .await
        .with_context(|| format!("describing stream {stream}"))?;
    let mut out = global.out();
    match out.format {
        Format::Json => {
            let partitions: Vec<_> = partitions
                .iter()
                .map(|p| {
                    let groups: Vec<_> = p
                        .groups
                        .iter()
                        .map(|g| {
                            json!({
                                "group": g.group,
                                "acked_through": g.acked_through.to_string(),
                                "lag": g.lag,
                            })
                        })
                        .collect();
                    json!({
                        "partition": p.partition.0,
                        "entries": p.entries,
                        "first": p.first.map(|id| id.to_string()),
                        "last": p.last.to_string(),
                        "groups": groups,
                    })
                })
                .collect();
            out.object(&json!({
                "stream": name.as_str(),
                "uid": info.uid.as_str(),
                "capacity": info.shape.capacity(),
                "payload_max": info.shape.payload_max(),
                "retain": info.retain,
                "source": source(&info.source),
                "partitions": partitions,
            }))?;
        }
        Format::Human => {
            out.line(&match &info.source {
                Some(source) => format!("stream {stream} reads {source}, and never trims it"),
                None => format!("stream {stream}: {}, retain {}", info.shape, info.retain),
            })?;
            let rows: Vec<_> = partitions
                .iter()
                .map(|p| {
                    let lag = |lag: Option<u64>| lag.map_or("?".to_owned(), |lag| lag.to_string());
                    let groups: Vec<_> = p
                        .groups
                        .iter()
                        .map(|g| format!("{} (lag {})", g.group, lag(g.lag)))
                        .collect();
                    vec![
                        p.partition.to_string(),
                        p.entries.to_string(),
                        p.first.map_or("-".to_owned(), |id| id.to_string()),
                        p.last.to_string(),
                        groups.join(", "),
                    ]
                })
                .collect();
            out.table(
                &["PARTITION", "ENTRIES", "FIRST", "LAST", "GROUPS"],
                &rows,
                "no partitions",
            )?;
        }
    }
    out.flush()
}

async fn delete(global: &Global, name: &Name, force: bool) -> anyhow::Result<()> {
    let broker = global.connect().await?;
    let stream = global.stream_id(name);
    let deleted = admin::delete_stream(&broker, &stream, force)
        .await
        .with_context(|| format!("deleting stream {stream}"))?;
    match deleted {
        Deleted::Deleted => {}
        Deleted::NotFound => bail!("stream {stream} does not exist"),
        Deleted::MembersLive { group, members } => bail!(
            "stream {stream} is in use: group {group} has the member{} {}; end them first, or use --force, and they end by themselves",
            if members.len() == 1 { "" } else { "s" },
            members.join(", ")
        ),
    }
    let mut out = global.out();
    match out.format {
        Format::Json => out.object(&json!({"stream": name.as_str(), "deleted": true}))?,
        Format::Human => out.line(&format!("stream {stream} deleted"))?,
    }
    out.flush()
}
