//! A stream that other programs write, bound as it is: which key of Redis, which fields, and how its
//! entries are understood. Knows the shape of such a stream; must not know where what we keep of it lies.

use std::fmt;

use crate::entry::{self, Entry, Fields, ForeignEntry, RawEntry};
use crate::limits;
use crate::message::{self, Content, EntryId, MessageError};
use crate::names::StreamName;

/// What every key of ours begins with.
const OURS: &str = "seg:";

/// Never changes about a stream once it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    redis_key: String,
    key_field: String,
    payload_field: String,
}

/// Why something is no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("{0} is empty")]
    Empty(&'static str),
    #[error("{what} has {len} bytes; at most {max} are allowed", max = limits::SOURCE_BYTES_MAX)]
    TooLong { what: &'static str, len: usize },
    #[error(
        "redis_key {0:?} begins with seg:, as Segmenter's own keys do; name the stream itself instead of binding its log"
    )]
    Ours(String),
    #[error("key_field and payload_field are both {0:?}; a field is one of both")]
    SameField(String),
}

impl Source {
    pub fn new(
        redis_key: impl Into<String>,
        key_field: impl Into<String>,
        payload_field: impl Into<String>,
    ) -> Result<Source, SourceError> {
        let source = Source {
            redis_key: redis_key.into(),
            key_field: key_field.into(),
            payload_field: payload_field.into(),
        };
        for (what, text) in [
            ("redis_key", &source.redis_key),
            ("key_field", &source.key_field),
            ("payload_field", &source.payload_field),
        ] {
            if text.is_empty() {
                return Err(SourceError::Empty(what));
            }
            if text.len() > limits::SOURCE_BYTES_MAX {
                let len = text.len();
                return Err(SourceError::TooLong { what, len });
            }
        }
        if source.redis_key.starts_with(OURS) {
            return Err(SourceError::Ours(source.redis_key));
        }
        if source.key_field == source.payload_field {
            return Err(SourceError::SameField(source.key_field));
        }
        Ok(source)
    }

    pub fn redis_key(&self) -> &str {
        &self.redis_key
    }
    pub fn key_field(&self) -> &str {
        &self.key_field
    }
    pub fn payload_field(&self) -> &str {
        &self.payload_field
    }

    /// An entry without the key field has the empty key: whole streams have none, and with one partition
    /// the key decides nothing. Fields that are neither key nor payload are attributes.
    fn decode(&self, raw: RawEntry, payload_max: usize) -> Entry {
        let RawEntry { id, fields } = raw;
        if let Err(why) = self.check(&fields, payload_max) {
            return Entry::Foreign { id, fields, why };
        }
        let (mut key, mut payload, mut attributes) = (Vec::new(), Vec::new(), Vec::new());
        for (name, value) in fields {
            match name.as_slice() {
                name if name == self.key_field.as_bytes() => key = value,
                name if name == self.payload_field.as_bytes() => payload = value,
                _ => attributes.push((entry::text(&name), entry::text(&value))),
            }
        }
        let content = Content::checked(key, payload, attributes);
        // Nobody redrives into what others write: every message is for every group.
        Entry::Ours {
            id,
            content,
            only: None,
        }
    }

    fn check(&self, fields: &Fields, payload_max: usize) -> Result<(), ForeignEntry> {
        let (mut key, mut payload) = (None, None);
        let mut attributes = Vec::new();
        let mut twice = None;
        for (name, value) in fields {
            let seen = match name.as_slice() {
                name if name == self.key_field.as_bytes() => &mut key,
                name if name == self.payload_field.as_bytes() => &mut payload,
                _ => {
                    attributes.push((name, value));
                    continue;
                }
            };
            if seen.replace(value).is_some() {
                twice.get_or_insert_with(|| ForeignEntry::FieldTwice(entry::text(name)));
            }
        }
        let Some(payload) = payload else {
            return Err(ForeignEntry::NoPayloadField {
                field: self.payload_field.clone(),
                found: entry::names(fields),
            });
        };
        if let Some(twice) = twice {
            return Err(twice);
        }
        message::check_key(key.map_or(&[], Vec::as_slice))?;
        message::check_payload(payload, payload_max)?;
        let attributes = attributes
            .into_iter()
            .map(|(name, value)| {
                let texts = std::str::from_utf8(name)
                    .ok()
                    .zip(std::str::from_utf8(value).ok());
                texts.ok_or_else(|| MessageError::AttributeNotUtf8(entry::text(name)))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(message::check_attributes(attributes.into_iter())?)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the Redis stream {:?} (key in {:?}, payload in {:?})",
            self.redis_key, self.key_field, self.payload_field
        )
    }
}

/// How the entries of a stream are understood.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Layout {
    /// As [`entry::encode`] writes them.
    #[default]
    Ours,
    Source(Source),
}

impl Layout {
    pub fn of(source: Option<Source>) -> Layout {
        source.map_or(Layout::Ours, Layout::Source)
    }

    /// Of a message that was understood, for its dead letter. The fields bear their own names; key and
    /// payload come first, and an empty key is left out.
    pub fn encode(&self, content: &Content) -> Fields {
        let Layout::Source(source) = self else {
            return entry::encode(content);
        };
        let pair = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
        let key = Some(content.key()).filter(|key| !key.is_empty());
        let key = key.map(|key| pair(&source.key_field, key.as_bytes()));
        let payload = pair(&source.payload_field, content.payload());
        let attributes = content.attributes().iter();
        key.into_iter()
            .chain([payload])
            .chain(attributes.map(|(name, value)| pair(name, value.as_bytes())))
            .collect()
    }

    pub fn decode(&self, raw: RawEntry, payload_max: usize) -> Entry {
        match self {
            Layout::Ours => entry::decode(raw, payload_max),
            Layout::Source(source) => source.decode(raw, payload_max),
        }
    }

    /// What a dead letter holds: the message, and the target of one that was emitted, which lies there as
    /// we write it.
    pub fn decode_letter(&self, fields: &Fields) -> Result<(Option<StreamName>, Content), String> {
        let Layout::Source(source) = self else {
            return entry::decode_letter(fields);
        };
        if let Ok(emitted @ (Some(_), _)) = entry::decode_letter(fields) {
            return Ok(emitted);
        }
        let raw = RawEntry {
            id: EntryId::ZERO,
            fields: fields.clone(),
        };
        match source.decode(raw, usize::MAX) {
            Entry::Ours { content, .. } => Ok((None, content)),
            Entry::Foreign { why, .. } => Err(why.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(fields: &[(&str, &[u8])]) -> Entry {
        let source = Source::new("events", "user", "body").unwrap();
        let fields = fields.iter();
        let raw = RawEntry {
            id: EntryId { ms: 1, seq: 0 },
            fields: fields
                .map(|(n, v)| (n.as_bytes().to_vec(), v.to_vec()))
                .collect(),
        };
        Layout::Source(source).decode(raw, 8)
    }

    #[test]
    fn named_fields_are_key_and_payload_and_the_others_attributes() {
        let Entry::Ours { content, .. } = decode(&[
            ("at", b"7"),
            ("body", b"\xff\0"),
            ("user", b"u1"),
            ("k", b"x"),
        ]) else {
            panic!("it is understood");
        };
        assert_eq!((content.key(), content.payload()), ("u1", &b"\xff\0"[..]));
        let attributes = [("at", "7"), ("k", "x")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(content.attributes(), attributes);
    }

    #[test]
    fn without_the_key_field_the_key_is_empty() {
        let Entry::Ours { content, .. } = decode(&[("body", b"p")]) else {
            panic!("it is understood");
        };
        assert_eq!(content.key(), "");
    }

    #[test]
    fn what_was_understood_goes_back_under_its_own_names() {
        let layout = Layout::Source(Source::new("events", "user", "body").unwrap());
        for fields in [
            vec![("user", "u"), ("body", "p"), ("a", "1"), ("k", "2")],
            vec![("body", "p")],
        ] {
            let bytes = |text: &str| text.as_bytes().to_vec();
            let fields: Fields = fields.iter().map(|(n, v)| (bytes(n), bytes(v))).collect();
            let raw = RawEntry {
                id: EntryId { ms: 1, seq: 0 },
                fields: fields.clone(),
            };
            let Entry::Ours { content, .. } = layout.decode(raw, 8) else {
                panic!("it is understood");
            };
            assert_eq!(layout.encode(&content), fields);
        }
    }

    #[test]
    fn what_makes_no_message_is_kept_whole_with_the_reason() {
        type Case<'a> = (&'a [(&'a str, &'a [u8])], &'a str);
        let cases: [Case<'_>; 7] = [
            (&[("user", b"u")], "no field \"body\""),
            (&[("body", b"1"), ("body", b"2")], "\"body\" twice"),
            (
                &[("body", b"1"), ("user", b"a"), ("user", b"b")],
                "\"user\" twice",
            ),
            (&[("body", b"123456789")], "9 bytes; the limit is 8"),
            (&[("body", b"1"), ("user", b"\xff")], "not valid UTF-8"),
            (
                &[("body", b"1"), ("a", b"\xff")],
                "attribute \"a\" is not valid UTF-8",
            ),
            (&[("body", b"1"), ("a", b"1"), ("a", b"2")], "given twice"),
        ];
        for (fields, says) in cases {
            let Entry::Foreign {
                fields: kept, why, ..
            } = decode(fields)
            else {
                panic!("{fields:?} was understood");
            };
            assert!(why.to_string().contains(says), "{why}");
            assert_eq!(kept.len(), fields.len());
        }
    }

    #[test]
    fn what_cannot_be_a_source_is_refused() {
        let long = "x".repeat(limits::SOURCE_BYTES_MAX + 1);
        for (key, user, body, says) in [
            ("", "u", "b", "redis_key is empty"),
            ("e", "", "b", "key_field is empty"),
            ("e", "u", "", "payload_field is empty"),
            (long.as_str(), "u", "b", "at most 512"),
            ("seg:{shop/orders/0}:log", "u", "b", "begins with seg:"),
            ("e", "u", "u", "both \"u\""),
        ] {
            let refused = Source::new(key, user, body).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
