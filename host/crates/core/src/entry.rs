//! How a message lies in a stream entry: `k` (key), `p` (payload) and `@NAME` per attribute. Knows the
//! field names; must not know how an entry is fetched.

use crate::message::{Content, EntryId, MessageError};

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
pub fn decode(raw: RawEntry, payload_max: usize) -> Entry {
    let RawEntry { id, fields } = raw;
    if let Err(why) = shape(&fields) {
        return Entry::Foreign { id, fields, why };
    }
    // The shape holds, so each field can be moved out; only attributes and key can still be refused.
    if let Err(why) = check_values(&fields, payload_max) {
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
    let content = Content::new(key, payload, attributes, payload_max).expect("checked above");
    Entry::Ours { id, content }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn names(fields: &Fields) -> String {
    let shown: Vec<String> = fields
        .iter()
        .take(8)
        .map(|(n, _)| format!("{:?}", text(n)))
        .collect();
    shown.join(", ")
}

fn shape(fields: &Fields) -> Result<(), ForeignEntry> {
    let (mut key, mut payload) = (false, false);
    for (name, _) in fields {
        let seen = match name.as_slice() {
            KEY_FIELD => &mut key,
            PAYLOAD_FIELD => &mut payload,
            [ATTRIBUTE_PREFIX, _, ..] => continue,
            _ => return Err(ForeignEntry::UnknownField(text(name))),
        };
        if std::mem::replace(seen, true) {
            return Err(ForeignEntry::FieldTwice(text(name)));
        }
    }
    match (key, payload) {
        (false, _) => Err(ForeignEntry::NoKey(names(fields))),
        (_, false) => Err(ForeignEntry::NoPayload(names(fields))),
        _ => Ok(()),
    }
}

fn check_values(fields: &Fields, payload_max: usize) -> Result<(), ForeignEntry> {
    let mut attributes = Vec::new();
    for (name, value) in fields {
        match name.as_slice() {
            KEY_FIELD => {
                Content::new(value.as_slice(), Vec::new(), Vec::new(), 0)?;
            }
            PAYLOAD_FIELD if value.len() > payload_max => {
                return Err(MessageError::PayloadTooLarge {
                    len: value.len(),
                    max: payload_max,
                }
                .into());
            }
            PAYLOAD_FIELD => {}
            _ => {
                let (Ok(n), Ok(v)) = (std::str::from_utf8(&name[1..]), std::str::from_utf8(value))
                else {
                    return Err(MessageError::AttributeNotUtf8(text(&name[1..])).into());
                };
                attributes.push((n.to_owned(), v.to_owned()));
            }
        }
    }
    Content::new(Vec::new(), Vec::new(), attributes, 0)?;
    Ok(())
}
