//! `run --calls`: each call with its message and what it came to. For people who write a handler, and for
//! `dev`. What is shown of bytes is bounded; it must not decide anything.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use segmenter_core::batch::Batch;
use segmenter_core::effects::{Effects, Emit};
use segmenter_core::message::{Content, Message};
use segmenter_core::outcome::Outcome;
use segmenter_core::time::Duration;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::output::preview;

/// Bytes of a payload or a value that are shown.
const BYTES_SHOWN: usize = 4 * 1024;
/// Emitted messages, and changed values, of one call that are shown.
const EFFECTS_SHOWN: usize = 100;
/// Characters of a text in a sentence.
const PREVIEW_CHARS: usize = 60;

/// A message that a call has decided.
#[derive(Debug, Serialize)]
pub struct Call<'a> {
    handler: &'a str,
    stream: &'a str,
    partition: u32,
    id: String,
    attempt: u32,
    #[serde(flatten)]
    message: Shown<'a>,
    version: &'a str,
    outcome: &'static str,
    reason: Option<&'a str>,
    after_ms: Option<u64>,
    emitted: Vec<Emitted<'a>>,
    /// What it changed; null: deleted.
    state: BTreeMap<&'a str, Option<Bytes<'a>>>,
    /// Emitted messages and changed values that are not shown.
    #[serde(skip_serializing_if = "is_zero")]
    more: usize,
    took_us: u64,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    key: &'a str,
    payload: Bytes<'a>,
    #[serde(serialize_with = "in_order")]
    attributes: &'a [(String, String)],
}

#[derive(Debug, Serialize)]
struct Emitted<'a> {
    to: &'a str,
    #[serde(flatten)]
    message: Shown<'a>,
}

/// A text if it is one and whole, else an object that says what it is.
#[derive(Debug)]
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = &self.0[..self.0.len().min(BYTES_SHOWN)];
        let cut = bytes.len() < self.0.len();
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Some(text),
            // Cut in the middle of a character.
            Err(e) if cut && e.error_len().is_none() => {
                std::str::from_utf8(&bytes[..e.valid_up_to()]).ok()
            }
            Err(_) => None,
        };
        if let (Some(text), false) = (text, cut) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(None)?;
        match text {
            Some(text) => map.serialize_entry("text", text)?,
            None => map.serialize_entry("base64", &STANDARD.encode(bytes))?,
        }
        if cut {
            map.serialize_entry("of_bytes", &self.0.len())?;
        }
        map.end()
    }
}

fn in_order<S: Serializer>(pairs: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

impl<'a> Shown<'a> {
    fn of(content: &'a Content) -> Shown<'a> {
        Shown {
            key: content.key(),
            payload: Bytes(content.payload()),
            attributes: content.attributes(),
        }
    }
}

impl<'a> Call<'a> {
    /// Of each message of a call that it has decided: a batch has no effects.
    pub(super) fn of(
        names: (&'a str, &'a str, &'a str),
        messages: &'a Batch,
        outcome: &'a Outcome,
        took: Duration,
    ) -> impl Iterator<Item = Call<'a>> {
        let decided = messages.iter().take(outcome.decided(messages.count()));
        let calls = decided.enumerate();
        calls.map(move |(n, message)| Call::one(names, (n, message), outcome, took))
    }

    fn one(
        (handler, stream, version): (&'a str, &'a str, &'a str),
        (n, message): (usize, &'a Message),
        outcome: &'a Outcome,
        took: Duration,
    ) -> Call<'a> {
        let (kind, reason, after) = match outcome {
            Outcome::Retry { at, reason, after } if *at == n => ("retry", Some(reason), *after),
            Outcome::Reject { at, reason } if *at == n => ("reject", Some(reason), None),
            Outcome::Broken { fault, reason } => (fault.as_str(), Some(reason), None),
            // Those before the one that was not acked are.
            _ => ("ok", None, None),
        };
        let (mut emitted, mut state, mut more) = (Vec::new(), BTreeMap::new(), 0);
        if let Outcome::Ok(Effects {
            state: changed,
            emits,
        }) = outcome
        {
            let shown = emits.iter().take(EFFECTS_SHOWN);
            emitted = shown
                .map(|Emit { to, content }| Emitted {
                    to: to.as_str(),
                    message: Shown::of(content),
                })
                .collect();
            let shown = changed.iter().take(EFFECTS_SHOWN);
            state = shown
                .map(|(name, value)| (name.as_str(), value.as_deref().map(Bytes)))
                .collect();
            more = emits.len() - emitted.len() + changed.len() - state.len();
        }
        Call {
            handler,
            stream,
            partition: message.partition.0,
            id: message.id.to_string(),
            attempt: message.attempt,
            message: Shown::of(&message.content),
            version,
            outcome: kind,
            reason: reason.map(String::as_str),
            after_ms: after.map(|after| after.as_millis() as u64),
            emitted,
            state,
            more,
            took_us: took.as_micros() as u64,
        }
    }

    pub(super) fn sentence(&self) -> String {
        let Call {
            handler,
            partition,
            id,
            attempt,
            message,
            outcome,
            reason,
            took_us,
            ..
        } = self;
        let key = preview(message.key, PREVIEW_CHARS);
        let mut text = format!(
            "{handler}: partition {partition} message {id} key {key:?} attempt {attempt}: {outcome} in {took_us} µs"
        );
        if let Some(reason) = reason {
            text = format!("{text}: {reason}");
        }
        for Emitted { to, message } in &self.emitted {
            let key = preview(message.key, PREVIEW_CHARS);
            text = format!("{text}; emitted to {to} key {key:?}");
        }
        for name in self.state.keys() {
            text = format!("{text}; changed {:?}", preview(name, PREVIEW_CHARS));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> serde_json::Value {
        serde_json::to_value(Bytes(bytes)).unwrap()
    }

    #[test]
    fn bytes_are_a_text_where_they_are_one_and_say_so_where_they_are_cut() {
        assert_eq!(shown(b"text"), "text");
        assert_eq!(shown(b"\xff"), serde_json::json!({"base64": "/w=="}));
        let long = "ä".repeat(BYTES_SHOWN);
        let cut = shown(&[b"x", long.as_bytes()].concat());
        assert_eq!(cut["of_bytes"], 2 * BYTES_SHOWN + 1);
        let text = cut["text"].as_str().unwrap();
        assert_eq!(text.len(), BYTES_SHOWN - 1, "no half of a character");
        let cut = shown(&vec![0xff; BYTES_SHOWN + 1]);
        assert!(cut["base64"].is_string() && cut["of_bytes"].is_u64());
    }
}
