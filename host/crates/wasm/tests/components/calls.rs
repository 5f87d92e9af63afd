//! What a call can come to.

use std::time::{Duration, Instant};

use segmenter_core::effects::Effects;
use segmenter_core::outcome::{Fault, Outcome};
use segmenter_wasm::{Grants, Limits};

use crate::guests::{Guest, LIMITS, LOG, OK, REJECT, RETRY_IN_70_MS, message};

/// The fault and reason of an outcome.
fn broken(outcome: Outcome) -> (Fault, String) {
    match outcome {
        Outcome::Broken { fault, reason } => (fault, reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn ok_retry_and_reject_come_back_as_the_guest_said() {
    for (body, expected) in [
        (OK, Outcome::Ok(Effects::default())),
        (
            REJECT,
            Outcome::Reject {
                at: 0,
                reason: "rejected".to_owned(),
            },
        ),
        (
            RETRY_IN_70_MS,
            Outcome::Retry {
                at: 0,
                reason: "later".to_owned(),
                after: Some(Duration::from_millis(70)),
            },
        ),
    ] {
        let (mut instance, _) = Guest {
            body,
            ..Guest::default()
        }
        .instance(LIMITS)
        .await;
        for _ in 0..3 {
            assert_eq!(instance.call(&message()).await, expected);
            assert!(!instance.is_dead());
        }
    }
}

/// ok if all that a message holds arrived, else a trap.
const CHECKS_MESSAGE: &str = r#"
  (if (i64.ne (local.get 0) (i64.const 7)) (then unreachable))
  (if (i64.ne (local.get 1) (i64.const 1)) (then unreachable))
  (if (i32.ne (local.get 2) (i32.const 5)) (then unreachable))
  (if (i32.ne (local.get 3) (i32.const 2)) (then unreachable))
  (if (i32.ne (local.get 9) (i32.const 1)) (then unreachable))
  ;; attributes[0] = ("a", "1")
  (if (i32.ne (i32.load8_u (i32.load (local.get 8))) (i32.const 97)) (then unreachable))
  (if (i32.ne (i32.load8_u (i32.load offset=8 (local.get 8))) (i32.const 49)) (then unreachable))
  (call $log (i32.const 2) (i32.const 0) (i32.const 0) (local.get 4) (local.get 5))
  (call $log (i32.const 4) (i32.const 0) (i32.const 0) (local.get 6) (local.get 7))
  (i32.store8 (i32.const 256) (i32.const 0)) (i32.const 256)"#;

#[tokio::test]
async fn a_message_arrives_whole_and_lines_carry_what_they_belong_to() {
    let guest = Guest {
        parts: LOG,
        body: CHECKS_MESSAGE,
        ..Guest::default()
    };
    let (mut instance, lines) = guest.instance(LIMITS).await;
    assert_eq!(
        instance.call(&message()).await,
        Outcome::Ok(Effects::default())
    );
    assert_eq!(
        lines.all(),
        ["5 7-1 2 info: the key", "5 7-1 2 error: the payload"]
    );
}

const STDERR: &str = r#"
  (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))"#;

#[tokio::test]
async fn a_trap_ends_the_instance_and_carries_the_last_words() {
    let guest = Guest {
        parts: STDERR,
        body: "(call $write (call $stderr) (i32.const 40) (i32.const 11) (i32.const 512)) unreachable",
        world: "import wasi:cli/stderr@0.2.0;",
        ..Guest::default()
    };
    let (mut instance, lines) = guest.instance(LIMITS).await;
    let (fault, reason) = broken(instance.call(&message()).await);
    assert_eq!(fault, Fault::Trap);
    assert!(
        reason.contains("unreachable") && reason.ends_with("stderr: last words"),
        "{reason}"
    );
    assert_eq!(lines.all(), ["5 7-1 2 warn: last words"]);
    assert!(instance.is_dead());
    // It says so again instead of doing anything.
    assert_eq!(broken(instance.call(&message()).await).0, Fault::Trap);
}

const SHORT: Limits = Limits {
    deadline: Duration::from_millis(200),
    ..LIMITS
};

#[tokio::test]
async fn an_endless_loop_ends_at_its_deadline_and_others_live_meanwhile() {
    let guest = Guest {
        body: "(loop $l (br $l)) unreachable",
        ..Guest::default()
    };
    let (mut instance, _) = guest.instance(SHORT).await;
    let started = Instant::now();
    let mut others = 0u32;
    // One thread runs both: the other is heard only if the loop yields.
    let other = async {
        loop {
            tokio::task::yield_now().await;
            others += 1;
        }
    };
    let outcome = tokio::select! {
        biased;
        outcome = async { instance.call(&message()).await } => outcome,
        () = other => panic!("it has no end"),
    };
    let (fault, reason) = broken(outcome);
    assert_eq!(fault, Fault::Deadline);
    assert!(reason.contains("200ms"), "{reason}");
    assert!(
        started.elapsed() >= SHORT.deadline,
        "not before its deadline"
    );
    assert!(others > 0, "others must live");
    assert!(instance.is_dead());
}

#[tokio::test]
async fn a_guest_that_waits_in_the_host_ends_at_its_deadline() {
    let guest = Guest {
        parts: r#"
          (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration"
            (func $after (param i64) (result i32)))
          (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))"#,
        // An hour, in nanoseconds.
        body: "(call $block (call $after (i64.const 3600000000000))) unreachable",
        world: "import wasi:clocks/monotonic-clock@0.2.0;",
        ..Guest::default()
    };
    let (mut instance, _) = guest.instance(SHORT).await;
    let (fault, reason) = broken(instance.call(&message()).await);
    assert_eq!(fault, Fault::Deadline);
    assert!(reason.contains("200ms"), "{reason}");
    assert!(instance.is_dead());
}

#[tokio::test]
async fn memory_over_the_limit_is_refused_and_told() {
    // 15 MiB more, of a limit of 1 MiB; a refusal is -1, and the guest gives up.
    let guest = Guest {
        body: "(if (i32.eq (memory.grow (i32.const 240)) (i32.const -1)) (then unreachable)) (i32.store8 (i32.const 256) (i32.const 0)) (i32.const 256)",
        ..Guest::default()
    };
    let (mut instance, _) = guest.instance(LIMITS).await;
    let (fault, reason) = broken(instance.call(&message()).await);
    assert_eq!(fault, Fault::Memory);
    assert!(reason.contains("1048576 bytes"), "{reason}");
    let (mut larger, _) = guest
        .instance(Limits {
            memory_bytes: 16 << 20,
            ..LIMITS
        })
        .await;
    assert_eq!(
        larger.call(&message()).await,
        Outcome::Ok(Effects::default())
    );
}

#[tokio::test]
async fn an_instance_that_needs_more_than_its_limit_at_once_is_not_made() {
    let tiny = Limits {
        memory_bytes: 64 << 10,
        ..LIMITS
    };
    let refused = Guest::default()
        .load(tiny)
        .probe()
        .await
        .expect_err("it begins with 128 KiB");
    assert!(refused.to_string().contains("65536"), "{refused}");
}

#[tokio::test]
async fn a_call_that_is_dropped_kills_its_instance() {
    let guest = Guest {
        body: "(loop $l (br $l)) unreachable",
        ..Guest::default()
    };
    let (mut instance, _) = guest.instance(LIMITS).await;
    {
        let message = message();
        let mut call = std::pin::pin!(instance.call(&message));
        // Polled once, so that it has begun.
        let first = std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx))).await;
        assert!(first.is_pending(), "it yields at the next tick");
    }
    assert!(instance.is_dead());
}

#[tokio::test]
async fn an_instance_remembers_from_call_to_call() {
    let guest = Guest {
        parts: "(global $calls (mut i32) (i32.const 0))",
        body: r#"
          (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
          (if (i32.eq (global.get $calls) (i32.const 3)) (then unreachable))
          (i32.store8 (i32.const 256) (i32.const 0)) (i32.const 256)"#,
        ..Guest::default()
    };
    let world = guest.granted(Grants::default());
    let (mut one, mut two) = (world.instance().await, world.instance().await);
    for expected in [true, true, false] {
        assert_eq!(
            one.call(&message()).await == Outcome::Ok(Effects::default()),
            expected
        );
    }
    assert_eq!(
        two.call(&message()).await,
        Outcome::Ok(Effects::default()),
        "instances share nothing"
    );
}
