//! Swaps under load: three hosts on one module file, which is renamed over again and again while producers
//! send; or, for comparison, the same time without. Nothing excuses anything here: no host is touched.
//!
//! ```text
//! Producers ──▶ stream ──▶ hosts, all following FILE ◀──rename── version 1, 2, 3 …
//! Record + Witness + Aftermath ──▶ judge      Record + times of swaps ──▶ measure ──▶ Outcome
//! ```

mod measure;
mod run;

pub use run::{Outcome, Settings, run};
