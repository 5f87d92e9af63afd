//! What a handler's call changes through the host: state and emitted messages. Collected during the call,
//! applied with the ack in one commit, or dropped without a trace. Pure: it must not know where state
//! lies, nor how an emitted message travels.
//!
//! The owner of a partition is the only writer of its state, so what was once read or written is right
//! for as long as the lease is held: [`State`] is that memory, [`Draft`] what one call has changed.

use std::collections::BTreeMap;

use crate::limits;
use crate::message::Content;
use crate::names::StreamName;

/// The state of one partition of one group, as of the last call that ended well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    values: BTreeMap<String, Vec<u8>>,
    /// Names and values.
    bytes: usize,
}

/// How much a handler may keep and emit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EffectLimits {
    /// Bytes of one value.
    pub value_bytes: usize,
    /// Bytes of all names and values of one partition.
    pub state_bytes: usize,
    /// Messages that one call emits.
    pub emits: usize,
    /// Bytes of all messages that one call emits.
    pub emit_bytes: usize,
}

impl Default for EffectLimits {
    fn default() -> EffectLimits {
        EffectLimits {
            value_bytes: limits::STATE_VALUE_BYTES,
            state_bytes: limits::STATE_BYTES,
            emits: limits::EMITS_PER_CALL,
            emit_bytes: limits::EMIT_BYTES_PER_CALL,
        }
    }
}

/// Why state was not changed. As `state-error` of the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("the name or value exceeds {0} bytes")]
    TooLarge(u64),
    #[error("the partition's state exceeds {0} bytes")]
    Full(u64),
    #[error("the value is no decimal 64-bit number, or the sum is none")]
    NotANumber,
}

/// Why a message was not emitted. As `emit-error` of the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    #[error("the message, or all of this call, exceeds {0} bytes")]
    TooLarge(u64),
    #[error("one call may emit {0} messages")]
    TooMany(u32),
}

/// A message for another stream. Its place among the emits of its source is its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emit {
    pub to: StreamName,
    pub content: Content,
}

/// What one call changed, once it ended well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// New values; `None`: deleted.
    pub state: BTreeMap<String, Option<Vec<u8>>>,
    /// In the order of the calls.
    pub emits: Vec<Emit>,
}

impl Effects {
    pub fn is_empty(&self) -> bool {
        self.state.is_empty() && self.emits.is_empty()
    }

    /// What they take in memory and in a commit.
    pub fn bytes(&self) -> usize {
        let state = self
            .state
            .iter()
            .map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
        let emits = self.emits.iter().map(|e| e.content.bytes());
        state.chain(emits).sum()
    }

    /// These, then `later` ones: absolute values, so the later one counts.
    pub fn then(&mut self, later: Effects) {
        self.state.extend(later.state);
        self.emits.extend(later.emits);
    }
}

impl State {
    /// Of what was read.
    pub fn of(values: BTreeMap<String, Vec<u8>>) -> State {
        let bytes = values.iter().map(|(n, v)| n.len() + v.len()).sum();
        State { values, bytes }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes over what a call changed.
    pub fn apply(&mut self, changes: &BTreeMap<String, Option<Vec<u8>>>) {
        for (name, value) in changes {
            let before = match value {
                Some(value) => {
                    self.bytes += name.len() + value.len();
                    self.values.insert(name.clone(), value.clone())
                }
                None => self.values.remove(name),
            };
            self.bytes -= before.map_or(0, |before| name.len() + before.len());
        }
    }
}

/// What one call has changed so far, over the state as it was before.
#[derive(Debug, Default)]
pub struct Draft {
    effects: Effects,
    emit_bytes: usize,
}

impl Draft {
    pub fn get<'a>(&'a self, state: &'a State, name: &str) -> Option<&'a [u8]> {
        match self.effects.state.get(name) {
            Some(changed) => changed.as_deref(),
            None => state.values.get(name).map(Vec::as_slice),
        }
    }

    pub fn set(
        &mut self,
        state: &State,
        limits: &EffectLimits,
        name: &str,
        value: Vec<u8>,
    ) -> Result<(), StateError> {
        if name.len() > limits::STATE_NAME_BYTES_MAX {
            return Err(StateError::TooLarge(limits::STATE_NAME_BYTES_MAX as u64));
        }
        if value.len() > limits.value_bytes {
            return Err(StateError::TooLarge(limits.value_bytes as u64));
        }
        let before = self.effects.state.insert(name.to_owned(), Some(value));
        if self.bytes(state) > limits.state_bytes {
            match before {
                Some(before) => self.effects.state.insert(name.to_owned(), before),
                None => self.effects.state.remove(name),
            };
            return Err(StateError::Full(limits.state_bytes as u64));
        }
        Ok(())
    }

    /// Whether there was a value.
    pub fn delete(&mut self, state: &State, name: &str) -> bool {
        let existed = self.get(state, name).is_some();
        if existed {
            self.effects.state.insert(name.to_owned(), None);
        }
        existed
    }

    /// The new value; a missing one counts as 0.
    pub fn increment(
        &mut self,
        state: &State,
        limits: &EffectLimits,
        name: &str,
        by: i64,
    ) -> Result<i64, StateError> {
        let old = match self.get(state, name) {
            None => 0,
            Some(text) => std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .ok_or(StateError::NotANumber)?,
        };
        let new = old.checked_add(by).ok_or(StateError::NotANumber)?;
        self.set(state, limits, name, new.to_string().into_bytes())?;
        Ok(new)
    }

    /// Names above `after`, in byte order, at most `limit`.
    pub fn names(&self, state: &State, after: Option<&str>, limit: usize) -> Vec<String> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = || (after.map_or(Unbounded, Excluded), Unbounded::<&str>);
        let mut changed = self.effects.state.range::<str, _>(from()).peekable();
        let mut kept = state.values.range::<str, _>(from()).peekable();
        let mut names = Vec::new();
        while names.len() < limit {
            let take_changed = match (changed.peek(), kept.peek()) {
                (None, None) => break,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some((c, _)), Some((k, _))) => c <= k,
            };
            if take_changed {
                let (name, value) = changed.next().expect("it was seen");
                kept.next_if(|(kept, _)| *kept == name);
                if value.is_some() {
                    names.push(name.clone());
                }
            } else {
                names.push(kept.next().expect("it was seen").0.clone());
            }
        }
        names
    }

    pub fn emit(
        &mut self,
        limits: &EffectLimits,
        to: StreamName,
        content: Content,
    ) -> Result<(), EmitError> {
        if self.effects.emits.len() >= limits.emits {
            let most = u32::try_from(limits.emits).unwrap_or(u32::MAX);
            return Err(EmitError::TooMany(most));
        }
        if self.emit_bytes + content.bytes() > limits.emit_bytes {
            return Err(EmitError::TooLarge(limits.emit_bytes as u64));
        }
        self.emit_bytes += content.bytes();
        self.effects.emits.push(Emit { to, content });
        Ok(())
    }

    /// What is to be committed, once the call has ended well.
    pub fn finish(self) -> Effects {
        self.effects
    }

    /// What the state would take with the changes so far.
    fn bytes(&self, state: &State) -> usize {
        let mut bytes = state.bytes;
        for (name, value) in &self.effects.state {
            if let Some(before) = state.values.get(name) {
                bytes -= name.len() + before.len();
            }
            if let Some(value) = value {
                bytes += name.len() + value.len();
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Set(u8, Vec<u8>),
        Delete(u8),
        Increment(u8, i64),
        Names(Option<u8>, usize),
        /// The call ends, well or not.
        End(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        let value = prop_oneof![
            (-5i64..5).prop_map(|n| n.to_string().into_bytes()),
            prop::collection::vec(any::<u8>(), 0..12),
        ];
        prop_oneof![
            (0u8..6, value).prop_map(|(n, v)| Step::Set(n, v)),
            (0u8..6).prop_map(Step::Delete),
            (0u8..6, -3i64..3).prop_map(|(n, by)| Step::Increment(n, by)),
            (prop::option::of(0u8..6), 0usize..8).prop_map(|(a, l)| Step::Names(a, l)),
            any::<bool>().prop_map(Step::End),
        ]
    }

    const LIMITS: EffectLimits = EffectLimits {
        value_bytes: 10,
        state_bytes: 30,
        emits: 2,
        emit_bytes: 100,
    };

    proptest! {
        /// Against a plain map that is copied before each call.
        #[test]
        fn a_draft_reads_like_a_map_and_a_failed_call_leaves_no_trace(
            steps in prop::collection::vec(step(), 0..60)
        ) {
            let mut state = State::default();
            let mut draft = Draft::default();
            let mut committed: BTreeMap<String, Vec<u8>> = BTreeMap::new();
            let mut model = committed.clone();
            let name = |n: u8| format!("n{n}");
            for step in steps {
                match step {
                    Step::Set(n, value) => {
                        let mut would = model.clone();
                        would.insert(name(n), value.clone());
                        let bytes: usize = would.iter().map(|(n, v)| n.len() + v.len()).sum();
                        let expected = match () {
                            _ if value.len() > 10 => Err(StateError::TooLarge(10)),
                            _ if bytes > 30 => Err(StateError::Full(30)),
                            _ => { model = would; Ok(()) }
                        };
                        prop_assert_eq!(draft.set(&state, &LIMITS, &name(n), value), expected);
                    }
                    Step::Delete(n) => {
                        prop_assert_eq!(draft.delete(&state, &name(n)), model.remove(&name(n)).is_some());
                    }
                    Step::Increment(n, by) => {
                        if let Ok(new) = draft.increment(&state, &LIMITS, &name(n), by) {
                            let old = model.get(&name(n)).map_or(0, |v| {
                                std::str::from_utf8(v).unwrap().parse::<i64>().unwrap()
                            });
                            prop_assert_eq!(new, old + by);
                            model.insert(name(n), new.to_string().into_bytes());
                        }
                    }
                    Step::Names(after, limit) => {
                        let after = after.map(name);
                        let expected: Vec<String> = model
                            .keys()
                            .filter(|n| after.as_ref().is_none_or(|a| *n > a))
                            .take(limit)
                            .cloned()
                            .collect();
                        prop_assert_eq!(draft.names(&state, after.as_deref(), limit), expected);
                    }
                    Step::End(well) => {
                        let effects = std::mem::take(&mut draft).finish();
                        if well {
                            state.apply(&effects.state);
                            committed = model.clone();
                        } else {
                            model = committed.clone();
                        }
                        prop_assert_eq!(&state, &State::of(committed.clone()));
                    }
                }
                for n in 0..6 {
                    prop_assert_eq!(draft.get(&state, &name(n)), model.get(&name(n)).map(Vec::as_slice));
                }
            }
        }
    }

    #[test]
    fn emits_are_bounded_by_number_and_bytes() {
        let content = |bytes| Content::new("k", vec![0; bytes], Vec::new(), 1_000).unwrap();
        let to: StreamName = "out".parse().unwrap();
        let mut draft = Draft::default();
        assert_eq!(
            draft.emit(&LIMITS, to.clone(), content(200)),
            Err(EmitError::TooLarge(100))
        );
        draft.emit(&LIMITS, to.clone(), content(1)).unwrap();
        draft.emit(&LIMITS, to.clone(), content(2)).unwrap();
        assert_eq!(
            draft.emit(&LIMITS, to, content(1)),
            Err(EmitError::TooMany(2))
        );
        assert_eq!(draft.finish().emits.len(), 2);
    }
}
