//! Bytes of a component, as somebody may hand them in: loaded, or refused with the reason.

use std::sync::LazyLock;
use std::time::Duration;

use segmenter_wasm::{Engine, EngineConfig, Limits, Module};

/// Larger ones take longer to compile and find nothing more.
const BYTES_MAX: usize = 64 * 1024;
const LIMITS: Limits = Limits {
    deadline: Duration::from_millis(100),
    memory_bytes: 1 << 20,
};

/// One for all inputs, as in a host. Without a cache: it would keep every input.
static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    Engine::new(EngineConfig {
        cache_dir: None,
        memory_bytes_max: LIMITS.memory_bytes,
        instances_max: 1,
    })
    .expect("an engine")
});

pub fn component(input: &[u8]) {
    if input.len() > BYTES_MAX {
        return;
    }
    match Module::load(&ENGINE, input, LIMITS) {
        Ok(module) => assert_eq!(module.version().as_str().len(), 64),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
