//! Whether a shadow did what the live version did with the same message, from the same state. It must not
//! know how either was called.

use std::fmt;

use super::evidence::Differences;
use crate::effects::{Effects, Emit};
use crate::outcome::Outcome;

/// Bytes of a value, a payload or a reason in an example.
const SHOWN_BYTES: usize = 100;

/// In what both differed first, and how; for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    Outcome(String),
    Emitted(String),
    State(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Outcome(how) => write!(f, "outcome: {how}"),
            Difference::Emitted(how) => write!(f, "emitted: {how}"),
            Difference::State(how) => write!(f, "state: {how}"),
        }
    }
}

impl Differences {
    /// One more call. `which` messages it had is asked only for the example.
    pub fn count(&mut self, found: Option<Difference>, which: impl FnOnce() -> String) {
        let counter = match &found {
            None => &mut self.same,
            Some(Difference::Outcome(_)) => &mut self.outcome,
            Some(Difference::Emitted(_)) => &mut self.emitted,
            Some(Difference::State(_)) => &mut self.state,
        };
        *counter = counter.saturating_add(1);
        if let (Some(found), true) = (found, self.example.is_empty()) {
            self.example = format!("{}: {found}", which());
        }
    }
}

/// `None`: the same kind of outcome, of the same message of a batch, the same emitted messages in the same
/// order, the same values under the same names. Texts of a retry or a reject are for people, and may differ. What was cut off says nothing.
pub fn compare(live: &Outcome, shadow: &Outcome) -> Option<Difference> {
    match (live, shadow) {
        (Outcome::Cancelled, _) | (_, Outcome::Cancelled) => None,
        (Outcome::Ok(live), Outcome::Ok(shadow)) => effects(live, shadow),
        (Outcome::Retry { at: live, .. }, Outcome::Retry { at: shadow, .. })
        | (Outcome::Reject { at: live, .. }, Outcome::Reject { at: shadow, .. })
            if live == shadow =>
        {
            None
        }
        (Outcome::Broken { .. }, Outcome::Broken { .. }) => None,
        (live, shadow) => {
            let (live, shadow) = (kind(live), kind(shadow));
            Some(Difference::Outcome(format!("live {live}, shadow {shadow}")))
        }
    }
}

fn kind(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok(_) => "ok".to_owned(),
        Outcome::Retry { at, reason, .. } => {
            format!("retry{} ({})", of(*at), shown(reason.as_bytes()))
        }
        Outcome::Reject { at, reason } => {
            format!("reject{} ({})", of(*at), shown(reason.as_bytes()))
        }
        Outcome::Broken { fault, reason } => {
            format!("{} ({})", fault.as_str(), shown(reason.as_bytes()))
        }
        Outcome::Cancelled => "cancelled".to_owned(),
    }
}

/// Which message of a batch: the first one goes without saying.
fn of(at: usize) -> String {
    match at {
        0 => String::new(),
        at => format!(" of its message {}", at + 1),
    }
}

fn effects(live: &Effects, shadow: &Effects) -> Option<Difference> {
    if live.emits != shadow.emits {
        let mut pairs = live.emits.iter().zip(&shadow.emits).zip(1..);
        let differs = pairs.find(|((live, shadow), _)| live != shadow);
        return Some(Difference::Emitted(match differs {
            Some(((live, shadow), n)) => {
                let (live, shadow) = apart(live, shadow);
                format!("message {n}: live {live}, shadow {shadow}")
            }
            None => {
                let (live, shadow) = (live.emits.len(), shadow.emits.len());
                format!("live {live} messages, shadow {shadow}")
            }
        }));
    }
    // The first by name, in either.
    let names = live.state.keys().chain(shadow.state.keys());
    let differs = names.filter(|name| live.state.get(*name) != shadow.state.get(*name));
    differs.min().map(|name| {
        let (live, shadow) = (live.state.get(name), shadow.state.get(name));
        let (live, shadow) = (written(live), written(shadow));
        let name = shown(name.as_bytes());
        Difference::State(format!("{name}: live {live}, shadow {shadow}"))
    })
}

/// What tells two messages from each other that are not the same.
fn apart(live: &Emit, shadow: &Emit) -> (String, String) {
    let (a, b) = (&live.content, &shadow.content);
    let both = |part: &str, live: &[u8], shadow: &[u8]| {
        let told = |bytes| format!("{part} {}", shown(bytes));
        (told(live), told(shadow))
    };
    if live.to != shadow.to {
        return (format!("to {}", live.to), format!("to {}", shadow.to));
    }
    if a.key() != b.key() {
        return both("key", a.key().as_bytes(), b.key().as_bytes());
    }
    if a.payload() != b.payload() {
        return both("payload", a.payload(), b.payload());
    }
    let attributes = |pairs: &[(String, String)]| format!("{pairs:?}");
    let (a, b) = (attributes(a.attributes()), attributes(b.attributes()));
    both("attributes", a.as_bytes(), b.as_bytes())
}

fn written(value: Option<&Option<Vec<u8>>>) -> String {
    match value {
        None => "wrote nothing".to_owned(),
        Some(None) => "deleted it".to_owned(),
        Some(Some(value)) => shown(value),
    }
}

fn shown(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let text = format!("{:?}", String::from_utf8_lossy(start));
    match bytes.len() - start.len() {
        0 => text,
        more => format!("{text} and {more} bytes more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Content;
    use crate::outcome::Fault;

    fn emit(to: &str, key: &str, payload: &str, attributes: &[(&str, &str)]) -> Emit {
        let attributes = attributes.iter();
        let attributes = attributes.map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let payload = payload.as_bytes().to_vec();
        Emit {
            to: to.parse().unwrap(),
            content: Content::new(key, payload, attributes.collect(), 1_000).unwrap(),
        }
    }

    fn ok(emits: &[Emit], state: &[(&str, Option<&str>)]) -> Outcome {
        let state = state.iter().map(|(name, value)| {
            let value = value.map(|value| value.as_bytes().to_vec());
            ((*name).to_owned(), value)
        });
        Outcome::Ok(Effects {
            state: state.collect(),
            emits: emits.to_vec(),
        })
    }

    fn failed() -> [Outcome; 3] {
        let reason = "why".to_owned();
        [
            Outcome::Retry {
                at: 0,
                reason: reason.clone(),
                after: None,
            },
            Outcome::Reject {
                at: 0,
                reason: reason.clone(),
            },
            Outcome::Broken {
                fault: Fault::Trap,
                reason,
            },
        ]
    }

    #[test]
    fn kinds_of_outcome_are_compared_and_their_texts_are_not() {
        let mut all = failed().to_vec();
        all.push(ok(&[], &[]));
        for (i, live) in all.iter().enumerate() {
            for (j, shadow) in all.iter().enumerate() {
                let found = compare(live, shadow);
                let differ = matches!(found, Some(Difference::Outcome(_)));
                assert_eq!(differ, i != j, "{live:?} {shadow:?}: {found:?}");
                assert_eq!(found.is_none(), i == j);
            }
            assert_eq!(compare(live, &Outcome::Cancelled), None);
            assert_eq!(compare(&Outcome::Cancelled, live), None);
        }
        let (fault, reason) = (Fault::Deadline, "other".to_owned());
        let other = Outcome::Broken { fault, reason };
        assert_eq!(compare(&all[2], &other), None);
        let found = compare(&all[3], &other).expect("they differ");
        assert_eq!(
            found.to_string(),
            "outcome: live ok, shadow deadline (\"other\")"
        );
    }

    #[test]
    fn whatever_differs_in_a_message_is_found_and_named() {
        let one = emit("out", "k", "p", &[("a", "1"), ("b", "2")]);
        let live = ok(std::slice::from_ref(&one), &[]);
        assert_eq!(compare(&live, &live.clone()), None);
        let swapped = emit("out", "k", "p", &[("b", "2"), ("a", "1")]);
        for (shadow, says) in [
            (vec![], "live 1 messages, shadow 0"),
            (vec![one.clone(), one.clone()], "live 1 messages, shadow 2"),
            (
                vec![emit("else", "k", "p", &[("a", "1"), ("b", "2")])],
                "message 1: live to out, shadow to else",
            ),
            (
                vec![emit("out", "K", "p", &[("a", "1"), ("b", "2")])],
                "message 1: live key \"k\", shadow key \"K\"",
            ),
            (
                vec![emit("out", "k", "P", &[("a", "1"), ("b", "2")])],
                "message 1: live payload \"p\", shadow payload \"P\"",
            ),
            (vec![swapped], "message 1: live attributes"),
        ] {
            // Also where state differs, too: the first in order is told.
            let shadow = ok(&shadow, &[("n", None)]);
            match compare(&live, &shadow) {
                Some(Difference::Emitted(how)) => assert!(how.starts_with(says), "{how}"),
                other => panic!("{says}: {other:?}"),
            }
        }
        let two = emit("out", "k2", "p", &[]);
        let (live, shadow) = (ok(&[one.clone(), two.clone()], &[]), ok(&[two, one], &[]));
        assert!(matches!(
            compare(&live, &shadow),
            Some(Difference::Emitted(_))
        ));
    }

    #[test]
    fn names_and_values_are_compared_and_what_was_not_written_is_no_deletion() {
        let live = ok(&[], &[("a", Some("1")), ("b", None)]);
        assert_eq!(compare(&live, &live.clone()), None);
        for (shadow, how) in [
            (
                vec![("a", Some("2")), ("b", None)],
                "\"a\": live \"1\", shadow \"2\"",
            ),
            (vec![("b", None)], "\"a\": live \"1\", shadow wrote nothing"),
            (
                vec![("a", Some("1"))],
                "\"b\": live deleted it, shadow wrote nothing",
            ),
            (
                vec![("a", Some("1")), ("b", None), ("c", Some(""))],
                "\"c\": live wrote nothing, shadow \"\"",
            ),
        ] {
            let found = compare(&live, &ok(&[], &shadow));
            assert_eq!(found, Some(Difference::State(how.to_owned())));
        }
    }

    #[test]
    fn the_first_that_differs_is_the_example_and_a_long_value_is_cut() {
        let live = ok(&[], &[("a", Some("1"))]);
        let long = "ä".repeat(500);
        let shadow = ok(&[], &[("a", Some(&long))]);
        let mut all = Differences::default();
        all.count(compare(&live, &live.clone()), || panic!("it is the same"));
        all.count(compare(&live, &shadow), || "message 1".to_owned());
        all.count(compare(&live, &failed()[0]), || panic!("there is one"));
        let Differences {
            same,
            outcome,
            emitted,
            state,
            example,
        } = &all;
        assert_eq!((*same, *outcome, *emitted, *state), (1, 1, 0, 1));
        assert!(example.starts_with("message 1: state: \"a\": live \"1\""));
        assert!(example.ends_with("and 900 bytes more"), "{example}");
        assert!(example.len() < crate::limits::EXAMPLE_BYTES_MAX);
        assert_eq!(all.differed(), 2);
    }
}
