//! TOML → [`Config`]: which tables and keys there are, with their ranges and defaults. Must not know how
//! TOML is parsed.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::Path;

use segmenter_core::backoff::Backoff;
use segmenter_core::batch::Takes;
use segmenter_core::consumer::Exhausted;
use segmenter_core::effects::EffectLimits;
use segmenter_core::limits::{BATCH_MESSAGES_MOST, PARTITIONS_MAX};
use segmenter_core::names::{Namespace, Shape, Version};
use segmenter_core::port::Start;
use segmenter_core::source::Source;
use segmenter_wasm::{CORE_INSTANCES_MAX, Grants, Recycle};

use super::grants;
use super::keys::Keys;
use super::{
    ATTEMPTS, BACKOFF, BATCH, Config, ConfigError, DRAIN_TIMEOUT, HandlerConfig, Limits,
    ModuleSource, NAMESPACE, READ_AHEAD_BYTES, RedisConfig, SESSION_TIMEOUT, StreamConfig, units,
};

type Result<T> = std::result::Result<T, ConfigError>;

const DEPLOYED: &str = "deployed";
/// Hex digits of a sha256.
const DIGITS: usize = 64;

const ROOT: &[&str] = &[
    "namespace",
    "member",
    "drain_timeout",
    "read_ahead",
    "redis",
    "stream",
    "handler",
];
const REDIS: &[&str] = &["url", "password_file"];
const STREAM: &[&str] = &[
    "name",
    "partitions",
    "capacity",
    "retain",
    "payload_max",
    "source",
];
const SOURCE: &[&str] = &["redis_key", "key_field", "payload_field"];
const HANDLER: &[&str] = &[
    "name",
    "stream",
    "group",
    "module",
    "allow",
    "start",
    "session_timeout",
    "instance",
    "recycle_after",
    "recycle_memory",
    "limits",
    "batch",
    "retry",
    "grants",
];
const LIMITS: &[&str] = &[
    "deadline",
    "instantiate",
    "memory",
    "table_elements",
    "core_instances",
    "log",
    "module_size",
    "state_value",
    "state",
    "emits",
    "emit_bytes",
];
const BATCH_KEYS: &[&str] = &["messages", "bytes"];
const RETRY: &[&str] = &["attempts", "backoff", "exhausted"];
const BACKOFF_KEYS: &[&str] = &["initial", "max"];

/// Of `read_ahead`.
const READ_AHEAD_MIN: &str = "1MiB";
const READ_AHEAD_MAX: &str = "1024GiB";

/// What a flag or an environment variable says of `read_ahead`.
pub(crate) fn read_ahead(text: &str) -> std::result::Result<usize, String> {
    let value = units::size(text)?;
    let limit = |text| units::size(text).expect("a constant of this crate");
    if value < limit(READ_AHEAD_MIN) || value > limit(READ_AHEAD_MAX) {
        return Err(format!(
            "it is {text}; use {READ_AHEAD_MIN} to {READ_AHEAD_MAX}"
        ));
    }
    Ok(value)
}

pub(super) fn file(text: &str, folder: &Path) -> Result<Config> {
    let mut root = Keys::root(text, ROOT)?;
    let namespace = root
        .parsed("namespace")?
        .unwrap_or_else(|| Namespace::new(NAMESPACE).expect("a name"));
    let member = root.parsed("member")?;
    let drain_timeout = root.duration("drain_timeout", DRAIN_TIMEOUT, "100ms", "1h")?;
    let read_ahead = root.size("read_ahead", READ_AHEAD_MIN, READ_AHEAD_MAX)?;
    let redis = match root.table("redis", REDIS)? {
        Some(keys) => redis(keys, folder)?,
        None => RedisConfig::default(),
    };
    let streams = root.tables("stream", STREAM)?;
    let streams = streams.into_iter().map(stream).collect::<Result<_>>()?;
    let handlers = root.tables("handler", HANDLER)?;
    let handlers = handlers
        .into_iter()
        .map(|keys| handler(keys, folder))
        .collect::<Result<_>>()?;
    Ok(Config {
        namespace,
        member,
        drain_timeout,
        read_ahead: read_ahead.unwrap_or(READ_AHEAD_BYTES),
        redis,
        streams,
        handlers,
    })
}

fn redis(mut keys: Keys<'_>, folder: &Path) -> Result<RedisConfig> {
    let url = keys.text("url")?;
    let password_file = keys.text("password_file")?.map(|path| folder.join(path));
    Ok(RedisConfig { url, password_file })
}

fn stream(mut keys: Keys<'_>) -> Result<StreamConfig> {
    let name = keys.needed("name")?;
    let payload_max = keys.size("payload_max", "1B", "64MiB")?;
    let limited = |shape: Shape| match payload_max {
        Some(bytes) => shape.with_payload_max(bytes),
        None => Ok(shape),
    };
    if let Some(source) = keys.table("source", SOURCE)? {
        for (not, why) in [
            ("partitions", "it has one partition, as it is one stream"),
            ("capacity", "nothing of ours bounds what others write"),
            ("retain", "it is never trimmed"),
        ] {
            if keys.has(not) {
                let why = format!("goes not with source: {why}; leave it out");
                return Err(keys.refused(not, why));
            }
        }
        return Ok(StreamConfig {
            name,
            shape: limited(Shape::SOURCE).map_err(|e| keys.error(e.to_string()))?,
            retain: 0,
            source: Some(self::source(source)?),
        });
    }
    let partitions = keys.needed_count("partitions")?;
    let partitions = u32::try_from(partitions).map_err(|_| {
        keys.error(format!(
            "{partitions} partitions: use 1 to {PARTITIONS_MAX}"
        ))
    })?;
    let capacity = keys.needed_count("capacity")?;
    let shape = Shape::new(partitions, capacity).and_then(limited);
    let shape = shape.map_err(|e| keys.error(e.to_string()))?;
    let retain = keys.count("retain")?.unwrap_or(0);
    if retain > capacity {
        return Err(keys.error(format!(
            "retain is {retain}; use 0 to the capacity, {capacity}"
        )));
    }
    Ok(StreamConfig {
        name,
        shape,
        retain,
        source: None,
    })
}

fn source(mut keys: Keys<'_>) -> Result<Source> {
    let redis_key = keys.needed_text("redis_key")?;
    let key_field = keys.needed_text("key_field")?;
    let payload_field = keys.needed_text("payload_field")?;
    Source::new(redis_key, key_field, payload_field).map_err(|e| keys.error(e.to_string()))
}

fn handler(mut keys: Keys<'_>, folder: &Path) -> Result<HandlerConfig> {
    let name = keys.needed("name")?;
    let stream = keys.needed("stream")?;
    let group = keys.needed("group")?;
    let module = match keys.needed_text("module")? {
        module if module == DEPLOYED => ModuleSource::Deployed,
        module if module.ends_with(".wasm") => ModuleSource::File(folder.join(module)),
        module => {
            return Err(keys.error(format!(
                "module {module:?} does not end in .wasm, and is not the word {DEPLOYED:?}"
            )));
        }
    };
    let allow = allow(&mut keys)?;
    let start = match keys.text("start")?.as_deref() {
        None | Some("beginning") => Start::Beginning,
        Some("end") => Start::End,
        Some(other) => {
            return Err(keys.error(format!("start is {other:?}; use \"beginning\" or \"end\"")));
        }
    };
    let recycle = recycle(&mut keys)?;
    let session_timeout = keys.duration("session_timeout", SESSION_TIMEOUT, "500ms", "10m")?;
    let limits = match keys.table("limits", LIMITS)? {
        Some(keys) => limits(keys)?,
        None => Limits::default(),
    };
    let batch = match keys.table("batch", BATCH_KEYS)? {
        Some(keys) => batch(keys)?,
        None => BATCH,
    };
    let (backoff, attempts, exhausted) = match keys.table("retry", RETRY)? {
        Some(keys) => retry(keys)?,
        None => (BACKOFF, ATTEMPTS, Exhausted::default()),
    };
    let grants = match keys.table("grants", grants::KEYS)? {
        Some(keys) => grants::read(keys, folder)?,
        None => Grants::default(),
    };
    Ok(HandlerConfig {
        name,
        stream,
        group,
        module,
        allow,
        start,
        session_timeout,
        limits,
        batch,
        recycle,
        backoff,
        attempts,
        exhausted,
        grants,
    })
}

fn allow(keys: &mut Keys<'_>) -> Result<Option<BTreeSet<Version>>> {
    if !keys.has("allow") {
        return Ok(None);
    }
    let mut allowed = BTreeSet::new();
    for text in keys.list::<String>("allow")? {
        if text.len() != DIGITS || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(keys.error(format!(
                "allow: {text:?} is no sha256; write its {DIGITS} hex digits, as `sha256sum HANDLER.wasm` prints them"
            )));
        }
        let version = Version::new(text.to_ascii_lowercase());
        allowed.insert(version.map_err(|e| keys.error(format!("allow: {e}")))?);
    }
    if allowed.is_empty() {
        return Err(keys.error(
            "allow is empty, so that nothing could run; leave it out to run any version, or list digests",
        ));
    }
    Ok(Some(allowed))
}

fn limits(mut keys: Keys<'_>) -> Result<Limits> {
    let default = Limits::default();
    let deadline = keys.duration("deadline", default.deadline, "1ms", "1h")?;
    let instantiate = keys.duration("instantiate", default.instantiate, "1ms", "1h")?;
    let memory = keys.size("memory", "64KiB", "4GiB")?;
    let tables = keys.count_within("table_elements", 1, 1_000_000)?;
    let instances = keys.count_within("core_instances", 1, CORE_INSTANCES_MAX)?;
    let log = keys.size("log", "16KiB", "1GiB")?;
    let module = keys.size("module_size", "1KiB", "1GiB")?;
    let value = keys.size("state_value", "1B", "64MiB")?;
    let state = keys.size("state", "1KiB", "1GiB")?;
    let emits = keys.count_within("emits", 1, 4_000)?;
    let emit_bytes = keys.size("emit_bytes", "1KiB", "64MiB")?;
    Ok(Limits {
        deadline,
        instantiate,
        memory_bytes: memory.unwrap_or(default.memory_bytes),
        table_elements: tables.unwrap_or(default.table_elements),
        core_instances: instances.unwrap_or(default.core_instances),
        log_bytes: log.unwrap_or(default.log_bytes),
        module_bytes: module.unwrap_or(default.module_bytes),
        effects: EffectLimits {
            value_bytes: value.unwrap_or(default.effects.value_bytes),
            state_bytes: state.unwrap_or(default.effects.state_bytes),
            emits: emits.unwrap_or(default.effects.emits),
            emit_bytes: emit_bytes.unwrap_or(default.effects.emit_bytes),
        },
    })
}

fn batch(mut keys: Keys<'_>) -> Result<Takes> {
    let messages = keys.count_within("messages", 1, BATCH_MESSAGES_MOST)?;
    let bytes = keys.size("bytes", "1B", "64MiB")?;
    Ok(Takes {
        messages: messages
            .and_then(NonZeroUsize::new)
            .unwrap_or(BATCH.messages),
        bytes: bytes.unwrap_or(BATCH.bytes),
    })
}

/// How long an instance lives, if nothing ends it.
fn recycle(keys: &mut Keys<'_>) -> Result<Recycle> {
    let fresh = match keys.text("instance")?.as_deref() {
        None | Some("reuse") => false,
        Some("fresh") => true,
        Some(other) => {
            return Err(keys.error(format!(
                "instance is {other:?}; use \"reuse\", or \"fresh\" for one per message"
            )));
        }
    };
    let after = keys.count_within("recycle_after", 1, usize::MAX)?;
    let memory_bytes = keys.size("recycle_memory", "64KiB", "4GiB")?;
    if fresh && (after.is_some() || memory_bytes.is_some()) {
        return Err(keys.error(
            "instance = \"fresh\" replaces it after each message; leave out recycle_after and recycle_memory",
        ));
    }
    let after = if fresh { Some(1) } else { after };
    Ok(Recycle {
        after_messages: after.map(|n| n as u64),
        memory_bytes,
    })
}

fn retry(mut keys: Keys<'_>) -> Result<(Backoff, u32, Exhausted)> {
    let attempts = match keys.count("attempts")? {
        None => ATTEMPTS,
        Some(n @ 1..=1_000_000) => u32::try_from(n).expect("it is small"),
        Some(n) => return Err(keys.error(format!("attempts is {n}; use 1 to 1_000_000"))),
    };
    let exhausted = match keys.text("exhausted")?.as_deref() {
        None | Some("dead-letter") => Exhausted::DeadLetter,
        Some("halt") => Exhausted::Halt,
        Some(other) => {
            let why = format!("exhausted is {other:?}; use \"dead-letter\" or \"halt\"");
            return Err(keys.error(why));
        }
    };
    let backoff = match keys.table("backoff", BACKOFF_KEYS)? {
        Some(keys) => backoff(keys)?,
        None => BACKOFF,
    };
    Ok((backoff, attempts, exhausted))
}

fn backoff(mut keys: Keys<'_>) -> Result<Backoff> {
    let initial = keys.duration("initial", BACKOFF.initial, "1ms", "10m")?;
    let max = keys.duration("max", BACKOFF.max.max(initial), "1ms", "1h")?;
    if max < initial {
        return Err(keys.error("max is below initial"));
    }
    Ok(Backoff { initial, max })
}
