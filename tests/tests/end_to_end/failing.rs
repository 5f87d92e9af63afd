//! The component of `tests/guests/failing`, from its text. Knows how a component is made; must not know
//! what it does.

use std::path::{Path, PathBuf};

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const TEXT: &str = include_str!("../../guests/failing/failing.wat");
const WORLD: &str = include_str!("../../guests/failing/world.wit");
/// Loops in one of eight instances, unless it is the one that is made to look at the module (epoch 0).
const START: &str = "
  (func $starts
    (if (i32.and (i64.ne (call $epoch) (i64.const 0))
                 (i64.eqz (i64.and (call $random) (i64.const 7))))
      (then (loop $l (br $l)))))
  (start $starts)";

/// Writes it into a folder.
pub(crate) fn guest(dir: &Path) -> PathBuf {
    write(dir, "failing.wasm", TEXT)
}

/// The same, with a start function that may loop.
pub(crate) fn guest_that_may_not_start(dir: &Path) -> PathBuf {
    write(dir, "failing-start.wasm", &TEXT.replace(";;START", START))
}

/// Fails every message by a trap.
pub(crate) fn guest_that_traps(dir: &Path) -> PathBuf {
    let does = "(func $does (param $wish i32) (param $key i32) (param $length i32) (result i32)";
    let traps = format!("{does} (call $panics)");
    write(dir, "traps.wasm", &replaced(does, &traps))
}

/// Acks every message, after 50 ms.
pub(crate) fn guest_that_is_slow(dir: &Path) -> PathBuf {
    let handles = "(global.set $heap (i32.const 8192))
    (if ";
    let slow = "(global.set $heap (i32.const 8192))
    (call $log (i32.const 2) (i32.const 0) (i32.const 0) (local.get $key) (local.get $key_length))
    (call $block (call $after (i64.const 50000000)))
    (if (i32.const 1) (then (return (call $ok))))
    (if ";
    write(dir, "slow.wasm", &replaced(handles, slow))
}

/// Says a message's key, then waits for an hour.
pub(crate) fn guest_that_waits(dir: &Path) -> PathBuf {
    let does = "(func $does (param $wish i32) (param $key i32) (param $length i32) (result i32)";
    let says = "(call $log (i32.const 2) (i32.const 0) (i32.const 0) (local.get $key) (local.get $length))";
    let waits = format!("{does} {says} (call $waits)");
    write(dir, "waits.wasm", &replaced(does, &waits))
}

/// Never comes to its first instance.
pub(crate) fn guest_that_loops_at_start(dir: &Path) -> PathBuf {
    let start = "(func $starts (loop $l (br $l))) (start $starts)";
    write(dir, "loops.wasm", &replaced(";;START", start))
}

/// Begins with 128 MiB.
pub(crate) fn guest_of_much_memory(dir: &Path) -> PathBuf {
    let memory = "(memory (export \"memory\")";
    let much = format!("{memory} 2048)");
    write(dir, "much.wasm", &replaced(&format!("{memory} 2)"), &much))
}

fn replaced(what: &str, by: &str) -> String {
    assert!(TEXT.contains(what), "the text of the guest has changed");
    TEXT.replace(what, by)
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    let mut resolve = Resolve::default();
    for dependency in ["logging", "config"] {
        let path = wit.join("deps").join(dependency);
        resolve.push_dir(path).expect("a dependency");
    }
    let contract = std::fs::read_to_string(wit.join("handler.wit")).expect("the contract");
    resolve
        .push_str("handler.wit", &contract)
        .expect("the contract is WIT");
    let package = resolve
        .push_str("world.wit", WORLD)
        .expect("the world is WIT");
    let world = resolve
        .select_world(&[package], Some("guest"))
        .expect("the world");
    let mut module = wat::parse_str(text).expect("the module is WebAssembly text");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("metadata");
    let encoder = ComponentEncoder::default()
        .module(&module)
        .expect("a module");
    let component = encoder.validate(true).encode().expect("a component");
    let path = dir.join(name);
    std::fs::write(&path, component).expect("the folder is there");
    path
}
