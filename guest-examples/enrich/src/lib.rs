//! Passes each message on to another stream, with where it came from; see the README. What is emitted is
//! committed together with the ack: each message arrives once, in order per key.

wit_bindgen::generate!({
    path: "../../wit",
    inline: "
        package examples:enrich;
        world enrich {
            include segmenter:handler/message-handler@0.1.0;
            import segmenter:handler/emit@0.1.0;
        }
    ",
    world: "examples:enrich/enrich",
    generate_all,
});

use exports::segmenter::handler::handler::{Failure, Guest, Message};
use segmenter::handler::context;
use segmenter::handler::emit::{self, EmitError};

/// Where it emits to.
const TO: &str = "enriched";
/// What one message may have.
const ATTRIBUTES_MAX: usize = 64;

struct Enrich;

impl Guest for Enrich {
    fn handle(message: Message) -> Result<(), Failure> {
        let Message {
            id,
            partition,
            key,
            payload,
            mut attributes,
            ..
        } = message;
        let lines = payload.iter().filter(|byte| **byte == b'\n').count();
        let added = [
            ("source", format!("{}/{partition}", context::stream())),
            ("source-id", format!("{}-{}", id.ms, id.seq)),
            ("bytes", payload.len().to_string()),
            ("lines", lines.to_string()),
        ];
        // A message that passes twice carries the last place it came from: names are unique.
        attributes.retain(|(name, _)| added.iter().all(|(new, _)| name != new));
        attributes.extend(added.map(|(name, value)| (name.to_owned(), value)));
        if attributes.len() > ATTRIBUTES_MAX {
            return Err(Failure::Reject(format!(
                "{} attributes leave no room for those that this handler adds",
                attributes.len()
            )));
        }
        emit::send(TO, &key, &payload, &attributes).map_err(|error| {
            Failure::Reject(match error {
                EmitError::NotGranted => format!("emitting to {TO} is not granted: emit = [\"{TO}\"]"),
                EmitError::TooLarge(bytes) => format!("with what was added it exceeds {bytes} bytes"),
                EmitError::TooMany(most) => format!("a call may emit {most} messages"),
            })
        })
    }
}

export!(Enrich);
