//! The configuration of a host: read, checked whole, with every default filled in. Knows the file and
//! its ranges; must not ask Redis or load a module.

mod grants;
mod keys;
mod nearest;
mod read;
pub mod units;

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use segmenter_core::backoff::Backoff;
use segmenter_core::batch::Takes;
use segmenter_core::consumer::Exhausted;
use segmenter_core::effects::EffectLimits;
use segmenter_core::names::{
    GroupName, HandlerName, MemberId, Namespace, Shape, StreamName, Version,
};
use segmenter_core::port::Start;
use segmenter_core::source::Source;
use segmenter_wasm::{Grants, Recycle};

pub(crate) use grants::flag as grant;
pub(crate) use read::read_ahead;

pub const NAMESPACE: &str = "default";
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
pub const READ_AHEAD_BYTES: usize = segmenter_core::limits::READ_AHEAD_BYTES;
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(3);
pub const DEADLINE: Duration = Duration::from_secs(1);
pub const INSTANTIATE: Duration = Duration::from_secs(5);
pub const MEMORY_BYTES: usize = 64 << 20;
pub const ATTEMPTS: u32 = 5;
pub const TABLE_ELEMENTS: usize = 100_000;
pub const CORE_INSTANCES: usize = 20;
pub const LOG_BYTES: usize = 1 << 20;
pub const MODULE_BYTES: usize = 64 << 20;
pub const BATCH: Takes = Takes {
    messages: NonZeroUsize::new(segmenter_core::limits::BATCH_MESSAGES).expect("not 0"),
    bytes: segmenter_core::limits::BATCH_BYTES,
};
pub const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(100),
    max: Duration::from_secs(30),
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub namespace: Namespace,
    /// Stable across restarts; without it every start is a member of its own.
    pub member: Option<MemberId>,
    /// 100 ms to 1 h; 10 s unless set.
    pub drain_timeout: Duration,
    /// 1 MiB to 1,024 GiB; 256 MiB unless set. Bytes of messages that are read and not yet let go, over all
    /// partitions of all handlers; each partition has an equal share, and may hold one message in any case.
    pub read_ahead: usize,
    pub redis: RedisConfig,
    pub streams: Vec<StreamConfig>,
    pub handlers: Vec<HandlerConfig>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisConfig {
    pub url: Option<String>,
    pub password_file: Option<PathBuf>,
}

/// Registered by `run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConfig {
    pub name: StreamName,
    pub shape: Shape,
    /// Acked entries kept per partition while there is room: 0, unless set, up to the capacity.
    pub retain: u64,
    /// Other programs write it, as it is.
    pub source: Option<Source>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerConfig {
    pub name: HandlerName,
    pub stream: StreamName,
    pub group: GroupName,
    pub module: ModuleSource,
    /// The versions that it may run; any unless set.
    pub allow: Option<BTreeSet<Version>>,
    pub start: Start,
    /// 500 ms to 10 min; 3 s unless set.
    pub session_timeout: Duration,
    pub limits: Limits,
    /// Of a call, if the handler takes batches: 1 to 1,024 messages of 1 B to 64 MiB together (a single one may
    /// be larger); 100 and 1 MiB unless set.
    pub batch: Takes,
    /// `instance = "fresh"` is after one message; never unless set.
    pub recycle: Recycle,
    /// Initial 1 ms to 10 min, max up to 1 h; 100 ms to 30 s unless set.
    pub backoff: Backoff,
    /// At one message, the first included: 1 to 1,000,000; 5 unless set.
    pub attempts: u32,
    pub exhausted: Exhausted,
    /// None unless set. Folders are absolute, or relative to the working directory.
    pub grants: Grants,
}

/// Where a handler's code comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleSource {
    /// A file, and whatever becomes of it. Absolute, or relative to the working directory.
    File(PathBuf),
    /// What `handler deploy` made the current version.
    Deployed,
}

impl fmt::Display for ModuleSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModuleSource::File(path) => path.display().fmt(f),
            ModuleSource::Deployed => f.write_str("the deployed module"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// 1 ms to 1 h; 1 s unless set.
    pub deadline: Duration,
    /// 1 ms to 1 h; 5 s unless set. Of making an instance.
    pub instantiate: Duration,
    /// 64 KiB to 4 GiB; 64 MiB unless set.
    pub memory_bytes: usize,
    /// 1 to 1,000,000; 100,000 unless set. Over all tables of an instance; each takes 8 bytes.
    pub table_elements: usize,
    /// 1 to 1,000; 20 unless set.
    pub core_instances: usize,
    /// 16 KiB to 1 GiB; 1 MiB unless set. Of one call's output, a line counting for at least 64 bytes; what
    /// is over is dropped and counted.
    pub log_bytes: usize,
    /// 1 KiB to 1 GiB; 64 MiB unless set. Of the .wasm file.
    pub module_bytes: usize,
    /// `state_value` 1 B to 64 MiB, `state` 1 KiB to 1 GiB per partition, in memory, too; `emits` 1 to 4,000 (with all their attributes they are one request to Redis)
    /// and `emit_bytes` 1 KiB to 64 MiB per call. 1 MiB, 16 MiB, 1,000 and 4 MiB unless set.
    pub effects: EffectLimits,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            deadline: DEADLINE,
            instantiate: INSTANTIATE,
            memory_bytes: MEMORY_BYTES,
            table_elements: TABLE_ELEMENTS,
            core_instances: CORE_INSTANCES,
            log_bytes: LOG_BYTES,
            module_bytes: MODULE_BYTES,
            effects: EffectLimits::default(),
        }
    }
}

/// Why a configuration is refused. The text names the file and, where it is known, table and key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Reads a file; paths in it are relative to it.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        ConfigFile::new(path).load()
    }

    pub fn parse(text: &str, folder: &Path) -> Result<Config, ConfigError> {
        let config = read::file(text, folder)?;
        config.check()?;
        Ok(config)
    }

    /// What no single table shows.
    fn check(&self) -> Result<(), ConfigError> {
        for (i, handler) in self.handlers.iter().enumerate() {
            for other in &self.handlers[..i] {
                if other.name == handler.name {
                    return Err(ConfigError(format!(
                        "two handlers have the name {:?}",
                        handler.name.as_str()
                    )));
                }
                if (&other.stream, &other.group) == (&handler.stream, &handler.group) {
                    return Err(ConfigError(format!(
                        "the handlers {:?} and {:?} are both on stream {} as group {}; a group has one handler, so give one of them another group",
                        other.name.as_str(),
                        handler.name.as_str(),
                        handler.stream,
                        handler.group
                    )));
                }
            }
        }
        for (i, stream) in self.streams.iter().enumerate() {
            if self.streams[..i]
                .iter()
                .any(|other| other.name == stream.name)
            {
                return Err(ConfigError(format!(
                    "two [[stream]] tables have the name {:?}",
                    stream.name.as_str()
                )));
            }
        }
        Ok(())
    }
}

/// Where a configuration lies, and what the command line says instead, so that it can be read again.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    pub path: PathBuf,
    pub namespace: Option<Namespace>,
    pub member: Option<MemberId>,
    /// Bytes.
    pub read_ahead: Option<usize>,
}

impl ConfigFile {
    pub fn new(path: &Path) -> ConfigFile {
        ConfigFile {
            path: path.to_path_buf(),
            namespace: None,
            member: None,
            read_ahead: None,
        }
    }

    pub fn load(&self) -> Result<Config, ConfigError> {
        let bytes = std::fs::read(&self.path).map_err(|e| {
            let path = self.path.display();
            ConfigError(format!("reading the configuration {path}: {e}"))
        })?;
        self.parse(&bytes)
    }

    /// As if these bytes were in it.
    pub fn parse(&self, bytes: &[u8]) -> Result<Config, ConfigError> {
        let path = self.path.display();
        let text = std::str::from_utf8(bytes)
            .map_err(|e| ConfigError(format!("{path}: it is no text in UTF-8: {e}")))?;
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let mut config = Config::parse(text, folder)
            .map_err(|ConfigError(why)| ConfigError(format!("{path}: {why}")))?;
        if let Some(namespace) = &self.namespace {
            config.namespace = namespace.clone();
        }
        if self.member.is_some() {
            config.member = self.member.clone();
        }
        if let Some(bytes) = self.read_ahead {
            config.read_ahead = bytes;
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
