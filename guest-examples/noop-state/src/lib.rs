//! Reads one value of state and writes it anew, and does nothing else: what a call with state costs.

wit_bindgen::generate!({
    path: "../../wit",
    inline: "
        package examples:noop-state;
        world noop-state {
            include segmenter:handler/message-handler@0.1.0;
            import segmenter:handler/state@0.1.0;
        }
    ",
    world: "examples:noop-state/noop-state",
    generate_all,
});

use exports::segmenter::handler::handler::{Failure, Guest, Message};
use segmenter::handler::state::{self, StateError};

struct NoopState;

impl Guest for NoopState {
    /// The value is how many messages of the key there were, in decimal digits.
    fn handle(message: Message) -> Result<(), Failure> {
        let before = state::get(&message.key).map_err(failure)?;
        let before = before.as_deref().unwrap_or(b"0");
        let count = str::from_utf8(before).ok().and_then(|text| text.parse::<u64>().ok());
        let Some(count) = count else {
            return Err(Failure::Reject("the value is no number".to_owned()));
        };
        state::set(&message.key, (count + 1).to_string().as_bytes()).map_err(failure)
    }
}

fn failure(error: StateError) -> Failure {
    Failure::Reject(format!("state does not take it: {error:?}"))
}

export!(NoopState);
