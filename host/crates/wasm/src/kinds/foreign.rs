//! What the worlds of other hosts have in common: what they publish is emitted, under the same grant and
//! with the same ack. Must not know how any of these worlds looks.

use segmenter_core::message::Message;

use super::wasi_messaging::Messages;
use crate::capabilities::NotEmitted;
use crate::instance::State;
use crate::output::cut;

/// Bytes of a name that a guest gave, in an error that repeats it: it may be as long as it likes.
const NAME_SHOWN_BYTES: usize = 100;

/// What an instance of such a world keeps beside what any instance does.
#[derive(Default)]
pub(crate) struct Foreign {
    /// Of the message that is handled.
    key: String,
    pub(super) messages: Messages,
}

impl Foreign {
    pub(super) fn begin(&mut self, message: &Message) {
        self.key.clear();
        self.key.push_str(message.content.key());
    }

    /// Whether the instance left so much behind that a new one is due.
    pub(crate) fn is_littered(&self) -> bool {
        self.messages.is_littered()
    }
}

/// Why something was not published, in words for the guest.
pub(super) enum NotPublished {
    NotGranted(String),
    Other(String),
}

impl NotPublished {
    pub(super) fn into_text(self) -> String {
        match self {
            NotPublished::NotGranted(text) | NotPublished::Other(text) => text,
        }
    }
}

impl State {
    /// Emits to the stream `to`. Without a key it is that of the message that is handled, so that what
    /// follows from the messages of one key stays in order, too.
    pub(super) fn publish(
        &mut self,
        to: &str,
        key: Option<String>,
        payload: Vec<u8>,
        attributes: Vec<(String, String)>,
    ) -> wasmtime::Result<Result<(), NotPublished>> {
        let key = key.unwrap_or_else(|| self.foreign.key.clone());
        let emitted = self.emit(to, key, payload, attributes)?;
        Ok(emitted.map_err(|error| {
            let why = match error {
                NotEmitted::NotGranted => return NotPublished::NotGranted(not_granted(to)),
                NotEmitted::TooLarge(bytes) => {
                    format!("a part of it, or all that this call publishes, exceeds {bytes} bytes")
                }
                NotEmitted::TooMany(most) => format!("one call may publish {most} messages"),
                NotEmitted::Mistake(error) => error.to_string(),
            };
            NotPublished::Other(format!("not published to {}: {why}", shown(to)))
        }))
    }
}

pub(super) fn not_granted(to: &str) -> String {
    format!(
        "{} is no stream that this handler may emit to; name it in `emit` under [handler.grants]",
        shown(to)
    )
}

fn shown(name: &str) -> String {
    match cut(name, NAME_SHOWN_BYTES) {
        None => format!("{name:?}"),
        Some(start) => format!("{start:?}…"),
    }
}
