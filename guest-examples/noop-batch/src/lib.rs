//! Acks whole batches and does nothing else: what the host costs if a call carries several messages.

wit_bindgen::generate!({ path: "../../wit", world: "segmenter:handler/batch-handler", generate_all });

use exports::segmenter::handler::batch::{Failed, Guest, Message};

struct Noop;

impl Guest for Noop {
    fn handle(_messages: Vec<Message>) -> Vec<Failed> {
        Vec::new()
    }
}

export!(Noop);
