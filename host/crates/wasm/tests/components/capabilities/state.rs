//! `segmenter:handler/state`.

use std::sync::atomic::Ordering;

use segmenter_core::effects::Effects;
use segmenter_core::outcome::Outcome;
use segmenter_wasm::{Grants, Instance};

use crate::guests::{Guest, LOG, SAY, World, asking, end_by_attempt, targets};

const IMPORTS: &str = r#"
  (import "segmenter:handler/state@0.1.0" "get" (func $get (param i32 i32 i32)))
  (import "segmenter:handler/state@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))
  (import "segmenter:handler/state@0.1.0" "delete" (func $delete (param i32 i32 i32)))
  (import "segmenter:handler/state@0.1.0" "increment" (func $increment (param i32 i32 i64 i32)))
  (import "segmenter:handler/state@0.1.0" "names" (func $names (param i32 i32 i32 i32 i32)))"#;

/// The payload's first letter is what to do with the name in the key, its rest a value. Logs answers.
const RUN: &str = r#"
  (func $failed (result i32)
    (if (i32.load8_u (i32.const 512))
      (then (call $error (i32.load8_u (i32.const 520))) (return (i32.const 1))))
    (i32.const 0))
  (func $run (param $k i32) (param $kn i32) (param $p i32) (param $pn i32)
    (local $do i32) (local $left i32) (local $at i32)
    (local.set $do (i32.load8_u (local.get $p)))
    (local.set $p (i32.add (local.get $p) (i32.const 1)))
    (local.set $pn (i32.sub (local.get $pn) (i32.const 1)))
    (if (i32.eq (local.get $do) (i32.const 0x73)) (then ;; s
      (call $set (local.get $k) (local.get $kn) (local.get $p) (local.get $pn) (i32.const 512))
      (drop (call $failed))))
    (if (i32.eq (local.get $do) (i32.const 0x67)) (then ;; g
      (call $get (local.get $k) (local.get $kn) (i32.const 512))
      (if (call $failed) (then (return)))
      (if (i32.load8_u (i32.const 520))
        (then (call $say (i32.load (i32.const 524)) (i32.load (i32.const 528))))
        (else (call $say (i32.const 96) (i32.const 4))))))
    (if (i32.eq (local.get $do) (i32.const 0x64)) (then ;; d
      (call $delete (local.get $k) (local.get $kn) (i32.const 512))
      (if (call $failed) (then (return)))
      (call $number (i32.load8_u (i32.const 520)))))
    (if (i32.eq (local.get $do) (i32.const 0x69)) (then ;; i
      (call $increment (local.get $k) (local.get $kn) (i64.const 7) (i32.const 512))
      (if (call $failed) (then (return)))
      (call $number (i32.load (i32.const 520)))))
    (if (i32.eq (local.get $do) (i32.const 0x6e)) (then ;; n
      (call $names (i32.const 1) (local.get $k) (local.get $kn) (i32.const 2) (i32.const 512))
      (if (call $failed) (then (return)))
      (local.set $at (i32.load (i32.const 520)))
      (local.set $left (i32.load (i32.const 524)))
      (block $done (loop $next
        (br_if $done (i32.eqz (local.get $left)))
        (call $say (i32.load (local.get $at)) (i32.load offset=4 (local.get $at)))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br $next))))))
  (data (i32.const 96) "none")"#;

fn with_guest<T>(then: impl FnOnce(Guest<'_>) -> T) -> T {
    let parts = [LOG, IMPORTS, SAY, RUN].concat();
    let body = "(call $run (local.get 4) (local.get 5) (local.get 6) (local.get 7))".to_owned()
        + &end_by_attempt();
    then(Guest {
        parts: &parts,
        body: &body,
        world: "import segmenter:handler/state@0.1.0;",
        ..Guest::default()
    })
}

fn world() -> World {
    let grants = Grants {
        state: true,
        ..Grants::default()
    };
    with_guest(|guest| guest.granted(grants))
}

/// What a call that ends well logs and changes.
async fn changes(
    world: &World,
    instance: &mut Instance,
    key: &str,
    payload: &str,
) -> (String, Effects) {
    match world.call(instance, &asking(1, key, payload)).await {
        (Outcome::Ok(effects), lines) => (lines.join(" "), effects),
        (other, _) => panic!("{key} {payload}: {other:?}"),
    }
}

async fn does(world: &World, instance: &mut Instance, key: &str, payload: &str) -> String {
    changes(world, instance, key, payload).await.0
}

#[test]
fn without_the_grant() {
    with_guest(|guest| guest.refused_without("segmenter:handler/state@0.1.0", "`state = true`"));
}

#[tokio::test]
async fn what_is_written_is_read_and_what_is_wrong_is_told() {
    let world = world();
    let instance = &mut world.instance().await;
    let long = format!("s{}", "x".repeat(65));
    let large = format!("s{}", "x".repeat(60));
    for (key, payload, answer) in [
        ("a", "g", "none"),
        ("a", "sone", ""),
        ("a", "g", "one"),
        ("a", "d", "01"),
        ("a", "d", "00"),
        ("a", "g", "none"),
        ("n", "i", "07"),
        ("n", "i", "14"),
        ("n", "g", "14"),
        ("n", "sNaN", ""),
        // not-a-number, too-large and full, by their places among the errors.
        ("n", "i", "error 02"),
        ("n", &long, "error 00"),
        ("x", &large, ""),
        ("y", &large, ""),
        ("z", &large, ""),
        ("w", &large, "error 01"),
        ("", "n", "n x"),
        ("n", "n", "x y"),
        ("z", "n", ""),
    ] {
        assert_eq!(
            does(&world, instance, key, payload).await,
            answer,
            "{key} {payload}"
        );
    }
    assert_eq!(
        world.kept.loads.load(Ordering::Relaxed),
        1,
        "memory serves the rest"
    );
}

#[tokio::test]
async fn a_failed_call_leaves_no_trace_and_state_outlives_an_instance() {
    let world = world();
    let instance = &mut world.instance().await;
    does(&world, instance, "n", "i").await;
    for attempt in 2..=4 {
        let (outcome, lines) = world.call(instance, &asking(attempt, "n", "i")).await;
        assert!(!matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
        assert_eq!(lines, ["14"], "it reads its own writes");
        assert_eq!(
            does(&world, instance, "n", "g").await,
            "7",
            "after attempt {attempt}"
        );
    }
    // A call that is cancelled.
    {
        let message = asking(5, "n", "i");
        let mut call = std::pin::pin!(instance.call(&message));
        let first = std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx))).await;
        assert!(first.is_pending());
    }
    assert!(instance.is_dead());
    assert_eq!(does(&world, instance, "n", "i").await, "14");
    assert_eq!(world.kept.loads.load(Ordering::Relaxed), 1);
    // The next tenure begins with what was committed: here, nothing ever was.
    let next = world.module.tenure(
        crate::guests::context(),
        world.lines.clone(),
        world.kept.clone(),
    );
    let mut fresh = world
        .module
        .instantiate(&next, targets())
        .await
        .expect("an instance");
    world.lines.take();
    let outcome = fresh.call(&asking(1, "n", "g")).await;
    assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
    assert_eq!(world.lines.take(), ["none"]);
}

#[tokio::test]
async fn effects_are_those_of_the_call() {
    let world = world();
    let instance = &mut world.instance().await;
    let effects = changes(&world, instance, "a", "sone").await.1;
    assert_eq!(effects.state["a"].as_deref(), Some(&b"one"[..]));
    let effects = changes(&world, instance, "b", "stwo").await.1;
    assert_eq!(effects.state.keys().collect::<Vec<_>>(), ["b"]);
    let effects = changes(&world, instance, "a", "d").await.1;
    assert_eq!(effects.state["a"], None);
    assert!(changes(&world, instance, "b", "g").await.1.is_empty());
}

#[tokio::test]
async fn a_shadow_sees_the_state_of_the_live_version_and_leaves_no_trace_in_it() {
    let world = world();
    let (live, shadow) = (&mut world.instance().await, &mut world.shadow().await);
    for total in ["07", "14", "21"] {
        // It is called first, and again: whatever it does, it begins with what the live version left.
        for _ in 0..2 {
            let (told, effects) = changes(&world, shadow, "n", "i").await;
            assert_eq!(told, total);
            let number = effects.state["n"].clone().expect("a value");
            assert_eq!(number, total.trim_start_matches('0').as_bytes());
        }
        assert_eq!(does(&world, live, "n", "i").await, total);
        changes(&world, shadow, "n", "d").await;
        changes(&world, shadow, "m", "sx").await;
        let kept = total.trim_start_matches('0');
        assert_eq!(does(&world, live, "n", "g").await, kept);
        assert_eq!(does(&world, live, "m", "g").await, "none");
    }
    assert_eq!(
        world.kept.loads.load(Ordering::Relaxed),
        1,
        "both have one memory"
    );
    shadow.call(&asking(1, "n", "g")).await;
    live.call(&asking(1, "n", "g")).await;
    assert_eq!(
        world.lines.all(),
        ["5 7-1 1 info shadow: 21", "5 7-1 1 info: 21"]
    );
}

#[tokio::test]
async fn a_source_that_is_away_is_told_and_asked_again() {
    let world = world();
    let instance = &mut world.instance().await;
    world.kept.away.store(true, Ordering::Relaxed);
    for payload in ["g", "sx", "i", "d", "n"] {
        let (told, effects) = changes(&world, instance, "a", payload).await;
        assert_eq!(told, "error 03", "{payload}");
        assert!(effects.is_empty());
    }
    world.kept.away.store(false, Ordering::Relaxed);
    assert_eq!(does(&world, instance, "a", "g").await, "none");
}

#[tokio::test]
async fn a_change_outside_of_a_call_is_a_mistake_that_is_told() {
    let parts = [
        IMPORTS,
        r#"(func $init (call $increment (i32.const 16) (i32.const 8) (i64.const 1) (i32.const 512)))
           (export "_initialize" (func $init))"#,
    ]
    .concat();
    let guest = Guest {
        parts: &parts,
        world: "import segmenter:handler/state@0.1.0;",
        ..Guest::default()
    };
    let world = guest.granted(Grants {
        state: true,
        ..Grants::default()
    });
    let refused = world.module.probe().await.expect_err("it changes state");
    assert!(
        refused.to_string().contains("outside of a call"),
        "{refused}"
    );
}
