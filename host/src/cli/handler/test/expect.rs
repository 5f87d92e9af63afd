//! What a line of samples expects of its message, and in what a call fell short of it. Knows how both are
//! written; must not know how a message is called nor how a difference is shown.
//!
//! What is not named is not compared, with one exception: whoever names no outcome expects `ok`, because a
//! handler that traps would else pass a test that forgot to say so.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use segmenter_core::effects::Emit;
use segmenter_core::message::Content;
use segmenter_core::outcome::{Fault, Outcome};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    outcome: Option<Kind>,
    /// Occurs in the reason.
    reason: Option<String>,
    after_ms: Option<u64>,
    /// All of them, in order.
    emitted: Option<Vec<Emitted>>,
    /// After the call.
    #[serde(default)]
    state: BTreeMap<String, Kept>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Ok,
    Retry,
    Reject,
    Trap,
    Deadline,
    Memory,
    Instantiate,
    Answer,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, try_from = "RawEmitted")]
struct Emitted {
    to: Option<String>,
    key: Option<String>,
    payload: Option<Vec<u8>>,
    /// None: it has no such attribute.
    attributes: BTreeMap<String, Option<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEmitted {
    to: Option<String>,
    key: Option<String>,
    payload: Option<String>,
    payload_base64: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, Option<String>>,
}

impl TryFrom<RawEmitted> for Emitted {
    type Error = String;
    fn try_from(raw: RawEmitted) -> Result<Emitted, String> {
        let payload = match (raw.payload, raw.payload_base64) {
            (Some(_), Some(_)) => {
                return Err("an emitted message has both payload and payload_base64".to_owned());
            }
            (text, None) => text.map(String::into_bytes),
            (None, Some(base64)) => Some(decoded("payload_base64", &base64)?),
        };
        Ok(Emitted {
            to: raw.to,
            key: raw.key,
            payload,
            attributes: raw.attributes,
        })
    }
}

/// A value of state; none: there is none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawKept")]
pub(super) struct Kept(pub(super) Option<Vec<u8>>);

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a value of state is a text, {\"base64\": \"…\"} or null"
)]
enum RawKept {
    Absent(()),
    Text(String),
    Bytes(Base64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64 {
    base64: String,
}

impl TryFrom<RawKept> for Kept {
    type Error = String;
    fn try_from(raw: RawKept) -> Result<Kept, String> {
        Ok(Kept(match raw {
            RawKept::Absent(()) => None,
            RawKept::Text(text) => Some(text.into_bytes()),
            RawKept::Bytes(Base64 { base64 }) => Some(decoded("base64", &base64)?),
        }))
    }
}

fn decoded(what: &str, base64: &str) -> Result<Vec<u8>, String> {
    STANDARD
        .decode(base64)
        .map_err(|e| format!("{what} is no base64: {e}"))
}

/// One thing that was expected and is otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// `outcome`, `emitted 2 payload`, `state "total"`.
    pub(super) what: String,
    pub(super) expected: Value,
    pub(super) actual: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Of ours: it is shown as it is.
    Word(String),
    Bytes(Vec<u8>),
    Nothing,
}

impl Value {
    fn word(word: impl ToString) -> Value {
        Value::Word(word.to_string())
    }
    fn text(text: &str) -> Value {
        Value::Bytes(text.as_bytes().to_vec())
    }
    fn of(bytes: Option<&[u8]>) -> Value {
        bytes.map_or(Value::Nothing, |bytes| Value::Bytes(bytes.to_vec()))
    }
}

/// How an outcome is called.
pub(super) fn kind(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Ok(_) => "ok",
        Outcome::Retry { .. } => "retry",
        Outcome::Reject { .. } => "reject",
        Outcome::Broken { fault, .. } => fault.as_str(),
        Outcome::Cancelled => "cancelled",
    }
}

pub(super) fn reason(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Ok(_) | Outcome::Cancelled => None,
        Outcome::Retry { reason, .. }
        | Outcome::Reject { reason, .. }
        | Outcome::Broken { reason, .. } => Some(reason),
    }
}

/// The handler's own wish.
pub(super) fn after_ms(outcome: &Outcome) -> Option<u64> {
    match outcome {
        Outcome::Retry { after, .. } => after.map(|after| after.as_millis() as u64),
        _ => None,
    }
}

pub(super) fn emitted(outcome: &Outcome) -> &[Emit] {
    match outcome {
        Outcome::Ok(effects) => &effects.emits,
        _ => &[],
    }
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Ok => "ok",
            Kind::Retry => "retry",
            Kind::Reject => "reject",
            Kind::Trap => Fault::Trap.as_str(),
            Kind::Deadline => Fault::Deadline.as_str(),
            Kind::Memory => Fault::Memory.as_str(),
            Kind::Instantiate => Fault::Instantiate.as_str(),
            Kind::Answer => Fault::Answer.as_str(),
        }
    }
}

impl Expect {
    /// In what a call that came to `outcome`, and left this state, is otherwise.
    pub(super) fn compare(
        &self,
        outcome: &Outcome,
        state: &BTreeMap<String, Vec<u8>>,
    ) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut differs = |what: String, expected: Value, actual: Value| {
            if expected != actual {
                found.push(Difference {
                    what,
                    expected,
                    actual,
                });
            }
        };
        let expected = self.outcome.unwrap_or(Kind::Ok).as_str();
        if kind(outcome) != expected {
            // What else is otherwise follows from that.
            let is = Value::word(kind(outcome));
            differs("outcome".to_owned(), Value::word(expected), is);
            return found;
        }
        if let Some(part) = &self.reason {
            let reason = reason(outcome);
            if !reason.is_some_and(|reason| reason.contains(part)) {
                let (part, reason) = (Value::text(part), Value::of(reason.map(str::as_bytes)));
                differs("reason, in which must be".to_owned(), part, reason);
            }
        }
        if let Some(ms) = self.after_ms {
            let after = after_ms(outcome).map_or(Value::Nothing, Value::word);
            differs("after_ms".to_owned(), Value::word(ms), after);
        }
        if let Some(expected) = &self.emitted {
            let actual = emitted(outcome);
            for (n, (expected, actual)) in (1..).zip(expected.iter().zip(actual)) {
                expected.compare(n, actual, &mut differs);
            }
            let (all, has) = (expected.len(), actual.len());
            differs(
                "emitted messages".to_owned(),
                Value::word(all),
                Value::word(has),
            );
        }
        for (name, Kept(value)) in &self.state {
            let actual = state.get(name).map(Vec::as_slice);
            let what = format!("state {name:?}");
            differs(what, Value::of(value.as_deref()), Value::of(actual));
        }
        found
    }
}

impl Emitted {
    /// With the one in the same place.
    fn compare(&self, n: usize, actual: &Emit, differs: &mut impl FnMut(String, Value, Value)) {
        let content: &Content = &actual.content;
        if let Some(to) = &self.to {
            let is = Value::text(actual.to.as_str());
            differs(format!("emitted {n} to"), Value::text(to), is);
        }
        if let Some(key) = &self.key {
            let is = Value::text(content.key());
            differs(format!("emitted {n} key"), Value::text(key), is);
        }
        if let Some(payload) = &self.payload {
            let is = Value::of(Some(content.payload()));
            let payload = Value::of(Some(payload));
            differs(format!("emitted {n} payload"), payload, is);
        }
        for (name, value) in &self.attributes {
            let mut all = content.attributes().iter();
            let is = all.find(|(has, _)| has == name);
            let is = Value::of(is.map(|(_, value)| value.as_bytes()));
            let value = Value::of(value.as_ref().map(|value| value.as_bytes()));
            differs(format!("emitted {n} attribute {name:?}"), value, is);
        }
    }
}

#[cfg(test)]
mod tests {
    use segmenter_core::effects::Effects;
    use segmenter_core::time::Duration;

    use super::*;

    fn emit(to: &str, key: &str, payload: &[u8]) -> Emit {
        let attributes = vec![("a".to_owned(), "1".to_owned())];
        Emit {
            to: to.parse().unwrap(),
            content: Content::new(key, payload.to_vec(), attributes, 1_000).unwrap(),
        }
    }

    fn ok() -> Outcome {
        Outcome::Ok(Effects {
            state: BTreeMap::new(),
            emits: vec![emit("out", "k", b"p"), emit("out", "l", b"\xff")],
        })
    }

    fn found(expect: &str, outcome: &Outcome) -> Vec<String> {
        let expect: Expect = serde_json::from_str(expect).unwrap();
        let state = BTreeMap::from([("n".to_owned(), b"7".to_vec())]);
        let found = expect.compare(outcome, &state);
        found
            .into_iter()
            .map(|difference| difference.what)
            .collect()
    }

    #[test]
    fn what_is_not_named_is_not_compared_but_that_it_is_ok() {
        let retry = Outcome::Retry {
            at: 0,
            reason: "the base is away".to_owned(),
            after: Some(Duration::from_millis(500)),
        };
        for expect in ["{}", r#"{"state": {"n": "7"}}"#] {
            assert!(found(expect, &ok()).is_empty());
            assert_eq!(found(expect, &retry), ["outcome"]);
        }
        for expect in [
            r#"{"outcome": "retry"}"#,
            r#"{"outcome": "retry", "reason": "base", "after_ms": 500, "emitted": []}"#,
        ] {
            assert!(found(expect, &retry).is_empty(), "{expect}");
        }
        let wrong = r#"{"outcome": "retry", "reason": "bass", "after_ms": 5}"#;
        let all = ["reason, in which must be", "after_ms"];
        assert_eq!(found(wrong, &retry), all);
        let other = r#"{"outcome": "reject", "reason": "bass", "state": {"n": null}}"#;
        assert_eq!(found(other, &retry), ["outcome"]);
        let broken = Outcome::Broken {
            fault: Fault::Deadline,
            reason: String::new(),
        };
        assert!(found(r#"{"outcome": "deadline"}"#, &broken).is_empty());
        assert_eq!(found(r#"{"outcome": "trap"}"#, &broken), ["outcome"]);
        assert_eq!(
            found(r#"{"reason": ""}"#, &ok()),
            ["reason, in which must be"]
        );
    }

    #[test]
    fn emitted_messages_and_state_are_compared_by_what_is_named_of_them() {
        for expect in [
            r#"{"emitted": [{}, {"key": "l"}]}"#,
            r#"{"emitted": [{"to": "out", "key": "k", "payload": "p"}, {"payload_base64": "/w=="}]}"#,
            r#"{"emitted": [{"attributes": {"a": "1", "b": null}}, {}]}"#,
            r#"{"state": {"n": {"base64": "Nw=="}, "m": null}}"#,
        ] {
            assert!(found(expect, &ok()).is_empty(), "{expect}");
        }
        for (expect, what) in [
            (r#"{"emitted": []}"#, vec!["emitted messages"]),
            (r#"{"emitted": [{}, {}, {}]}"#, vec!["emitted messages"]),
            (
                r#"{"emitted": [{"to": "in"}, {"key": "k"}]}"#,
                vec!["emitted 1 to", "emitted 2 key"],
            ),
            (
                r#"{"emitted": [{"payload": "P"}, {"attributes": {"a": null}}]}"#,
                vec!["emitted 1 payload", "emitted 2 attribute \"a\""],
            ),
            (r#"{"state": {"n": null}}"#, vec!["state \"n\""]),
            (r#"{"state": {"m": ""}}"#, vec!["state \"m\""]),
        ] {
            assert_eq!(found(expect, &ok()), what, "{expect}");
        }
    }

    #[test]
    fn what_is_written_wrongly_is_told() {
        for (expect, says) in [
            (r#"{"outcom": "ok"}"#, "unknown field `outcom`"),
            (r#"{"outcome": "fine"}"#, "unknown variant `fine`"),
            (
                r#"{"state": {"n": 7}}"#,
                "a text, {\"base64\": \"…\"} or null",
            ),
            (r#"{"state": {"n": {"base64": "?"}}}"#, "no base64"),
            (
                r#"{"emitted": [{"payload": "", "payload_base64": ""}]}"#,
                "both",
            ),
            (r#"{"emitted": [{"too": "x"}]}"#, "unknown field `too`"),
        ] {
            let error = serde_json::from_str::<Expect>(expect).unwrap_err();
            assert!(error.to_string().contains(says), "{expect}: {error}");
        }
    }
}
