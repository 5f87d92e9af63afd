//! Each limit, and a guest that breaks it.

use std::time::{Duration, Instant};

use segmenter_core::effects::Effects;
use segmenter_core::outcome::{Fault, Outcome};
use segmenter_wasm::{Limits, Recycle};

use crate::guests::{Guest, LIMITS, LOG, OK, load, message};

fn broken(outcome: Outcome) -> (Fault, String) {
    match outcome {
        Outcome::Broken { fault, reason } => (fault, reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tables_over_the_limit_are_refused_and_told_and_count_together() {
    let grows = |elements: u32| {
        let grow = |table: &str| {
            format!(
                "(if (i32.eq (table.grow ${table} (ref.null func) (i32.const {elements})) (i32.const -1)) (then unreachable))"
            )
        };
        format!("{}{}{OK}", grow("one"), grow("two"))
    };
    for (elements, fits) in [(499, true), (501, false), (100_000_000, false)] {
        let body = grows(elements);
        let guest = Guest {
            parts: "(table $one 1 funcref) (table $two 1 funcref)",
            body: &body,
            ..Guest::default()
        };
        let (mut instance, _) = guest.instance(LIMITS).await;
        let outcome = instance.call(&message()).await;
        if fits {
            assert_eq!(outcome, Outcome::Ok(Effects::default()));
            continue;
        }
        let (fault, reason) = broken(outcome);
        assert_eq!(fault, Fault::Memory);
        assert!(
            reason.contains("table elements than its limit of 1000"),
            "{reason}"
        );
        assert!(instance.is_dead());
    }
}

/// With so many more core instances, of an empty module.
fn crowded(more: u8) -> Vec<u8> {
    let mut component = Guest::default().component();
    let empty = wat::parse_str("(component (core module))").unwrap();
    component.extend_from_slice(&empty[8..]);
    // Section 2, core instances: each instantiates core module 1 without arguments.
    component.extend([2, 1 + 3 * more, more]);
    component.extend([0, 1, 0].repeat(usize::from(more)));
    component
}

#[tokio::test]
async fn a_component_of_too_many_instances_is_not_made() {
    let component = crowded(30);
    let refused = load(&component, LIMITS).expect("it loads").probe().await;
    let refused = refused.expect_err("it has 31").to_string();
    assert!(
        refused.contains("20 core instances (core_instances)"),
        "{refused}"
    );
    let limits = Limits {
        core_instances: 31,
        ..LIMITS
    };
    let module = load(&component, limits).expect("it loads");
    module.probe().await.expect("31 may be");
}

fn parts() -> String {
    format!("{LOG} (global $i (mut i32) (i32.const 0))")
}

/// Logs its key so often.
fn floods(times: u32, then: &str) -> String {
    format!(
        "(global.set $i (i32.const 0))
         (loop $l
           (call $log (i32.const 2) (i32.const 0) (i32.const 0) (local.get 4) (local.get 5))
           (global.set $i (i32.add (global.get $i) (i32.const 1)))
           (br_if $l (i32.lt_u (global.get $i) (i32.const {times}))))
         {then}"
    )
}

#[tokio::test]
async fn a_flood_of_output_is_cut_and_told_in_one_line_a_call() {
    let limits = Limits {
        log_bytes: 640,
        ..LIMITS
    };
    let body = floods(100, OK);
    let guest = Guest {
        parts: &parts(),
        body: &body,
        ..Guest::default()
    };
    let (mut instance, lines) = guest.instance(limits).await;
    for call in 1..=2 {
        assert_eq!(
            instance.call(&message()).await,
            Outcome::Ok(Effects::default())
        );
        let all = lines.all();
        assert_eq!(all.len(), 11 * call, "{all:?}");
        let mark = all.last().unwrap();
        assert!(
            mark.starts_with("5 7-1 2 warn: ")
                && mark.contains("90 lines of 630 bytes")
                && mark.contains("640 bytes"),
            "{mark}"
        );
    }
}

#[tokio::test]
async fn what_was_dropped_is_told_also_when_the_call_is_cut_off() {
    let limits = Limits {
        log_bytes: 640,
        ..LIMITS
    };
    let body = floods(100, "(loop $l (br $l)) unreachable");
    let guest = Guest {
        parts: &parts(),
        body: &body,
        ..Guest::default()
    };
    let (mut instance, lines) = guest.instance(limits).await;
    {
        let message = message();
        let mut call = std::pin::pin!(instance.call(&message));
        let mut poll = async || {
            std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx))).await
        };
        // Every poll is a tick of the guest; it is in its loop as soon as the flood is over.
        while lines.all().len() < 10 {
            assert!(poll().await.is_pending());
        }
        assert!(poll().await.is_pending());
    }
    let all = lines.all();
    assert_eq!(all.len(), 11, "{all:?}");
    assert!(all[10].contains("dropped 90 lines"), "{all:?}");
}

#[tokio::test]
async fn a_start_function_that_loops_ends_at_its_own_limit() {
    let limits = Limits {
        instantiate: Duration::from_millis(100),
        ..LIMITS
    };
    let module = Guest {
        parts: "(func $start (loop $l (br $l))) (start $start)",
        ..Guest::default()
    }
    .load(limits);
    let started = Instant::now();
    let refused = module.probe().await.expect_err("it has no end").to_string();
    assert!(refused.contains("100ms (instantiate)"), "{refused}");
    assert!(started.elapsed() >= limits.instantiate);
}

#[tokio::test]
async fn endless_recursion_ends_as_a_trap() {
    let guest = Guest {
        parts: "(func $deeper (result i32) (i32.add (i32.const 1) (call $deeper)))",
        body: "(call $deeper)",
        ..Guest::default()
    };
    let (mut instance, _) = guest.instance(LIMITS).await;
    let (fault, reason) = broken(instance.call(&message()).await);
    assert_eq!(fault, Fault::Trap);
    assert!(reason.contains("stack"), "{reason}");
}

#[tokio::test]
async fn a_guest_that_exits_ends_itself_alone() {
    let guest = Guest {
        parts: r#"(import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))"#,
        body: "(call $exit (i32.const 1)) unreachable",
        world: "import wasi:cli/exit@0.2.0;",
        ..Guest::default()
    };
    let (mut instance, _) = guest.instance(LIMITS).await;
    let (fault, reason) = broken(instance.call(&message()).await);
    assert_eq!(fault, Fault::Trap);
    assert!(reason.contains("exit status 1"), "{reason}");
    assert!(instance.is_dead());
}

#[tokio::test]
async fn an_instance_is_spent_after_its_messages_or_beyond_its_mark() {
    // 64 KiB more each time, beginning with 128.
    let body = format!("(drop (memory.grow (i32.const 1))) {OK}");
    for (recycle, calls) in [
        (Recycle::default(), 9),
        (
            Recycle {
                after_messages: Some(4),
                ..Recycle::default()
            },
            4,
        ),
        (
            Recycle {
                memory_bytes: Some(256 << 10),
                ..Recycle::default()
            },
            3,
        ),
        (
            Recycle {
                after_messages: Some(1),
                memory_bytes: Some(256 << 10),
            },
            1,
        ),
    ] {
        let guest = Guest {
            body: &body,
            ..Guest::default()
        };
        let (mut instance, _) = guest.instance(Limits { recycle, ..LIMITS }).await;
        let mut handled = 0;
        while !instance.is_dead() && handled < 9 {
            assert_eq!(
                instance.call(&message()).await,
                Outcome::Ok(Effects::default())
            );
            handled += 1;
        }
        assert_eq!(handled, calls, "{recycle:?}");
    }
}
