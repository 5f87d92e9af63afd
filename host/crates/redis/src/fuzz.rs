//! A door for fuzzing: every conversion of what Redis answers, given anything. Knows which there are; is
//! no part of the crate's contract.

use redis::Value;
use segmenter_core::entry::{Fields, RawEntry};
use segmenter_core::names::{Namespace, Partition, StreamId, StreamName};

use crate::place::Place;
use crate::{admin, convert, coordinate, deploy, doctor, execute, handlers, outbox};

/// Entries of an XREAD reply, as the reader and `tail` get them.
pub fn xread(answer: Value) -> Option<Vec<(Vec<u8>, Vec<RawEntry>)>> {
    convert::xread(answer).ok()
}

/// Takes the answer for that of every script and command in turn. An error is a good end: each must come
/// back with one, or with something that makes sense.
pub fn replies(answer: &Value) {
    let stream = StreamId {
        namespace: Namespace::new("fuzz").expect("a name"),
        stream: StreamName::new("fuzz").expect("a name"),
    };
    let answer = || answer.clone();
    let _ = execute::appended(answer());
    let _ = outbox::appended_from(answer());
    let _ = execute::acquired(answer());
    let _ = execute::fenced(answer(), "commit");
    let _ = convert::lease(convert::list(answer()).unwrap_or_default());
    let _ = coordinate::membership(convert::list(answer()).unwrap_or_default().into_iter());
    let _ = admin::description(&stream, answer());
    let _ = admin::described(&stream, Partition(0), &Place::default(), answer());
    let _ = admin::group_in_partition(answer(), 0);
    let _ = deploy::reported(answer());
    let _ = handlers::happened(answer());
    if let Ok(entry) = convert::entry(answer()) {
        let _ = outbox::outgoing(entry.clone());
        let _ = admin::dead_entry(Partition(0), entry);
    }
}

/// What a channel said, and what INFO said.
pub fn texts(text: &str) {
    let _ = coordinate::news(text);
    let info = doctor::parse_info(text);
    let _ = doctor::judge(&info, &info);
}

/// Fields of a dead letter, packed where they are too many, and taken apart again.
pub fn letter(fields: Fields) -> Fields {
    execute::unpack(execute::pack(&fields).unwrap_or(fields))
}

/// What lies in a dead letter may be anybody's.
pub fn unpack(fields: Fields) -> Fields {
    execute::unpack(fields)
}
