//! Counts lines and occurrences of the word `unsafe` in each payload, and logs one line per message.

wit_bindgen::generate!({ path: "../../wit", world: "segmenter:handler/message-handler", generate_all });

use exports::segmenter::handler::handler::{Failure, Guest, Message};
use wasi::logging::logging::{Level, log};

struct Tally;

impl Guest for Tally {
    fn handle(message: Message) -> Result<(), Failure> {
        let payload = &message.payload;
        let lines = payload.iter().filter(|byte| **byte == b'\n').count();
        let found = count(payload, b"unsafe");
        let bytes = payload.len();
        log(Level::Info, "", &format!("lines={lines} unsafe={found} bytes={bytes}"));
        Ok(())
    }
}

/// The word cannot overlap itself, so every place counts.
fn count(text: &[u8], word: &[u8]) -> usize {
    text.windows(word.len()).filter(|window| *window == word).count()
}

export!(Tally);
