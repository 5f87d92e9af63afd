//! WebAssembly for Segmenter: engine → module → instance → call. Knows the guest contract (`wit/`) and
//! what a guest may touch; must not know Redis, groups or commits.

mod aside;
mod bindings;
mod capabilities;
mod diagnosis;
mod engine;
mod grants;
mod instance;
mod kinds;
mod limiter;
mod module;
mod output;
mod tenure;

pub use aside::COMPILED_ELSEWHERE_WAIT;
pub use diagnosis::{CORE_DUMPS_MAX, Diagnosis};
pub use engine::{Engine, EngineConfig, EngineError, TooLarge};
pub use grants::{Folder, Grants, Origin, OriginError};
pub use instance::{Instance, InstantiateError};
pub use kinds::Kind;
pub use limiter::CORE_INSTANCES_MAX;
pub use module::{
    Compiled, Limits, LoadError, Module, PartitionContext, Priority, Recycle, Targets, version_of,
};
pub use output::{GuestLine, Level, LogSink};
pub use tenure::{StateSource, Tenure};
