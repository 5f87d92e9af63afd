//! What fuzzing tries: for each target a function that takes any bytes and must come back. libFuzzer
//! (`cargo xtask fuzz`) and the bounded run of the tests call the same ones. Knows what holds for every
//! input; must not know who makes the inputs.

mod component;
mod config;
mod entry;
mod jsonl;
mod mutate;
mod replies;

use std::path::{Path, PathBuf};

pub use component::component;
pub use config::config;
pub use entry::entry;
pub use jsonl::jsonl;
pub use mutate::Mutator;
pub use replies::replies;

pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Mutations in the bounded run: about a second of them.
    pub mutations: u32,
}

pub const TARGETS: &[Target] = &[
    Target {
        name: "jsonl",
        run: jsonl,
        mutations: 20_000,
    },
    Target {
        name: "config",
        run: config,
        mutations: 5_000,
    },
    Target {
        name: "entry",
        run: entry,
        mutations: 20_000,
    },
    Target {
        name: "replies",
        run: replies,
        mutations: 10_000,
    },
    Target {
        name: "component",
        run: component,
        mutations: 300,
    },
];

/// Inputs that are kept: good ones of every kind to begin with, and each that once found something.
pub fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}
