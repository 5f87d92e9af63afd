//! One shared, pipelined connection: made when it is needed, dropped after any error of its own. Knows
//! when a command surely was not sent; never sends one twice unless Redis surely did nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value,
};
use segmenter_core::names::{Namespace, StreamId};
use segmenter_core::port::Failure;
use tokio::sync::Mutex;

use crate::address::Address;
use crate::error::{ConnectError, failure, permission};
use crate::key::Key;
use crate::place::Place;
use crate::script::Script;

/// For a TCP connection to stand.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For an answer on the shared connection, which never blocks. After that its outcome is unknown.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests of all partitions that may wait for the socket.
const PIPELINE_BUFFER: usize = 1_024;

/// What a server said of itself.
#[derive(Debug, Clone)]
pub struct ServerInfo {
    /// `redis` or `valkey`.
    pub software: String,
    pub version: String,
    /// `None` where INFO does not tell.
    pub maxmemory_policy: Option<String>,
    /// Keys of one script must lie in one slot.
    pub cluster: bool,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

struct Inner {
    address: Address,
    info: ServerInfo,
    current: Mutex<Current>,
    /// Where streams lie, as their descriptions last said. One that was deleted and bound anew elsewhere is
    /// looked up by whoever wants it; who holds on to the old one finds nothing of its uid.
    places: std::sync::Mutex<HashMap<StreamId, Place>>,
    /// Which start of which server the connection leads to.
    run: std::sync::Mutex<Option<String>>,
}

/// The number tells a connection from its successor, so that only the one that failed is dropped.
struct Current {
    number: u64,
    connection: Option<MultiplexedConnection>,
    /// When the last attempt failed, and how.
    failed: Option<(Instant, Failure)>,
}

impl Broker {
    /// Tries once.
    pub async fn connect(address: &Address) -> Result<Broker, ConnectError> {
        let mut connection = open(address).await.map_err(|e| ConnectError::of(&e))?;
        let info = inspect(&mut connection).await?;
        let run = run_of(&mut connection).await;
        Ok(Broker(Arc::new(Inner {
            address: address.clone(),
            info,
            current: Mutex::new(Current {
                number: 0,
                connection: Some(connection),
                failed: None,
            }),
            places: std::sync::Mutex::default(),
            run: std::sync::Mutex::new(run),
        })))
    }

    pub fn info(&self) -> &ServerInfo {
        &self.0.info
    }

    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// What tells one start of a server from another; of the connection that stands, or stood last.
    /// `None` where the server does not tell.
    pub fn server_run(&self) -> Option<String> {
        self.0.run.lock().expect("never panics while held").clone()
    }

    /// Where the partitions of a stream lie: asked once.
    pub async fn place(&self, stream: &StreamId) -> Result<Place, Failure> {
        if let Some(place) = self.places().get(stream) {
            return Ok(place.clone());
        }
        // Remembers it, if there is one.
        let found = crate::admin::find_stream(self, stream).await?;
        Ok(Place::of(found.and_then(|info| info.source).as_ref()))
    }

    pub(crate) fn placed_at(&self, stream: &StreamId, place: Place) {
        self.places().insert(stream.clone(), place);
    }

    fn places(&self) -> std::sync::MutexGuard<'_, HashMap<StreamId, Place>> {
        self.0.places.lock().expect("never panics while held")
    }

    /// Whether the user may call every command that a host needs, and the server has it.
    pub async fn check_permissions(&self, namespace: &Namespace) -> Result<(), ConnectError> {
        let answer = self.script(Script::Permissions, |cmd| {
            // The name of the key serves as that of a channel, too.
            cmd.arg(1)
                .arg(Key::Probe(namespace))
                .arg(Key::Probe(namespace));
        });
        let missing = answer.await.and_then(crate::convert::text);
        let error = match missing {
            Ok(missing) if missing.is_empty() => return Ok(()),
            Ok(missing) => ConnectError::Permission(permission(&missing)),
            Err(Failure::Fatal(why)) => ConnectError::Permission(why),
            Err(failure) => ConnectError::NotServing(failure.to_string()),
        };
        let ServerInfo {
            software, version, ..
        } = &self.0.info;
        Err(error.said_by(software, version))
    }

    /// One attempt serves all who wait for it: with a server that does not answer, each waiting for a
    /// timeout of its own would queue up for minutes.
    async fn connection(&self) -> Result<(u64, MultiplexedConnection), Failure> {
        let asked = Instant::now();
        let mut current = self.0.current.lock().await;
        if let Some(connection) = &current.connection {
            return Ok((current.number, connection.clone()));
        }
        match &current.failed {
            Some((at, failure)) if *at >= asked => return Err(failure.clone()),
            _ => {}
        }
        match open(&self.0.address).await {
            Ok(mut connection) => {
                let run = run_of(&mut connection).await;
                *self.0.run.lock().expect("never panics while held") = run;
                current.number += 1;
                current.connection = Some(connection.clone());
                Ok((current.number, connection))
            }
            Err(error) => {
                let failure = failure(&error, false);
                current.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    async fn drop_connection(&self, number: u64) {
        let mut current = self.0.current.lock().await;
        if current.number == number {
            current.connection = None;
        }
    }

    /// Drops the connection if the answer says that it is of no use any more.
    async fn judged(&self, number: u64, answer: RedisResult<Value>) -> Result<Value, Failure> {
        match answer {
            Ok(value) => Ok(value),
            Err(error) => {
                if broken(&error) {
                    self.drop_connection(number).await;
                }
                Err(failure(&error, true))
            }
        }
    }

    /// Sends one command and waits for its answer.
    pub(crate) async fn send(&self, cmd: &Cmd) -> Result<Value, Failure> {
        let (number, mut connection) = self.connection().await?;
        let answer = cmd.query_async(&mut connection).await;
        self.judged(number, answer).await
    }

    /// Runs a script by its hash. A server that does not know it did nothing: it is told, and asked again.
    pub(crate) async fn script(
        &self,
        script: Script,
        fill: impl Fn(&mut Cmd),
    ) -> Result<Value, Failure> {
        let loaded = script.loaded();
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(loaded.get_hash());
        fill(&mut cmd);
        let (number, mut connection) = self.connection().await?;
        let mut answer = cmd.query_async(&mut connection).await;
        let no_script = ErrorKind::Server(ServerErrorKind::NoScript);
        if matches!(&answer, Err(error) if error.kind() == no_script) {
            let load = loaded.load_async(&mut connection).await;
            if let Err(error) = load {
                let failed = self.judged(number, Err(error)).await;
                // Loading has no effect that counts: whatever became of it, nothing was done.
                return failed.map_err(|failure| match failure {
                    Failure::Unknown(why) => Failure::NotDone(why),
                    other => other,
                });
            }
            answer = cmd.query_async(&mut connection).await;
        }
        self.judged(number, answer).await
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Broker({})", self.address())
    }
}

/// The connection is of no use any more: later answers could be taken for other commands'.
fn broken(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Parse) || error.is_unrecoverable_error()
}

async fn open(address: &Address) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_pipeline_buffer_size(PIPELINE_BUFFER);
    address
        .client()
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// A connection of its own, for answers that take longer than others may wait for.
pub(crate) async fn open_slow(
    address: &Address,
    timeout: Duration,
) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(timeout));
    address
        .client()
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// A connection of its own, whose answers may take any time.
pub(crate) async fn open_blocking(address: &Address) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(None);
    address
        .client()
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

async fn run_of(connection: &mut MultiplexedConnection) -> Option<String> {
    let mut cmd = redis::cmd("INFO");
    cmd.arg("server");
    let info: String = cmd.query_async(connection).await.ok()?;
    let run = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    run.map(|run| run.trim().to_owned())
}

async fn inspect(connection: &mut MultiplexedConnection) -> Result<ServerInfo, ConnectError> {
    let info: String = redis::cmd("INFO")
        .query_async(connection)
        .await
        .map_err(|e| ConnectError::of(&e))?;
    let field = |name: &str| {
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    };
    let (software, version) = match field("valkey_version") {
        Some(version) => ("valkey", version),
        None => (
            "redis",
            field("redis_version").unwrap_or_else(|| "of an unknown version".to_owned()),
        ),
    };
    let major: u32 = version
        .split('.')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    if major < 7 {
        return Err(ConnectError::TooOld {
            software: software.to_owned(),
            found: version,
        });
    }
    // Without scripts nothing works: better said now than at the first message.
    redis::cmd("SCRIPT")
        .arg("EXISTS")
        .arg(Script::Commit.loaded().get_hash())
        .query_async::<Value>(connection)
        .await
        .map_err(|e| ConnectError::of(&e).said_by(software, &version))?;
    Ok(ServerInfo {
        software: software.to_owned(),
        version,
        maxmemory_policy: field("maxmemory_policy"),
        cluster: field("redis_mode").is_some_and(|mode| mode == "cluster"),
    })
}
