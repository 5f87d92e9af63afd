//! The bounded part of fuzzing: every target over its corpus and over mutations of it from a fixed seed.
//! `cargo xtask fuzz TARGET` goes on from here, led by coverage.

use std::fs;
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use segmenter_tests::fuzz::{Mutator, TARGETS, Target, corpus};

/// One input that takes longer hangs, as good as.
const INPUT_TIME_MAX: Duration = Duration::from_secs(20);

fn target(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.expect("a target of this name")
}

fn bounded(name: &str) {
    let target = target(name);
    let folder = corpus(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("a target has a corpus")
        .map(|file| file.expect("readable").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    let read = |path| fs::read(path).expect("readable");
    let inputs: Vec<Vec<u8>> = files.iter().map(read).collect();
    for (file, input) in files.iter().zip(&inputs) {
        tried(target, input, &file.display().to_string());
    }
    let mutator = Mutator::new(1, inputs);
    for (n, input) in mutator.take(target.mutations as usize).enumerate() {
        tried(target, &input, &format!("mutation {n} of {name}"));
    }
}

/// The input that was too much is kept, so that it can become a file of the corpus.
fn tried(target: &Target, input: &[u8], what: &str) {
    let started = Instant::now();
    let ended = catch_unwind(|| (target.run)(input));
    let took = started.elapsed();
    if ended.is_ok() && took < INPUT_TIME_MAX {
        return;
    }
    let kept = std::env::temp_dir().join(format!("segmenter-fuzz-{}", target.name));
    fs::write(&kept, input).expect("a place for the input");
    panic!(
        "{what} failed after {took:?}; the input lies in {}",
        kept.display()
    );
}

#[test]
fn jsonl() {
    bounded("jsonl");
}

#[test]
fn config() {
    bounded("config");
}

#[test]
fn entry() {
    bounded("entry");
}

#[test]
fn replies() {
    bounded("replies");
}

#[test]
fn component() {
    bounded("component");
}

#[test]
fn every_target_is_tried_here_and_has_a_program_for_libfuzzer() {
    let this = include_str!("fuzz.rs");
    for target in TARGETS {
        let call = format!("bounded(\"{}\")", target.name);
        assert!(this.contains(&call), "no test of {}", target.name);
        let program = corpus(target.name)
            .ancestors()
            .nth(2)
            .expect("tests/fuzz")
            .join(format!("fuzz_targets/{}.rs", target.name));
        assert!(program.is_file(), "{} is missing", program.display());
    }
}
