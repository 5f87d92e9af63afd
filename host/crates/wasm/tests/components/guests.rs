//! Components from text: a core module's body, the world it is for, and the encoder that joins them.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use segmenter_core::lease::Epoch;
use segmenter_core::message::{Content, EntryId, Message};
use segmenter_core::names::Partition;
use segmenter_wasm::{
    Engine, EngineConfig, GuestLine, Instance, Limits, LoadError, LogSink, Module,
    PartitionContext, Recycle,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Parts of WASI that the tests' worlds import, as far as they need them.
const WASI: &str = r#"
package wasi:io@0.2.0 {
  interface error { resource error {} }
  interface poll { resource pollable { block: func(); } }
  interface streams {
    use error.{error};
    variant stream-error { last-operation-failed(error), closed }
    resource output-stream {
      blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
    }
  }
}
package wasi:clocks@0.2.0 {
  interface monotonic-clock {
    use wasi:io/poll@0.2.0.{pollable};
    subscribe-duration: func(when: u64) -> pollable;
  }
}
package wasi:cli@0.2.0 {
  interface stderr { use wasi:io/streams@0.2.0.{output-stream}; get-stderr: func() -> output-stream; }
  interface exit { exit: func(status: result); }
  interface environment {
    get-environment: func() -> list<tuple<string, string>>;
    get-arguments: func() -> list<string>;
  }
}
package wasi:filesystem@0.2.0 {
  interface types { resource descriptor {} }
  interface preopens {
    use types.{descriptor};
    get-directories: func() -> list<tuple<descriptor, string>>;
  }
}
"#;

/// What a guest is made of.
#[derive(Clone, Copy)]
pub(crate) struct Guest<'a> {
    /// Imports and functions of the core module.
    pub(crate) parts: &'a str,
    /// Body of `handle`. Parameters: 0 ms, 1 seq, 2 partition, 3 attempt, 4 5 key, 6 7 payload, 8 9
    /// attributes. Returns the address of the result: 256.
    pub(crate) body: &'a str,
    /// Items of its world besides `include message-handler`.
    pub(crate) world: &'a str,
    /// Of the contract.
    pub(crate) version: &'a str,
    /// Whether it says from which line of its text each instruction is.
    pub(crate) lines: bool,
}

impl Default for Guest<'_> {
    fn default() -> Self {
        Guest {
            parts: "",
            body: OK,
            world: "",
            version: "0.1.0",
            lines: false,
        }
    }
}

/// Results, written at 256 as the canonical ABI lays them out.
pub(crate) const OK: &str = "(i32.store8 (i32.const 256) (i32.const 0)) (i32.const 256)";
pub(crate) const REJECT: &str = r#"
  (i32.store8 (i32.const 256) (i32.const 1)) (i32.store8 (i32.const 260) (i32.const 1))
  (i32.store (i32.const 264) (i32.const 16)) (i32.store (i32.const 268) (i32.const 8))
  (i32.const 256)"#;
pub(crate) const RETRY_IN_70_MS: &str = r#"
  (i32.store8 (i32.const 256) (i32.const 1)) (i32.store8 (i32.const 260) (i32.const 0))
  (i32.store (i32.const 264) (i32.const 24)) (i32.store (i32.const 268) (i32.const 5))
  (i32.store8 (i32.const 272) (i32.const 1)) (i32.store (i32.const 276) (i32.const 70))
  (i32.const 256)"#;

/// Logs the text at (pointer, length).
pub(crate) const LOG: &str = r#"
  (import "wasi:logging/logging@0.1.0-draft" "log" (func $log (param i32 i32 i32 i32 i32)))"#;

impl Guest<'_> {
    fn core(&self) -> String {
        let Guest {
            parts,
            body,
            version,
            ..
        } = self;
        format!(
            r#"(module $guest {parts}
  (memory (export "memory") 2)
  (global $heap (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func $handle (export "segmenter:handler/handler@{version}#handle")
    (param i64 i64 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (global.set $heap (i32.const 4096))
    {body})
  (data (i32.const 16) "rejectedlater")
  (data (i32.const 40) "last words\n"))"#
        )
    }

    pub(crate) fn component(&self) -> Vec<u8> {
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../wit");
        let mut resolve = Resolve::default();
        for dependency in ["logging", "config"] {
            resolve
                .push_dir(wit.join("deps").join(dependency))
                .expect("a dependency");
        }
        let contract = std::fs::read_to_string(wit.join("handler.wit")).expect("the contract");
        let versioned = format!("package segmenter:handler@{};", self.version);
        let contract = contract.replace("package segmenter:handler@0.1.0;", &versioned);
        resolve
            .push_str("handler.wit", &contract)
            .expect("the contract is WIT");
        let text = format!(
            "package test:guest;\nworld guest {{ include segmenter:handler/message-handler@{}; {} }}\n{WASI}",
            self.version, self.world
        );
        let package = resolve
            .push_str("guest.wit", &text)
            .expect("the world is WIT");
        let world = resolve
            .select_world(&[package], Some("guest"))
            .expect("the world");
        let mut parser = wat::Parser::new();
        if self.lines {
            parser.generate_dwarf(wat::GenerateDwarf::Lines);
        }
        let mut module = parser
            .parse_str(Some(Path::new("src/guest.wat")), self.core())
            .expect("the module is WebAssembly text");
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .expect("metadata");
        let encoder = ComponentEncoder::default()
            .module(&module)
            .expect("a module");
        encoder.validate(true).encode().expect("a component")
    }

    pub(crate) fn load(&self, limits: Limits) -> Module {
        load(&self.component(), limits).expect("it loads")
    }

    pub(crate) async fn instance(&self, limits: Limits) -> (Instance, Arc<Lines>) {
        let lines: Arc<Lines> = Arc::default();
        let made = self
            .load(limits)
            .instantiate(context(), lines.clone())
            .await;
        (made.expect("an instance"), lines)
    }
}

pub(crate) fn engine() -> Engine {
    let config = EngineConfig {
        cache_dir: None,
        memory_bytes_max: 16 << 20,
        table_elements_max: 1_000,
        instances_max: 8,
        core_dump_dir: None,
    };
    Engine::new(config).expect("an engine")
}

pub(crate) fn load(bytes: &[u8], limits: Limits) -> Result<Module, LoadError> {
    Module::load(&engine(), bytes, limits)
}

pub(crate) const LIMITS: Limits = Limits {
    deadline: Duration::from_secs(20),
    instantiate: Duration::from_secs(20),
    memory_bytes: 1 << 20,
    table_elements: 1_000,
    core_instances: 20,
    log_bytes: 1 << 20,
    recycle: Recycle {
        after_messages: None,
        memory_bytes: None,
    },
};

pub(crate) fn context() -> PartitionContext {
    PartitionContext {
        namespace: "ns".parse().unwrap(),
        stream: "orders".parse().unwrap(),
        partitions: 8,
        group: "g".parse().unwrap(),
        handler: "h".parse().unwrap(),
        version: "v".parse().unwrap(),
        partition: Partition(5),
        epoch: Epoch(77),
    }
}

pub(crate) fn message() -> Message {
    let attributes = vec![("a".to_owned(), "1".to_owned())];
    let content = Content::new("the key", b"the payload".to_vec(), attributes, 1024);
    Message {
        id: EntryId { ms: 7, seq: 1 },
        partition: Partition(5),
        attempt: 2,
        content: content.expect("a message"),
    }
}

/// Keeps what guests write.
#[derive(Default)]
pub(crate) struct Lines(Mutex<Vec<String>>);

impl LogSink for Lines {
    fn line(&self, line: &GuestLine<'_>) {
        let GuestLine {
            partition,
            id,
            attempt,
            level,
            text,
        } = line;
        let text = format!("{partition} {id} {attempt} {}: {text}", level.as_str());
        self.0.lock().unwrap().push(text);
    }
}

impl Lines {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}
