//! How a message lies in a stream entry: `k` (key), `p` (payload), `@NAME` per attribute, and `#g` if only
//! one group shall handle it. Knows the field names; must not know how an entry is fetched.

use crate::message::{self, Content, EntryId, MessageError};
use crate::names::{GroupName, StreamName};

pub const KEY_FIELD: &[u8] = b"k";
pub const PAYLOAD_FIELD: &[u8] = b"p";
pub const ATTRIBUTE_PREFIX: u8 = b'@';
/// The one group that is to handle it; others ack it unhandled. Of a message that was redriven.
pub const GROUP_FIELD: &[u8] = b"#g";
/// In front of a message that a handler emitted and that could not reach its target: that target.
pub const TARGET_FIELD: &[u8] = b"#to";

/// An entry as it lies in the log: fields in their order, whoever wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEntry {
    pub id: EntryId,
    pub fields: Fields,
}

pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Why an entry is not ours in shape. Such an entry becomes a dead letter, whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForeignEntry {
    #[error("the entry has no field 'k' (the key); fields are: {0}")]
    NoKey(String),
    #[error("the entry has no field 'p' (the payload); fields are: {0}")]
    NoPayload(String),
    #[error("the entry has no field {field:?} (the payload); fields are: {found}")]
    NoPayloadField { field: String, found: String },
    #[error("the entry has the field {0:?}, which is none of 'k', 'p', '@NAME' and '#g'")]
    UnknownField(String),
    #[error("the entry has the field {0:?} twice")]
    FieldTwice(String),
    #[error("the field '#g' holds {0:?}, which is no group")]
    NoGroup(String),
    #[error(transparent)]
    Content(#[from] MessageError),
}

/// An entry, understood or not. Both keep everything that a dead letter must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Ours {
        id: EntryId,
        content: Content,
        /// `None`: for every group.
        only: Option<GroupName>,
    },
    Foreign {
        id: EntryId,
        fields: Fields,
        why: ForeignEntry,
    },
}

impl Entry {
    pub fn id(&self) -> EntryId {
        match self {
            Entry::Ours { id, .. } | Entry::Foreign { id, .. } => *id,
        }
    }
    /// Bytes that it holds in memory, about.
    pub fn bytes(&self) -> usize {
        match self {
            Entry::Ours { content, .. } => content.bytes(),
            Entry::Foreign { fields, .. } => fields.iter().map(|(n, v)| n.len() + v.len()).sum(),
        }
    }
}

/// Fields of `content`, in the order that the contract names.
pub fn encode(content: &Content) -> Fields {
    encode_for(content, None)
}

/// Fields of `content`, for all groups or one.
pub fn encode_for(content: &Content, only: Option<&GroupName>) -> Fields {
    let mut fields = Vec::with_capacity(3 + content.attributes().len());
    fields.push((KEY_FIELD.to_vec(), content.key().as_bytes().to_vec()));
    fields.push((PAYLOAD_FIELD.to_vec(), content.payload().to_vec()));
    for (name, value) in content.attributes() {
        let mut field = Vec::with_capacity(1 + name.len());
        field.push(ATTRIBUTE_PREFIX);
        field.extend_from_slice(name.as_bytes());
        fields.push((field, value.as_bytes().to_vec()));
    }
    if let Some(only) = only {
        fields.push((GROUP_FIELD.to_vec(), only.as_str().as_bytes().to_vec()));
    }
    fields
}

/// What a dead letter holds: the message, and the target of one that was emitted.
pub fn decode_letter(fields: &Fields) -> Result<(Option<StreamName>, Content), String> {
    let mut rest = fields.as_slice();
    let mut to = None;
    if let [(name, value), more @ ..] = rest
        && name == TARGET_FIELD
    {
        to = Some(text(value).parse().map_err(|e| format!("{e}"))?);
        rest = more;
    }
    let raw = RawEntry {
        id: EntryId::ZERO,
        fields: rest.to_vec(),
    };
    match decode(raw, usize::MAX) {
        Entry::Ours { content, .. } => Ok((to, content)),
        Entry::Foreign { why, .. } => Err(why.to_string()),
    }
}

/// Understands an entry. The order of fields does not matter here, though we always write `k` first.
/// Checks borrow, so that an entry that is not ours is kept as it came, and one that is ours is moved.
pub fn decode(raw: RawEntry, payload_max: usize) -> Entry {
    let RawEntry { id, fields } = raw;
    if let Err(why) = shape(&fields).and_then(|()| values(&fields, payload_max)) {
        return Entry::Foreign { id, fields, why };
    }
    let (mut key, mut payload, mut attributes) = (Vec::new(), Vec::new(), Vec::new());
    let mut only = None;
    for (name, value) in fields {
        match name.as_slice() {
            KEY_FIELD => key = value,
            PAYLOAD_FIELD => payload = value,
            GROUP_FIELD => only = text(&value).parse().ok(),
            _ => attributes.push((text(&name[1..]), text(&value))),
        }
    }
    let content = Content::checked(key, payload, attributes);
    Entry::Ours { id, content, only }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn names(fields: &Fields) -> String {
    let shown: Vec<String> = fields
        .iter()
        .take(8)
        .map(|(n, _)| format!("{:?}", text(n)))
        .collect();
    shown.join(", ")
}

/// What is missing is said before what is too much: it tells more about where an entry came from.
fn shape(fields: &Fields) -> Result<(), ForeignEntry> {
    let (mut key, mut payload, mut group) = (false, false, false);
    let mut odd = None;
    for (name, _) in fields {
        let seen = match name.as_slice() {
            KEY_FIELD => &mut key,
            PAYLOAD_FIELD => &mut payload,
            GROUP_FIELD => &mut group,
            [ATTRIBUTE_PREFIX, _, ..] => continue,
            _ => {
                odd.get_or_insert_with(|| ForeignEntry::UnknownField(text(name)));
                continue;
            }
        };
        if std::mem::replace(seen, true) {
            odd.get_or_insert_with(|| ForeignEntry::FieldTwice(text(name)));
        }
    }
    match (key, payload, odd) {
        (false, _, _) => Err(ForeignEntry::NoKey(names(fields))),
        (_, false, _) => Err(ForeignEntry::NoPayload(names(fields))),
        (_, _, Some(odd)) => Err(odd),
        _ => Ok(()),
    }
}

fn values(fields: &Fields, payload_max: usize) -> Result<(), ForeignEntry> {
    let mut attributes = Vec::new();
    for (name, value) in fields {
        match name.as_slice() {
            KEY_FIELD => message::check_key(value)?,
            PAYLOAD_FIELD => message::check_payload(value, payload_max)?,
            GROUP_FIELD => {
                if text(value).parse::<GroupName>().is_err() {
                    return Err(ForeignEntry::NoGroup(text(value)));
                }
            }
            _ => {
                let (Ok(n), Ok(v)) = (std::str::from_utf8(&name[1..]), std::str::from_utf8(value))
                else {
                    return Err(MessageError::AttributeNotUtf8(text(&name[1..])).into());
                };
                attributes.push((n, v));
            }
        }
    }
    Ok(message::check_attributes(attributes.iter().copied())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: EntryId = EntryId { ms: 1, seq: 2 };

    fn attributes() -> impl Strategy<Value = Vec<(String, String)>> {
        prop::collection::btree_map(".{1,20}", ".{0,20}", 0..5)
            .prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            key: String,
            payload: Vec<u8>,
            attributes in attributes(),
            only in prop::option::of("[a-z]{1,9}"),
        ) {
            let content = Content::new(key, payload, attributes, usize::MAX).unwrap();
            let only = only.map(|only| only.parse::<GroupName>().unwrap());
            let raw = RawEntry { id: ID, fields: encode_for(&content, only.as_ref()) };
            prop_assert_eq!(decode_letter(&raw.fields), Ok((None, content.clone())));
            prop_assert_eq!(decode(raw, usize::MAX), Entry::Ours { id: ID, content, only });
        }

        #[test]
        fn any_fields_are_ours_or_kept_whole(
            fields in prop::collection::vec(
                (prop_oneof![Just(b"k".to_vec()), Just(b"p".to_vec()), Just(b"@a".to_vec()), Just(b"#g".to_vec()), any::<Vec<u8>>()],
                 prop_oneof![Just(b"g".to_vec()), any::<Vec<u8>>()]),
                0..6,
            ),
            payload_max in 0usize..64,
        ) {
            match decode(RawEntry { id: ID, fields: fields.clone() }, payload_max) {
                Entry::Foreign { fields: kept, .. } => prop_assert_eq!(kept, fields),
                Entry::Ours { content, only, .. } => {
                    let mut sorted = (encode_for(&content, only.as_ref()), fields);
                    sorted.0.sort();
                    sorted.1.sort();
                    prop_assert_eq!(sorted.0, sorted.1);
                    prop_assert!(content.payload().len() <= payload_max);
                }
            }
        }
    }
}
