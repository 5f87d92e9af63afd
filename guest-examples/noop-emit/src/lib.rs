//! Emits each message as it is, and does nothing else: what an emit costs.

wit_bindgen::generate!({
    path: "../../wit",
    inline: "
        package examples:noop-emit;
        world noop-emit {
            include segmenter:handler/message-handler@0.1.0;
            import segmenter:handler/emit@0.1.0;
        }
    ",
    world: "examples:noop-emit/noop-emit",
    generate_all,
});

use exports::segmenter::handler::handler::{Failure, Guest, Message};
use segmenter::handler::emit;

/// Where it emits to.
const TO: &str = "emitted";

struct NoopEmit;

impl Guest for NoopEmit {
    fn handle(message: Message) -> Result<(), Failure> {
        emit::send(TO, &message.key, &message.payload, &message.attributes)
            .map_err(|error| Failure::Reject(format!("{TO} does not take it: {error:?}")))
    }
}

export!(NoopEmit);
