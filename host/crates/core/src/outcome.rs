//! What came out of one call of a handler. Knows the outcomes; must not know how a handler runs.

use crate::effects::Effects;
use crate::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acked, together with what it changed.
    Ok(Effects),
    /// Again, after a delay: the handler's own wish, if it has one.
    Retry {
        reason: String,
        after: Option<Duration>,
    },
    /// Dead letter now.
    Reject { reason: String },
    /// The instance is gone (trap, deadline, memory) and so is its work: again, with a new one.
    Broken { fault: Fault, reason: String },
    /// The host cut the call off (the trust window ended, a second signal): it did not count.
    Cancelled,
}

/// What ended an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Trap,
    Deadline,
    Memory,
    /// A new instance could not be made.
    Instantiate,
}

impl Fault {
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Trap => "trap",
            Fault::Deadline => "deadline",
            Fault::Memory => "memory",
            Fault::Instantiate => "instantiate",
        }
    }
}
