//! Configuration: any text is one that holds in every part, or an error that says where.

use std::path::Path;

use segmenter::config::{Config, ModuleSource};

pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match Config::parse(text, Path::new("folder")) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(config) => {
            for stream in &config.streams {
                assert!(stream.retain <= stream.shape.capacity().unwrap_or(0));
            }
            for handler in &config.handlers {
                assert!(handler.backoff.initial <= handler.backoff.max);
                assert!(!handler.limits.deadline.is_zero() && handler.limits.memory_bytes > 0);
                if let ModuleSource::File(path) = &handler.module {
                    assert!(path.extension().is_some_and(|e| e == "wasm"));
                }
                if let Some(allow) = &handler.allow {
                    assert!(!allow.is_empty() && allow.iter().all(|v| v.as_str().len() == 64));
                }
            }
        }
    }
}
