//! Panics at every message: a version that must not stay.

wit_bindgen::generate!({ path: "../../wit", world: "segmenter:handler/message-handler", generate_all });

use exports::segmenter::handler::handler::{Failure, Guest, Message};

struct Broken;

impl Guest for Broken {
    fn handle(message: Message) -> Result<(), Failure> {
        panic!("this version cannot handle {} bytes", message.payload.len())
    }
}

export!(Broken);
