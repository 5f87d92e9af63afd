//! WebAssembly for Segmenter: engine → module → instance → call. Knows the guest contract (`wit/`) and
//! what a guest may touch; must not know Redis, groups or commits.

mod bindings;
mod capabilities;
mod diagnosis;
mod engine;
mod grants;
mod instance;
mod limiter;
mod module;
mod output;
mod tenure;

pub use diagnosis::{CORE_DUMPS_MAX, Diagnosis};
pub use engine::{Engine, EngineConfig, EngineError};
pub use grants::{Folder, Grants, Origin, OriginError};
pub use instance::{Instance, InstantiateError};
pub use limiter::CORE_INSTANCES_MAX;
pub use module::{Limits, LoadError, Module, PartitionContext, Recycle};
pub use output::{GuestLine, Level, LogSink};
pub use tenure::{StateSource, Tenure};
