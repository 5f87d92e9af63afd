//! What came out of one call of a handler, which may have had several messages. Knows the outcomes; must not
//! know how a handler runs.

use crate::effects::Effects;
use crate::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All its messages are acked, together with what it changed.
    Ok(Effects),
    /// The message at this index again, after a delay: the handler's own wish, if it has one. Those before it
    /// are acked, those behind it come again.
    Retry {
        at: usize,
        reason: String,
        after: Option<Duration>,
    },
    /// The message at this index is a dead letter now. Those before it are acked, those behind it come again.
    Reject { at: usize, reason: String },
    /// The instance is gone (trap, deadline, memory) and so is its work, whatever message it was at: again,
    /// with a new one.
    Broken { fault: Fault, reason: String },
    /// The host cut the call off (the trust window ended, a second signal): it did not count.
    Cancelled,
}

impl Outcome {
    /// Whether it says what became of which of so many messages.
    pub(crate) fn tells_which(&self, messages: usize) -> bool {
        match self {
            Outcome::Ok(_) | Outcome::Cancelled => true,
            Outcome::Retry { at, .. } | Outcome::Reject { at, .. } => *at < messages,
            Outcome::Broken { .. } => messages == 1,
        }
    }

    /// Of so many messages that were called, those that are decided: acked, or failed.
    pub fn decided(&self, messages: usize) -> usize {
        match self {
            Outcome::Ok(_) => messages,
            Outcome::Retry { at, .. } | Outcome::Reject { at, .. } => messages.min(at + 1),
            // Which message broke it is known only if there is one.
            Outcome::Broken { .. } => 1,
            Outcome::Cancelled => 0,
        }
    }
}

/// What ended an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Trap,
    Deadline,
    Memory,
    /// A new instance could not be made.
    Instantiate,
    /// What it answered makes no sense.
    Answer,
}

impl Fault {
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Trap => "trap",
            Fault::Deadline => "deadline",
            Fault::Memory => "memory",
            Fault::Instantiate => "instantiate",
            Fault::Answer => "answer",
        }
    }
}
