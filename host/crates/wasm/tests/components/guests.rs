//! Components from text: a core module's body, the world it is for, and the encoder that joins them.

use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use segmenter_core::effects::{EffectLimits, State};
use segmenter_core::lease::Epoch;
use segmenter_core::message::{Content, EntryId, Message};
use segmenter_core::names::Partition;
use segmenter_core::outcome::Outcome;
use segmenter_wasm::{
    Engine, EngineConfig, Grants, GuestLine, Instance, Limits, LoadError, LogSink, Module,
    PartitionContext, Recycle, StateSource, Targets, Tenure,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

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
  interface types {
    enum error-code {
      access, would-block, already, bad-descriptor, busy, deadlock, quota, exist, file-too-large,
      illegal-byte-sequence, in-progress, interrupted, invalid, io, is-directory, loop, too-many-links,
      message-size, name-too-long, no-device, no-entry, no-lock, insufficient-memory, insufficient-space,
      not-directory, not-empty, not-recoverable, unsupported, no-tty, no-such-device, overflow,
      not-permitted, pipe, read-only, invalid-seek, text-file-busy, cross-device,
    }
    flags path-flags { symlink-follow }
    flags open-flags { create, directory, exclusive, truncate }
    flags descriptor-flags {
      read, write, file-integrity-sync, data-integrity-sync, requested-write-sync, mutate-directory,
    }
    resource descriptor {
      open-at: func(path-flags: path-flags, path: string, open-flags: open-flags, %flags: descriptor-flags)
        -> result<descriptor, error-code>;
      read: func(length: u64, offset: u64) -> result<tuple<list<u8>, bool>, error-code>;
      write: func(buffer: list<u8>, offset: u64) -> result<u64, error-code>;
      unlink-file-at: func(path: string) -> result<_, error-code>;
    }
  }
  interface preopens {
    use types.{descriptor};
    get-directories: func() -> list<tuple<descriptor, string>>;
  }
}
package wasi:http@0.2.0 {
  interface types {
    use wasi:io/poll@0.2.0.{pollable};
    record dns { rcode: option<string>, info-code: option<u16> }
    record tls { alert-id: option<u8>, alert-message: option<string> }
    record field { field-name: option<string>, field-size: option<u32> }
    variant error-code {
      DNS-timeout, DNS-error(dns), destination-not-found, destination-unavailable,
      destination-IP-prohibited, destination-IP-unroutable, connection-refused, connection-terminated,
      connection-timeout, connection-read-timeout, connection-write-timeout, connection-limit-reached,
      TLS-protocol-error, TLS-certificate-error, TLS-alert-received(tls), HTTP-request-denied,
      HTTP-request-length-required, HTTP-request-body-size(option<u64>), HTTP-request-method-invalid,
      HTTP-request-URI-invalid, HTTP-request-URI-too-long, HTTP-request-header-section-size(option<u32>),
      HTTP-request-header-size(option<field>), HTTP-request-trailer-section-size(option<u32>),
      HTTP-request-trailer-size(field), HTTP-response-incomplete,
      HTTP-response-header-section-size(option<u32>), HTTP-response-header-size(field),
      HTTP-response-body-size(option<u64>), HTTP-response-trailer-section-size(option<u32>),
      HTTP-response-trailer-size(field), HTTP-response-transfer-coding(option<string>),
      HTTP-response-content-coding(option<string>), HTTP-response-timeout, HTTP-upgrade-failed,
      HTTP-protocol-error, loop-detected, configuration-error, internal-error(option<string>),
    }
    variant scheme { HTTP, HTTPS, other(string) }
    resource fields { constructor(); }
    resource outgoing-request {
      constructor(headers: fields);
      set-scheme: func(scheme: option<scheme>) -> result;
      set-authority: func(authority: option<string>) -> result;
      set-path-with-query: func(path: option<string>) -> result;
    }
    resource request-options {}
    resource incoming-response { status: func() -> u16; }
    resource future-incoming-response {
      subscribe: func() -> pollable;
      get: func() -> option<result<result<incoming-response, error-code>>>;
    }
  }
  interface outgoing-handler {
    use types.{outgoing-request, request-options, future-incoming-response, error-code};
    handle: func(request: outgoing-request, options: option<request-options>)
      -> result<future-incoming-response, error-code>;
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

/// `$say` logs (pointer, length), `$number` a number below 100, `$error` "error" and such a number.
pub(crate) const SAY: &str = r#"
  (func $say (param i32 i32)
    (call $log (i32.const 2) (i32.const 0) (i32.const 0) (local.get 0) (local.get 1)))
  (func $digits (param $n i32) (param $at i32)
    (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.div_u (local.get $n) (i32.const 10))))
    (i32.store8 offset=1 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10)))))
  (func $number (param i32)
    (call $digits (local.get 0) (i32.const 76))
    (call $say (i32.const 76) (i32.const 2)))
  (func $error (param i32)
    (call $digits (local.get 0) (i32.const 70))
    (call $say (i32.const 64) (i32.const 8)))
  (data (i32.const 64) "error 00")"#;

/// Ends a call as its attempt says: 1 ok, 2 retry, 3 reject, 4 trap, 5 never.
pub(crate) fn end_by_attempt() -> String {
    format!(
        r#"
  (if (i32.eq (local.get 3) (i32.const 2)) (then (return (block (result i32) {RETRY_IN_70_MS}))))
  (if (i32.eq (local.get 3) (i32.const 3)) (then (return (block (result i32) {REJECT}))))
  (if (i32.eq (local.get 3) (i32.const 4)) (then unreachable))
  (if (i32.eq (local.get 3) (i32.const 5)) (then (loop $l (br $l))))
  {OK}"#
    )
}

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
    {body})
  (func (export "cabi_post_segmenter:handler/handler@{version}#handle") (param i32)
    (global.set $heap (i32.const 4096)))
  (data (i32.const 16) "rejectedlater")
  (data (i32.const 40) "last words\n"))"#
        )
    }

    pub(crate) fn component(&self) -> Vec<u8> {
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../wit");
        let mut resolve = Resolve::default();
        for dependency in ["logging", "config", "keyvalue"] {
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
        encode(&resolve, world, &self.core(), self.lines)
    }

    pub(crate) fn load(&self, limits: Limits) -> Module {
        load(&self.component(), limits).expect("it loads")
    }

    pub(crate) async fn instance(&self, limits: Limits) -> (Instance, Arc<Lines>) {
        let world = World::of(self.load(limits));
        (world.instance().await, world.lines)
    }

    /// With grants, and with the small limits that effects have in tests.
    pub(crate) fn granted(&self, grants: Grants) -> World {
        let module = Module::load(&engine(), &self.component(), LIMITS, grants);
        World::of(module.expect("it loads"))
    }

    /// Why it does not load without any grant: the import and the setting are both told.
    pub(crate) fn refused_without(&self, import: &str, setting: &str) {
        let refused = match load(&self.component(), LIMITS) {
            Err(LoadError::MissingImport { import, why }) => format!("{import} {why}"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was loaded without its grant"),
        };
        assert!(
            refused.contains(import) && refused.contains(setting),
            "{refused}"
        );
    }
}

/// A component of a core module's text. `lines`: it says from which line each instruction is.
pub(crate) fn encode(resolve: &Resolve, world: WorldId, core: &str, lines: bool) -> Vec<u8> {
    let mut parser = wat::Parser::new();
    if lines {
        parser.generate_dwarf(wat::GenerateDwarf::Lines);
    }
    let mut module = parser
        .parse_str(Some(Path::new("src/guest.wat")), core)
        .expect("the module is WebAssembly text");
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).expect("metadata");
    let encoder = ComponentEncoder::default()
        .module(&module)
        .expect("a module");
    encoder.validate(true).encode().expect("a component")
}

/// A module in one partition in one lease epoch.
pub(crate) struct World {
    pub(crate) module: Module,
    pub(crate) tenure: Tenure,
    pub(crate) kept: Arc<Kept>,
    pub(crate) lines: Arc<Lines>,
}

impl World {
    pub(crate) fn of(module: Module) -> World {
        let (lines, kept): (Arc<Lines>, Arc<Kept>) = Default::default();
        let tenure = module.tenure(context(), lines.clone(), kept.clone());
        World {
            module,
            tenure,
            kept,
            lines,
        }
    }

    pub(crate) async fn instance(&self) -> Instance {
        let made = self.module.instantiate(&self.tenure, targets()).await;
        made.expect("an instance")
    }

    pub(crate) async fn shadow(&self) -> Instance {
        let made = self.module.shadow(&self.tenure, targets()).await;
        made.expect("an instance")
    }

    /// Calls, in a new instance if the last one is dead, and takes what the guest logged.
    pub(crate) async fn call(
        &self,
        instance: &mut Instance,
        message: &Message,
    ) -> (Outcome, Vec<String>) {
        if instance.is_dead() {
            *instance = self.instance().await;
        }
        self.lines.take();
        let outcome = instance.call(message).await;
        (outcome, self.lines.take())
    }
}

/// Where state is kept between tenures, as far as a test goes.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) state: Mutex<State>,
    pub(crate) loads: AtomicU32,
    pub(crate) away: AtomicBool,
}

impl StateSource for Kept {
    fn load(&self) -> Pin<Box<dyn Future<Output = Result<State, String>> + Send + '_>> {
        Box::pin(async {
            // As a real one does, it makes the call wait.
            tokio::task::yield_now().await;
            if self.away.load(Ordering::Relaxed) {
                return Err("away".to_owned());
            }
            self.loads.fetch_add(1, Ordering::Relaxed);
            Ok(self.state.lock().unwrap().clone())
        })
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
    Module::load(&engine(), bytes, limits, Grants::default())
}

pub(crate) const LIMITS: Limits = Limits {
    deadline: Duration::from_secs(20),
    instantiate: Duration::from_secs(20),
    memory_bytes: 1 << 20,
    payload_bytes: 1_000,
    effects: EffectLimits {
        value_bytes: 64,
        state_bytes: 200,
        emits: 3,
        emit_bytes: 2_000,
    },
    table_elements: 1_000,
    core_instances: 20,
    log_bytes: 1 << 20,
    recycle: Recycle {
        after_messages: None,
        memory_bytes: None,
    },
};

/// One stream with a payload limit of its own.
pub(crate) fn targets() -> Targets {
    Arc::new([("small".parse().unwrap(), 10)].into())
}

pub(crate) fn context() -> PartitionContext {
    PartitionContext {
        namespace: "ns".parse().unwrap(),
        stream: "orders".parse().unwrap(),
        partitions: 8,
        group: "g".parse().unwrap(),
        handler: "h".parse().unwrap(),
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

/// With another key and payload, without attributes.
pub(crate) fn asking(attempt: u32, key: &str, payload: impl Into<Vec<u8>>) -> Message {
    let content = Content::new(key, payload.into(), Vec::new(), 1 << 20);
    Message {
        attempt,
        content: content.expect("a message"),
        ..message()
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
            shadow,
        } = line;
        let of = if *shadow { " shadow" } else { "" };
        let text = format!("{partition} {id} {attempt} {}{of}: {text}", level.as_str());
        self.0.lock().unwrap().push(text);
    }
}

impl Lines {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// The texts alone, which are then forgotten.
    pub(crate) fn take(&self) -> Vec<String> {
        let lines = std::mem::take(&mut *self.0.lock().unwrap());
        let text = |line: String| line.split_once(": ").expect("a level").1.to_owned();
        lines.into_iter().map(text).collect()
    }
}
