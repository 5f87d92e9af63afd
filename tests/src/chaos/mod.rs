//! Chaos: real hosts and a real server under faults that a seed plans, judged by what the handlers
//! logged and by what the stream held. Never by what the engine says about itself.
//!
//! ```text
//! Plan (seed) ──▶ Stage ──▶ Fleet (processes), Proxy (network), Server, each fault an Incident
//! Producers ──▶ stream ──▶ hosts ──▶ Record (guest lines)
//!                  │         ├─────▶ state ───────▶ Aftermath (counters)
//!                  │         └─────▶ stream ──┐
//!                  └──────────────────────────┴──▶ Witness (every entry, before it may be trimmed)
//! Record + Witness + Aftermath + Incidents ──▶ judge ──▶ Report
//! ```

mod aftermath;
pub(crate) mod chance;
mod clock;
mod effects;
mod fence;
mod fleet;
mod gaps;
mod judge;
mod late;
mod plan;
mod producers;
pub mod proxy;
mod record;
mod report;
mod run;
mod stage;
mod stalls;
pub mod swaps;
mod witness;

pub use effects::Effects;
pub use gaps::Gaps;
pub use judge::Verdict;
pub use plan::Kind;
pub use report::Report;
pub use run::{Settings, run};
