//! A message and its parts. Knows what a valid key, payload and attribute is, and the fields of an
//! entry (`k`, `p`, `@NAME`); must not know how fields travel.

use std::fmt;
use std::str::FromStr;

use crate::limits;
use crate::names::Partition;

/// The id of an entry: milliseconds and a sequence number, as Redis orders them. Never a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    pub ms: u64,
    pub seq: u64,
}

impl EntryId {
    /// Before every entry.
    pub const ZERO: EntryId = EntryId { ms: 0, seq: 0 };

    /// The smallest id above this one, with carry; `None` above the largest.
    pub fn next(self) -> Option<EntryId> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(EntryId { ms: self.ms, seq }),
            None => self.ms.checked_add(1).map(|ms| EntryId { ms, seq: 0 }),
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no entry id; write MILLISECONDS-SEQUENCE, such as 1526919030474-55")]
pub struct EntryIdError(pub String);

impl FromStr for EntryId {
    type Err = EntryIdError;
    fn from_str(text: &str) -> Result<Self, EntryIdError> {
        let bad = || EntryIdError(text.to_owned());
        let number = |t: &str| {
            if t.is_empty() || !t.bytes().all(|b| b.is_ascii_digit()) {
                return Err(bad());
            }
            t.parse::<u64>().map_err(|_| bad())
        };
        let (ms, seq) = text.split_once('-').unwrap_or((text, "0"));
        Ok(EntryId {
            ms: number(ms)?,
            seq: number(seq)?,
        })
    }
}

/// Why a message cannot be appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error(
        "the key is not valid UTF-8 (byte {at} of {len}); keys are text, put bytes into the payload"
    )]
    KeyNotUtf8 { at: usize, len: usize },
    #[error("the key has {0} bytes; at most {max} are allowed", max = limits::KEY_BYTES_MAX)]
    KeyTooLong(usize),
    #[error("the payload has {len} bytes; the limit is {max}")]
    PayloadTooLarge { len: usize, max: usize },
    #[error("{0} attributes; at most {max} are allowed", max = limits::ATTRIBUTES_MAX)]
    TooManyAttributes(usize),
    #[error("an attribute has no name")]
    AttributeNameEmpty,
    #[error("attribute name {0:?} is too long; at most {max} bytes are allowed", max = limits::ATTRIBUTE_NAME_BYTES_MAX)]
    AttributeNameTooLong(String),
    #[error("attribute {name:?} has a value of {len} bytes; at most {max} are allowed", max = limits::ATTRIBUTE_VALUE_BYTES_MAX)]
    AttributeValueTooLong { name: String, len: usize },
    #[error("attribute {0:?} is given twice; names are unique")]
    AttributeTwice(String),
    #[error("attribute {0:?} is not valid UTF-8")]
    AttributeNotUtf8(String),
}

/// Key, payload and attributes, all valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    key: String,
    payload: Vec<u8>,
    attributes: Vec<(String, String)>,
}

impl Content {
    /// `payload_max`: bytes, inclusive; the stream's.
    pub fn new(
        key: impl Into<Vec<u8>>,
        payload: Vec<u8>,
        attributes: Vec<(String, String)>,
        payload_max: usize,
    ) -> Result<Self, MessageError> {
        let key = key.into();
        check_key(&key)?;
        check_payload(&payload, payload_max)?;
        check_attributes(attributes.iter().map(|(n, v)| (n.as_str(), v.as_str())))?;
        Ok(Self::checked(key, payload, attributes))
    }
    /// Of parts that passed the checks below.
    pub(crate) fn checked(
        key: Vec<u8>,
        payload: Vec<u8>,
        attributes: Vec<(String, String)>,
    ) -> Self {
        Self {
            key: String::from_utf8(key).expect("checked"),
            payload,
            attributes,
        }
    }
    pub fn key(&self) -> &str {
        &self.key
    }
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
    pub fn attributes(&self) -> &[(String, String)] {
        &self.attributes
    }
    /// Bytes of key, payload and attributes together.
    pub fn bytes(&self) -> usize {
        self.key.len()
            + self.payload.len()
            + self
                .attributes
                .iter()
                .map(|(n, v)| n.len() + v.len())
                .sum::<usize>()
    }
    pub fn into_parts(self) -> (String, Vec<u8>, Vec<(String, String)>) {
        (self.key, self.payload, self.attributes)
    }
}

pub(crate) fn check_key(key: &[u8]) -> Result<(), MessageError> {
    if let Err(e) = std::str::from_utf8(key) {
        return Err(MessageError::KeyNotUtf8 {
            // People count from 1.
            at: e.valid_up_to() + 1,
            len: key.len(),
        });
    }
    if key.len() > limits::KEY_BYTES_MAX {
        return Err(MessageError::KeyTooLong(key.len()));
    }
    Ok(())
}

pub(crate) fn check_payload(payload: &[u8], max: usize) -> Result<(), MessageError> {
    if payload.len() > max {
        let len = payload.len();
        return Err(MessageError::PayloadTooLarge { len, max });
    }
    Ok(())
}

pub(crate) fn check_attributes<'a>(
    attributes: impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone,
) -> Result<(), MessageError> {
    if attributes.len() > limits::ATTRIBUTES_MAX {
        return Err(MessageError::TooManyAttributes(attributes.len()));
    }
    for (i, (name, value)) in attributes.clone().enumerate() {
        if name.is_empty() {
            return Err(MessageError::AttributeNameEmpty);
        }
        if name.len() > limits::ATTRIBUTE_NAME_BYTES_MAX {
            return Err(MessageError::AttributeNameTooLong(name.to_owned()));
        }
        if value.len() > limits::ATTRIBUTE_VALUE_BYTES_MAX {
            return Err(MessageError::AttributeValueTooLong {
                name: name.to_owned(),
                len: value.len(),
            });
        }
        // At most 64 names: comparing each with those before it beats a set.
        if attributes.clone().take(i).any(|(n, _)| n == name) {
            return Err(MessageError::AttributeTwice(name.to_owned()));
        }
    }
    Ok(())
}

/// What a handler is called with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: EntryId,
    pub partition: Partition,
    /// 1 for the first try.
    pub attempt: u32,
    pub content: Content,
}
