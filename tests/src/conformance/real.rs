//! The Redis adapter on a private server as a subject. The hands of others are plain commands on a
//! connection of their own.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::time::Duration;

use redis::{Connection, FromRedisValue, Value};
use segmenter_core::effects::Emit;
use segmenter_core::entry::{Fields, RawEntry};
use segmenter_core::message::EntryId;
use segmenter_core::names::{
    GroupName, HandlerId, Namespace, Partition, StreamId, StreamName, Version,
};
use segmenter_core::port::{BadVersion, DeadLetter, Failure, Happened, Reply, Request, Stamped};
use segmenter_redis::{Address, Broker, Key, admin, handlers};
use tokio::runtime::Runtime;

use super::Subject;
use crate::server::{Options, Server};

pub struct RealSubject {
    pub broker: Broker,
    pub runtime: Runtime,
    pub hands: Connection,
    pub server: Server,
}

impl Default for RealSubject {
    fn default() -> RealSubject {
        RealSubject::start(Options::default())
    }
}

impl RealSubject {
    pub fn start(options: Options) -> RealSubject {
        let server = Server::start(options);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let address = Address::new(&server.url(), None).expect("a URL");
        let broker = runtime
            .block_on(Broker::connect(&address))
            .unwrap_or_else(|e| panic!("{e}"));
        let hands = redis::Client::open(server.hands_url())
            .and_then(|c| c.get_connection())
            .expect("a plain connection");
        RealSubject {
            broker,
            runtime,
            hands,
            server,
        }
    }

    /// A plain command, by whoever. Panics if it is refused.
    pub fn command<T: FromRedisValue>(&mut self, parts: &[&str]) -> T {
        let mut command = redis::cmd(parts[0]);
        for part in &parts[1..] {
            command.arg(part);
        }
        command
            .query(&mut self.hands)
            .unwrap_or_else(|e| panic!("{parts:?}: {e}"))
    }

    fn log_key(&self, stream: &StreamId, partition: Partition) -> String {
        self.placed(stream, Key::Log(stream, partition))
    }

    fn placed(&self, stream: &StreamId, key: Key<'_>) -> String {
        let place = self.runtime.block_on(self.broker.place(stream));
        let place = place.unwrap_or_else(|e| panic!("{e}"));
        place.key(key).to_string()
    }

    /// What XINFO GROUPS says of one group.
    pub fn mirror(
        &mut self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
    ) -> Option<HashMap<String, Value>> {
        let key = self.log_key(stream, partition);
        let groups: Vec<HashMap<String, Value>> = self.command(&["XINFO", "GROUPS", &key]);
        groups.into_iter().find(|g| {
            let name = g.get("name").cloned().expect("a group has a name");
            redis::from_redis_value::<String>(name).expect("a name") == group.as_str()
        })
    }

    /// Everything that the server holds.
    pub fn everything(&mut self) -> Vec<Kept> {
        let mut keys: Vec<String> = self.command(&["KEYS", "*"]);
        keys.sort();
        keys.into_iter()
            .map(|key| {
                let dump = self.command(&["DUMP", &key]);
                let kind: String = self.command(&["TYPE", &key]);
                let fields = (kind == "hash").then(|| self.command(&["HGETALL", &key]));
                Kept { key, dump, fields }
            })
            .collect()
    }

    /// Puts back what the server held.
    pub fn restore(&mut self, everything: &[Kept]) {
        let _: () = self.command(&["FLUSHDB"]);
        for kept in everything {
            let mut restore = redis::cmd("RESTORE");
            restore.arg(&kept.key).arg(0).arg(kept.dump.as_slice());
            let _: () = restore.query(&mut self.hands).expect("it was dumped");
        }
    }
}

/// A key and what is under it. The same if it holds the same: in which order a large hash is dumped depends
/// on its past and on a number that each server draws.
#[derive(Debug, Clone)]
pub struct Kept {
    key: String,
    dump: Vec<u8>,
    fields: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl PartialEq for Kept {
    fn eq(&self, other: &Kept) -> bool {
        let same = match (&self.fields, &other.fields) {
            (Some(one), Some(other)) => one == other,
            _ => self.dump == other.dump,
        };
        same && self.key == other.key
    }
}

impl Subject for RealSubject {
    fn execute(&mut self, request: Request) -> Result<Reply, Failure> {
        self.runtime.block_on(self.broker.execute(request))
    }
    fn now_us(&mut self) -> u64 {
        let (seconds, micros): (u64, u64) = self.command(&["TIME"]);
        seconds * 1_000_000 + micros
    }
    fn let_time_pass(&mut self, span: Duration) {
        let until = self.now_us() + u64::try_from(span.as_micros()).expect("a short span");
        while self.now_us() < until {
            std::thread::yield_now();
        }
    }
    fn log(&mut self, stream: &StreamId, partition: Partition) -> Vec<RawEntry> {
        let key = self.log_key(stream, partition);
        self.source_log(&key)
    }
    fn dead(
        &mut self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
    ) -> Vec<(DeadLetter, u64)> {
        let mut letters = Vec::new();
        let listed = self.runtime.block_on(async {
            let Some(info) = admin::find_stream(&self.broker, stream).await? else {
                return Ok(());
            };
            let visit = |letter: admin::DeadEntry| {
                letters.push(letter);
                ControlFlow::Continue(())
            };
            admin::dead_each(&self.broker, stream, info.shape, group, visit).await
        });
        listed.unwrap_or_else(|e: Failure| panic!("{e}"));
        letters
            .into_iter()
            .filter(|d| d.partition == partition)
            .map(|d| {
                let letter = DeadLetter {
                    id: d.id,
                    reason: d.reason,
                    attempts: d.attempts,
                    version: d.version,
                    fields: d.fields,
                };
                (letter, d.at_ms)
            })
            .collect()
    }
    fn dead_ids(
        &mut self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
    ) -> Vec<EntryId> {
        let key = self.placed(stream, Key::Dead(stream, partition, group));
        let letters: Vec<(String, Vec<Vec<u8>>)> = self.command(&["XRANGE", &key, "-", "+"]);
        let ids = letters.iter().map(|(id, _)| id.parse().expect("an id"));
        ids.collect()
    }
    fn outbox(
        &mut self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
    ) -> Vec<Stamped> {
        let key = self.placed(stream, Key::Outbox(stream, partition, group));
        let entries: Vec<(String, Vec<Vec<u8>>)> = self.command(&["XRANGE", &key, "-", "+"]);
        entries
            .into_iter()
            .flat_map(|(id, flat)| messages_of(id.parse().expect("a stamp"), &flat))
            .collect()
    }
    fn lag(&mut self, stream: &StreamId, partition: Partition, group: &GroupName) -> Option<u64> {
        let lag = self.mirror(stream, partition, group)?.remove("lag")?;
        redis::from_redis_value(lag).ok()
    }
    fn add(&mut self, stream: &StreamId, partition: Partition, id: EntryId, fields: Fields) {
        let key = self.log_key(stream, partition);
        self.add_to_source(&key, id, fields);
    }
    fn add_to_source(&mut self, redis_key: &str, id: EntryId, fields: Fields) {
        // The user under test may do nothing outside of seg:* by itself.
        let rule = format!("~{redis_key}");
        let _: Value = self.command(&["ACL", "SETUSER", crate::server::USER, &rule]);
        let mut command = redis::cmd("XADD");
        command.arg(redis_key).arg(id.to_string());
        for (name, value) in &fields {
            command.arg(name).arg(value);
        }
        let added: String = command.query(&mut self.hands).expect("XADD");
        assert_eq!(added, id.to_string());
    }
    fn source_log(&mut self, redis_key: &str) -> Vec<RawEntry> {
        let entries: Vec<(String, Vec<Vec<u8>>)> = self.command(&["XRANGE", redis_key, "-", "+"]);
        entries
            .into_iter()
            .map(|(id, flat)| RawEntry {
                id: id.parse().expect("an id"),
                fields: flat
                    .chunks(2)
                    .map(|f| (f[0].clone(), f[1].clone()))
                    .collect(),
            })
            .collect()
    }
    fn remove(&mut self, stream: &StreamId, partition: Partition, id: EntryId) {
        let key = self.log_key(stream, partition);
        let removed: u64 = self.command(&["XDEL", &key, &id.to_string()]);
        assert_eq!(removed, 1, "no entry {id}");
    }
    fn add_foreign_group(
        &mut self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
        after: EntryId,
        pending: usize,
    ) {
        let key = self.log_key(stream, partition);
        let (group, after) = (group.as_str(), after.to_string());
        let _: Value = self.command(&["XGROUP", "CREATE", &key, group, &after]);
        if pending > 0 {
            let count = pending.to_string();
            let _: Value = self.command(&[
                "XREADGROUP",
                "GROUP",
                group,
                "someone",
                "COUNT",
                &count,
                "STREAMS",
                &key,
                ">",
            ]);
        }
    }
    fn mark_deleting(&mut self, stream: &StreamId) {
        let key = Key::Stream(stream).to_string();
        let _: Value = self.command(&["HSET", &key, "deleting", "1"]);
    }
    fn delete_stream(&mut self, stream: &StreamId) {
        let deleted = self
            .runtime
            .block_on(admin::delete_stream(&self.broker, stream, true))
            .expect("a delete");
        assert_eq!(deleted, admin::Deleted::Deleted);
    }
    fn history(&mut self, handler: &HandlerId) -> Vec<Happened> {
        let history = handlers::history(&self.broker, handler);
        self.runtime.block_on(history).expect("a history")
    }
    fn bad_versions(&mut self, handler: &HandlerId) -> Vec<BadVersion> {
        let described = handlers::describe_handler(&self.broker, handler);
        let info = self.runtime.block_on(described).expect("an answer");
        info.expect("it was deployed").bad
    }
    fn damage_module(&mut self, namespace: &Namespace, version: &Version, bytes: Vec<u8>) {
        let mut command = redis::cmd("SET");
        command
            .arg(Key::Module(namespace, version).to_string())
            .arg(bytes);
        let _: Value = command.query(&mut self.hands).expect("SET");
    }
}

/// The messages of an entry of an outbox, as whoever reads it by hand finds them.
fn messages_of(id: EntryId, flat: &[Vec<u8>]) -> Vec<Stamped> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let (protocol, to) = (text(&flat[0]), text(&flat[2]));
    assert_eq!((protocol.as_str(), to.as_str()), ("protocol", "to"));
    let to: StreamName = text(&flat[3]).parse().expect("a name");
    // One that was redriven lies there without a number.
    let first = if flat[4] == b"n" { 6 } else { 4 };
    let fields: Vec<_> = flat[first..]
        .chunks(2)
        .map(|f| (f[0].clone(), f[1].clone()))
        .collect();
    let messages: Vec<_> = fields.chunk_by(|_, (name, _)| name != b"k").collect();
    if first == 6 {
        assert_eq!(text(&flat[5]), messages.len().to_string());
    }
    let stamps = segmenter_core::parcel::stamps(id, messages.len()).expect("some");
    let decoded = stamps.zip(messages).map(|(stamp, fields)| {
        let raw = RawEntry {
            id,
            fields: fields.to_vec(),
        };
        let segmenter_core::entry::Entry::Ours { content, .. } =
            segmenter_core::entry::decode(raw, usize::MAX)
        else {
            panic!("an emitted message is ours in shape");
        };
        let to = to.clone();
        Stamped {
            stamp,
            emit: Emit { to, content },
        }
    });
    decoded.collect()
}
