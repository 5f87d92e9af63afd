//! WebAssembly for Segmenter: engine → module → instance → call. Knows the guest contract (`wit/`) and
//! what a guest may touch; must not know Redis, groups or commits.

mod bindings;
mod capabilities;
mod engine;
mod instance;
mod limiter;
mod module;
mod output;

pub use engine::{Engine, EngineConfig, EngineError};
pub use instance::{Instance, InstantiateError};
pub use module::{Limits, LoadError, Module, PartitionContext};
pub use output::{GuestLine, Level, LogSink};
