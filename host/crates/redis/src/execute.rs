//! The core's port, executed: request → script or command → reply. Knows the order of a script's
//! arguments and answers; must not know why something is asked.

use std::collections::BTreeMap;

use redis::{Cmd, Value};
use segmenter_core::entry::{self, Fields};
use segmenter_core::lease::{Attempts, Epoch, LeaseView};
use segmenter_core::limits;
use segmenter_core::message::Content;
use segmenter_core::names::{GroupName, Shape, StreamId, Uid, Version};
use segmenter_core::parcel;
use segmenter_core::port::{
    Acquire, AcquireReply, Append, AppendReply, Commit, CommitReply, EnsureGroup, EnsureGroupReply,
    Failure, LoadState, LoadStateReply, Read, ReadReply, Register, RegisterReply, Release,
    ReleaseReply, Reply, Request, Stamped, Start, Verify, VerifyReply,
};
use segmenter_core::source::Source;

use crate::broker::Broker;
use crate::convert::{bytes, id, lease, list, number, odd, text, xread};
use crate::key::Key;
use crate::place::{self, Place};
use crate::script::Script;

/// Fields of a dead letter that Lua can pass on one by one; more are packed into one.
pub(crate) const LETTER_FIELDS_MAX: usize = 1_000;
/// In front of a handler's names in the hash of its state, whose other fields are ours.
const STATE_NAME: char = '=';
/// Values in one answer, about.
const STATE_SCAN_COUNT: usize = 1_000;

impl Broker {
    /// Executes one request. Never tries again.
    pub async fn execute(&self, request: Request) -> Result<Reply, Failure> {
        Ok(match request {
            Request::Register(r) => Reply::Register(self.register(r).await?),
            Request::EnsureGroup(r) => Reply::EnsureGroup(self.ensure_group(r).await?),
            Request::Append(r) => Reply::Append(self.append(r).await?),
            Request::Read(r) => Reply::Read(self.read(r).await?),
            Request::Acquire(r) => Reply::Acquire(self.acquire(r).await?),
            Request::Commit(r) => Reply::Commit(self.commit(r).await?),
            Request::Release(r) => Reply::Release(self.release(r).await?),
            Request::Verify(r) => Reply::Verify(self.verify(r).await?),
            Request::Seek(r) => Reply::Seek(self.seek(r).await?),
            Request::Halt(r) => Reply::Halt(self.halt(r).await?),
            Request::Resume(r) => Reply::Resume(self.resume(r).await?),
            Request::DeleteGroup(r) => Reply::DeleteGroup(self.delete_group(r).await?),
            Request::LoadState(r) => Reply::LoadState(self.load_state(r).await?),
            Request::AppendFrom(r) => Reply::AppendFrom(self.append_from(r).await?),
            Request::LoadOutbox(r) => Reply::LoadOutbox(self.load_outbox(r).await?),
            Request::Relayed(r) => Reply::Relayed(self.relayed(r).await?),
            Request::Bury(r) => Reply::Bury(self.bury(r).await?),
            Request::Redrive(r) => Reply::Redrive(self.redrive(r).await?),
            Request::Purge(r) => Reply::Purge(self.purge(r).await?),
            Request::Sync(r) => Reply::Sync(self.sync(r).await?),
            Request::Install(r) => Reply::Install(self.install(r).await?),
            Request::StoreModule(r) => Reply::StoreModule(self.store_module(r).await?),
            Request::FetchModule(r) => Reply::FetchModule(self.fetch_module(r).await?),
            Request::Deploy(r) => Reply::Deploy(self.deploy(r).await?),
            Request::Report(r) => Reply::Report(self.report(r).await?),
            Request::Settle(r) => Reply::Settle(self.settle(r).await?),
            Request::RollBack(r) => Reply::RollBack(self.roll_back(r).await?),
        })
    }

    async fn register(&self, r: Register) -> Result<RegisterReply, Failure> {
        // A creation that overtook this one is read again, and so is a delete that ran while partitions
        // were made; each turn means that somebody deleted the stream in between.
        let mut created_here = false;
        if let Some(source) = &r.source {
            self.check_source(source).await?;
        }
        let source = match &r.source {
            Some(s) => [s.redis_key(), s.key_field(), s.payload_field()],
            None => [""; 3],
        };
        // As every description from before there were others.
        let payload_max = match r.shape.payload_max() {
            limits::PAYLOAD_BYTES_MAX => String::new(),
            other => other.to_string(),
        };
        for _ in 0..3 {
            let retain = r.retain.map(|n| n.to_string()).unwrap_or_default();
            let answer = self
                .script(Script::StreamCreate, |cmd| {
                    keys(cmd, &[Key::Stream(&r.stream)]);
                    cmd.arg(r.uid.as_str())
                        .arg(r.shape.partitions())
                        .arg(r.shape.capacity().unwrap_or(0))
                        .arg(&retain);
                    for text in source {
                        cmd.arg(text);
                    }
                    cmd.arg(&payload_max);
                })
                .await?;
            let mut parts = list(answer)?.into_iter();
            let mut next = || parts.next().unwrap_or(Value::Nil);
            created_here |= number(next())? == 0;
            let uid = Uid::new(text(next())?).map_err(|e| Failure::Fatal(e.to_string()))?;
            let partitions = u32::try_from(number(next())?).unwrap_or(u32::MAX);
            let capacity = number(next())?;
            let (retain, created) = (text(next())?, text(next())?);
            if number(next())? == 1 {
                return Ok(RegisterReply::Deleting);
            }
            let damaged =
                |why: String| Failure::Fatal(format!("stream {} is damaged: {why}", r.stream));
            let found = source_of(text(next())?, text(next())?, text(next())?).map_err(damaged)?;
            self.placed_at(&r.stream, Place::of(found.as_ref()));
            if found != r.source {
                return Ok(RegisterReply::SourceDiffers { found });
            }
            let payload_max = text(next())?;
            let found = shape_of(found.is_some(), partitions, capacity, &payload_max);
            let found = found.map_err(damaged)?;
            if found != r.shape {
                return Ok(RegisterReply::ShapeDiffers { found });
            }
            if self.create_partitions(&r, &uid, &retain, &created).await?
                && self.still(&r.stream, &uid).await?
            {
                let existed = !created_here;
                return Ok(RegisterReply::Registered { uid, existed });
            }
        }
        Err(Failure::NotDone(format!(
            "stream {} is deleted and created again and again",
            r.stream
        )))
    }

    /// False: a later creation of the stream was found.
    async fn create_partitions(
        &self,
        r: &Register,
        uid: &Uid,
        retain: &str,
        created: &str,
    ) -> Result<bool, Failure> {
        let place = Place::of(r.source.as_ref());
        let create = async |partition| {
            let answer = self
                .script(Script::PartitionCreate, |cmd| {
                    placed(
                        cmd,
                        &place,
                        &[
                            Key::Meta(&r.stream, partition),
                            Key::Log(&r.stream, partition),
                        ],
                    );
                    cmd.arg(uid.as_str())
                        .arg(r.shape.capacity().unwrap_or(0))
                        .arg(retain)
                        .arg(created)
                        .arg(place.key(Key::PartitionPrefix(&r.stream, partition)))
                        .arg(u8::from(r.source.is_some()));
                })
                .await?;
            match (text(answer)?.as_str(), &r.source) {
                ("missing", Some(source)) => Err(missing(source)),
                (answer, _) => Ok::<_, Failure>(answer != "overtaken"),
            }
        };
        let all: Vec<_> = r.shape.all().collect();
        for some in all.chunks(AT_ONCE) {
            let done = futures_util::future::try_join_all(some.iter().map(|p| create(*p))).await?;
            if done.contains(&false) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Before anything is written: a description of what cannot be bound would be in the way.
    async fn check_source(&self, source: &Source) -> Result<(), Failure> {
        if self.info().cluster && place::tag(source.redis_key()).is_none() {
            return Err(Failure::Fatal(format!(
                "the key {:?} cannot be a source on Redis Cluster: it holds a }} and no {{text}} before it, so no other key can be kept in its slot; rename it, or copy its entries to a stream of Segmenter's own",
                source.redis_key()
            )));
        }
        let mut cmd = redis::cmd("TYPE");
        cmd.arg(source.redis_key());
        let found = self.send(&cmd).await.map_err(|failure| match failure {
            Failure::Fatal(why) => Failure::Fatal(format!(
                "{why}; who may do no more than the README's rules needs besides: ~{}",
                source.redis_key()
            )),
            other => other,
        })?;
        match text(found)?.as_str() {
            "stream" => Ok(()),
            "none" => Err(missing(source)),
            other => Err(Failure::Fatal(format!(
                "the key {:?} is a {other}, not a stream",
                source.redis_key()
            ))),
        }
    }

    /// Whether the stream is still this creation of it, and not being deleted.
    pub(crate) async fn still(&self, stream: &StreamId, uid: &Uid) -> Result<bool, Failure> {
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(Key::Stream(stream)).arg("uid").arg("deleting");
        let mut found = list(self.send(&cmd).await?)?.into_iter();
        let same = match found.next() {
            None | Some(Value::Nil) => false,
            Some(value) => text(value)? == uid.as_str(),
        };
        let deleting = !matches!(found.next(), None | Some(Value::Nil));
        Ok(same && !deleting)
    }

    async fn ensure_group(&self, r: EnsureGroup) -> Result<EnsureGroupReply, Failure> {
        let start = match r.start {
            Start::Beginning => "beginning",
            Start::End => "end",
        };
        let (stream, partition) = (&r.stream, r.partition);
        let place = self.place(stream).await?;
        let answer = self
            .script(Script::GroupCreate, |cmd| {
                placed(
                    cmd,
                    &place,
                    &[
                        Key::Meta(stream, partition),
                        Key::Log(stream, partition),
                        Key::Lease(stream, partition, &r.group),
                    ],
                );
                cmd.arg(r.uid.as_str()).arg(r.group.as_str()).arg(start);
            })
            .await?;
        match text(answer)?.as_str() {
            "created" => Ok(EnsureGroupReply::Ensured { existed: false }),
            "existed" => Ok(EnsureGroupReply::Ensured { existed: true }),
            "gone" => Ok(EnsureGroupReply::StreamGone),
            "foreign" => Ok(EnsureGroupReply::ForeignGroup),
            other => Err(Failure::Unknown(format!("group_create answered {other:?}"))),
        }
    }

    async fn append(&self, r: Append) -> Result<AppendReply, Failure> {
        let place = self.place(&r.stream).await?;
        place.is_ours(&r.stream)?;
        let (stream, partition) = (&r.stream, r.partition);
        let answer = self
            .script(Script::Append, |cmd| {
                placed(
                    cmd,
                    &place,
                    &[Key::Meta(stream, partition), Key::Log(stream, partition)],
                );
                cmd.arg(r.uid.as_str())
                    .arg(place.key(Key::LeasePrefix(stream, partition)))
                    .arg(r.messages.len());
                for content in &r.messages {
                    message(cmd, content);
                }
            })
            .await?;
        appended(answer)
    }

    /// Over the shared connection, so without waiting: who wants to wait has a connection of its own.
    async fn read(&self, r: Read) -> Result<ReadReply, Failure> {
        let place = self.place(&r.stream).await?;
        let logs: Vec<(String, _)> = r
            .after
            .iter()
            .map(|(partition, _)| {
                let log = place.key(Key::Log(&r.stream, *partition));
                (log.to_string(), *partition)
            })
            .collect();
        let mut cmd = redis::cmd("XREAD");
        cmd.arg("COUNT").arg(r.count.max(1));
        cmd.arg("STREAMS");
        for (log, _) in &logs {
            cmd.arg(log);
        }
        for (_, after) in &r.after {
            cmd.arg(after.to_string());
        }
        let answer = self.send_or_wait(&cmd, &r).await?;
        let mut entries = Vec::new();
        for (key, found) in xread(answer)? {
            let partition = logs.iter().find(|(log, _)| log.as_bytes() == key);
            let (_, partition) = partition
                .ok_or_else(|| Failure::Unknown("XREAD answered about another key".to_owned()))?;
            entries.push((*partition, found));
        }
        Ok(ReadReply { entries })
    }

    async fn send_or_wait(&self, cmd: &Cmd, r: &Read) -> Result<Value, Failure> {
        if r.block.is_zero() {
            return self.send(cmd).await;
        }
        let mut blocking = redis::cmd("XREAD");
        blocking
            .arg("BLOCK")
            .arg(r.block.as_millis().max(1).to_string());
        for arg in cmd.args_iter().skip(1) {
            if let redis::Arg::Simple(arg) = arg {
                blocking.arg(arg);
            }
        }
        let mut connection = crate::broker::open_blocking(self.address())
            .await
            .map_err(|e| crate::error::failure(&e, false))?;
        blocking
            .query_async(&mut connection)
            .await
            .map_err(|e| crate::error::failure(&e, true))
    }

    async fn acquire(&self, r: Acquire) -> Result<AcquireReply, Failure> {
        let place = self.place(&r.stream).await?;
        let (stream, partition) = (&r.stream, r.partition);
        let answer = self
            .script(Script::Acquire, |cmd| {
                placed(
                    cmd,
                    &place,
                    &[
                        Key::Meta(stream, partition),
                        Key::Log(stream, partition),
                        Key::Lease(stream, partition, &r.group),
                    ],
                );
                cmd.arg(r.uid.as_str())
                    .arg(r.owner.incarnation.as_str())
                    .arg(r.owner.member.as_str())
                    .arg(r.owner.version.as_str());
            })
            .await?;
        acquired(answer)
    }

    async fn commit(&self, r: Commit) -> Result<CommitReply, Failure> {
        let place = self.place(&r.stream).await?;
        let (stream, partition, group) = (&r.stream, r.partition, &r.group);
        let answer = self
            .script(Script::Commit, |cmd| {
                placed(
                    cmd,
                    &place,
                    &[
                        Key::Lease(stream, partition, group),
                        Key::Log(stream, partition),
                        Key::Meta(stream, partition),
                        Key::Dead(stream, partition, group),
                        Key::State(stream, partition, group),
                        Key::Outbox(stream, partition, group),
                    ],
                );
                cmd.arg(r.fence.incarnation.as_str())
                    .arg(r.fence.epoch.0)
                    .arg(r.fence.from.to_string())
                    .arg(r.to.to_string())
                    .arg(r.read)
                    .arg(u8::from(r.caught_up))
                    .arg(u8::from(r.trim))
                    .arg(group.as_str())
                    .arg(place.key(Key::LeasePrefix(stream, partition)))
                    .arg(r.dead.len());
                for letter in &r.dead {
                    let packed = pack(&letter.fields);
                    let fields = packed.as_ref().unwrap_or(&letter.fields);
                    cmd.arg(letter.id.to_string())
                        .arg(&letter.reason)
                        .arg(letter.attempts)
                        .arg(&letter.version)
                        .arg(fields.len());
                    for (name, value) in fields {
                        cmd.arg(name.as_slice()).arg(value.as_slice());
                    }
                }
                // As the script passes them on: what it moves one by one costs Redis most.
                let set = r.state.iter().filter_map(|(n, v)| Some((n, v.as_ref()?)));
                cmd.arg(set.clone().count());
                for (name, value) in set {
                    cmd.arg(format!("{STATE_NAME}{name}")).arg(value.as_slice());
                }
                let deleted = r.state.iter().filter(|(_, value)| value.is_none());
                cmd.arg(deleted.clone().count());
                for (name, _) in deleted {
                    cmd.arg(format!("{STATE_NAME}{name}"));
                }
                cmd.arg(parcel::parcels(&r.emits).count());
                for parcel in parcel::parcels(&r.emits) {
                    let last = &parcel[parcel.len() - 1];
                    let fields = parcel
                        .iter()
                        .map(|one| 2 + further(&one.emit.content, None));
                    cmd.arg(last.stamp.to_string())
                        .arg(last.emit.to.as_str())
                        .arg(parcel.len())
                        .arg(2 * fields.sum::<usize>());
                    for Stamped { emit, .. } in parcel {
                        message_fields(cmd, &emit.content);
                    }
                }
                match &r.attempts {
                    Some(a) => cmd
                        .arg(a.id.to_string())
                        .arg(a.failed)
                        .arg(a.version.as_str()),
                    None => cmd.arg("").arg(0).arg(""),
                };
                cmd.arg(r.halt.as_deref().unwrap_or_default())
                    .arg(limits::DEAD_ENTRIES_MAX)
                    .arg(limits::DEAD_BYTES_MAX)
                    .arg(r.version.as_ref().map_or("", |version| version.as_str()));
            })
            .await?;
        if let Some((entries, bytes)) = dead_full(&answer) {
            return Ok(CommitReply::DeadFull { entries, bytes });
        }
        match fenced(answer, "commit")? {
            Ok(mut rest) => Ok(CommitReply::Committed {
                read: number(rest.next().unwrap_or(Value::Nil))?,
            }),
            Err(found) => Ok(CommitReply::Fenced { found }),
        }
    }

    /// In several steps: the owner is the only writer, so nothing moves meanwhile that is not its own.
    async fn load_state(&self, r: LoadState) -> Result<LoadStateReply, Failure> {
        let place = self.place(&r.stream).await?;
        let mut values = BTreeMap::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut cmd = redis::cmd("HSCAN");
            cmd.arg(place.key(Key::State(&r.stream, r.partition, &r.group)))
                .arg(&cursor)
                .arg("COUNT")
                .arg(STATE_SCAN_COUNT);
            let mut parts = list(self.send(&cmd).await?)?.into_iter();
            cursor = text(parts.next().unwrap_or(Value::Nil))?;
            let mut flat = list(parts.next().unwrap_or(Value::Nil))?.into_iter();
            while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
                let name = text(name)?;
                if let Some(name) = name.strip_prefix(STATE_NAME) {
                    values.insert(name.to_owned(), bytes(value)?);
                }
            }
            if cursor == "0" {
                return Ok(LoadStateReply { values });
            }
        }
    }

    async fn release(&self, r: Release) -> Result<ReleaseReply, Failure> {
        let place = self.place(&r.stream).await?;
        let answer = self
            .script(Script::Release, |cmd| {
                placed(cmd, &place, &[Key::Lease(&r.stream, r.partition, &r.group)]);
                cmd.arg(r.fence.incarnation.as_str())
                    .arg(r.fence.epoch.0)
                    .arg(r.fence.from.to_string());
            })
            .await?;
        Ok(match fenced(answer, "release")? {
            Ok(_) => ReleaseReply::Released,
            Err(found) => ReleaseReply::Fenced { found },
        })
    }

    async fn verify(&self, r: Verify) -> Result<VerifyReply, Failure> {
        if r.partitions.is_empty() {
            return Ok(VerifyReply { leases: Vec::new() });
        }
        let place = self.place(&r.stream).await?;
        let leases: Vec<_> = r
            .partitions
            .iter()
            .map(|p| Key::Lease(&r.stream, *p, &r.group))
            .collect();
        let answer = self
            .script(Script::Verify, |cmd| placed(cmd, &place, &leases))
            .await?;
        let leases = list(answer)?;
        if leases.len() != r.partitions.len() {
            return Err(Failure::Unknown(
                "verify answered about other leases".to_owned(),
            ));
        }
        let leases = leases
            .into_iter()
            .map(|l| lease(list(l)?))
            .collect::<Result<_, _>>()?;
        Ok(VerifyReply { leases })
    }
}

/// Scripts in the air at once where each partition needs one.
pub(crate) const AT_ONCE: usize = 64;

/// Only those who write it make it.
fn missing(source: &Source) -> Failure {
    Failure::NotDone(format!(
        "Redis has no stream {:?} yet; the first XADD of the programs that write it makes it",
        source.redis_key()
    ))
}

/// As a description has it.
pub(crate) fn source_of(
    redis_key: String,
    key_field: String,
    payload_field: String,
) -> Result<Option<Source>, String> {
    if redis_key.is_empty() {
        return Ok(None);
    }
    let source = Source::new(redis_key, key_field, payload_field);
    source.map(Some).map_err(|e| e.to_string())
}

/// `payload_max`: as it is written; the default is not.
pub(crate) fn shape_of(
    sourced: bool,
    partitions: u32,
    capacity: u64,
    payload_max: &str,
) -> Result<Shape, String> {
    let shape = match sourced {
        true => Shape::SOURCE,
        false => Shape::new(partitions, capacity).map_err(|e| e.to_string())?,
    };
    if payload_max.is_empty() {
        return Ok(shape);
    }
    let bytes = payload_max.parse();
    let bytes = bytes.map_err(|_| format!("{payload_max:?} is no payload limit"))?;
    shape.with_payload_max(bytes).map_err(|e| e.to_string())
}

/// The same of a partition, where it lies.
pub(crate) fn placed(cmd: &mut Cmd, place: &Place, keys: &[Key<'_>]) {
    cmd.arg(keys.len());
    for key in keys {
        cmd.arg(place.key(*key));
    }
}

/// Their number, then they.
pub(crate) fn keys(cmd: &mut Cmd, keys: &[Key<'_>]) {
    cmd.arg(keys.len());
    for key in keys {
        cmd.arg(key);
    }
}

fn message(cmd: &mut Cmd, content: &Content) {
    cmd.arg(content.bytes());
    fields_of(cmd, content);
}

/// Their number, then name and value of each.
fn fields_of(cmd: &mut Cmd, content: &Content) {
    cmd.arg(2 + further(content, None))
        .arg(entry::KEY_FIELD)
        .arg(content.key())
        .arg(entry::PAYLOAD_FIELD)
        .arg(content.payload());
    further_fields(cmd, content, None);
}

/// Fields of an entry besides key and payload.
pub(crate) fn further(content: &Content, only: Option<&GroupName>) -> usize {
    content.attributes().len() + usize::from(only.is_some())
}

/// All fields of a message, in their order.
fn message_fields(cmd: &mut Cmd, content: &Content) {
    cmd.arg("k")
        .arg(content.key())
        .arg("p")
        .arg(content.payload());
    further_fields(cmd, content, None);
}

/// For scripts that know the names of the first two.
pub(crate) fn key_payload_further(cmd: &mut Cmd, content: &Content, only: Option<&GroupName>) {
    cmd.arg(content.key()).arg(content.payload());
    further_fields(cmd, content, only);
}

fn further_fields(cmd: &mut Cmd, content: &Content, only: Option<&GroupName>) {
    for (name, value) in content.attributes() {
        let mut field = Vec::with_capacity(1 + name.len());
        field.push(entry::ATTRIBUTE_PREFIX);
        field.extend_from_slice(name.as_bytes());
        cmd.arg(field).arg(value);
    }
    if let Some(only) = only {
        cmd.arg(entry::GROUP_FIELD).arg(only.as_str());
    }
}

/// An entry, how often it failed, and under which version; the first is empty if none did.
fn attempts(entry: Value, failed: Value, version: Value) -> Result<Option<Attempts>, Failure> {
    let entry = text(entry)?;
    if entry.is_empty() {
        return Ok(None);
    }
    let damaged = |why: String| Failure::Fatal(format!("a lease is damaged: {why}"));
    Ok(Some(Attempts {
        id: entry.parse().map_err(|e| damaged(format!("{e}")))?,
        failed: u32::try_from(number(failed)?).unwrap_or(u32::MAX),
        version: Version::new(text(version)?).map_err(|e| damaged(e.to_string()))?,
    }))
}

/// `{'deadfull', letters, bytes}`
fn dead_full(answer: &Value) -> Option<(u64, u64)> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [word, entries, bytes] = &parts[..] else {
        return None;
    };
    if text(word.clone()).ok()? != "deadfull" {
        return None;
    }
    Some((number(entries.clone()).ok()?, number(bytes.clone()).ok()?))
}

pub(crate) fn appended(answer: Value) -> Result<AppendReply, Failure> {
    match answer {
        Value::Array(ids) => {
            let ids = ids.into_iter().map(id).collect::<Result<_, _>>()?;
            Ok(AppendReply::Appended { ids })
        }
        other => match text(other)?.as_str() {
            "gone" => Ok(AppendReply::StreamGone),
            other => Err(Failure::Unknown(format!("append answered {other:?}"))),
        },
    }
}

pub(crate) fn acquired(answer: Value) -> Result<AcquireReply, Failure> {
    match answer {
        Value::Array(parts) => {
            let mut parts = parts.into_iter();
            let mut next = || parts.next().unwrap_or(Value::Nil);
            let first = text(next())?;
            if first == "halted" {
                return Ok(AcquireReply::Halted {
                    reason: text(next())?,
                    epoch: Epoch(number(next())?),
                    acked: id(next())?,
                });
            }
            Ok(AcquireReply::Acquired {
                epoch: Epoch(number(Value::SimpleString(first))?),
                acked: id(next())?,
                read: number(next())?,
                unreleased: number(next())? == 1,
                attempts: attempts(next(), next(), next())?,
            })
        }
        other => match text(other)?.as_str() {
            "gone" => Ok(AcquireReply::StreamGone),
            "nogroup" => Ok(AcquireReply::GroupGone),
            other => Err(Failure::Unknown(format!("acquire answered {other:?}"))),
        },
    }
}

pub(crate) type Fenced = Result<std::vec::IntoIter<Value>, Option<LeaseView>>;

/// `{'ok', …}` or `{'fenced', …lease}`.
pub(crate) fn fenced(answer: Value, what: &str) -> Result<Fenced, Failure> {
    let mut parts = list(answer)?.into_iter();
    match text(parts.next().unwrap_or(Value::Nil))?.as_str() {
        "ok" => Ok(Ok(parts)),
        "fenced" => Ok(Err(lease(parts.collect())?)),
        other => Err(odd(what, &Value::SimpleString(other.to_owned()))),
    }
}

/// More fields than Lua can pass on, as one field without a name: length, colon, bytes of each part.
pub(crate) fn pack(fields: &Fields) -> Option<Fields> {
    if fields.len() <= LETTER_FIELDS_MAX {
        return None;
    }
    let mut packed = Vec::new();
    for part in fields.iter().flat_map(|(name, value)| [name, value]) {
        packed.extend_from_slice(format!("{}:", part.len()).as_bytes());
        packed.extend_from_slice(part);
    }
    Some(vec![(Vec::new(), packed)])
}

/// What [`pack`] was given. Anything that it did not make stays as it is.
pub(crate) fn unpack(fields: Fields) -> Fields {
    let [(name, packed)] = fields.as_slice() else {
        return fields;
    };
    match parts(packed) {
        Some(parts) if name.is_empty() && parts.len() > 2 * LETTER_FIELDS_MAX => parts
            .chunks_exact(2)
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect(),
        _ => fields,
    }
}

/// Pieces that each have their length in front; `None`: it is not made of such.
pub(crate) fn parts(mut packed: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut parts = Vec::new();
    while !packed.is_empty() {
        let colon = packed.iter().position(|byte| *byte == b':')?;
        let length: usize = std::str::from_utf8(&packed[..colon]).ok()?.parse().ok()?;
        let end = colon.checked_add(1)?.checked_add(length)?;
        parts.push(packed.get(colon + 1..end)?.to_vec());
        packed = &packed[end..];
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_of_many_fields_is_packed_and_comes_back_whole() {
        let fields = |n: usize| -> Fields {
            (0..n)
                .map(|i| (format!("f{i}").into_bytes(), vec![b':'; i % 7]))
                .collect()
        };
        assert_eq!(pack(&fields(LETTER_FIELDS_MAX)), None);
        let many = fields(LETTER_FIELDS_MAX + 1);
        let packed = pack(&many).expect("packed");
        assert_eq!(packed.len(), 1);
        assert_eq!(unpack(packed), many);
        for same in [
            fields(1),
            vec![(Vec::new(), b"3:abc".to_vec())],
            vec![(Vec::new(), b"x".to_vec())],
        ] {
            assert_eq!(unpack(same.clone()), same);
        }
    }
}
