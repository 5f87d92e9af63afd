//! Acks every message and does nothing else: what the host itself costs.

wit_bindgen::generate!({ path: "../../wit", world: "segmenter:handler/message-handler", generate_all });

use exports::segmenter::handler::handler::{Failure, Guest, Message};

struct Noop;

impl Guest for Noop {
    fn handle(_message: Message) -> Result<(), Failure> {
        Ok(())
    }
}

export!(Noop);
