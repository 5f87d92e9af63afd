//! Counts messages per key, each id once; see the README. Everything it knows lies in state, which is
//! committed together with the ack: a crash between two calls, or a call that fails, counts nothing twice.

wit_bindgen::generate!({
    path: "../../wit",
    inline: "
        package examples:dedup;
        world dedup {
            include segmenter:handler/message-handler@0.1.0;
            import segmenter:handler/state@0.1.0;
        }
    ",
    world: "examples:dedup/dedup",
    generate_all,
});

use exports::segmenter::handler::handler::{Failure, Guest, Message};
use segmenter::handler::state::{self, StateError};
use segmenter::handler::types::RetryInfo;
use wasi::logging::logging::{Level, log};

/// How many ids a partition remembers. State is bounded, so what remembers in it must be, too.
const WINDOW: i64 = 10_000;

struct Dedup;

impl Guest for Dedup {
    fn handle(message: Message) -> Result<(), Failure> {
        let key = &message.key;
        let id = message.attributes.iter().find(|(name, _)| name == "id");
        let id = match id {
            Some((_, id)) => id.clone(),
            // Without an id of its producer, an entry is itself.
            None => format!("entry {}-{}", message.id.ms, message.id.seq),
        };
        let total = format!("total {key}");
        if remember(key, &id).map_err(failure)? {
            let count = state::increment(&total, 1).map_err(failure)?;
            say(&format!("key={key} total={count}"));
        } else {
            let count = state::increment(&total, 0).map_err(failure)?;
            say(&format!("key={key} total={count} again={id}"));
        }
        Ok(())
    }
}

/// Whether the id is new. The newest takes the place of the oldest, of those of all keys.
fn remember(key: &str, id: &str) -> Result<bool, StateError> {
    let seen = format!("seen {}:{key} {id}", key.len());
    if state::get(&seen)?.is_some() {
        return Ok(false);
    }
    let place = format!("place {}", state::increment("ids", 1)? % WINDOW);
    if let Some(oldest) = state::get(&place)? {
        state::delete(&String::from_utf8_lossy(&oldest))?;
    }
    state::set(&place, seen.as_bytes())?;
    state::set(&seen, b"")?;
    Ok(true)
}

fn failure(error: StateError) -> Failure {
    match error {
        StateError::Unavailable(why) => Failure::Retry(RetryInfo {
            reason: format!("state is away: {why}"),
            after_ms: None,
        }),
        other => Failure::Reject(format!("state does not take it: {other:?}")),
    }
}

fn say(text: &str) {
    log(Level::Info, "", text);
}

export!(Dedup);
