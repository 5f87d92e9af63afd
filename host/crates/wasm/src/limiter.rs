//! How much memory an instance may have. Refusals are remembered, because a guest answers them with a
//! trap that does not say why.

use wasmtime::ResourceLimiter;

/// Elements of all tables of one table growth; a table of this size takes 16 MiB.
const TABLE_ELEMENTS_MAX: usize = 1_000_000;
/// Core instances, memories and tables of one component instance: what the pool is made for.
pub(crate) const CORE_INSTANCES_MAX: usize = 20;
pub(crate) const MEMORIES_MAX: usize = 4;
pub(crate) const TABLES_MAX: usize = 20;

pub(crate) struct Limiter {
    bytes_max: usize,
    bytes: usize,
    pub(crate) refused: bool,
}

impl Limiter {
    pub(crate) fn new(bytes_max: usize) -> Limiter {
        Limiter {
            bytes_max,
            bytes: 0,
            refused: false,
        }
    }
}

impl ResourceLimiter for Limiter {
    /// All memories of the instance count together.
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.bytes.saturating_add(desired.saturating_sub(current));
        if total > self.bytes_max {
            self.refused = true;
            return Ok(false);
        }
        self.bytes = total;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }
    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
    fn tables(&self) -> usize {
        TABLES_MAX
    }
}
