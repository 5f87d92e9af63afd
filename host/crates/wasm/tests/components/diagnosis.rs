//! What is left of a call that ended an instance.

use std::path::Path;
use std::time::Duration;

use segmenter_core::effects::Effects;
use segmenter_core::limits;
use segmenter_core::message::Message;
use segmenter_core::outcome::Outcome;
use segmenter_wasm::{CORE_DUMPS_MAX, Diagnosis, Engine, EngineConfig, Grants, Limits, Module};

use crate::guests::{Guest, LIMITS, World, message};

const TRAPS: Guest<'_> = Guest {
    parts: "
      (func $_ZN5guest5inner17h0123456789abcdefE
        unreachable)
      (func $outer (call $_ZN5guest5inner17h0123456789abcdefE))",
    body: "(call $outer) unreachable",
    world: "",
    version: "0.1.0",
    lines: false,
};

async fn diagnosis(guest: Guest<'_>, limits: Limits) -> Diagnosis {
    let (mut instance, _) = guest.instance(limits).await;
    let outcome = instance.call(&message()).await;
    assert!(matches!(outcome, Outcome::Broken { .. }), "{outcome:?}");
    instance.diagnosis()
}

#[tokio::test]
async fn a_trap_says_where_it_was_by_readable_names_innermost_first() {
    let found = diagnosis(TRAPS, LIMITS).await;
    let trace = found.backtrace.expect("a trap has one");
    let lines: Vec<_> = trace.lines().collect();
    assert_eq!(lines.len(), 3, "{trace}");
    for (line, name) in lines
        .iter()
        .zip(["guest!guest::inner", "guest!outer", "guest!handle"])
    {
        assert!(line.contains(name), "{name}: {trace}");
    }
    assert_eq!(found.core_dump, None, "nobody asked for one");
}

#[tokio::test]
async fn source_lines_are_told_where_the_module_has_them() {
    let found = diagnosis(
        Guest {
            lines: true,
            ..TRAPS
        },
        LIMITS,
    )
    .await;
    let trace = found.backtrace.expect("a trap has one");
    assert!(trace.contains("src/guest.wat:3"), "{trace}");
}

#[tokio::test]
async fn a_loop_that_missed_its_deadline_says_where_it_was_and_a_good_call_says_nothing() {
    let guest = Guest {
        parts: "(func $spins (loop $l (br $l)))",
        body: "(call $spins) unreachable",
        ..Guest::default()
    };
    let limits = Limits {
        deadline: Duration::from_millis(50),
        ..LIMITS
    };
    let trace = diagnosis(guest, limits).await.backtrace.expect("it ran");
    assert!(trace.contains("spins"), "{trace}");

    let (mut instance, _) = Guest::default().instance(LIMITS).await;
    assert_eq!(
        instance.call(&message()).await,
        Outcome::Ok(Effects::default())
    );
    assert_eq!(instance.diagnosis(), Diagnosis::default());
}

#[tokio::test]
async fn a_backtrace_is_bounded() {
    let long = "n".repeat(2 * limits::BACKTRACE_BYTES_MAX);
    let parts = format!("(func ${long} (result i32) (i32.add (i32.const 1) (call ${long})))");
    let body = format!("(call ${long})");
    let guest = Guest {
        parts: &parts,
        body: &body,
        ..Guest::default()
    };
    let trace = diagnosis(guest, LIMITS).await.backtrace.expect("it ran");
    assert!(
        trace.len() < limits::BACKTRACE_BYTES_MAX + 20,
        "{}",
        trace.len()
    );
    assert!(trace.ends_with("(cut)"));
}

fn dumping(dir: &Path) -> Module {
    let config = EngineConfig {
        cache_dir: None,
        memory_bytes_max: 1 << 20,
        table_elements_max: 1_000,
        instances_max: 4,
        core_dump_dir: Some(dir.to_owned()),
    };
    let engine = Engine::new(config).expect("an engine");
    Module::load(&engine, &TRAPS.component(), LIMITS, Grants::default()).expect("it loads")
}

async fn trap(module: &Module, attempt: u32) -> Diagnosis {
    let mut instance = World::of(module.clone()).instance().await;
    let message = Message {
        attempt,
        ..message()
    };
    instance.call(&message).await;
    instance.diagnosis()
}

#[tokio::test]
async fn core_dumps_are_written_up_to_their_number() {
    let dir = tempfile::tempdir().unwrap();
    let module = dumping(dir.path());
    for attempt in 1..=CORE_DUMPS_MAX + 2 {
        let found = trap(&module, attempt).await;
        assert!(found.backtrace.is_some());
        if attempt > CORE_DUMPS_MAX {
            assert_eq!(found.core_dump, None);
            continue;
        }
        let path = found.core_dump.expect("one").expect("written");
        assert_eq!(path, dir.path().join(format!("h-5-7-1-{attempt}.coredump")));
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.starts_with(b"\0asm"));
        // The guest's memory is in it, and its stack.
        for part in [&b"last words"[..], b"corestack"] {
            assert!(bytes.windows(part.len()).any(|found| found == part));
        }
    }
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(files, CORE_DUMPS_MAX as usize);
}

#[tokio::test]
async fn a_core_dump_that_cannot_be_written_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let module = dumping(&dir.path().join("gone"));
    let why = trap(&module, 1)
        .await
        .core_dump
        .expect("tried")
        .unwrap_err();
    assert!(why.contains("h-5-7-1-1.coredump"), "{why}");
}
