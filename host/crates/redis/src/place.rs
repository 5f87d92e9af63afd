//! Where what belongs to a partition lies. Most streams lie under keys of their own name; one that is bound
//! to a stream of others has its log there, and the rest beside it, in the same slot. Knows hash tags;
//! must not know what the keys hold.

use std::fmt;

use segmenter_core::names::{Partition, StreamId};
use segmenter_core::port::Failure;
use segmenter_core::source::Source;

use crate::key::Key;

/// Of one creation of a stream: as its description says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The key that others write.
    redis_key: Option<String>,
}

impl Place {
    pub fn of(source: Option<&Source>) -> Place {
        Place {
            redis_key: source.map(|source| source.redis_key().to_owned()),
        }
    }

    /// The key of others that is this stream's log.
    pub fn redis_key(&self) -> Option<&str> {
        self.redis_key.as_deref()
    }

    /// Nothing is appended to what others write.
    pub(crate) fn is_ours(&self, stream: &StreamId) -> Result<(), Failure> {
        match &self.redis_key {
            None => Ok(()),
            Some(redis_key) => Err(Failure::Fatal(format!(
                "stream {stream} reads the Redis stream {redis_key:?}, which other programs write: XADD there appends"
            ))),
        }
    }

    /// The key where it lies.
    pub fn key<'a>(&'a self, key: Key<'a>) -> Placed<'a> {
        Placed { place: self, key }
    }

    /// Whose log it is, of those that were asked for.
    pub(crate) fn partition_of(&self, log: &[u8]) -> Option<Partition> {
        let text = std::str::from_utf8(log).ok()?;
        if let Some(redis_key) = &self.redis_key {
            return (text == redis_key).then_some(Partition(0));
        }
        // seg:{namespace/stream/PARTITION}:log
        let tag = text.rsplit_once('}')?.0;
        tag.rsplit_once('/')?.1.parse().ok().map(Partition)
    }
}

/// What a key of Redis Cluster is hashed by: the text in its first braces, else all of it. A key that has no
/// text there and holds a closing brace has no tag that another key could share.
pub(crate) fn tag(redis_key: &str) -> Option<&str> {
    let in_braces = redis_key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty());
    in_braces.or_else(|| Some(redis_key).filter(|key| !key.contains('}')))
}

#[derive(Clone, Copy)]
pub struct Placed<'a> {
    place: &'a Place,
    key: Key<'a>,
}

impl fmt::Display for Placed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(redis_key), Some((stream, partition))) =
            (&self.place.redis_key, self.key.partition())
        else {
            return self.key.fmt(f);
        };
        if let Key::Log(..) = self.key {
            return f.write_str(redis_key);
        }
        // Where there is no tag there is no Cluster, and the slot does not matter.
        let tag = tag(redis_key).unwrap_or(redis_key);
        let text = self.key.to_string();
        let kind = text.rsplit_once("}:").map_or("", |(_, kind)| kind);
        write!(f, "seg:{{{tag}}}:{stream}/{partition}:{kind}")
    }
}

impl redis::ToRedisArgs for Placed<'_> {
    fn write_redis_args<W: ?Sized + redis::RedisWrite>(&self, out: &mut W) {
        out.write_arg_fmt(self);
    }
}
impl redis::ToSingleRedisArg for Placed<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> StreamId {
        StreamId {
            namespace: "shop".parse().unwrap(),
            stream: "orders".parse().unwrap(),
        }
    }

    fn place(redis_key: &str) -> Place {
        Place::of(Some(&Source::new(redis_key, "k", "p").unwrap()))
    }

    #[test]
    fn a_stream_of_our_own_lies_under_its_name() {
        let (s, p) = (orders(), Partition(3));
        let place = Place::of(None);
        assert_eq!(
            place.key(Key::Log(&s, p)).to_string(),
            "seg:{shop/orders/3}:log"
        );
        for n in [0, 7, 4095] {
            let log = Key::Log(&s, Partition(n)).to_string();
            assert_eq!(place.partition_of(log.as_bytes()), Some(Partition(n)));
        }
        assert_eq!(place.partition_of(b"other"), None);
    }

    #[test]
    fn what_belongs_to_a_source_lies_in_its_slot() {
        let (s, p, g) = (orders(), Partition(0), "billing".parse().unwrap());
        let place = place("events:{eu}:raw");
        for (key, text) in [
            (Key::Log(&s, p), "events:{eu}:raw"),
            (Key::Meta(&s, p), "seg:{eu}:shop/orders/0:meta"),
            (
                Key::Lease(&s, p, &g),
                "seg:{eu}:shop/orders/0:lease:billing",
            ),
            (Key::Dead(&s, p, &g), "seg:{eu}:shop/orders/0:dead:billing"),
            (Key::PartitionPrefix(&s, p), "seg:{eu}:shop/orders/0:"),
            (Key::LeasePrefix(&s, p), "seg:{eu}:shop/orders/0:lease:"),
            // Not of a partition.
            (Key::Stream(&s), "seg:{shop/orders}:stream"),
            (Key::Group(&s, &g), "seg:{shop/orders/billing}:group"),
        ] {
            assert_eq!(place.key(key).to_string(), text);
        }
        assert_eq!(place.partition_of(b"events:{eu}:raw"), Some(Partition(0)));
        assert_eq!(place.partition_of(b"seg:{shop/orders/0}:log"), None);
    }

    #[test]
    fn the_tag_is_the_one_that_a_cluster_sees_in_both_keys() {
        for (redis_key, expected) in [
            ("events", Some("events")),
            ("a{b}c", Some("b")),
            ("{a}{b}", Some("a")),
            ("a{b", Some("a{b")),
            ("{a{b}", Some("a{b")),
            ("a}b", None),
            ("a{}b", None),
            ("}{a}", Some("a")),
        ] {
            assert_eq!(tag(redis_key), expected, "{redis_key}");
            if let Some(expected) = expected {
                let (s, p) = (orders(), Partition(0));
                let ours = place(redis_key).key(Key::Meta(&s, p)).to_string();
                assert_eq!(tag(&ours), Some(expected), "{ours}");
            }
        }
    }
}
