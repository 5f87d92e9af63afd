//! What follows a failed attempt: again, a dead letter, or a halt. Knows the policy; must not know how an
//! attempt failed, nor how the lease remembers it.

use super::event::{Config, Exhausted};
use super::tenure::Tenure;
use crate::message::Message;
use crate::names::Version;
use crate::port::DeadLetter;
use crate::time::Time;

impl Tenure {
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
