//! Validated names and numbers. Knows what is a legal name, key or shape; must not know where one is
//! stored. A value of these types is valid: nobody checks it again.

use std::fmt;
use std::str::FromStr;

use crate::limits;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{what} is empty; use 1 to {max} letters, digits, '.', '_' or '-'", max = limits::NAME_CHARS_MAX)]
    Empty { what: &'static str },
    #[error("{what} {text:?} has {len} characters; at most {max} are allowed", max = limits::NAME_CHARS_MAX)]
    TooLong {
        what: &'static str,
        text: String,
        len: usize,
    },
    #[error(
        "{what} {text:?} holds {bad:?}; only letters (a-z, A-Z), digits, '.', '_' and '-' are allowed"
    )]
    BadCharacter {
        what: &'static str,
        text: String,
        bad: char,
    },
}

fn check(what: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if let Some(bad) = text
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
    {
        return Err(NameError::BadCharacter {
            what,
            text: text.to_owned(),
            bad,
        });
    }
    if text.len() > limits::NAME_CHARS_MAX {
        return Err(NameError::TooLong {
            what,
            text: text.to_owned(),
            len: text.len(),
        });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);
        impl $name {
            /// Checks `text`: 1 to 64 letters, digits, `.`, `_`, `-`.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                check($what, &text)?;
                Ok(Self(text))
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
    };
}

name!(
    /// Keeps the streams of one user of a Redis apart from another's.
    Namespace, "namespace");
name!(
    /// A stream inside a namespace.
    StreamName, "stream");
name!(
    /// A group of one stream. The Redis consumer group of every partition bears the same name.
    GroupName, "group");
name!(
    /// A handler of the configuration.
    HandlerName, "handler");
name!(
    /// A member of a group: stable across restarts if it is configured.
    MemberId, "member");
name!(
    /// One process start of a member: random, so that no two ever hold the same lease.
    Incarnation, "incarnation");
name!(
    /// The identity of one creation of a stream: random at create, written into every partition.
    Uid, "uid");
name!(
    /// Whoever sends numbered messages: one sequence of numbers.
    ProducerName, "producer");
name!(
    /// The version of a module: sha256 of its bytes in hex, or a fixed word for a native handler.
    Version, "version");

/// A partition of a stream, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The namespace and name of a stream together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    pub namespace: Namespace,
    pub stream: StreamName,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.stream)
    }
}

/// The namespace and name of a handler together, as its versions are deployed: hosts may run it over
/// different streams.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandlerId {
    pub namespace: Namespace,
    pub handler: HandlerName,
}

impl fmt::Display for HandlerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.handler)
    }
}

/// Where stamped messages come from, for the target that remembers the last stamp of each. No text of one
/// kind is one of the other: an outbox holds a `/`, which no name may.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sender(String);

/// What the text of every producer begins with.
const PRODUCER: &str = "producer:";

impl Sender {
    /// The outbox of a group in one partition.
    pub fn outbox(stream: &StreamId, partition: Partition, group: &GroupName) -> Sender {
        Sender(format!("{stream}/{partition}:{group}"))
    }
    /// Whoever numbers messages and sends them.
    pub fn producer(name: &ProducerName) -> Sender {
        Sender(format!("{PRODUCER}{name}"))
    }
    pub fn is_producer(&self) -> bool {
        self.0.starts_with(PRODUCER)
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why numbers make no stream shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    #[error("{0} partitions: use 1 to {max}", max = limits::PARTITIONS_MAX)]
    Partitions(u32),
    #[error("capacity {0}: use 1 to {max} entries per partition", max = limits::CAPACITY_ENTRIES_MAX)]
    Capacity(u64),
    #[error("a payload limit of {0} bytes: use 1 to {max} (64 MiB)", max = limits::PAYLOAD_BYTES_MOST)]
    PayloadMax(usize),
}

/// What never changes about a stream once it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    partitions: u32,
    capacity: u64,
    payload_max: usize,
}

impl Shape {
    /// `partitions`: 1 to 4,096. `capacity`: entries per partition, 1 to 1,000,000,000.
    pub fn new(partitions: u32, capacity: u64) -> Result<Self, ShapeError> {
        if partitions == 0 || partitions > limits::PARTITIONS_MAX {
            return Err(ShapeError::Partitions(partitions));
        }
        if capacity == 0 || capacity > limits::CAPACITY_ENTRIES_MAX {
            return Err(ShapeError::Capacity(capacity));
        }
        Ok(Self {
            partitions,
            capacity,
            payload_max: limits::PAYLOAD_BYTES_MAX,
        })
    }
    /// `bytes` of a payload, inclusive: 1 to 64 MiB; 1 MiB unless this says otherwise.
    pub fn with_payload_max(self, bytes: usize) -> Result<Self, ShapeError> {
        if bytes == 0 || bytes > limits::PAYLOAD_BYTES_MOST {
            return Err(ShapeError::PayloadMax(bytes));
        }
        Ok(Self {
            payload_max: bytes,
            ..self
        })
    }
    /// Bytes of a payload, inclusive.
    pub fn payload_max(self) -> usize {
        self.payload_max
    }
    pub fn partitions(self) -> u32 {
        self.partitions
    }
    /// Of a stream that others write: one partition, that holds whatever they let it hold.
    pub const SOURCE: Shape = Shape {
        partitions: 1,
        capacity: 0,
        payload_max: limits::PAYLOAD_BYTES_MAX,
    };

    /// Entries per partition; `None`: no capacity of ours bounds it.
    pub fn capacity(self) -> Option<u64> {
        (self.capacity > 0).then_some(self.capacity)
    }
    pub fn all(self) -> impl Iterator<Item = Partition> {
        (0..self.partitions).map(Partition)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.capacity() {
            Some(capacity) => write!(f, "{} partitions of {capacity} entries", self.partitions),
            None => write!(f, "{} partition without a capacity", self.partitions),
        }?;
        match self.payload_max {
            limits::PAYLOAD_BYTES_MAX => Ok(()),
            max => write!(f, " and payloads of at most {max} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_limit_is_part_of_the_shape() {
        let shape = Shape::new(2, 10).unwrap();
        assert_eq!(shape.payload_max(), 1_048_576);
        assert_eq!(shape.with_payload_max(1_048_576), Ok(shape));
        let small = shape.with_payload_max(7).unwrap();
        assert_ne!(small, shape);
        assert_eq!(
            small.to_string(),
            "2 partitions of 10 entries and payloads of at most 7 bytes"
        );
        assert_eq!(shape.to_string(), "2 partitions of 10 entries");
        for bytes in [0, limits::PAYLOAD_BYTES_MOST + 1] {
            assert_eq!(
                shape.with_payload_max(bytes),
                Err(ShapeError::PayloadMax(bytes))
            );
        }
        assert!(shape.with_payload_max(limits::PAYLOAD_BYTES_MOST).is_ok());
    }

    #[test]
    fn a_producer_is_never_taken_for_an_outbox() {
        let stream = StreamId {
            namespace: "producer".parse().unwrap(),
            stream: "s".parse().unwrap(),
        };
        let outbox = Sender::outbox(&stream, Partition(0), &"g".parse().unwrap());
        assert!(!outbox.is_producer(), "{outbox}");
        for name in ["s", "protocol", "producers", "producer"] {
            let producer = Sender::producer(&name.parse().unwrap());
            assert!(producer.is_producer() && producer.as_str().contains(':'));
            assert!(!producer.as_str().contains('/'));
        }
        assert!(ProducerName::new("producer/s").is_err());
    }
}
