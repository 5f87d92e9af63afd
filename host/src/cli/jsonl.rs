//! Messages as lines of JSON: `{"key", "payload" or "payload_base64", "attributes": {}}`, both ways.

use std::fmt;
use std::io::{BufRead, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use segmenter_core::message::Content;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::{Map, Value, json};

/// Bytes of one line: a payload of the limit in base64, or escaped, with key and attributes.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: String,
    payload: Option<String>,
    payload_base64: Option<String>,
    #[serde(default)]
    attributes: Attributes,
}

/// In the order of the file; serde_json's map would sort them.
#[derive(Default)]
struct Attributes(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Attributes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attributes, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Attributes(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// What is wrong with one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    pub(super) number: u64,
    pub(super) why: String,
}

/// A message of a file.
pub(super) struct Numbered {
    pub(super) line: u64,
    pub(super) content: Content,
}

/// Lines of a file, one by one, in bounded memory. Blank lines are skipped, and counted.
pub(super) struct Lines<R> {
    input: R,
    number: u64,
    payload_max: usize,
    buffer: Vec<u8>,
    /// Bytes taken from the input.
    pub(super) bytes: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R, payload_max: usize) -> Lines<R> {
        Lines {
            input,
            number: 0,
            payload_max,
            buffer: Vec::new(),
            bytes: 0,
        }
    }

    pub(super) fn next(&mut self) -> Option<Result<Numbered, BadLine>> {
        loop {
            self.buffer.clear();
            self.number += 1;
            let number = self.number;
            let bad = |why: String| Some(Err(BadLine { number, why }));
            let limit = LINE_BYTES_MAX as u64 + 1;
            match (&mut self.input)
                .take(limit)
                .read_until(b'\n', &mut self.buffer)
            {
                Ok(0) => return None,
                Ok(n) => self.bytes += n as u64,
                Err(error) => return bad(format!("reading failed: {error}")),
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return bad(format!("it is longer than {LINE_BYTES_MAX} bytes"));
            }
            if self.buffer.trim_ascii().is_empty() {
                continue;
            }
            return Some(match parse(&self.buffer, self.payload_max) {
                Ok(content) => Ok(Numbered {
                    line: number,
                    content,
                }),
                Err(why) => Err(BadLine { number, why }),
            });
        }
    }
}

fn parse(line: &[u8], payload_max: usize) -> Result<Content, String> {
    let text = std::str::from_utf8(line)
        .map_err(|e| format!("it is not valid UTF-8 (byte {})", e.valid_up_to() + 1))?;
    let line: Line = serde_json::from_str(text).map_err(|e| {
        // The number of the line is ours; serde counts from this line's begin.
        let why = e.to_string();
        let why = why.split(" at line ").next().unwrap_or(&why).to_owned();
        format!("{why} (column {})", e.column())
    })?;
    let payload = match (line.payload, line.payload_base64) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(base64)) => STANDARD
            .decode(&base64)
            .map_err(|e| format!("payload_base64 is no base64: {e}"))?,
        (Some(_), Some(_)) => return Err("it has both payload and payload_base64".to_owned()),
        (None, None) => return Err("it has neither payload nor payload_base64".to_owned()),
    };
    Content::new(line.key, payload, line.attributes.0, payload_max).map_err(|e| e.to_string())
}

/// The way back: what can be sent again as it is.
pub(super) fn content(content: &Content) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("key".to_owned(), json!(content.key()));
    match std::str::from_utf8(content.payload()) {
        Ok(text) => object.insert("payload".to_owned(), json!(text)),
        Err(_) => object.insert(
            "payload_base64".to_owned(),
            json!(STANDARD.encode(content.payload())),
        ),
    };
    let attributes: Map<String, Value> = content
        .attributes()
        .iter()
        .map(|(n, v)| (n.clone(), json!(v)))
        .collect();
    object.insert("attributes".to_owned(), Value::Object(attributes));
    object
}

pub(super) fn text_or_base64(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Result<(u64, Content), BadLine>> {
        let mut lines = Lines::new(text.as_bytes(), 10);
        std::iter::from_fn(|| lines.next())
            .map(|l| l.map(|m| (m.line, m.content)))
            .collect()
    }

    #[test]
    fn a_line_is_a_message_with_its_attributes_in_order() {
        let read = lines(
            "\n{\"key\":\"k\",\"payload\":\"p\",\"attributes\":{\"z\":\"1\",\"a\":\"2\"}}\n\n{\"key\":\"k\",\"payload_base64\":\"/wA=\"}",
        );
        let read: Vec<_> = read.into_iter().map(Result::unwrap).collect();
        assert_eq!((read[0].0, read[1].0), (2, 4));
        let attributes = [
            ("z".to_owned(), "1".to_owned()),
            ("a".to_owned(), "2".to_owned()),
        ];
        assert_eq!(read[0].1.attributes(), attributes);
        assert_eq!(read[1].1.payload(), [0xff, 0]);
    }

    #[test]
    fn a_bad_line_says_why() {
        for (line, says) in [
            ("{", "column 1"),
            ("[]", "column"),
            ("{\"payload\":\"p\"}", "missing field `key`"),
            ("{\"key\":\"k\"}", "neither payload nor payload_base64"),
            (
                "{\"key\":\"k\",\"payload\":\"p\",\"payload_base64\":\"\"}",
                "both payload and",
            ),
            ("{\"key\":\"k\",\"payload_base64\":\"?\"}", "no base64"),
            (
                "{\"key\":\"k\",\"payload\":\"p\",\"colour\":1}",
                "unknown field `colour`",
            ),
            (
                "{\"key\":\"k\",\"payload\":\"12345678901\"}",
                "11 bytes; the limit is 10",
            ),
            (
                "{\"key\":\"k\",\"payload\":\"p\",\"attributes\":{\"a\":\"1\",\"a\":\"2\"}}",
                "given twice",
            ),
            (
                "{\"key\":\"k\",\"payload\":\"p\",\"attributes\":{\"a\":1}}",
                "expected a string",
            ),
        ] {
            let bad = lines(line).remove(0).unwrap_err();
            assert!(
                bad.why.contains(says) && bad.number == 1,
                "{line}: {}",
                bad.why
            );
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for payload in [b"text".to_vec(), vec![0xff, 0x00]] {
            let attributes = vec![("a".to_owned(), "1".to_owned())];
            let message = Content::new("k", payload, attributes, 10).unwrap();
            let line = Value::Object(content(&message)).to_string();
            assert_eq!(lines(&line).remove(0).unwrap().1, message);
        }
    }
}
