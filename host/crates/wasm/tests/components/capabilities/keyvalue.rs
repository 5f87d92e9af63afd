//! `wasi:keyvalue`: store, atomics, batch.

use segmenter_core::outcome::Outcome;
use segmenter_wasm::{Grants, Instance};

use crate::guests::{Guest, LOG, SAY, World, asking, end_by_attempt};

const IMPORTS: &str = r#"
  (import "wasi:keyvalue/store@0.2.0-draft" "open" (func $open (param i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "[resource-drop]bucket" (func $drop (param i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "[method]bucket.get" (func $get (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "[method]bucket.set" (func $set (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "[method]bucket.delete" (func $delete (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "[method]bucket.exists" (func $exists (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "[method]bucket.list-keys" (func $list (param i32 i32 i64 i32)))
  (import "wasi:keyvalue/atomics@0.2.0-draft" "increment" (func $increment (param i32 i32 i32 i64 i32)))
  (import "wasi:keyvalue/batch@0.2.0-draft" "get-many" (func $get-many (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/batch@0.2.0-draft" "set-many" (func $set-many (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/batch@0.2.0-draft" "delete-many" (func $delete-many (param i32 i32 i32 i32)))"#;

/// The payload's first letter is what to do with the key, its rest a value: Open, Set, Get, Delete,
/// Exists, List, Increment; W, R and C set, get and delete as a batch of one and the same key twice.
const RUN: &str = r#"
  (global $bucket (mut i32) (i32.const 0))
  ;; Logs an error's text, or its number if it has none; the error lies at an address.
  (func $failed (param $at i32) (result i32)
    (if (i32.eqz (i32.load8_u (i32.const 512))) (then (return (i32.const 0))))
    (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 2))
      (then (call $say (i32.load offset=4 (local.get $at)) (i32.load offset=8 (local.get $at))))
      (else (call $error (i32.load8_u (local.get $at)))))
    (i32.const 1))
  ;; A list of the key, twice, at 1024; of pairs of key and value at 1040.
  (func $lists (param $k i32) (param $kn i32) (param $p i32) (param $pn i32)
    (i32.store (i32.const 1024) (local.get $k)) (i32.store (i32.const 1028) (local.get $kn))
    (i32.store (i32.const 1032) (local.get $k)) (i32.store (i32.const 1036) (local.get $kn))
    (i32.store (i32.const 1040) (local.get $k)) (i32.store (i32.const 1044) (local.get $kn))
    (i32.store (i32.const 1048) (local.get $p)) (i32.store (i32.const 1052) (local.get $pn))
    (i32.store (i32.const 1056) (local.get $k)) (i32.store (i32.const 1060) (local.get $kn))
    (i32.store (i32.const 1064) (local.get $p)) (i32.store (i32.const 1068) (local.get $pn)))
  (func $run (param $k i32) (param $kn i32) (param $p i32) (param $pn i32)
    (local $do i32) (local $at i32) (local $left i32)
    (local.set $do (i32.load8_u (local.get $p)))
    (local.set $p (i32.add (local.get $p) (i32.const 1)))
    (local.set $pn (i32.sub (local.get $pn) (i32.const 1)))
    (call $lists (local.get $k) (local.get $kn) (local.get $p) (local.get $pn))
    (if (i32.eq (local.get $do) (i32.const 0x4f)) (then ;; O
      (call $open (local.get $k) (local.get $kn) (i32.const 512))
      (if (call $failed (i32.const 516)) (then (return)))
      (call $drop (i32.load (i32.const 516)))
      (return)))
    (call $open (i32.const 0) (i32.const 0) (i32.const 512))
    (if (call $failed (i32.const 516)) (then (return)))
    (global.set $bucket (i32.load (i32.const 516)))
    (if (i32.eq (local.get $do) (i32.const 0x53)) (then ;; S
      (call $set (global.get $bucket) (local.get $k) (local.get $kn) (local.get $p) (local.get $pn) (i32.const 512))
      (drop (call $failed (i32.const 516)))))
    (if (i32.eq (local.get $do) (i32.const 0x47)) (then ;; G
      (call $get (global.get $bucket) (local.get $k) (local.get $kn) (i32.const 512))
      (if (i32.eqz (call $failed (i32.const 516))) (then
        (if (i32.load8_u (i32.const 516))
          (then (call $say (i32.load (i32.const 520)) (i32.load (i32.const 524))))
          (else (call $say (i32.const 96) (i32.const 4))))))))
    (if (i32.eq (local.get $do) (i32.const 0x44)) (then ;; D
      (call $delete (global.get $bucket) (local.get $k) (local.get $kn) (i32.const 512))
      (drop (call $failed (i32.const 516)))))
    (if (i32.eq (local.get $do) (i32.const 0x45)) (then ;; E
      (call $exists (global.get $bucket) (local.get $k) (local.get $kn) (i32.const 512))
      (if (i32.eqz (call $failed (i32.const 516))) (then (call $number (i32.load8_u (i32.const 516)))))))
    (if (i32.eq (local.get $do) (i32.const 0x4c)) (then ;; L, with a cursor if there is a value
      (call $list (global.get $bucket) (i32.ne (local.get $pn) (i32.const 0)) (i64.const 1) (i32.const 512))
      (if (i32.eqz (call $failed (i32.const 520))) (then
        (if (i32.load8_u (i32.const 528)) (then unreachable))
        (local.set $at (i32.load (i32.const 520)))
        (local.set $left (i32.load (i32.const 524)))
        (block $done (loop $next
          (br_if $done (i32.eqz (local.get $left)))
          (call $say (i32.load (local.get $at)) (i32.load offset=4 (local.get $at)))
          (local.set $at (i32.add (local.get $at) (i32.const 8)))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br $next)))))))
    (if (i32.eq (local.get $do) (i32.const 0x49)) (then ;; I
      (call $increment (global.get $bucket) (local.get $k) (local.get $kn) (i64.const 7) (i32.const 512))
      (if (i32.eqz (call $failed (i32.const 520))) (then (call $number (i32.load (i32.const 520)))))))
    (if (i32.eq (local.get $do) (i32.const 0x57)) (then ;; W
      (call $set-many (global.get $bucket) (i32.const 1040) (i32.const 2) (i32.const 512))
      (drop (call $failed (i32.const 516)))))
    (if (i32.eq (local.get $do) (i32.const 0x43)) (then ;; C
      (call $delete-many (global.get $bucket) (i32.const 1024) (i32.const 2) (i32.const 512))
      (drop (call $failed (i32.const 516)))))
    (if (i32.eq (local.get $do) (i32.const 0x52)) (then ;; R: options of (key, value), 20 bytes each
      (call $get-many (global.get $bucket) (i32.const 1024) (i32.const 2) (i32.const 512))
      (if (i32.eqz (call $failed (i32.const 516))) (then
        (local.set $at (i32.load (i32.const 516)))
        (local.set $left (i32.load (i32.const 520)))
        (block $done (loop $next
          (br_if $done (i32.eqz (local.get $left)))
          (if (i32.load8_u (local.get $at))
            (then
              (call $say (i32.load offset=4 (local.get $at)) (i32.load offset=8 (local.get $at)))
              (call $say (i32.load offset=12 (local.get $at)) (i32.load offset=16 (local.get $at))))
            (else (call $say (i32.const 96) (i32.const 4))))
          (local.set $at (i32.add (local.get $at) (i32.const 20)))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br $next)))))))
    (call $drop (global.get $bucket)))
  (data (i32.const 96) "none")"#;

fn with_guest<T>(then: impl FnOnce(Guest<'_>) -> T) -> T {
    let parts = [LOG, IMPORTS, SAY, RUN].concat();
    let body = "(call $run (local.get 4) (local.get 5) (local.get 6) (local.get 7))".to_owned()
        + &end_by_attempt();
    then(Guest {
        parts: &parts,
        body: &body,
        world: "import wasi:keyvalue/store@0.2.0-draft; import wasi:keyvalue/atomics@0.2.0-draft; import wasi:keyvalue/batch@0.2.0-draft;",
        ..Guest::default()
    })
}

async fn does(world: &World, instance: &mut Instance, key: &str, payload: &str) -> String {
    let (outcome, lines) = world.call(instance, &asking(1, key, payload)).await;
    assert!(
        matches!(outcome, Outcome::Ok(_)),
        "{key} {payload}: {outcome:?}"
    );
    lines.join(" ")
}

#[test]
fn without_the_grant() {
    with_guest(|guest| guest.refused_without("wasi:keyvalue/", "`state = true`"));
}

#[tokio::test]
async fn it_is_the_state_of_the_handler() {
    let world = with_guest(|guest| {
        guest.granted(Grants {
            state: true,
            ..Grants::default()
        })
    });
    let instance = &mut world.instance().await;
    let long = format!("S{}", "x".repeat(65));
    let large = format!("S{}", "x".repeat(60));
    for (key, payload, answer) in [
        ("", "O", ""),
        ("default", "O", ""),
        ("other", "O", "error 00"),
        ("a", "G", "none"),
        ("a", "E", "00"),
        ("a", "Sone", ""),
        ("a", "G", "one"),
        ("a", "E", "01"),
        ("a", "D", ""),
        ("a", "D", ""),
        ("a", "G", "none"),
        ("n", "I", "07"),
        ("n", "I", "14"),
        ("b", "Wtwo", ""),
        ("b", "R", "b two b two"),
        ("c", "R", "none none"),
        ("", "L", "b n"),
        (
            "",
            "L1",
            "cursor 1 was never given out: a list of keys is whole",
        ),
        ("b", "C", ""),
        ("", "L", "n"),
        ("n", "S-9", ""),
        (
            "n",
            "I",
            "the value is no decimal 64-bit number, or the sum is none",
        ),
        ("n", "G", "-9"),
        ("n", &long, "the name or value exceeds 64 bytes"),
        ("x", &large, ""),
        ("y", &large, ""),
        ("z", &large, ""),
        ("w", &large, "the partition's state exceeds 200 bytes"),
    ] {
        assert_eq!(
            does(&world, instance, key, payload).await,
            answer,
            "{key} {payload}"
        );
    }
    // A failed call leaves no trace, here as there.
    let (outcome, _) = world.call(instance, &asking(4, "n", "S1")).await;
    assert!(matches!(outcome, Outcome::Broken { .. }), "{outcome:?}");
    assert_eq!(does(&world, instance, "n", "G").await, "-9");
    world
        .kept
        .away
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let next = World {
        tenure: world.module.tenure(
            crate::guests::context(),
            world.lines.clone(),
            world.kept.clone(),
        ),
        ..world
    };
    let mut fresh = next.instance().await;
    assert_eq!(
        does(&next, &mut fresh, "n", "G").await,
        "the state cannot be read now: away"
    );
}
