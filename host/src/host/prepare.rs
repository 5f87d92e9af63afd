//! What must stand before a member joins: modules loaded, Redis reached and fit, streams registered,
//! the group in every partition. Each failure says what to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::TryStreamExt;
use segmenter_core::limits;
use segmenter_core::names::{Namespace, Partition, StreamId, Uid};
use segmenter_core::port::{
    EnsureGroup, EnsureGroupReply, Register, RegisterReply, Reply, Request,
};
use segmenter_core::source::Source;
use segmenter_redis::admin::{self, StreamInfo};
use segmenter_redis::{Address, Broker, doctor};
use segmenter_wasm::{Engine, EngineConfig, Module, Priority};

use super::clock;
use super::loader::{Loader, Settings};
use super::module_file;
use super::random;
use super::telemetry;
use super::{Plan, Say};
use crate::config::{Config, HandlerConfig, ModuleSource, StreamConfig};
use crate::output::Format;

/// How long `run` tries to reach Redis before it gives up.
const CONNECT_FOR: Duration = Duration::from_secs(10);
/// Between two tries.
const CONNECT_EVERY: Duration = Duration::from_millis(250);
/// Requests in the air while groups are created.
const ENSURE_AT_ONCE: usize = 64;

/// A handler whose configuration is good, and its module, if that is a file.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    pub(super) config: HandlerConfig,
    pub(super) code: Code,
}

pub(super) enum Code {
    File {
        module: Module,
        bytes: Arc<Vec<u8>>,
        path: PathBuf,
    },
    /// Only Redis knows.
    Deployed,
}

/// Loads and probes every module that is a file. Nothing was asked of Redis yet: a bad module disturbs nobody.
pub(super) async fn modules(
    config: &Config,
    coredump: Option<PathBuf>,
    say: &Say,
) -> anyhow::Result<(Loader, Vec<Prepared>)> {
    if let Some(dir) = &coredump {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("creating the folder for core dumps {}", dir.display()))?;
    }
    let table_elements_max = config
        .handlers
        .iter()
        .map(|h| h.limits.table_elements)
        .max();
    let memory_bytes_max = config.handlers.iter().map(|h| h.limits.memory_bytes).max();
    let engine = Engine::new(EngineConfig {
        cache_dir: cache_dir(),
        memory_bytes_max: memory_bytes_max.unwrap_or_default(),
        table_elements_max: table_elements_max.unwrap_or_default(),
        instances_max: instances_max(config),
        core_dump_dir: coredump,
    })
    .context("starting the WebAssembly engine")?;
    let loader = Loader::new(engine);
    let mut loaded = Vec::new();
    for handler in &config.handlers {
        let code = code(&loader, handler).await?;
        let plan = Plan {
            handler: handler.name.clone(),
            stream: StreamId {
                namespace: config.namespace.clone(),
                stream: handler.stream.clone(),
            },
            group: handler.group.clone(),
            start: handler.start,
            session_timeout: handler.session_timeout,
            drain_timeout: config.drain_timeout,
            retry: handler.backoff,
            attempts: handler.attempts,
            exhausted: handler.exhausted,
            emit: handler.grants.emit.clone(),
        };
        if let Code::File { module, .. } = &code {
            say.event(&telemetry::Event::Starting {
                handler: plan.handler.as_str(),
                stream: plan.stream.to_string(),
                group: plan.group.as_str(),
                version: module.version().as_str(),
            });
        }
        loaded.push(Prepared {
            plan,
            config: handler.clone(),
            code,
        });
    }
    Ok((loader, loaded))
}

async fn code(loader: &Loader, handler: &HandlerConfig) -> anyhow::Result<Code> {
    let ModuleSource::File(path) = &handler.module else {
        return Ok(Code::Deployed);
    };
    let (of, bytes_max) = (path.clone(), handler.limits.module_bytes);
    let read = tokio::task::spawn_blocking(move || module_file::read(&of, bytes_max));
    let bytes = read.await?.with_context(|| {
        format!(
            "handler {}: reading its module {}",
            handler.name, handler.module
        )
    })?;
    let bytes = Arc::new(bytes);
    let module = loader
        .load(bytes.clone(), None, Settings::of(handler), Priority::Start)
        .await
        .with_context(|| format!("handler {}: module {}", handler.name, handler.module))?;
    Ok(Code::File {
        module,
        bytes,
        path: path.clone(),
    })
}

/// Two instances per partition of every handler: beside one on trial stands the current version's, beside
/// the current version's a shadow. A stream that is not in the file may have any number of partitions, so
/// that the largest is reserved for it: a pool reserves addresses, not memory.
fn instances_max(config: &Config) -> u32 {
    let partitions = |handler: &HandlerConfig| {
        let stream = config
            .streams
            .iter()
            .find(|stream| stream.name == handler.stream);
        stream.map_or(limits::PARTITIONS_MAX, |stream| stream.shape.partitions())
    };
    let all: u32 = config
        .handlers
        .iter()
        .map(partitions)
        .fold(0, u32::saturating_add);
    let probes = (config.handlers.len() as u32).saturating_mul(PROBES_PER_HANDLER);
    all.saturating_mul(PER_PARTITION).saturating_add(probes)
}

const PER_PARTITION: u32 = 2;
/// One is made when a version is loaded, and two may be wanted at once.
const PROBES_PER_HANDLER: u32 = 2;

/// Where compiled modules are kept, by whatever command.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(base.join("segmenter"))
}

pub(super) fn say_checked(format: Format, handlers: &[Prepared]) {
    for Prepared { plan, code, .. } in handlers {
        let version = match code {
            Code::File { module, .. } => Some(module.version().as_str()),
            Code::Deployed => None,
        };
        match (format, version) {
            (Format::Json, _) => println!(
                "{}",
                serde_json::json!({
                    "event": "checked",
                    "handler": plan.handler.as_str(),
                    "stream": plan.stream.stream.as_str(),
                    "group": plan.group.as_str(),
                    "version": version,
                })
            ),
            (Format::Human, Some(version)) => {
                println!("ok: handler {}, module {version}", plan.handler);
            }
            (Format::Human, None) => {
                println!("ok: handler {}, which runs what is deployed", plan.handler);
            }
        }
    }
}

/// Tries until it is reached; what waiting will not mend ends at once.
pub(super) async fn connect(address: &Address, wait: bool, say: &Say) -> anyhow::Result<Broker> {
    let give_up = clock::now() + CONNECT_FOR;
    loop {
        let error = match Broker::connect(address).await {
            Ok(broker) => {
                say.redis(None);
                return Ok(broker);
            }
            Err(error) => error,
        };
        if !error.may_pass() {
            return Err(error).context(format!("Redis at {address} cannot be used"));
        }
        if !wait && clock::now() >= give_up {
            return Err(error).context(format!(
                "Redis at {address} was not reached within {} s (--wait waits for ever)",
                CONNECT_FOR.as_secs()
            ));
        }
        say.away(&error.to_string());
        tokio::time::sleep(CONNECT_EVERY).await;
    }
}

/// A Redis that evicts keys loses messages, leases and groups without a word.
pub(super) fn refuse_eviction(broker: &Broker) -> anyhow::Result<()> {
    match broker.info().maxmemory_policy.as_deref() {
        None | Some("noeviction") => Ok(()),
        Some(policy) => bail!(
            "this Redis has maxmemory-policy {policy}, which throws keys away when memory is short; set it to noeviction (CONFIG SET maxmemory-policy noeviction, and in redis.conf)"
        ),
    }
}

/// What `segmenter doctor` would say, as far as something is to be done: a line each.
pub(super) async fn warn(broker: &Broker, namespace: &Namespace, say: &Say) {
    for check in doctor::examine(broker, namespace).await {
        if let Some(advice) = &check.advice {
            let text = format!("{}: {}; {advice}", check.name, check.found);
            say.event(&telemetry::Event::Warning { text: &text });
        }
    }
}

/// Registers the streams of the configuration.
pub(super) async fn streams(broker: &Broker, config: &Config, say: &Say) -> anyhow::Result<()> {
    for registration in &config.streams {
        stream(broker, &config.namespace, registration, say).await?;
    }
    Ok(())
}

/// What a stream reads.
pub(crate) fn bound(source: Option<&Source>) -> String {
    match source {
        Some(source) => format!("reads {source}"),
        None => "holds entries of its own".to_owned(),
    }
}

/// Registers one stream.
pub(super) async fn stream(
    broker: &Broker,
    namespace: &Namespace,
    stream: &StreamConfig,
    say: &Say,
) -> anyhow::Result<()> {
    let id = StreamId {
        namespace: namespace.clone(),
        stream: stream.name.clone(),
    };
    let request = Request::Register(Register {
        stream: id.clone(),
        shape: stream.shape,
        retain: Some(stream.retain),
        source: stream.source.clone(),
        uid: Uid::new(random::name()).context("uid")?,
    });
    let reply = broker
        .execute(request)
        .await
        .with_context(|| format!("registering stream {id}"))?;
    match reply {
        Reply::Register(RegisterReply::Registered { existed, .. }) => {
            say.event(&telemetry::Event::Registered {
                stream: id.to_string(),
                partitions: stream.shape.partitions(),
                capacity: stream.shape.capacity(),
                existed,
            });
        }
        Reply::Register(RegisterReply::ShapeDiffers { found }) => bail!(
            "stream {id} exists with {found}, but the configuration says {}; a stream's shape never changes: correct the configuration, or use another name",
            stream.shape
        ),
        Reply::Register(RegisterReply::SourceDiffers { found }) => bail!(
            "stream {id} exists and {}, but the configuration says that it {}; that never changes: correct the configuration, or use another name",
            bound(found.as_ref()),
            bound(stream.source.as_ref())
        ),
        Reply::Register(RegisterReply::Deleting) => bail!(
            "stream {id} is being deleted; finish that with `segmenter stream delete {}`, then start again",
            id.stream
        ),
        other => bail!("the broker answered something else: {other:?}"),
    }
    Ok(())
}

/// The stream of a plan, which must exist by now.
pub(super) async fn find(broker: &Broker, plan: &Plan) -> anyhow::Result<StreamInfo> {
    let stream = &plan.stream;
    let found = admin::find_stream(broker, stream)
        .await
        .with_context(|| format!("looking up stream {stream}"))?;
    match found {
        Some(info) if info.deleting => bail!("stream {stream} is being deleted"),
        Some(info) => Ok(info),
        None => bail!(
            "handler {}: stream {stream} does not exist; create it with `segmenter --namespace {} stream create {} --partitions N --capacity N`, or add a [[stream]] table to the configuration",
            plan.handler,
            stream.namespace,
            stream.stream
        ),
    }
}

/// The group in every partition, before any lease is taken: else a trim could overlook it.
pub(super) async fn group(broker: &Broker, plan: &Plan, info: &StreamInfo) -> anyhow::Result<()> {
    futures_util::stream::iter(info.shape.all().map(anyhow::Ok))
        .try_for_each_concurrent(ENSURE_AT_ONCE, |partition| {
            ensure(broker, plan, &info.uid, partition)
        })
        .await
}

async fn ensure(
    broker: &Broker,
    plan: &Plan,
    uid: &Uid,
    partition: Partition,
) -> anyhow::Result<()> {
    let (stream, group) = (&plan.stream, &plan.group);
    let request = Request::EnsureGroup(EnsureGroup {
        stream: stream.clone(),
        uid: uid.clone(),
        partition,
        group: group.clone(),
        start: plan.start,
    });
    let reply = broker
        .execute(request)
        .await
        .with_context(|| format!("creating group {group} in partition {partition} of {stream}"))?;
    match reply {
        Reply::EnsureGroup(EnsureGroupReply::Ensured { .. }) => Ok(()),
        Reply::EnsureGroup(EnsureGroupReply::StreamGone) => {
            bail!("stream {stream} was deleted or replaced while this host started; start again")
        }
        Reply::EnsureGroup(EnsureGroupReply::ForeignGroup) => bail!(
            "partition {partition} of {stream} has a Redis consumer group {group} that Segmenter did not create; choose another group name, or remove it with XGROUP DESTROY"
        ),
        other => bail!("the broker answered something else: {other:?}"),
    }
}
