//! Every key of Segmenter, and the only place that knows their text. What one script touches shares a
//! hash tag, so that it is one slot on Redis Cluster.

use std::fmt;

use segmenter_core::names::{GroupName, HandlerId, Namespace, Partition, StreamId, Version};

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
    /// Hash: revision, current version, candidate and its trial, versions before, bad marks.
    Handler(&'a HandlerId),
    /// Stream: what was done to a handler's versions.
    History(&'a HandlerId),
    /// Hash: the last report of each host that runs a handler.
    Hosts(&'a HandlerId),
    /// Channel: something else is wanted of a handler.
    HandlerNews(&'a HandlerId),
    /// String: the bytes of a module.
    Module(&'a Namespace, &'a Version),
    /// What all modules of a namespace begin with; scripts add the version.
    ModulePrefix(&'a Namespace),
    /// Hash: which handlers need a module.
    Modules(&'a Namespace),
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
            | Key::Handler(_)
            | Key::History(_)
            | Key::Hosts(_)
            | Key::HandlerNews(_)
            | Key::Module(..)
            | Key::ModulePrefix(_)
            | Key::Modules(_)
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
            Key::Handler(h) => of_handler(f, h, ""),
            Key::History(h) => of_handler(f, h, ":history"),
            Key::Hosts(h) => of_handler(f, h, ":hosts"),
            Key::HandlerNews(h) => of_handler(f, h, ":news"),
            Key::Module(ns, version) => write!(f, "seg:{{{ns}}}:module:{version}"),
            Key::ModulePrefix(ns) => write!(f, "seg:{{{ns}}}:module:"),
            Key::Modules(ns) => write!(f, "seg:{{{ns}}}:modules"),
            Key::Probe(ns) => write!(f, "seg:{{{ns}}}:probe"),
            Key::Streams(ns) => write!(f, "seg:{{{ns}/*}}:stream"),
        }
    }
}

fn of_handler(f: &mut fmt::Formatter<'_>, handler: &HandlerId, what: &str) -> fmt::Result {
    let HandlerId { namespace, handler } = handler;
    write!(f, "seg:{{{namespace}}}:handler:{handler}{what}")
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
        let h = HandlerId {
            namespace: s.namespace.clone(),
            handler: "charge".parse().unwrap(),
        };
        let version = "0a1b".parse().unwrap();
        let all = [
            (Key::Handler(&h), "seg:{shop}:handler:charge"),
            (Key::History(&h), "seg:{shop}:handler:charge:history"),
            (Key::Hosts(&h), "seg:{shop}:handler:charge:hosts"),
            (Key::HandlerNews(&h), "seg:{shop}:handler:charge:news"),
            (
                Key::Module(&h.namespace, &version),
                "seg:{shop}:module:0a1b",
            ),
            (Key::ModulePrefix(&h.namespace), "seg:{shop}:module:"),
            (Key::Modules(&h.namespace), "seg:{shop}:modules"),
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
