//! Messages as lines of JSON: `{"key", "payload" or "payload_base64", "attributes": {}}`, both ways; on the
//! way in perhaps with `"id"`, the number that its producer gave it, and with `"expect"`, what a test expects
//! of it.

use std::fmt;
use std::io::{BufRead, BufReader, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use segmenter_core::entry::Fields;
use segmenter_core::message::Content;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::numbers::Numbers;

/// Bytes of one line: a payload of the limit in base64, or escaped, with key and attributes.
fn line_bytes_max(payload_max: usize) -> usize {
    // `\u0000` for each, in the worst case.
    10 * 1024 * 1024 + 6 * payload_max
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<E> {
    id: Option<u64>,
    key: String,
    payload: Option<String>,
    payload_base64: Option<String>,
    #[serde(default)]
    attributes: Attributes,
    expect: Option<E>,
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
    /// That its producer gave it.
    pub(super) id: Option<u64>,
    pub(super) content: Content,
}

/// Lines of a file, one by one, in bounded memory. Blank lines are skipped, and counted.
pub(super) struct Lines<R> {
    input: BufReader<R>,
    number: u64,
    ids: Numbers,
    buffer: Vec<u8>,
    pub(super) bytes_read: u64,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: BufReader<R>, ids: Numbers) -> Lines<R> {
        Lines {
            input,
            number: 0,
            ids,
            buffer: Vec::new(),
            bytes_read: 0,
        }
    }

    /// `payload_max`: bytes, inclusive.
    pub(super) fn next(&mut self, payload_max: usize) -> Option<Result<Numbered, BadLine>> {
        let next = self.next_expecting::<IgnoredAny>(payload_max)?;
        Some(next.map(|(message, _)| message))
    }

    /// And what is expected of it, if that is said.
    pub(super) fn next_expecting<E: DeserializeOwned>(
        &mut self,
        payload_max: usize,
    ) -> Option<Result<(Numbered, Option<E>), BadLine>> {
        loop {
            self.buffer.clear();
            self.number += 1;
            let number = self.number;
            let bad = |why: String| Some(Err(BadLine { number, why }));
            let most = line_bytes_max(payload_max);
            let limit = most as u64 + 1;
            match (&mut self.input)
                .take(limit)
                .read_until(b'\n', &mut self.buffer)
            {
                Ok(0) => return None,
                Ok(n) => self.bytes_read += n as u64,
                Err(error) => return bad(format!("reading failed: {error}")),
            }
            if self.buffer.len() > most {
                return bad(format!("it is longer than {most} bytes"));
            }
            if self.buffer.trim_ascii().is_empty() {
                continue;
            }
            let message = parse(&self.buffer, payload_max).and_then(|(id, content, expect)| {
                let id = self.ids.next(number, id)?;
                let line = number;
                Ok((Numbered { line, id, content }, expect))
            });
            return Some(message.map_err(|why| BadLine { number, why }));
        }
    }

    /// Whether the next line can be had without waiting for input. Blank lines may deceive it.
    pub(super) fn has_next_at_hand(&self) -> bool {
        self.input.buffer().contains(&b'\n')
    }
}

type Parsed<E> = (Option<u64>, Content, Option<E>);

fn parse<E: DeserializeOwned>(line: &[u8], payload_max: usize) -> Result<Parsed<E>, String> {
    // With its line feed, what is missing at the end would be told as column 0 of a next line.
    let line = line.trim_ascii_end();
    let text = std::str::from_utf8(line)
        .map_err(|e| format!("it is not valid UTF-8 (byte {})", e.valid_up_to() + 1))?;
    let line: Line<E> = serde_json::from_str(text).map_err(|e| {
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
    Content::new(line.key, payload, line.attributes.0, payload_max)
        .map(|content| (line.id, content, line.expect))
        .map_err(|e| e.to_string())
}

/// The way back: what can be sent again as it is. Attributes keep their order.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(serialize_with = "in_order")]
    attributes: &'a [(String, String)],
}

impl<'a> Shown<'a> {
    pub(super) fn of(content: &'a Content) -> Shown<'a> {
        let payload = std::str::from_utf8(content.payload()).ok();
        Shown {
            key: content.key(),
            payload,
            payload_base64: match payload {
                Some(_) => None,
                None => Some(STANDARD.encode(content.payload())),
            },
            attributes: content.attributes(),
        }
    }
}

fn in_order<S: Serializer>(pairs: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

/// The fields of an entry that is none of ours.
pub(super) fn foreign(fields: &Fields) -> Value {
    let pair =
        |(name, value): &(Vec<u8>, Vec<u8>)| json!([text_or_base64(name), text_or_base64(value)]);
    fields.iter().map(pair).collect()
}

fn text_or_base64(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Result<(u64, Content), BadLine>> {
        let mut lines = Lines::new(BufReader::new(text.as_bytes()), Numbers::None);
        std::iter::from_fn(|| lines.next(10))
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
    fn what_a_test_expects_is_nothing_to_whoever_sends() {
        let text = r#"{"key":"k","payload":"p","expect":{"outcome":"ok","what":["ever"]}}"#;
        assert_eq!(lines(text)[0].as_ref().unwrap().1.payload(), b"p");
        let mut read = Lines::new(BufReader::new(text.as_bytes()), Numbers::None);
        let (message, expect) = read.next_expecting::<Value>(10).unwrap().unwrap();
        assert_eq!(
            (message.line, &expect.unwrap()["outcome"]),
            (1, &json!("ok"))
        );
    }

    #[test]
    fn a_line_that_ends_too_early_is_told_with_the_column_where_it_ends() {
        for end in ["", "\n", "\r\n"] {
            let read = lines(&format!("{{\"key\":\"k\",\"payload\":{end}"));
            let bad = read[0].as_ref().unwrap_err();
            assert!(
                bad.why.contains("EOF") && bad.why.ends_with("(column 21)"),
                "{}",
                bad.why
            );
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for payload in [b"text".to_vec(), vec![0xff, 0x00]] {
            let attributes = ["z", "a", "m"].map(|name| (name.to_owned(), "1".to_owned()));
            let message = Content::new("k", payload, attributes.to_vec(), 10).unwrap();
            let line = serde_json::to_string(&Shown::of(&message)).unwrap();
            assert_eq!(lines(&line).remove(0).unwrap().1, message);
        }
    }
}
