//! TOML → [`Config`]: which tables and keys there are, with their ranges and defaults. Settings of later
//! versions are refused by name, never ignored. Must not know how TOML is parsed.

use std::path::Path;

use segmenter_core::backoff::Backoff;
use segmenter_core::limits::PARTITIONS_MAX;
use segmenter_core::names::{Namespace, Shape};
use segmenter_core::port::Start;
use segmenter_core::source::Source;

use super::keys::Keys;
use super::{
    BACKOFF, Config, ConfigError, DEADLINE, DRAIN_TIMEOUT, HandlerConfig, Limits, MEMORY_BYTES,
    NAMESPACE, RedisConfig, SESSION_TIMEOUT, StreamConfig, units,
};

type Result<T> = std::result::Result<T, ConfigError>;

const LATER: &str = "is not available in this version";

const ROOT: &[&str] = &[
    "namespace",
    "member",
    "drain_timeout",
    "redis",
    "stream",
    "handler",
];
const REDIS: &[&str] = &["url", "password_file"];
const STREAM: &[&str] = &["name", "partitions", "capacity", "retain", "source"];
const SOURCE: &[&str] = &["redis_key", "key_field", "payload_field"];
const HANDLER: &[&str] = &[
    "name",
    "stream",
    "group",
    "module",
    "start",
    "session_timeout",
    "instance",
    "limits",
    "retry",
    "grants",
];
const LIMITS: &[&str] = &["deadline", "memory"];
const RETRY: &[&str] = &["attempts", "backoff", "exhausted"];
const BACKOFF_KEYS: &[&str] = &["initial", "max"];

pub(super) fn file(text: &str, folder: &Path) -> Result<Config> {
    let mut root = Keys::root(text, ROOT)?;
    let namespace = root
        .parsed("namespace")?
        .unwrap_or_else(|| Namespace::new(NAMESPACE).expect("a name"));
    let member = root.parsed("member")?;
    let drain_timeout = root.duration("drain_timeout", DRAIN_TIMEOUT, "100ms", "1h")?;
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
            shape: Shape::SOURCE,
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
    let shape = Shape::new(partitions, capacity).map_err(|e| keys.error(e.to_string()))?;
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
    let module = keys.needed_text("module")?;
    if module == "deployed" {
        return Err(keys.error(format!(
            "module = \"deployed\" {LATER}; give the path of a .wasm file"
        )));
    }
    if !module.ends_with(".wasm") {
        return Err(keys.error(format!("module {module:?} does not end in .wasm")));
    }
    let start = match keys.text("start")?.as_deref() {
        None | Some("beginning") => Start::Beginning,
        Some("end") => Start::End,
        Some(other) => {
            return Err(keys.error(format!("start is {other:?}; use \"beginning\" or \"end\"")));
        }
    };
    match keys.text("instance")?.as_deref() {
        None | Some("reuse") => {}
        Some("fresh") => {
            return Err(keys.error(format!(
                "instance = \"fresh\" {LATER}; leave it out, or write \"reuse\""
            )));
        }
        Some(other) => return Err(keys.error(format!("instance is {other:?}; use \"reuse\""))),
    }
    let session_timeout = keys.duration("session_timeout", SESSION_TIMEOUT, "500ms", "10m")?;
    let limits = match keys.table("limits", LIMITS)? {
        Some(keys) => limits(keys)?,
        None => Limits::default(),
    };
    let backoff = match keys.table("retry", RETRY)? {
        Some(keys) => retry(keys)?,
        None => BACKOFF,
    };
    if keys.has("grants") {
        let why = format!("{LATER}; handlers run without any grant");
        return Err(keys.refused("grants", why));
    }
    let module = folder.join(module);
    Ok(HandlerConfig {
        name,
        stream,
        group,
        module,
        start,
        session_timeout,
        limits,
        backoff,
    })
}

fn limits(mut keys: Keys<'_>) -> Result<Limits> {
    let deadline = keys.duration("deadline", DEADLINE, "1ms", "1h")?;
    let memory_bytes = match keys.text("memory")? {
        Some(text) => units::size(&text).map_err(|e| keys.error(format!("memory: {e}")))?,
        None => MEMORY_BYTES,
    };
    if !(64 << 10..=4 << 30).contains(&memory_bytes) {
        return Err(keys.error("memory is outside of 64KiB to 4GiB"));
    }
    Ok(Limits {
        deadline,
        memory_bytes,
    })
}

fn retry(mut keys: Keys<'_>) -> Result<Backoff> {
    for later in ["attempts", "exhausted"] {
        if keys.has(later) {
            return Err(keys.refused(later, format!("{LATER}; retries have no end")));
        }
    }
    let Some(mut keys) = keys.table("backoff", BACKOFF_KEYS)? else {
        return Ok(BACKOFF);
    };
    let initial = keys.duration("initial", BACKOFF.initial, "1ms", "10m")?;
    let max = keys.duration("max", BACKOFF.max.max(initial), "1ms", "1h")?;
    if max < initial {
        return Err(keys.error("max is below initial"));
    }
    Ok(Backoff { initial, max })
}
