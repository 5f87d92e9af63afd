//! See README.md beside this file's original, in tests/guests/echo.

wit_bindgen::generate!({ path: "wit", world: "project:handler/guest", generate_all });

use exports::segmenter::handler::handler::{Failure, Guest, Message};
use segmenter::handler::emit;
use segmenter::handler::types::RetryInfo;

struct Echo;

impl Guest for Echo {
    fn handle(message: Message) -> Result<(), Failure> {
        let attribute = |name| {
            let found = message.attributes.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.as_str())
        };
        if message.attempt < 3
            && let Some(how) = attribute("fail")
        {
            fail(how)?;
        }
        match attribute("to") {
            Some(to) => emit::send(to, &message.key, &message.payload, &message.attributes)
                .map_err(|error| Failure::Reject(error.to_string())),
            None => {
                std::hint::black_box(sum(&message.payload));
                Ok(())
            }
        }
    }
}

fn sum(payload: &[u8]) -> u32 {
    payload.iter().fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)))
}

fn fail(how: &str) -> Result<(), Failure> {
    match how {
        "retry" => Err(Failure::Retry(RetryInfo { reason: "asked to".to_owned(), after_ms: Some(10) })),
        "reject" => Err(Failure::Reject("asked to".to_owned())),
        _ => panic!("asked to"),
    }
}

export!(Echo);
