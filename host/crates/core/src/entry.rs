//! How a message lies in a stream entry: `k` (key), `p` (payload) and `@NAME` per attribute. Knows the
//! field names; must not know how an entry is fetched.

use crate::message::{self, Content, EntryId, MessageError};

pub const KEY_FIELD: &[u8] = b"k";
pub const PAYLOAD_FIELD: &[u8] = b"p";
pub const ATTRIBUTE_PREFIX: u8 = b'@';

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
    #[error("the entry has the field {0:?}, which is none of 'k', 'p' and '@NAME'")]
    UnknownField(String),
    #[error("the entry has the field {0:?} twice")]
    FieldTwice(String),
    #[error(transparent)]
    Content(#[from] MessageError),
}

/// An entry, understood or not. Both keep everything that a dead letter must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Ours {
        id: EntryId,
        content: Content,
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
    let mut fields = Vec::with_capacity(2 + content.attributes().len());
    fields.push((KEY_FIELD.to_vec(), content.key().as_bytes().to_vec()));
    fields.push((PAYLOAD_FIELD.to_vec(), content.payload().to_vec()));
    for (name, value) in content.attributes() {
        let mut field = Vec::with_capacity(1 + name.len());
        field.push(ATTRIBUTE_PREFIX);
        field.extend_from_slice(name.as_bytes());
        fields.push((field, value.as_bytes().to_vec()));
    }
    fields
}

/// Understands an entry. The order of fields does not matter here, though we always write `k` first.
/// Checks borrow, so that an entry that is not ours is kept as it came, and one that is ours is moved.
pub fn decode(raw: RawEntry, payload_max: usize) -> Entry {
    let RawEntry { id, fields } = raw;
    if let Err(why) = shape(&fields).and_then(|()| values(&fields, payload_max)) {
        return Entry::Foreign { id, fields, why };
    }
    let (mut key, mut payload, mut attributes) = (Vec::new(), Vec::new(), Vec::new());
    for (name, value) in fields {
        match name.as_slice() {
            KEY_FIELD => key = value,
            PAYLOAD_FIELD => payload = value,
            _ => attributes.push((text(&name[1..]), text(&value))),
        }
    }
    let content = Content::checked(key, payload, attributes);
    Entry::Ours { id, content }
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
    let (mut key, mut payload) = (false, false);
    let mut odd = None;
    for (name, _) in fields {
        let seen = match name.as_slice() {
            KEY_FIELD => &mut key,
            PAYLOAD_FIELD => &mut payload,
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
        fn what_is_encoded_is_decoded(key: String, payload: Vec<u8>, attributes in attributes()) {
            let content = Content::new(key, payload, attributes, usize::MAX).unwrap();
            let raw = RawEntry { id: ID, fields: encode(&content) };
            prop_assert_eq!(decode(raw, usize::MAX), Entry::Ours { id: ID, content });
        }

        #[test]
        fn any_fields_are_ours_or_kept_whole(
            fields in prop::collection::vec(
                (prop_oneof![Just(b"k".to_vec()), Just(b"p".to_vec()), Just(b"@a".to_vec()), any::<Vec<u8>>()], any::<Vec<u8>>()),
                0..6,
            ),
            payload_max in 0usize..64,
        ) {
            match decode(RawEntry { id: ID, fields: fields.clone() }, payload_max) {
                Entry::Foreign { fields: kept, .. } => prop_assert_eq!(kept, fields),
                Entry::Ours { content, .. } => {
                    let mut sorted = (encode(&content), fields);
                    sorted.0.sort();
                    sorted.1.sort();
                    prop_assert_eq!(sorted.0, sorted.1);
                    prop_assert!(content.payload().len() <= payload_max);
                }
            }
        }
    }
}
