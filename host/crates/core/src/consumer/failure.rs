//! What follows a call: which of its messages are settled, which one failed and which come again; and what
//! follows a failed attempt: again, a dead letter, or a halt. Knows the policy; must not know how an attempt
//! failed, nor how the lease remembers it.

use super::event::{Config, Exhausted};
use super::tenure::Tenure;
use crate::batch::Batch;
use crate::message::Message;
use crate::names::Version;
use crate::outcome::Outcome;
use crate::port::DeadLetter;
use crate::time::{Duration, Time};

/// The one message of a call that an attempt failed at. All before it are settled.
pub(super) struct Failed {
    pub(super) message: Message,
    pub(super) how: How,
}

pub(super) enum How {
    Reject {
        reason: String,
    },
    Retry {
        reason: String,
        after: Option<Duration>,
    },
}

impl Tenure {
    /// A call ended. What is neither settled nor failed is queued again, in its order.
    pub(super) fn ended(&mut self, now: Time, messages: Batch, outcome: Outcome) -> Option<Failed> {
        let count = messages.count();
        // Nobody knows whose fault it was, or the index is none: so it is no attempt at any of them.
        if count > 1 && !outcome.tells_which(count) {
            self.sizing.broke(&messages);
            self.all_again(messages, now);
            return None;
        }
        let (at, how) = match outcome {
            Outcome::Cancelled => {
                self.all_again(messages, now);
                return None;
            }
            Outcome::Ok(effects) => {
                self.sizing.ended(count, true);
                self.settle_with(messages, effects);
                return None;
            }
            Outcome::Broken { fault, reason } => {
                let reason = format!("{}: {reason}", fault.as_str());
                let after = None;
                (0, How::Retry { reason, after })
            }
            Outcome::Retry { at, reason, after } => (at, How::Retry { reason, after }),
            Outcome::Reject { at, reason } => (at, How::Reject { reason }),
        };
        self.sizing.ended(count, false);
        let message = self.settle_before(at, messages);
        Some(Failed { message, how })
    }

    /// The attempt of `message` failed; if it was not the last one, the next may start at `not_before`.
    pub(super) fn fail(
        &mut self,
        config: &Config,
        version: &Version,
        message: Message,
        not_before: Time,
        reason: String,
    ) {
        if message.attempt < config.attempts {
            self.failed(message, not_before, version);
        } else {
            self.exhaust(config, version, message, reason);
        }
    }

    /// No further attempt is made. `message.attempt`: how many failed.
    pub(super) fn exhaust(
        &mut self,
        config: &Config,
        version: &Version,
        message: Message,
        reason: String,
    ) {
        match config.exhausted {
            Exhausted::DeadLetter => self.bury_message(config, version, message, reason),
            Exhausted::Halt => {
                let why = format!(
                    "message {} failed {} times: {reason}",
                    message.id, message.attempt
                );
                self.failed(message, Time::ZERO, version);
                self.halt(why, false);
            }
        }
    }

    pub(super) fn bury_message(
        &mut self,
        config: &Config,
        version: &Version,
        message: Message,
        reason: String,
    ) {
        let bytes = message.content.bytes();
        let letter = DeadLetter {
            id: message.id,
            reason,
            attempts: message.attempt,
            version: version.to_string(),
            fields: config.layout.encode(&message.content),
        };
        self.bury(letter, bytes);
    }
}
