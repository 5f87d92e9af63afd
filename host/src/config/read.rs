//! TOML → [`Config`]. Each table takes out the keys it knows; what is left over is unknown and is named
//! with the nearest known key. Settings of later versions are refused by name, never ignored.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use segmenter_core::backoff::Backoff;
use segmenter_core::names::{Namespace, Shape};
use segmenter_core::port::Start;
use toml::{Table, Value};

use super::nearest::nearest;
use super::{
    BACKOFF, Config, ConfigError, DEADLINE, DRAIN_TIMEOUT, HandlerConfig, Limits, MEMORY_BYTES,
    NAMESPACE, RedisConfig, SESSION_TIMEOUT, StreamConfig, units,
};

type Result<T> = std::result::Result<T, ConfigError>;

const LATER: &str = "is not available in this version";

pub(super) fn file(text: &str, folder: &Path) -> Result<Config> {
    let table: Table = text
        .parse()
        .map_err(|e: toml::de::Error| ConfigError(e.to_string().trim_end().to_owned()))?;
    let mut root = Keys::new("the top level", table);
    let namespace = match root.text("namespace")? {
        Some(name) => root.name("namespace", &name)?,
        None => Namespace::new(NAMESPACE).expect("a name"),
    };
    let member = root.parsed("member")?;
    let drain_timeout = root.duration("drain_timeout", DRAIN_TIMEOUT, "100ms", "1h")?;
    let redis = match root.table("redis")? {
        Some(keys) => redis(keys, folder)?,
        None => RedisConfig::default(),
    };
    let streams = root
        .tables("stream")?
        .into_iter()
        .map(stream)
        .collect::<Result<_>>()?;
    let handlers = root.tables("handler")?;
    let handlers = handlers
        .into_iter()
        .map(|keys| handler(keys, folder))
        .collect::<Result<_>>()?;
    root.done()?;
    Ok(Config {
        namespace,
        member,
        drain_timeout,
        redis,
        streams,
        handlers,
    })
}

fn redis(mut keys: Keys, folder: &Path) -> Result<RedisConfig> {
    let url = keys.text("url")?;
    let password_file = keys.text("password_file")?.map(|path| folder.join(path));
    keys.done()?;
    Ok(RedisConfig { url, password_file })
}

fn stream(mut keys: Keys) -> Result<StreamConfig> {
    let name = keys.needed("name")?;
    let partitions = keys
        .count("partitions")?
        .ok_or_else(|| keys.missing("partitions"))?;
    let capacity = keys
        .count("capacity")?
        .ok_or_else(|| keys.missing("capacity"))?;
    let shape = Shape::new(u32::try_from(partitions).unwrap_or(u32::MAX), capacity)
        .map_err(|e| keys.error(e.to_string()))?;
    let retain = keys.count("retain")?.unwrap_or(0);
    keys.done()?;
    Ok(StreamConfig {
        name,
        shape,
        retain,
    })
}

fn handler(mut keys: Keys, folder: &Path) -> Result<HandlerConfig> {
    let name: segmenter_core::names::HandlerName = keys.needed("name")?;
    keys.place = format!("[[handler]] {:?}", name.as_str());
    let stream = keys.needed("stream")?;
    let group = keys.needed("group")?;
    let module = keys.text("module")?.ok_or_else(|| keys.missing("module"))?;
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
    let limits = match keys.table("limits")? {
        Some(keys) => limits(keys)?,
        None => Limits::default(),
    };
    let backoff = match keys.table("retry")? {
        Some(keys) => retry(keys)?,
        None => BACKOFF,
    };
    if keys.table("grants")?.is_some() {
        return Err(keys.error(format!(
            "[handler.grants] {LATER}; handlers run without any grant"
        )));
    }
    keys.done()?;
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

fn limits(mut keys: Keys) -> Result<Limits> {
    let deadline = keys.duration("deadline", DEADLINE, "1ms", "1h")?;
    let memory_bytes = match keys.text("memory")? {
        Some(text) => units::size(&text).map_err(|e| keys.error(format!("memory: {e}")))?,
        None => MEMORY_BYTES,
    };
    if !(64 << 10..=4 << 30).contains(&memory_bytes) {
        return Err(keys.error("memory is outside of 64KiB to 4GiB".to_owned()));
    }
    keys.done()?;
    Ok(Limits {
        deadline,
        memory_bytes,
    })
}

fn retry(mut keys: Keys) -> Result<Backoff> {
    for later in ["attempts", "exhausted"] {
        if keys.table.contains_key(later) {
            return Err(keys.error(format!("{later} {LATER}; retries have no end")));
        }
    }
    let backoff = match keys.table("backoff")? {
        Some(mut keys) => {
            let initial = keys.duration("initial", BACKOFF.initial, "1ms", "10m")?;
            let max = keys.duration("max", BACKOFF.max.max(initial), "1ms", "1h")?;
            if max < initial {
                return Err(keys.error("max is below initial".to_owned()));
            }
            keys.done()?;
            Backoff { initial, max }
        }
        None => BACKOFF,
    };
    keys.done()?;
    Ok(backoff)
}

/// A table whose keys are taken out one by one.
struct Keys {
    place: String,
    table: Table,
    known: Vec<&'static str>,
}

impl Keys {
    fn new(place: impl Into<String>, table: Table) -> Keys {
        Keys {
            place: place.into(),
            table,
            known: Vec::new(),
        }
    }

    fn error(&self, why: String) -> ConfigError {
        ConfigError(format!("{}: {why}", self.place))
    }

    fn missing(&self, key: &str) -> ConfigError {
        self.error(format!("{key} is missing"))
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn text(&mut self, key: &'static str) -> Result<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.error(match other {
                Value::Integer(_) | Value::Float(_) => {
                    format!("{key} is the bare number {other}; write it in quotes with its unit")
                }
                _ => format!("{key} is {}, not a text in quotes", other.type_str()),
            })),
        }
    }

    fn name<T: FromStr>(&self, key: &str, text: &str) -> Result<T>
    where
        T::Err: std::fmt::Display,
    {
        text.parse()
            .map_err(|e: T::Err| self.error(format!("{key}: {e}")))
    }

    fn parsed<T: FromStr>(&mut self, key: &'static str) -> Result<Option<T>>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.text(key)?;
        text.map(|text| self.name(key, &text)).transpose()
    }

    fn needed<T: FromStr>(&mut self, key: &'static str) -> Result<T>
    where
        T::Err: std::fmt::Display,
    {
        self.parsed(key)?.ok_or_else(|| self.missing(key))
    }

    fn count(&mut self, key: &'static str) -> Result<Option<u64>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Integer(number)) => {
                let number = u64::try_from(number);
                number
                    .map(Some)
                    .map_err(|_| self.error(format!("{key} is negative")))
            }
            Some(other) => {
                Err(self.error(format!("{key} is {}, not a whole number", other.type_str())))
            }
        }
    }

    fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        min: &str,
        max: &str,
    ) -> Result<Duration> {
        let Some(text) = self.text(key)? else {
            return Ok(default);
        };
        let value = units::duration(&text).map_err(|e| self.error(format!("{key}: {e}")))?;
        let limit = |text| units::duration(text).expect("a constant of this file");
        if value < limit(min) || value > limit(max) {
            return Err(self.error(format!("{key} is {text}; use {min} to {max}")));
        }
        Ok(value)
    }

    fn table(&mut self, key: &'static str) -> Result<Option<Keys>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Table(table)) => Ok(Some(Keys::new(self.inner(key), table))),
            Some(other) => Err(self.error(format!("{key} is {}, not a table", other.type_str()))),
        }
    }

    fn inner(&self, key: &str) -> String {
        match self.place.as_str() {
            "the top level" => format!("[{key}]"),
            place => format!("{place}, {key}"),
        }
    }

    fn tables(&mut self, key: &'static str) -> Result<Vec<Keys>> {
        let wrong = |what: &str| {
            ConfigError(format!(
                "{key} is {what}; write [[{key}]] with double brackets, once per {key}"
            ))
        };
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .into_iter()
                .enumerate()
                .map(|(i, item)| match item {
                    Value::Table(table) => {
                        Ok(Keys::new(format!("[[{key}]] number {}", i + 1), table))
                    }
                    other => Err(wrong(other.type_str())),
                })
                .collect(),
            Some(other) => Err(wrong(other.type_str())),
        }
    }

    /// Nothing may be left over.
    fn done(self) -> Result<()> {
        let Some(unknown) = self.table.keys().next() else {
            return Ok(());
        };
        let hint = match nearest(unknown, &self.known) {
            Some(known) => format!("did you mean {known:?}?"),
            None => format!("known are: {}", self.known.join(", ")),
        };
        Err(self.error(format!("unknown key {unknown:?}; {hint}")))
    }
}
