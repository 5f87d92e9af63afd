//! Bytes of a component, as somebody may hand them in: loaded, or refused with the reason.

use std::sync::LazyLock;
use std::time::Duration;

use segmenter_core::effects::EffectLimits;
use segmenter_wasm::{Engine, EngineConfig, Grants, Limits, Module, Recycle};

/// Larger ones take longer to compile and find nothing more.
const BYTES_MAX: usize = 64 * 1024;
const MEMORY_BYTES: usize = 1 << 20;
const TABLE_ELEMENTS: usize = 1_000;

fn limits() -> Limits {
    Limits {
        deadline: Duration::from_millis(100),
        instantiate: Duration::from_millis(100),
        memory_bytes: MEMORY_BYTES,
        table_elements: TABLE_ELEMENTS,
        core_instances: 20,
        log_bytes: 1 << 10,
        recycle: Recycle::default(),
        payload_bytes: 1 << 10,
        effects: EffectLimits::default(),
    }
}

/// One for all inputs, as in a host. Without a cache: it would keep every input.
static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    Engine::new(EngineConfig {
        cache_dir: None,
        memory_bytes_max: MEMORY_BYTES,
        table_elements_max: TABLE_ELEMENTS,
        instances_max: 1,
        core_dump_dir: None,
    })
    .expect("an engine")
});

pub fn component(input: &[u8]) {
    if input.len() > BYTES_MAX {
        return;
    }
    match Module::load(&ENGINE, input, limits(), Grants::default()) {
        Ok(module) => assert_eq!(module.version().as_str().len(), 64),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
