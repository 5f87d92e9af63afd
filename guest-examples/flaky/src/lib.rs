//! Fails in the way that a message's attribute `fail` asks for; see the README.

wit_bindgen::generate!({ path: "../../wit", world: "segmenter:handler/message-handler", generate_all });

use exports::segmenter::handler::handler::{Failure, Guest, Message};
use segmenter::handler::types::RetryInfo;
use wasi::logging::logging::{Level, log};

struct Flaky;

impl Guest for Flaky {
    fn handle(message: Message) -> Result<(), Failure> {
        let wish = message.attributes.iter().find(|(name, _)| name == "fail");
        if let Some((_, wish)) = wish {
            let (how, until) = match wish.split_once(':') {
                Some((how, until)) => (how, until.parse().unwrap_or(u32::MAX)),
                None => (wish.as_str(), u32::MAX),
            };
            if message.attempt < until {
                fail(how, message.attempt)?;
            }
        }
        let payload = String::from_utf8_lossy(&message.payload);
        log(Level::Info, "", &format!("key={} payload={payload}", message.key));
        Ok(())
    }
}

fn fail(how: &str, attempt: u32) -> Result<(), Failure> {
    match how {
        "retry" => Err(Failure::Retry(RetryInfo {
            reason: format!("attempt {attempt} was asked to fail"),
            after_ms: Some(10),
        })),
        "reject" => Err(Failure::Reject("it was asked to reject".to_owned())),
        "trap" => {
            eprintln!("about to trap");
            std::process::abort()
        }
        "loop" => loop {
            std::hint::spin_loop();
        },
        "memory" => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(vec![1u8; 1 << 20]);
                std::hint::black_box(&hoard);
            }
        }
        other => Err(Failure::Reject(format!("unknown wish {other:?}"))),
    }
}

export!(Flaky);
