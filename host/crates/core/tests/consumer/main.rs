//! The partition consumer: step by step, and against a model under random faults.

mod batches;
mod model;
mod steps;
mod support;
mod versions;
