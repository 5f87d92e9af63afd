//! Every key of Segmenter, and the only place that knows their text. What one script touches shares a
//! hash tag, so that it is one slot on Redis Cluster.

use std::fmt;

use segmenter_core::names::{GroupName, Namespace, Partition, StreamId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// Hash: uid, partitions, capacity, retain, created, deleting, payload limit.
    Stream(&'a StreamId),
    /// Hash: uid, capacity, retain, largest entry in bytes, names of the groups.
    Meta(&'a StreamId, Partition),
    /// Stream: the entries.
    Log(&'a StreamId, Partition),
    /// Hash: owner, member, version, epoch, acked, read, halt.
    Lease(&'a StreamId, Partition, &'a GroupName),
    /// Stream: dead letters.
    Dead(&'a StreamId, Partition, &'a GroupName),
    /// Hash: the handler's state; its names with `=` in front.
    State(&'a StreamId, Partition, &'a GroupName),
    /// Stream: emitted messages that are not at their target yet, by their stamps.
    Outbox(&'a StreamId, Partition, &'a GroupName),
    /// Hash: the last stamp of each source that appended here.
    From(&'a StreamId, Partition),
    /// What all keys of a partition begin with; scripts add kind and group.
    PartitionPrefix(&'a StreamId, Partition),
    /// What all leases of a partition begin with; trimming adds the groups.
    LeasePrefix(&'a StreamId, Partition),
    /// Hash: generation, active member, and incarnation, timeout, join order, counter of each.
    Group(&'a StreamId, &'a GroupName),
    /// Sorted set: members by their last heartbeat, in ms.
    Members(&'a StreamId, &'a GroupName),
    /// Channel: a new generation of the group.
    News(&'a StreamId, &'a GroupName),
    /// Never there: what permissions are asked about.
    Probe(&'a Namespace),
    /// Pattern for SCAN: the descriptions of a namespace.
    Streams(&'a Namespace),
    /// Pattern for SCAN: the groups of a stream.
    Groups(&'a StreamId),
}

impl<'a> Key<'a> {
    /// What it belongs to, if that is a partition.
    pub(crate) fn partition(&self) -> Option<(&'a StreamId, Partition)> {
        match *self {
            Key::Meta(s, p)
            | Key::Log(s, p)
            | Key::Lease(s, p, _)
            | Key::Dead(s, p, _)
            | Key::State(s, p, _)
            | Key::Outbox(s, p, _)
            | Key::From(s, p)
            | Key::PartitionPrefix(s, p)
            | Key::LeasePrefix(s, p) => Some((s, p)),
            Key::Stream(_)
            | Key::Group(..)
            | Key::Members(..)
            | Key::News(..)
            | Key::Probe(_)
            | Key::Streams(_)
            | Key::Groups(_) => None,
        }
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Stream(s) => write!(f, "seg:{{{s}}}:stream"),
            Key::Meta(s, p) => write!(f, "seg:{{{s}/{p}}}:meta"),
            Key::Log(s, p) => write!(f, "seg:{{{s}/{p}}}:log"),
            Key::Lease(s, p, g) => write!(f, "seg:{{{s}/{p}}}:lease:{g}"),
            Key::Dead(s, p, g) => write!(f, "seg:{{{s}/{p}}}:dead:{g}"),
            Key::State(s, p, g) => write!(f, "seg:{{{s}/{p}}}:state:{g}"),
            Key::Outbox(s, p, g) => write!(f, "seg:{{{s}/{p}}}:outbox:{g}"),
            Key::From(s, p) => write!(f, "seg:{{{s}/{p}}}:from"),
            Key::PartitionPrefix(s, p) => write!(f, "seg:{{{s}/{p}}}:"),
            Key::LeasePrefix(s, p) => write!(f, "seg:{{{s}/{p}}}:lease:"),
            Key::Group(s, g) => write!(f, "seg:{{{s}/{g}}}:group"),
            Key::Members(s, g) => write!(f, "seg:{{{s}/{g}}}:members"),
            Key::News(s, g) => write!(f, "seg:{{{s}/{g}}}:news"),
            Key::Groups(s) => write!(f, "seg:{{{s}/*}}:group"),
            Key::Probe(ns) => write!(f, "seg:{{{ns}}}:probe"),
            Key::Streams(ns) => write!(f, "seg:{{{ns}/*}}:stream"),
        }
    }
}

impl redis::ToRedisArgs for Key<'_> {
    fn write_redis_args<W: ?Sized + redis::RedisWrite>(&self, out: &mut W) {
        debug_assert!(
            self.partition().is_none(),
            "{self} may lie elsewhere: ask the stream's place"
        );
        out.write_arg_fmt(self);
    }
}
impl redis::ToSingleRedisArg for Key<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_contract_and_share_a_tag_where_a_script_needs_it() {
        let s = StreamId {
            namespace: "shop".parse().unwrap(),
            stream: "orders".parse().unwrap(),
        };
        let (p, g) = (Partition(3), "billing".parse().unwrap());
        let all = [
            (Key::Stream(&s), "seg:{shop/orders}:stream"),
            (Key::Meta(&s, p), "seg:{shop/orders/3}:meta"),
            (Key::Log(&s, p), "seg:{shop/orders/3}:log"),
            (Key::Lease(&s, p, &g), "seg:{shop/orders/3}:lease:billing"),
            (Key::Dead(&s, p, &g), "seg:{shop/orders/3}:dead:billing"),
            (Key::State(&s, p, &g), "seg:{shop/orders/3}:state:billing"),
            (Key::Outbox(&s, p, &g), "seg:{shop/orders/3}:outbox:billing"),
            (Key::From(&s, p), "seg:{shop/orders/3}:from"),
            (Key::PartitionPrefix(&s, p), "seg:{shop/orders/3}:"),
            (Key::LeasePrefix(&s, p), "seg:{shop/orders/3}:lease:"),
            (Key::Group(&s, &g), "seg:{shop/orders/billing}:group"),
            (Key::Members(&s, &g), "seg:{shop/orders/billing}:members"),
            (Key::News(&s, &g), "seg:{shop/orders/billing}:news"),
            (Key::Probe(&s.namespace), "seg:{shop}:probe"),
            (Key::Streams(&s.namespace), "seg:{shop/*}:stream"),
        ];
        for (key, text) in all {
            assert_eq!(key.to_string(), text);
        }
    }
}
