//! The one engine of a process: allocator, compile cache, and the clock that ends calls. Knows wasmtime's
//! settings and why they are what they are; must not know handlers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wasmtime::{
    Cache, CacheConfig, Config, InstanceAllocationStrategy, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

use crate::aside::Aside;
use crate::course::Fixed;
use crate::diagnosis::CoreDumps;
use crate::limiter::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLES_MAX};
use crate::module::Limits;

/// How often a running guest looks whether its deadline is over, and lets other tasks of its thread run.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Of the cache's folder: compiled modules. The cache removes from there whatever it does not know.
const MODULES: &str = "modules";
/// Of the cache's folder: see [`Aside`].
const LOCKS: &str = "locks";

pub struct EngineConfig {
    /// Where compiled modules are kept, beside the locks of those that are being compiled; none: every
    /// start compiles.
    pub cache_dir: Option<PathBuf>,
    /// The largest memory limit of any module, in bytes.
    pub memory_bytes_max: usize,
    /// The most table elements of any module.
    pub table_elements_max: usize,
    /// Instances alive at once.
    pub instances_max: u32,
    /// Where a core dump of each trap is written, as far as [`CoreDumps`] goes; none: nowhere.
    pub core_dump_dir: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
#[error("the WebAssembly engine cannot start: {0}")]
pub struct EngineError(String);

/// A limit that the engine was not made for.
#[derive(Debug, thiserror::Error)]
#[error(
    "limits.{name} is {wanted}, more than the {made_for} that this host has made room for when it started: it needs a restart"
)]
pub struct TooLarge {
    name: &'static str,
    wanted: usize,
    made_for: usize,
}

const POOLING: &str = "pooling";
/// Of the stack of an instance that ended, what stays in memory for the next one, and is written over; what
/// a deep recursion touched beyond goes back to the system.
const STACK_KEEP_BYTES: usize = 8 * 1024;

/// Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) engine: wasmtime::Engine,
    pub(crate) core_dumps: Option<Arc<CoreDumps>>,
    pub(crate) aside: Arc<Aside>,
    pub(crate) live: Arc<AtomicUsize>,
    /// None: time and chance are the system's.
    pub(crate) fixed: Option<Fixed>,
    cache: Option<Cache>,
    allocator: &'static str,
    memory_bytes_max: usize,
    table_elements_max: usize,
}

impl Engine {
    pub fn new(config: EngineConfig) -> Result<Engine, EngineError> {
        let cache = config.cache_dir.as_deref().and_then(|dir| {
            let mut cache = CacheConfig::new();
            cache.with_directory(dir.join(MODULES));
            // A cache that cannot be written costs time, not correctness.
            Cache::new(cache).ok()
        });
        // Pooled instances start in microseconds, but need address space that a container may not have.
        let dumps = config.core_dump_dir.is_some();
        let pooled = settings(&cache, dumps, Some(pool(&config)));
        let (engine, allocator) = match wasmtime::Engine::new(&pooled) {
            Ok(engine) => (engine, POOLING),
            Err(_) => {
                let engine = wasmtime::Engine::new(&settings(&cache, dumps, None))
                    .map_err(|e| EngineError(format!("{e:#}")))?;
                (engine, "on demand")
            }
        };
        tick(&engine)?;
        Ok(Engine {
            engine,
            core_dumps: config
                .core_dump_dir
                .map(|dir| Arc::new(CoreDumps::new(dir))),
            aside: Arc::new(Aside::new(config.cache_dir.map(|dir| dir.join(LOCKS)))),
            live: Arc::default(),
            fixed: None,
            cache,
            allocator,
            memory_bytes_max: config.memory_bytes_max,
            table_elements_max: config.table_elements_max,
        })
    }

    /// For modules that are linked and instances that are made from here on: the same time and the same
    /// random numbers in every run.
    pub fn fixed(mut self, fixed: Fixed) -> Engine {
        self.fixed = Some(fixed);
        self
    }

    /// Modules in memory: those that somebody holds, and those that instances still run.
    pub fn modules_live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Whether modules with these limits can run here: a pool is made for the largest once.
    pub fn fits(&self, limits: &Limits) -> Result<(), TooLarge> {
        let max = |name, wanted, made_for| {
            if self.allocator == POOLING && wanted > made_for {
                return Err(TooLarge {
                    name,
                    wanted,
                    made_for,
                });
            }
            Ok(())
        };
        max("memory", limits.memory_bytes, self.memory_bytes_max)?;
        max(
            "table_elements",
            limits.table_elements,
            self.table_elements_max,
        )
    }

    /// `pooling`, or `on demand` where the address space was too small for a pool.
    pub fn allocator(&self) -> &'static str {
        self.allocator
    }

    /// How many modules were found compiled.
    pub fn cache_hits(&self) -> usize {
        self.cache.as_ref().map_or(0, Cache::cache_hits)
    }
}

fn settings(cache: &Option<Cache>, dumps: bool, pool: Option<PoolingAllocationConfig>) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    // On by default, it routes each call through an event loop: 1.4 µs instead of 0.2 µs.
    config.concurrency_support(false);
    config.epoch_interruption(true);
    // Source lines cost nothing until a trap, and nothing at all where a module has none.
    config.wasm_backtrace_details(WasmBacktraceDetails::Enable);
    config.coredump_on_trap(dumps);
    config.cache(cache.clone());
    if let Some(mut pool) = pool {
        // Else every stack of the pool stays as large as the deepest recursion that it ever saw.
        config.async_stack_zeroing(true);
        pool.async_stack_keep_resident(STACK_KEEP_BYTES);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

fn pool(config: &EngineConfig) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    let instances = config.instances_max;
    // Most components have one memory and few core instances; the rare large ones share what is left.
    pool.total_component_instances(instances)
        // Only counted: they take no place of their own.
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_MAX as u32))
        .total_memories(instances.saturating_add(instances / 4))
        .total_tables(instances.saturating_mul(4))
        .total_stacks(instances)
        .max_tables_per_module(TABLES_MAX as u32)
        .max_memories_per_module(MEMORIES_MAX as u32)
        .max_core_instances_per_component(CORE_INSTANCES_MAX as u32)
        .max_memories_per_component(MEMORIES_MAX as u32)
        .max_tables_per_component(TABLES_MAX as u32)
        .max_memory_size(config.memory_bytes_max.max(64 * 1024))
        .table_elements(config.table_elements_max);
    pool
}

/// Advances the epoch for as long as the engine lives.
fn tick(engine: &wasmtime::Engine) -> Result<(), EngineError> {
    let weak = engine.weak();
    std::thread::Builder::new()
        .name("epoch".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(TICK);
                match weak.upgrade() {
                    Some(engine) => engine.increment_epoch(),
                    None => return,
                }
            }
        })
        .map(drop)
        .map_err(|e| EngineError(format!("no thread for the deadline clock: {e}")))
}
