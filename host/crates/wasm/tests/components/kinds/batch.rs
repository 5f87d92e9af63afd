//! Our own contract with several messages a call: how they come, and what answers mean.

use std::path::Path;
use std::time::Duration;

use segmenter_core::batch::Batch;
use segmenter_core::effects::Effects;
use segmenter_core::message::Message;
use segmenter_core::outcome::{Fault, Outcome};
use segmenter_wasm::{Grants, Kind, Limits, LoadError, Module, Recycle};
use wit_parser::Resolve;

use crate::guests::{self, Guest, LIMITS, LOG, SAY, World, encode, engine};

/// Logs each payload, and answers about each message as its attempt says: 1 ok, 2 retry in 70 ms, 3 reject, 4
/// trap, 5 never, 6 of the index 9, 7 twice of the same.
const CORE: &str = r#"
  (memory (export "memory") 8)
  (global $heap (mut i32) (i32.const 8192))
  (global $failed (mut i32) (i32.const 0))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func $fail (param $index i32) (param $attempt i32)
    (local $at i32)
    (local.set $at (i32.add (i32.const 512) (i32.mul (global.get $failed) (i32.const 24))))
    (global.set $failed (i32.add (global.get $failed) (i32.const 1)))
    (i32.store (local.get $at)
      (select (i32.const 9) (local.get $index) (i32.eq (local.get $attempt) (i32.const 6))))
    (i32.store offset=4 (local.get $at) (i32.eq (local.get $attempt) (i32.const 3)))
    (i32.store offset=8 (local.get $at) (i32.const 16))
    (i32.store offset=12 (local.get $at) (i32.const 3))
    (i32.store offset=16 (local.get $at) (i32.eq (local.get $attempt) (i32.const 2)))
    (i32.store offset=20 (local.get $at) (i32.const 70)))
  (func (export "segmenter:handler/batch@0.1.0#handle") (param $list i32) (param $n i32) (result i32)
    (local $i i32) (local $message i32) (local $attempt i32)
    (global.set $failed (i32.const 0))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $i) (local.get $n)))
      (local.set $message (i32.add (local.get $list) (i32.mul (local.get $i) (i32.const 48))))
      (local.set $attempt (i32.load offset=20 (local.get $message)))
      (call $say (i32.load offset=32 (local.get $message)) (i32.load offset=36 (local.get $message)))
      (if (i32.eq (local.get $attempt) (i32.const 4)) (then unreachable))
      (if (i32.eq (local.get $attempt) (i32.const 5)) (then (loop $l (br $l))))
      (if (i32.gt_u (local.get $attempt) (i32.const 1))
        (then (call $fail (local.get $i) (local.get $attempt))))
      (if (i32.eq (local.get $attempt) (i32.const 7))
        (then (call $fail (local.get $i) (local.get $attempt))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next)))
    (i32.store (i32.const 256) (i32.const 512))
    (i32.store (i32.const 260) (global.get $failed))
    (i32.const 256))
  (func (export "cabi_post_segmenter:handler/batch@0.1.0#handle") (param i32)
    (global.set $heap (i32.const 8192)))
  (data (i32.const 16) "why")"#;

/// `world`: what it imports besides; `parts`: of its core module, so that it is not dropped.
fn component(world: &str, parts: &str) -> Vec<u8> {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../wit");
    let mut resolve = Resolve::default();
    for dependency in ["logging", "config", "keyvalue"] {
        let folder = wit.join("deps").join(dependency);
        resolve.push_dir(folder).expect("a dependency");
    }
    let contract = std::fs::read_to_string(wit.join("handler.wit")).expect("the contract");
    let contract = resolve.push_str("handler.wit", &contract);
    contract.expect("the contract is WIT");
    let text = format!(
        "package test:guest;\nworld guest {{ include segmenter:handler/batch-handler@0.1.0; {world} }}"
    );
    let package = resolve.push_str("guest.wit", &text).expect("its world");
    let world = resolve.select_world(&[package], Some("guest"));
    let core = format!("(module $guest {parts} {LOG} {SAY} {CORE})");
    encode(&resolve, world.expect("the world"), &core, false)
}

fn world(limits: Limits) -> World {
    let module = Module::load(&engine(), &component("", ""), limits, Grants::default());
    let module = module.expect("it loads");
    assert_eq!(module.kind(), Kind::Batch);
    World::of(module)
}

/// A message for each attempt, with its place as the payload.
fn batch(attempts: &[u32]) -> Batch {
    let message = |(attempt, place): (&u32, usize)| Message {
        attempt: *attempt,
        ..guests::asking(1, "key", place.to_string())
    };
    let mut messages = attempts.iter().zip(0..).map(message);
    let mut batch = Batch::one(messages.next().expect("at least one"));
    messages.for_each(|message| batch.push(message));
    batch
}

async fn call(world: &World, attempts: &[u32]) -> (Outcome, Vec<String>) {
    let mut instance = world.instance().await;
    let outcome = instance.call_batch(&batch(attempts)).await;
    let ends = matches!(outcome, Outcome::Broken { .. });
    assert_eq!(instance.is_dead(), ends, "{outcome:?}");
    (outcome, world.lines.take())
}

fn ok() -> Outcome {
    Outcome::Ok(Effects::default())
}

#[tokio::test]
async fn all_messages_come_in_one_call_and_in_their_order() {
    let world = world(LIMITS);
    for n in [1, 2, 100] {
        let (outcome, lines) = call(&world, &vec![1; n]).await;
        assert_eq!(outcome, ok());
        let expected: Vec<_> = (0..n).map(|place| place.to_string()).collect();
        assert_eq!(lines, expected);
    }
    let mut instance = world.instance().await;
    let alone = guests::asking(1, "key", "alone");
    assert_eq!(world.call(&mut instance, &alone).await.0, ok());
}

#[tokio::test]
async fn the_failure_of_the_first_message_that_failed_counts() {
    let world = world(LIMITS);
    let retry = |at| Outcome::Retry {
        at,
        reason: "why".to_owned(),
        after: Some(Duration::from_millis(70)),
    };
    let reject = |at| Outcome::Reject {
        at,
        reason: "why".to_owned(),
    };
    for (attempts, outcome) in [
        (&[2][..], retry(0)),
        (&[1, 2, 3], retry(1)),
        (&[1, 1, 3, 2, 3], reject(2)),
        (&[3, 2], reject(0)),
    ] {
        let (found, lines) = call(&world, attempts).await;
        assert_eq!((found, lines.len()), (outcome, attempts.len()));
    }
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_breaks_the_whole_call_and_says_why() {
    let world = world(LIMITS);
    for (attempts, says) in [
        (&[1, 6, 1][..], "message 9 failed, but the batch has 3"),
        (&[2, 7], "twice that message 1"),
    ] {
        match call(&world, attempts).await.0 {
            Outcome::Broken {
                fault: Fault::Answer,
                reason,
            } => assert!(reason.contains(says), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn whatever_message_traps_or_never_ends_breaks_the_whole_call() {
    let short = Limits {
        deadline: Duration::from_millis(50),
        ..LIMITS
    };
    let world = world(short);
    for (attempts, expected) in [(&[2, 4, 1][..], Fault::Trap), (&[1, 5], Fault::Deadline)] {
        match call(&world, attempts).await.0 {
            Outcome::Broken { fault, .. } => assert_eq!(fault, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn state_and_emit_are_refused_whatever_is_granted() {
    let everything = Grants {
        emit: ["any".parse().unwrap()].into(),
        state: true,
        config: Some([].into()),
        ..Grants::default()
    };
    let delete = "(param i32 i32 i32)";
    let send = "(param i32 i32 i32 i32 i32 i32 i32 i32 i32)";
    for (import, function, ty) in [
        ("segmenter:handler/state@0.1.0", "delete", delete),
        ("segmenter:handler/emit@0.1.0", "send", send),
        (
            "wasi:keyvalue/store@0.2.0-draft",
            "open",
            "(param i32 i32 i32)",
        ),
    ] {
        let parts = format!(r#"(import "{import}" "{function}" (func {ty}))"#);
        let bytes = component(&format!("import {import};"), &parts);
        match Module::load(&engine(), &bytes, LIMITS, everything.clone()) {
            Err(error @ LoadError::MissingImport { .. }) => {
                let told = error.to_string();
                let why = told.contains(import) && told.contains("segmenter:handler/handler");
                assert!(why, "{told}");
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{import} was linked"),
        }
    }
    // What has no part in a commit is granted as to any.
    let world = "import wasi:config/store@0.2.0-rc.1;";
    let get = r#"(import "wasi:config/store@0.2.0-rc.1" "get" (func (param i32 i32 i32)))"#;
    let bytes = component(world, get);
    assert!(Module::load(&engine(), &bytes, LIMITS, everything).is_ok());
}

#[tokio::test]
async fn recycling_counts_messages() {
    let recycle = Recycle {
        after_messages: Some(5),
        memory_bytes: None,
    };
    let world = world(Limits { recycle, ..LIMITS });
    let mut instance = world.instance().await;
    for dead in [false, true] {
        assert_eq!(instance.call_batch(&batch(&[1; 3])).await, ok());
        assert_eq!(instance.is_dead(), dead);
    }
}

#[tokio::test]
async fn a_component_that_takes_one_message_is_never_called_with_several() {
    let (mut instance, lines) = Guest::default().instance(LIMITS).await;
    let outcome = instance.call_batch(&batch(&[1, 1])).await;
    assert!(
        matches!(&outcome, Outcome::Broken { reason, .. } if reason.contains("takes one")),
        "{outcome:?}"
    );
    assert_eq!(lines.take(), Vec::<String>::new());
    let (mut instance, _) = Guest::default().instance(LIMITS).await;
    assert_eq!(instance.call_batch(&batch(&[1])).await, ok());
}
