//! A batch handler: logs a line for each message, and fails in the way that a message's attribute `fail`
//! asks for; see the README.

wit_bindgen::generate!({ path: "../../wit", world: "segmenter:handler/batch-handler", generate_all });

use std::time::Duration;

use exports::segmenter::handler::batch::{Failed, Failure, Guest, Message};
use segmenter::handler::types::RetryInfo;
use wasi::logging::logging::{Level, log};

struct Batch;

impl Guest for Batch {
    fn handle(messages: Vec<Message>) -> Vec<Failed> {
        let count = messages.len();
        let mut failed = Vec::new();
        for (index, message) in (0..).zip(&messages) {
            match handle(message, count) {
                Ok(()) => {}
                // Behind the first failure nothing counts: all that follows comes again.
                Err(failure) => {
                    failed.push(Failed { index, failure });
                    break;
                }
            }
        }
        failed
    }
}

fn handle(message: &Message, count: usize) -> Result<(), Failure> {
    let attribute = |named: &str| {
        let mut all = message.attributes.iter();
        all.find(|(name, _)| name == named).map(|(_, value)| value.as_str())
    };
    if let Some(ms) = attribute("ms").and_then(|ms| ms.parse().ok()) {
        std::thread::sleep(Duration::from_millis(ms));
    }
    if let Some(wish) = attribute("fail") {
        let (how, until) = match wish.split_once(':') {
            Some((how, until)) => (how, until.parse().unwrap_or(u32::MAX)),
            None => (wish, u32::MAX),
        };
        if message.attempt < until {
            fail(how, message.attempt)?;
        }
    }
    let (id, attempt) = (message.id, message.attempt);
    let payload = String::from_utf8_lossy(&message.payload);
    let line = format!(
        "id={}-{} attempt={attempt} of={count} key={} payload={payload}",
        id.ms, id.seq, message.key
    );
    log(Level::Info, "", &line);
    Ok(())
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

export!(Batch);
