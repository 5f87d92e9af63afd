//! The host's own memory while guests fail, and while versions are swapped: the same after many as after a
//! part of them. A process of its own, because it is measured. `SEGMENTER_SOAK_CALLS` says how many calls of
//! each kind of failure.

#[path = "components/guests.rs"]
#[allow(dead_code)]
mod guests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use segmenter_core::message::Message;
use segmenter_core::outcome::{Fault, Outcome};
use segmenter_wasm::{
    Compiled, Engine, EngineConfig, Grants, GuestLine, Instance, Limits, LogSink, Module, Priority,
    Targets, Tenure, version_of,
};
use tokio::sync::Mutex;

use guests::{Guest, Kept, LIMITS, LOG, REJECT, RETRY_IN_70_MS, context, message};

/// What one kind may take between a tenth of its calls and all.
const GROWTH_KIB_MAX: u64 = 5 * 1024;
/// Of each kind, unless asked for more: some seconds in the dev profile. `cargo xtask soak` makes 100,000.
const CALLS: u32 = 10_000;
/// A call that waits until its deadline takes a timer's 2 ms, one that spins a tick of 10 ms: of these
/// there are so many times fewer.
const PER_WAIT: u32 = 10;
const PER_SPIN: u32 = 100;

/// From swap to swap.
const SWAPS_EARLY: u32 = 100;
const SWAPS: u32 = 500;

/// One measures at a time.
static MEASURING: Mutex<()> = Mutex::const_new(());

struct Silent;
impl LogSink for Silent {
    fn line(&self, _: &GuestLine<'_>) {}
}

/// As the host does: a dead instance is replaced at the next call.
struct Slot {
    module: Module,
    tenure: Tenure,
    instance: Option<Instance>,
}

impl Slot {
    async fn call(&mut self, message: &Message) -> Outcome {
        let mut instance = match self.instance.take().filter(|i| !i.is_dead()) {
            Some(instance) => instance,
            None => match self
                .module
                .instantiate(&self.tenure, Targets::default())
                .await
            {
                Ok(instance) => instance,
                Err(error) => {
                    return Outcome::Broken {
                        fault: Fault::Instantiate,
                        reason: error.to_string(),
                    };
                }
            },
        };
        let outcome = instance.call(message).await;
        instance.diagnosis();
        self.instance = Some(instance);
        outcome
    }
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|n| n.parse().ok()).expect("VmRSS: N kB")
}

fn is(fault: Fault) -> impl Fn(&Outcome) -> bool {
    move |outcome| matches!(outcome, Outcome::Broken { fault: found, .. } if *found == fault)
}

#[tokio::test]
async fn the_host_does_not_grow_while_guests_fail() {
    let _alone = MEASURING.lock().await;
    let calls: u32 = match std::env::var("SEGMENTER_SOAK_CALLS") {
        Ok(text) => text.parse().expect("SEGMENTER_SOAK_CALLS is a number"),
        Err(_) => CALLS,
    };
    let short = Limits {
        deadline: Duration::from_millis(1),
        ..LIMITS
    };
    let of = |body| Guest {
        body,
        ..Guest::default()
    };
    let hoards =
        "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    let tables = "(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 99)) (i32.const -1)))) unreachable";
    let floods = "(loop $l (call $log (i32.const 2) (i32.const 0) (i32.const 0) (local.get 4) (local.get 5)) (br $l)) unreachable";
    let waits = Guest {
        parts: r#"
          (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration"
            (func $after (param i64) (result i32)))
          (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))"#,
        body: "(call $block (call $after (i64.const 3600000000000))) unreachable",
        world: "import wasi:clocks/monotonic-clock@0.2.0;",
        ..Guest::default()
    };
    let fresh = Limits {
        recycle: segmenter_wasm::Recycle {
            after_messages: Some(1),
            memory_bytes: None,
        },
        ..LIMITS
    };
    type Check = Box<dyn Fn(&Outcome) -> bool>;
    let kinds: Vec<(&str, Guest<'_>, Limits, u32, Check)> = vec![
        (
            "trap",
            of("unreachable"),
            LIMITS,
            calls,
            Box::new(is(Fault::Trap)),
        ),
        (
            "memory",
            of(hoards),
            LIMITS,
            calls,
            Box::new(is(Fault::Memory)),
        ),
        (
            "table",
            Guest {
                parts: "(table $t 1 funcref)",
                ..of(tables)
            },
            LIMITS,
            calls,
            Box::new(is(Fault::Memory)),
        ),
        (
            "reject",
            of(REJECT),
            LIMITS,
            calls,
            Box::new(|o| matches!(o, Outcome::Reject { .. })),
        ),
        (
            "retry",
            of(RETRY_IN_70_MS),
            LIMITS,
            calls,
            Box::new(|o| matches!(o, Outcome::Retry { .. })),
        ),
        (
            "retry, fresh",
            of(RETRY_IN_70_MS),
            fresh,
            calls,
            Box::new(|o| matches!(o, Outcome::Retry { .. })),
        ),
        (
            "deadline, waiting",
            waits,
            short,
            calls / PER_WAIT,
            Box::new(is(Fault::Deadline)),
        ),
        (
            "deadline, spinning",
            of("(loop $l (br $l)) unreachable"),
            short,
            calls / PER_SPIN,
            Box::new(is(Fault::Deadline)),
        ),
        (
            "deadline, logging",
            Guest {
                parts: LOG,
                ..of(floods)
            },
            short,
            calls / PER_SPIN,
            Box::new(is(Fault::Deadline)),
        ),
    ];
    let mut over = Vec::new();
    println!(
        "{:<20} {:>8} {:>12} {:>12} {:>9}",
        "KIND", "CALLS", "KiB at 1/10", "KiB at end", "SECONDS"
    );
    for (kind, guest, limits, calls, expected) in kinds {
        let module = guest.load(limits);
        let tenure = module.tenure(context(), Arc::new(Silent), Arc::<Kept>::default());
        let mut slot = Slot {
            module,
            tenure,
            instance: None,
        };
        let message = message();
        let started = Instant::now();
        let mut early = 0;
        for call in 1..=calls {
            let outcome = slot.call(&message).await;
            assert!(expected(&outcome), "{kind}: {outcome:?}");
            if call == calls / 10 {
                early = rss_kib();
            }
        }
        let late = rss_kib();
        let seconds = started.elapsed().as_secs_f64();
        println!("{kind:<20} {calls:>8} {early:>12} {late:>12} {seconds:>9.1}");
        if late > early + GROWTH_KIB_MAX {
            over.push(format!("{kind}: from {early} to {late} KiB"));
        }
    }
    assert!(over.is_empty(), "the host grew: {over:?}");
}

/// The same code as another version: with a custom section behind it.
fn version(component: &[u8], n: u32) -> Vec<u8> {
    let mut bytes = component.to_vec();
    bytes.extend([0, 6, 1, b'v']);
    bytes.extend(n.to_le_bytes());
    bytes
}

#[tokio::test]
async fn the_host_does_not_grow_while_versions_are_swapped() {
    let _alone = MEASURING.lock().await;
    let cache = tempfile::tempdir().expect("a folder");
    let engine = Engine::new(EngineConfig {
        cache_dir: Some(cache.path().to_path_buf()),
        memory_bytes_max: 16 << 20,
        table_elements_max: 1_000,
        instances_max: 8,
        core_dump_dir: None,
    })
    .expect("an engine");
    // Some code, so that compiling goes on in several threads.
    let mut parts = String::from(LOG);
    for n in 0..40 {
        parts.push_str(&format!(
            "(func $f{n} (export \"f{n}\") (param i32) (result i32)
               (i32.add (local.get 0) (i32.mul (local.get 0) (i32.const {n}))))"
        ));
    }
    let component = Guest {
        parts: &parts,
        ..Guest::default()
    }
    .component();
    let mut running: Vec<Instance> = Vec::new();
    let (mut early, mut live_max) = (0, 0);
    let started = Instant::now();
    for swap in 1..=SWAPS {
        let bytes = version(&component, swap);
        let digest = version_of(&bytes);
        let compiled =
            Compiled::new(&engine, &bytes, digest, Priority::Aside).expect("it compiles");
        let module = compiled.link(LIMITS, Grants::default()).expect("it links");
        drop(compiled);
        module.probe().await.expect("a first instance");
        live_max = live_max.max(engine.modules_live());
        // Partitions switch one after the other.
        for partition in 0..3 {
            let tenure = module.tenure(context(), Arc::new(Silent), Arc::<Kept>::default());
            if running.len() > partition {
                drop(running.remove(0));
            }
            let mut instance = module
                .instantiate(&tenure, Targets::default())
                .await
                .expect("an instance");
            assert_eq!(
                instance.call(&message()).await,
                Outcome::Ok(Default::default())
            );
            running.push(instance);
        }
        if swap == SWAPS_EARLY {
            early = rss_kib();
        }
    }
    let late = rss_kib();
    let seconds = started.elapsed().as_secs_f64();
    println!("swaps: {SWAPS}, {early} KiB at {SWAPS_EARLY}, {late} KiB at the end, {seconds:.1} s");
    // The one that goes and the one that comes.
    assert_eq!(live_max, 2);
    assert_eq!(engine.modules_live(), 1, "instances hold it");
    drop(running);
    assert_eq!(engine.modules_live(), 0);
    assert!(
        late <= early + GROWTH_KIB_MAX,
        "the host grew from {early} to {late} KiB"
    );
}
