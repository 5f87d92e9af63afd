//! Segmenter, the host: command line, configuration, and the loop that runs handlers. The binary is
//! `main.rs`; the benchmark links this library to drive the same loop with a native handler.

pub mod cli;
pub mod config;
pub mod host;
pub mod output;
pub mod points;
