//! How much memory and how many table elements an instance may have. Refusals are remembered, because a
//! guest answers them with a trap that does not say why.

use wasmtime::ResourceLimiter;

use crate::module::Limits;

/// Core instances of one component instance that can be configured.
pub const CORE_INSTANCES_MAX: usize = 1_000;
/// Memories and tables of one component instance: what the pool is made for.
pub(crate) const MEMORIES_MAX: usize = 4;
pub(crate) const TABLES_MAX: usize = 20;

/// What an instance asked for beyond its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Memory,
    Table,
}

pub(crate) struct Limiter {
    limits: Limits,
    bytes: usize,
    elements: usize,
    pub(crate) refused: Option<Refused>,
}

impl Limiter {
    pub(crate) fn new(limits: Limits) -> Limiter {
        Limiter {
            limits,
            bytes: 0,
            elements: 0,
            refused: None,
        }
    }

    /// Of all memories; they never shrink.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes
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
        if total > self.limits.memory_bytes {
            self.refused = Some(Refused::Memory);
            return Ok(false);
        }
        self.bytes = total;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = Some(Refused::Memory);
        Ok(())
    }

    /// All tables count together, too.
    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self
            .elements
            .saturating_add(desired.saturating_sub(current));
        if total > self.limits.table_elements {
            self.refused = Some(Refused::Table);
            return Ok(false);
        }
        self.elements = total;
        Ok(true)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = Some(Refused::Table);
        Ok(())
    }

    fn instances(&self) -> usize {
        self.limits.core_instances
    }
    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
    fn tables(&self) -> usize {
        TABLES_MAX
    }
}
