//! Entries of a stream that anybody may write to: understood, or kept whole for a dead letter.
//!
//! The input is names and values by turns, one a line; the first line's length is the limit of a payload.

use redis::Value;
use segmenter_core::entry::{self, Entry, Fields, RawEntry};
use segmenter_core::limits;
use segmenter_core::message::EntryId;
use segmenter_core::source::{Layout, Source};
use segmenter_redis::fuzz;

const ID: EntryId = EntryId { ms: 7, seq: 8 };

pub fn entry(input: &[u8]) {
    let mut parts = input.split(|byte| *byte == b'\n');
    let payload_max = parts.next().map_or(0, <[u8]>::len);
    let mut fields = Fields::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        fields.push((name.to_vec(), value.to_vec()));
    }
    let read = fuzz::xread(reply(&fields)).expect("this is what Redis answers");
    let raw = RawEntry {
        id: ID,
        fields: fields.clone(),
    };
    assert_eq!(read, [(b"key".to_vec(), vec![raw.clone()])]);
    understood(raw.clone(), payload_max);
    understood_as_source(raw, payload_max);
    assert_eq!(
        fuzz::letter(fields.clone()),
        fields,
        "a dead letter differs"
    );
    let _ = fuzz::unpack(fields);
}

pub(super) fn understood(raw: RawEntry, payload_max: usize) {
    let (id, mut fields) = (raw.id, raw.fields.clone());
    let decoded = entry::decode(raw, payload_max);
    assert_eq!(decoded.id(), id);
    match decoded {
        Entry::Ours { content, only, .. } => {
            assert!(content.payload().len() <= payload_max);
            assert!(content.key().len() <= limits::KEY_BYTES_MAX);
            assert!(content.attributes().len() <= limits::ATTRIBUTES_MAX);
            let mut again = entry::encode_for(&content, only.as_ref());
            again.sort();
            fields.sort();
            assert_eq!(again, fields, "something was lost on the way");
        }
        Entry::Foreign {
            fields: kept, why, ..
        } => {
            assert_eq!(kept, fields);
            assert!(
                why.to_string().len() <= 16 * 1024,
                "the reason is a text for people"
            );
        }
    }
}

/// The same of a stream of others, whose fields are `user` and `body`.
fn understood_as_source(raw: RawEntry, payload_max: usize) {
    let layout = Layout::Source(Source::new("events", "user", "body").expect("a source"));
    let mut fields = raw.fields.clone();
    match layout.decode(raw, payload_max) {
        Entry::Ours { content, .. } => {
            let mut again = layout.encode(&content);
            again.sort();
            // An empty key is left out.
            fields.retain(|(name, value)| name != b"user" || !value.is_empty());
            fields.sort();
            assert_eq!(again, fields, "something was lost on the way");
        }
        Entry::Foreign { fields: kept, .. } => assert_eq!(kept, fields),
    }
}

fn reply(fields: &Fields) -> Value {
    let bytes = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
    let flat = fields.iter().flat_map(|(n, v)| [bytes(n), bytes(v)]);
    let entry = Value::Array(vec![bytes(b"7-8"), Value::Array(flat.collect())]);
    Value::Array(vec![Value::Array(vec![
        bytes(b"key"),
        Value::Array(vec![entry]),
    ])])
}
