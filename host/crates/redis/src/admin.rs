//! What people ask about streams, groups and dead letters. Reads whole answers; never on the hot path.

use std::collections::{BTreeMap, BTreeSet};

use std::ops::ControlFlow;

use redis::Value;
use segmenter_core::entry::{Fields, RawEntry};
use segmenter_core::message::EntryId;
use segmenter_core::names::{GroupName, Namespace, Partition, Shape, StreamId, StreamName, Uid};
use segmenter_core::port::Failure;
use segmenter_core::source::Source;

use crate::broker::Broker;
use crate::convert::{entry, id, list, number, text};
use crate::execute::{AT_ONCE, placed, shape_of, source_of, unpack};
use crate::key::Key;
use crate::place::Place;
use crate::script::Script;

/// Protocol of the hashes that hosts share.
const PROTOCOL: u64 = 1;
/// Keys that one SCAN looks at.
const SCAN_COUNT: u32 = 1_000;

#[derive(Debug, Clone)]
pub struct StreamInfo {
    pub shape: Shape,
    pub uid: Uid,
    pub retain: u64,
    /// Others write it, under a key of theirs.
    pub source: Option<Source>,
    /// A delete of it has begun.
    pub deleting: bool,
}

#[derive(Debug, Clone)]
pub struct PartitionInfo {
    pub partition: Partition,
    pub entries: u64,
    pub first: Option<EntryId>,
    /// The last id that was given out, also if its entry is trimmed.
    pub last: EntryId,
    pub groups: Vec<GroupInPartition>,
}

#[derive(Debug, Clone)]
pub struct GroupInPartition {
    pub group: String,
    /// The member that holds the lease.
    pub owner: Option<String>,
    pub epoch: u64,
    pub acked_through: EntryId,
    /// `None`: Redis does not know.
    pub lag: Option<u64>,
    /// Of the first entry that is not acked.
    pub oldest_age_ms: Option<u64>,
    pub version: Option<String>,
    /// Why nobody may acquire it.
    pub halted: Option<String>,
}

#[derive(Debug, Clone)]
pub struct MemberInfo {
    pub member: String,
    pub incarnation: String,
    /// Partitions that it should have, as 0-3,7.
    pub assigned: String,
    /// Partitions that it reports to have.
    pub owned: String,
    /// It leaves.
    pub draining: bool,
    pub since_heartbeat_ms: u64,
    pub session_timeout_ms: u64,
}

#[derive(Debug, Clone)]
pub struct GroupInfo {
    pub generation: u64,
    pub members: Vec<MemberInfo>,
    /// The last assignment that was put in force.
    pub rebalance: Option<Rebalance>,
    pub partitions: Vec<(Partition, GroupInPartition)>,
}

#[derive(Debug, Clone)]
pub struct Rebalance {
    /// What changed before.
    pub why: String,
    /// Partitions that got another owner.
    pub moves: u64,
    pub age_ms: u64,
}

/// What the coordinator knows of a group.
pub(crate) struct Coordination {
    pub(crate) generation: u64,
    pub(crate) members: Vec<MemberInfo>,
    rebalance: Option<Rebalance>,
}

#[derive(Debug, Clone)]
pub struct DeadEntry {
    pub partition: Partition,
    /// In the stream of dead letters.
    pub dead_id: EntryId,
    /// In the log.
    pub id: EntryId,
    pub reason: String,
    pub attempts: u32,
    pub version: String,
    pub at_ms: u64,
    pub fields: Fields,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    Deleted,
    NotFound,
    MembersLive { group: String, members: Vec<String> },
}

pub async fn find_stream(
    broker: &Broker,
    stream: &StreamId,
) -> Result<Option<StreamInfo>, Failure> {
    let mut cmd = redis::cmd("HGETALL");
    cmd.arg(Key::Stream(stream));
    let found = description(stream, broker.send(&cmd).await?)?;
    if let Some(info) = &found {
        broker.placed_at(stream, Place::of(info.source.as_ref()));
    }
    Ok(found)
}

pub(crate) fn description(stream: &StreamId, answer: Value) -> Result<Option<StreamInfo>, Failure> {
    let hash = hash(answer)?;
    let Some(uid) = hash.get("uid") else {
        return Ok(None);
    };
    let count = |name: &str| hash.get(name).and_then(|text| text.parse::<u64>().ok());
    newer(&hash, &format!("stream {stream}"))?;
    let damaged = |why: String| {
        Failure::Fatal(format!(
            "the description of stream {stream} is damaged: {why}"
        ))
    };
    let partitions = count("partitions").and_then(|n| u32::try_from(n).ok());
    let word = |name: &str| hash.get(name).cloned().unwrap_or_default();
    let source = source_of(
        word("source"),
        word("source_key_field"),
        word("source_payload_field"),
    )
    .map_err(damaged)?;
    let shape = shape_of(
        source.is_some(),
        partitions.unwrap_or(0),
        count("capacity").unwrap_or(0),
        &word("payload_max"),
    );
    Ok(Some(StreamInfo {
        shape: shape.map_err(damaged)?,
        source,
        uid: Uid::new(uid.as_str()).map_err(|e| damaged(e.to_string()))?,
        retain: count("retain").unwrap_or(0),
        deleting: hash.contains_key("deleting"),
    }))
}

/// The streams of a namespace, by name, and what has the key of one and is none.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    pub streams: Vec<(StreamName, StreamInfo)>,
    /// Key, and why.
    pub odd: Vec<(String, String)>,
}

/// Walks all keys of the Redis: minutes on a huge one.
pub async fn list_streams(broker: &Broker, namespace: &Namespace) -> Result<Streams, Failure> {
    let mut names = BTreeSet::new();
    for key in scan(broker, Key::Streams(namespace)).await? {
        let name = key
            .strip_suffix("}:stream")
            .and_then(|key| key.rsplit_once('/'));
        if let Some(name) = name.and_then(|(_, name)| StreamName::new(name).ok()) {
            names.insert(name);
        }
    }
    let mut listed = Streams::default();
    for stream in names {
        let id = StreamId {
            namespace: namespace.clone(),
            stream: stream.clone(),
        };
        match find_stream(broker, &id).await {
            Ok(Some(info)) => listed.streams.push((stream, info)),
            Ok(None) => {}
            // Of another type, damaged, or newer: the others are told all the same.
            Err(Failure::Fatal(why)) => listed.odd.push((Key::Stream(&id).to_string(), why)),
            Err(failure) => return Err(failure),
        }
    }
    Ok(listed)
}

/// Keys that match.
async fn scan(broker: &Broker, pattern: Key<'_>) -> Result<Vec<String>, Failure> {
    let mut keys = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let mut cmd = redis::cmd("SCAN");
        cmd.arg(&cursor)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(SCAN_COUNT);
        let mut parts = list(broker.send(&cmd).await?)?.into_iter();
        cursor = text(parts.next().unwrap_or(Value::Nil))?;
        for key in list(parts.next().unwrap_or(Value::Nil))? {
            keys.push(text(key)?);
        }
        if cursor == "0" {
            return Ok(keys);
        }
    }
}

/// Groups that have members, also those that have no lease yet: a member joins before it makes one.
async fn joined_groups(broker: &Broker, stream: &StreamId) -> Result<Vec<GroupName>, Failure> {
    let keys = scan(broker, Key::Groups(stream)).await?;
    let name = |key: &String| {
        let (_, name) = key.strip_suffix("}:group")?.rsplit_once('/')?;
        GroupName::new(name).ok()
    };
    Ok(keys.iter().filter_map(name).collect())
}

/// All partitions with their groups.
pub async fn describe_stream(
    broker: &Broker,
    stream: &StreamId,
    shape: Shape,
) -> Result<Vec<PartitionInfo>, Failure> {
    let all: Vec<_> = shape.all().collect();
    let mut described = Vec::new();
    for some in all.chunks(AT_ONCE) {
        let asked = some
            .iter()
            .map(|partition| describe(broker, stream, *partition));
        described.extend(futures_util::future::try_join_all(asked).await?);
    }
    Ok(described)
}

async fn describe(
    broker: &Broker,
    stream: &StreamId,
    partition: Partition,
) -> Result<PartitionInfo, Failure> {
    let place = broker.place(stream).await?;
    let answer = broker
        .script(Script::PartitionDescribe, |cmd| {
            placed(
                cmd,
                &place,
                &[Key::Meta(stream, partition), Key::Log(stream, partition)],
            );
            cmd.arg(place.key(Key::LeasePrefix(stream, partition)));
        })
        .await?;
    described(stream, partition, &place, answer)
}

pub(crate) fn described(
    stream: &StreamId,
    partition: Partition,
    place: &Place,
    answer: Value,
) -> Result<PartitionInfo, Failure> {
    let mut parts = list(answer)?.into_iter();
    if parts.next().is_none() {
        if let Some(redis_key) = place.redis_key() {
            return Err(Failure::NotDone(format!(
                "the Redis stream {redis_key:?}, which stream {stream} reads, is not there"
            )));
        }
        return Err(Failure::Fatal(format!(
            "partition {partition} of stream {stream} is missing; `segmenter stream create` with the same numbers completes it"
        )));
    }
    let mut next = || parts.next().unwrap_or(Value::Nil);
    let entries = number(next())?;
    let first = maybe_id(next())?;
    let last = id(next())?;
    let _added = number(next())?;
    let now_ms = number(next())?;
    let groups = parts
        .map(|group| group_in_partition(group, now_ms))
        .collect::<Result<_, _>>()?;
    Ok(PartitionInfo {
        partition,
        entries,
        first,
        last,
        groups,
    })
}

pub(crate) fn group_in_partition(value: Value, now_ms: u64) -> Result<GroupInPartition, Failure> {
    let mut parts = list(value)?.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let group = text(next())?;
    let owner = some(text(next())?);
    let epoch = number(next())?;
    let acked_through = id(next())?;
    let _read = number(next())?;
    let version = some(text(next())?);
    let lag = match next() {
        Value::Int(-1) => None,
        other => Some(number(other)?),
    };
    let oldest_age_ms = maybe_id(next())?.map(|id| now_ms.saturating_sub(id.ms));
    let halted = some(text(next())?);
    Ok(GroupInPartition {
        group,
        owner,
        epoch,
        acked_through,
        lag,
        oldest_age_ms,
        version,
        halted,
    })
}

fn maybe_id(value: Value) -> Result<Option<EntryId>, Failure> {
    let text = text(value)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|e| Failure::Unknown(format!("{e}")))
}

/// Names of the stream's groups.
pub async fn list_groups(
    broker: &Broker,
    stream: &StreamId,
    shape: Shape,
) -> Result<Vec<GroupName>, Failure> {
    let mut names = BTreeSet::new();
    for partition in describe_stream(broker, stream, shape).await? {
        for group in partition.groups {
            names.insert(group.group);
        }
    }
    Ok(names
        .into_iter()
        .filter_map(|name| GroupName::new(name).ok())
        .collect())
}

/// `None`: no partition knows it.
pub async fn describe_group(
    broker: &Broker,
    stream: &StreamId,
    shape: Shape,
    group: &GroupName,
) -> Result<Option<GroupInfo>, Failure> {
    let mut partitions = Vec::new();
    for described in describe_stream(broker, stream, shape).await? {
        let mut groups = described.groups.into_iter();
        if let Some(found) = groups.find(|g| g.group == group.as_str()) {
            partitions.push((described.partition, found));
        }
    }
    if partitions.is_empty() {
        return Ok(None);
    }
    let known = members(broker, stream, group).await?;
    Ok(Some(GroupInfo {
        generation: known.generation,
        members: known.members,
        rebalance: known.rebalance,
        partitions,
    }))
}

pub(crate) async fn members(
    broker: &Broker,
    stream: &StreamId,
    group: &GroupName,
) -> Result<Coordination, Failure> {
    let mut cmd = redis::cmd("HGETALL");
    cmd.arg(Key::Group(stream, group));
    let hash = hash(broker.send(&cmd).await?)?;
    let mut cmd = redis::cmd("ZRANGE");
    cmd.arg(Key::Members(stream, group))
        .arg(0)
        .arg(-1)
        .arg("WITHSCORES");
    let stamps = list(broker.send(&cmd).await?)?;
    let mut time = list(broker.send(&redis::cmd("TIME")).await?)?.into_iter();
    let mut part = || number(time.next().unwrap_or(Value::Nil));
    let now_ms = part()? * 1_000 + part()? / 1_000;
    let value = |name: String| hash.get(&name).cloned().unwrap_or_default();
    let mut members = Vec::new();
    let mut stamps = stamps.into_iter();
    while let (Some(member), Some(stamp)) = (stamps.next(), stamps.next()) {
        let member = text(member)?;
        let stamp = text(stamp)?.parse::<f64>().unwrap_or(0.0);
        let session_timeout_ms = value(format!("t:{member}")).parse().unwrap_or(0);
        // A sorted set's score is a double; milliseconds are exact in it for 285,000 years.
        let since_heartbeat_ms = now_ms.saturating_sub(stamp as u64);
        if since_heartbeat_ms > session_timeout_ms {
            // Expired, and nobody has synced since.
            continue;
        }
        members.push(MemberInfo {
            incarnation: value(format!("i:{member}")),
            assigned: value(format!("a:{member}")),
            owned: value(format!("o:{member}")),
            draining: value(format!("x:{member}")) == "1",
            since_heartbeat_ms,
            session_timeout_ms,
            member,
        });
    }
    members.sort_by(|a, b| a.member.cmp(&b.member));
    let count = |name: &str| value(name.to_owned()).parse::<u64>().ok();
    let rebalance = count("last_at").map(|at_ms| Rebalance {
        why: value("last_why".to_owned()),
        moves: count("last_moves").unwrap_or(0),
        age_ms: now_ms.saturating_sub(at_ms),
    });
    Ok(Coordination {
        generation: count("generation").unwrap_or(0),
        members,
        rebalance,
    })
}

/// Marks the stream, then removes partitions and groups, the description last: interrupted anywhere, it
/// can be asked again.
pub async fn delete_stream(
    broker: &Broker,
    stream: &StreamId,
    force: bool,
) -> Result<Deleted, Failure> {
    let Some(info) = find_stream(broker, stream).await? else {
        return Ok(Deleted::NotFound);
    };
    if !force && !info.deleting {
        for group in joined_groups(broker, stream).await? {
            let members = members(broker, stream, &group).await?.members;
            if !members.is_empty() {
                return Ok(Deleted::MembersLive {
                    group: group.to_string(),
                    members: members.into_iter().map(|m| m.member).collect(),
                });
            }
        }
    }
    let place = Place::of(info.source.as_ref());
    let mut cmd = redis::cmd("HSET");
    cmd.arg(Key::Stream(stream)).arg("deleting").arg(1);
    broker.send(&cmd).await?;
    let mut groups: BTreeSet<_> = joined_groups(broker, stream).await?.into_iter().collect();
    for partition in info.shape.all() {
        let answer = broker
            .script(Script::PartitionDelete, |cmd| {
                placed(
                    cmd,
                    &place,
                    &[Key::Meta(stream, partition), Key::Log(stream, partition)],
                );
                cmd.arg(info.uid.as_str())
                    .arg(place.key(Key::PartitionPrefix(stream, partition)))
                    .arg(u8::from(info.source.is_some()));
            })
            .await?;
        for name in list(answer)? {
            groups.extend(GroupName::new(text(name)?).ok());
        }
    }
    for group in &groups {
        let mut cmd = redis::cmd("DEL");
        cmd.arg(Key::Group(stream, group))
            .arg(Key::Members(stream, group));
        broker.send(&cmd).await?;
    }
    let mut cmd = redis::cmd("DEL");
    cmd.arg(Key::Stream(stream));
    broker.send(&cmd).await?;
    // Its members are told last: one that looks up the stream must find it gone.
    for group in &groups {
        let mut cmd = redis::cmd("PUBLISH");
        cmd.arg(Key::News(stream, group)).arg("deleted");
        broker.send(&cmd).await?;
    }
    Ok(Deleted::Deleted)
}

/// Shows `visit` the dead letters of a group in partition order, oldest first, until it has enough. A few
/// are in memory at a time: each may be a MiB, and there is no limit to their number.
pub async fn dead_each(
    broker: &Broker,
    stream: &StreamId,
    shape: Shape,
    group: &GroupName,
    mut visit: impl FnMut(DeadEntry) -> ControlFlow<()>,
) -> Result<(), Failure> {
    let place = broker.place(stream).await?;
    for partition in shape.all() {
        let mut from = "-".to_owned();
        loop {
            let mut cmd = redis::cmd("XRANGE");
            cmd.arg(place.key(Key::Dead(stream, partition, group)))
                .arg(&from)
                .arg("+");
            cmd.arg("COUNT").arg(DEAD_AT_ONCE);
            let found = list(broker.send(&cmd).await?)?;
            if found.is_empty() {
                break;
            }
            for value in found {
                let letter = dead_entry(partition, entry(value)?)?;
                from = format!("({}", letter.dead_id);
                if visit(letter).is_break() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Letters in one answer: each may be a MiB.
const DEAD_AT_ONCE: usize = 16;

pub(crate) fn dead_entry(partition: Partition, raw: RawEntry) -> Result<DeadEntry, Failure> {
    let mut fields = raw.fields.into_iter();
    // The first six are ours, by position: whatever names the entry itself has follow.
    let mut ours = BTreeMap::new();
    for (name, value) in fields.by_ref().take(6) {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        ours.insert(text(name), text(value));
    }
    let value = |name: &str| {
        ours.get(name).cloned().ok_or_else(|| {
            Failure::Fatal(format!(
                "the dead letter {} lacks the field {name}: it is not ours",
                raw.id
            ))
        })
    };
    let odd = |name: &str| {
        Failure::Fatal(format!(
            "the dead letter {} has an odd field {name}",
            raw.id
        ))
    };
    Ok(DeadEntry {
        partition,
        dead_id: raw.id,
        id: value("id")?.parse().map_err(|_| odd("id"))?,
        reason: value("reason")?,
        attempts: value("attempts")?.parse().map_err(|_| odd("attempts"))?,
        version: value("version")?,
        at_ms: value("at")?.parse().map_err(|_| odd("at"))?,
        fields: unpack(fields.collect()),
    })
}

/// Refuses what a later Segmenter wrote.
pub(crate) fn newer(hash: &BTreeMap<String, String>, what: &str) -> Result<(), Failure> {
    match hash
        .get("protocol")
        .and_then(|text| text.parse::<u64>().ok())
    {
        Some(newer) if newer > PROTOCOL => Err(Failure::Fatal(format!(
            "{what} speaks protocol {newer}, this host speaks {PROTOCOL}; use a newer host"
        ))),
        _ => Ok(()),
    }
}

pub(crate) fn hash(value: Value) -> Result<BTreeMap<String, String>, Failure> {
    let mut hash = BTreeMap::new();
    match value {
        Value::Map(pairs) => {
            for (name, value) in pairs {
                hash.insert(text(name)?, text(value)?);
            }
        }
        other => {
            let mut parts = list(other)?.into_iter();
            while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                hash.insert(text(name)?, text(value)?);
            }
        }
    }
    Ok(hash)
}
