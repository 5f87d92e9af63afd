//! Counts lines in each payload, and logs one line per message.

wit_bindgen::generate!({ path: "../../wit", world: "segmenter:handler/message-handler", generate_all });

use exports::segmenter::handler::handler::{Failure, Guest, Message};
use wasi::logging::logging::{Level, log};

struct Lines;

impl Guest for Lines {
    fn handle(message: Message) -> Result<(), Failure> {
        let payload = &message.payload;
        let lines = payload.iter().filter(|byte| **byte == b'\n').count();
        let bytes = payload.len();
        log(Level::Info, "", &format!("lines={lines} bytes={bytes}"));
        Ok(())
    }
}

export!(Lines);
