//! The messages of one call, how many a handler takes, and what its answer about several of them means.
//! Data only: it must not know how a call is made, nor what follows from its outcome.

use std::num::NonZeroUsize;

use crate::message::Message;

/// Messages of one partition in log order: at least one. Only the first may have failed before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    first: Message,
    /// Empty, and nothing is allocated, for handlers that take one message a call.
    rest: Vec<Message>,
}

impl Batch {
    pub fn one(message: Message) -> Batch {
        Batch {
            first: message,
            rest: Vec::new(),
        }
    }

    pub fn push(&mut self, message: Message) {
        self.rest.push(message);
    }

    pub fn first(&self) -> &Message {
        &self.first
    }

    pub fn rest(&self) -> &[Message] {
        &self.rest
    }

    pub fn last(&self) -> &Message {
        self.rest.last().unwrap_or(&self.first)
    }

    pub fn count(&self) -> usize {
        1 + self.rest.len()
    }

    pub fn get(&self, at: usize) -> Option<&Message> {
        match at.checked_sub(1) {
            None => Some(&self.first),
            Some(at) => self.rest.get(at),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    pub fn into_messages(self) -> impl DoubleEndedIterator<Item = Message> {
        std::iter::once(self.first).chain(self.rest)
    }
}

/// How much one call of a handler takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Takes {
    pub messages: NonZeroUsize,
    /// Of keys, payloads and attributes together. The first message is taken whatever it has.
    pub bytes: usize,
}

impl Takes {
    /// One message a call.
    pub const ONE: Takes = Takes {
        messages: NonZeroUsize::MIN,
        bytes: 0,
    };

    /// What both take.
    pub fn and(self, other: Takes) -> Takes {
        Takes {
            messages: self.messages.min(other.messages),
            bytes: self.bytes.min(other.bytes),
        }
    }
}

/// An answer that makes no sense: a mistake in the handler's code. For people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    #[error(
        "it answered that message {index} failed, but the batch has {messages}, counted from 0; the index is that in the list it was called with"
    )]
    NoSuchMessage { index: u32, messages: usize },
    #[error("it answered twice that message {index} of its batch failed; name each at most once")]
    Twice { index: u32 },
}

/// Of the failures that a handler answers with, in any order, the one of the first message: what is before it
/// is acked, what follows comes again. `None`: all are acked.
pub fn first_failed<F>(
    messages: usize,
    failed: impl IntoIterator<Item = (u32, F)>,
) -> Result<Option<(usize, F)>, BadAnswer> {
    // An answer without failures is the usual one, and allocates nothing.
    let mut named = Vec::new();
    let mut first: Option<(usize, F)> = None;
    for (index, failure) in failed {
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        named.resize(messages, false);
        match named.get_mut(at) {
            None => return Err(BadAnswer::NoSuchMessage { index, messages }),
            Some(true) => return Err(BadAnswer::Twice { index }),
            Some(named) => *named = true,
        }
        if first.as_ref().is_none_or(|(first, _)| at < *first) {
            first = Some((at, failure));
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn of_any_answer_the_lowest_index_counts_unless_one_is_wrong(
            messages in 1usize..20,
            failed in proptest::collection::vec(0u32..24, 0..8),
        ) {
            let answer = first_failed(messages, failed.iter().map(|index| (*index, format!("of {index}"))));
            let mut sorted = failed.clone();
            sorted.sort_unstable();
            let fits = |index: &u32| (*index as usize) < messages;
            let wrong = !failed.iter().all(fits) || sorted.windows(2).any(|pair| pair[0] == pair[1]);
            match answer {
                Err(_) => proptest::prop_assert!(wrong, "{failed:?} of {messages}"),
                Ok(first) => {
                    proptest::prop_assert!(!wrong);
                    let lowest = sorted.first().map(|index| (*index as usize, format!("of {index}")));
                    proptest::prop_assert_eq!(first, lowest);
                }
            }
        }
    }

    #[test]
    fn a_wrong_index_is_named() {
        let no_such = first_failed(3, [(0, ()), (3, ())]).unwrap_err();
        assert!(
            no_such
                .to_string()
                .contains("message 3 failed, but the batch has 3")
        );
        let twice = first_failed(3, [(2, ()), (2, ())]).unwrap_err();
        assert!(twice.to_string().contains("twice that message 2"));
        assert!(first_failed(1, [(u32::MAX, ())]).is_err());
    }
}
