//! Redis values → ours. Moves bytes out of replies instead of copying them; the client library's own
//! conversion of stream replies is ten times as slow and loses the order of fields.

use redis::Value;
use segmenter_core::entry::{Fields, RawEntry};
use segmenter_core::lease::{Epoch, LeaseView};
use segmenter_core::message::EntryId;
use segmenter_core::names::Incarnation;
use segmenter_core::port::Failure;

/// A reply that no script or command of ours gives: the outcome is as good as unknown.
pub(crate) fn odd(what: &str, value: &Value) -> Failure {
    let mut shown = format!("{value:?}");
    shown.truncate(shown.floor_char_boundary(200));
    Failure::Unknown(format!("an answer that makes no sense as {what}: {shown}"))
}

pub(crate) fn list(value: Value) -> Result<Vec<Value>, Failure> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Nil => Ok(Vec::new()),
        other => Err(odd("a list", &other)),
    }
}

pub(crate) fn bytes(value: Value) -> Result<Vec<u8>, Failure> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Int(number) => Ok(number.to_string().into_bytes()),
        other => Err(odd("bytes", &other)),
    }
}

pub(crate) fn text(value: Value) -> Result<String, Failure> {
    String::from_utf8(bytes(value)?)
        .map_err(|e| Failure::Unknown(format!("an answer is no text: {e}")))
}

pub(crate) fn number(value: Value) -> Result<u64, Failure> {
    if let Value::Int(number) = value {
        return u64::try_from(number).map_err(|_| odd("a count", &value));
    }
    let text = text(value)?;
    text.parse()
        .map_err(|_| Failure::Unknown(format!("{text:?} is no number")))
}

pub(crate) fn id(value: Value) -> Result<EntryId, Failure> {
    let text = text(value)?;
    text.parse().map_err(|e| Failure::Unknown(format!("{e}")))
}

/// `[id, [name, value, …]]`.
pub(crate) fn entry(value: Value) -> Result<RawEntry, Failure> {
    let mut parts = list(value)?.into_iter();
    let id = id(parts.next().unwrap_or(Value::Nil))?;
    let fields = fields(list(parts.next().unwrap_or(Value::Nil))?)?;
    Ok(RawEntry { id, fields })
}

pub(crate) fn fields(values: Vec<Value>) -> Result<Fields, Failure> {
    let mut fields = Vec::with_capacity(values.len() / 2);
    let mut values = values.into_iter();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        fields.push((bytes(name)?, bytes(value)?));
    }
    Ok(fields)
}

/// A key and its entries.
pub(crate) type Found = (Vec<u8>, Vec<RawEntry>);

/// Entries of each key of an XREAD reply, in the reply's order; RESP2.
pub(crate) fn xread(value: Value) -> Result<Vec<Found>, Failure> {
    list(value)?
        .into_iter()
        .map(|stream| {
            let mut parts = list(stream)?.into_iter();
            let key = bytes(parts.next().unwrap_or(Value::Nil))?;
            let entries = list(parts.next().unwrap_or(Value::Nil))?;
            let entries = entries.into_iter().map(entry).collect::<Result<_, _>>()?;
            Ok((key, entries))
        })
        .collect()
}

/// `[owner, epoch, acked, halt]`; an empty list: there is no lease.
pub(crate) fn lease(values: Vec<Value>) -> Result<Option<LeaseView>, Failure> {
    let mut values = values.into_iter();
    let Some(owner) = values.next() else {
        return Ok(None);
    };
    let owner = text(owner)?;
    let incarnation = match owner.as_str() {
        "" => None,
        owner => Some(Incarnation::new(owner).map_err(|e| Failure::Fatal(e.to_string()))?),
    };
    let epoch = Epoch(number(values.next().unwrap_or(Value::Nil))?);
    let acked = id(values.next().unwrap_or(Value::Nil))?;
    let halt = text(values.next().unwrap_or(Value::Nil))?;
    Ok(Some(LeaseView {
        incarnation,
        epoch,
        acked,
        halt: Some(halt).filter(|halt| !halt.is_empty()),
    }))
}
