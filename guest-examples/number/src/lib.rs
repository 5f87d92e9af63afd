//! Numbers the messages of each key and passes them on; see the README. The count lies in state, the message
//! is emitted, and both are committed together with the ack: no number is given twice or left out.

wit_bindgen::generate!({
    path: "../../wit",
    inline: "
        package examples:number;
        world number {
            include segmenter:handler/message-handler@0.1.0;
            import segmenter:handler/state@0.1.0;
            import segmenter:handler/emit@0.1.0;
        }
    ",
    world: "examples:number/number",
    generate_all,
});

use exports::segmenter::handler::handler::{Failure, Guest, Message};
use segmenter::handler::emit::{self, EmitError};
use segmenter::handler::state::{self, StateError};
use segmenter::handler::types::RetryInfo;
use wasi::logging::logging::{Level, log};

/// Where it emits to.
const TO: &str = "numbered";

struct Number;

impl Guest for Number {
    fn handle(message: Message) -> Result<(), Failure> {
        let Message { key, payload, mut attributes, .. } = message;
        let number = state::increment(&format!("count {key}"), 1).map_err(unkept)?;
        // A message that passes twice carries its last number: names are unique.
        attributes.retain(|(name, _)| name != "number");
        attributes.push(("number".to_owned(), number.to_string()));
        emit::send(TO, &key, &payload, &attributes).map_err(unsent)?;
        let payload = String::from_utf8_lossy(&payload);
        log(Level::Info, "", &format!("key={key} payload={payload} number={number}"));
        Ok(())
    }
}

fn unkept(error: StateError) -> Failure {
    match error {
        StateError::Unavailable(why) => Failure::Retry(RetryInfo {
            reason: format!("state is away: {why}"),
            after_ms: None,
        }),
        other => Failure::Reject(format!("state does not take it: {other:?}")),
    }
}

fn unsent(error: EmitError) -> Failure {
    Failure::Reject(match error {
        EmitError::NotGranted => format!("emitting to {TO} is not granted: emit = [\"{TO}\"]"),
        EmitError::TooLarge(bytes) => format!("with its number it exceeds {bytes} bytes"),
        EmitError::TooMany(most) => format!("a call may emit {most} messages"),
    })
}

export!(Number);
