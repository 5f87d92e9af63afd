//! `wasi:messaging/incoming-handler@0.2.0-draft`.

use segmenter_core::outcome::Outcome;
use segmenter_wasm::{Grants, Kind};

use super::{Foreign, came, does, emit, emitted, trapped};
use crate::guests::{LOG, SAY, World, message};

const IMPORTS: &str = r#"
  (import "wasi:messaging/types@0.2.0-draft" "[static]client.connect" (func $connect (param i32 i32 i32)))
  (import "wasi:messaging/types@0.2.0-draft" "[resource-drop]client" (func $drop-client (param i32)))
  (import "wasi:messaging/types@0.2.0-draft" "[constructor]message" (func $new (param i32 i32) (result i32)))
  (import "wasi:messaging/types@0.2.0-draft" "[resource-drop]message" (func $drop (param i32)))
  (import "wasi:messaging/types@0.2.0-draft" "[method]message.topic" (func $topic (param i32 i32)))
  (import "wasi:messaging/types@0.2.0-draft" "[method]message.content-type" (func $type (param i32 i32)))
  (import "wasi:messaging/types@0.2.0-draft" "[method]message.set-content-type" (func $set-type (param i32 i32 i32)))
  (import "wasi:messaging/types@0.2.0-draft" "[method]message.data" (func $data (param i32 i32)))
  (import "wasi:messaging/types@0.2.0-draft" "[method]message.set-data" (func $set-data (param i32 i32 i32)))
  (import "wasi:messaging/types@0.2.0-draft" "[method]message.metadata" (func $metadata (param i32 i32)))
  (import "wasi:messaging/types@0.2.0-draft" "[method]message.add-metadata" (func $add (param i32 i32 i32 i32 i32)))
  (import "wasi:messaging/types@0.2.0-draft" "[method]message.remove-metadata" (func $remove (param i32 i32 i32)))"#;

const SEND: &str = r#"
  (import "wasi:messaging/producer@0.2.0-draft" "send" (func $send (param i32 i32 i32 i32 i32)))"#;

/// The payload's first letter says what is done with the message, the rest to which topic: Logs it, Forwards
/// it, sends a New one, sends one to a Huge topic, Answers with the error of a number, Traps, Keeps the
/// handle, Uses or Drops the one that was kept, leaves it lying (Z), makes messages without End, or metadata
/// (M) without end.
const PARTS: &str = r#"
  (global $client (mut i32) (i32.const 0))
  (global $kept (mut i32) (i32.const 0))
  (func $text (param $there i32) (param $at i32)
    (if (local.get $there)
      (then (call $say (i32.load (local.get $at)) (i32.load offset=4 (local.get $at))))
      (else (call $say (i32.const 96) (i32.const 4)))))
  (func $show (param $m i32)
    (local $at i32) (local $left i32)
    (call $topic (local.get $m) (i32.const 512))
    (call $text (i32.load8_u (i32.const 512)) (i32.const 516))
    (call $type (local.get $m) (i32.const 512))
    (call $text (i32.load8_u (i32.const 512)) (i32.const 516))
    (call $data (local.get $m) (i32.const 512))
    (call $text (i32.const 1) (i32.const 512))
    (call $metadata (local.get $m) (i32.const 512))
    (local.set $at (i32.load (i32.const 516)))
    (local.set $left (i32.load (i32.const 520)))
    (block $done (loop $next
      (br_if $done (i32.eqz (local.get $left)))
      (call $text (i32.const 1) (local.get $at))
      (call $text (i32.const 1) (i32.add (local.get $at) (i32.const 8)))
      (local.set $at (i32.add (local.get $at) (i32.const 16)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br $next))))
  (func $publish (param $m i32) (param $to i32) (param $n i32)
    (call $connect (i32.const 100) (i32.const 3) (i32.const 512))
    (if (i32.load8_u (i32.const 512)) (then unreachable))
    (global.set $client (i32.load (i32.const 516)))
    (call $send (global.get $client) (local.get $to) (local.get $n) (local.get $m) (i32.const 512))
    (call $drop-client (global.get $client))
    (if (i32.load8_u (i32.const 512)) (then
      (call $error (i32.load8_u (i32.const 516)))
      (call $text (i32.const 1) (i32.const 520)))))
  ;; Data "new", content type "type", metadata k = "new"; each was something else before.
  (func $made (result i32)
    (local $m i32)
    (local.set $m (call $new (i32.const 100) (i32.const 3)))
    (call $set-data (local.get $m) (i32.const 103) (i32.const 3))
    (call $set-type (local.get $m) (i32.const 100) (i32.const 3))
    (call $set-type (local.get $m) (i32.const 106) (i32.const 4))
    (call $add (local.get $m) (i32.const 110) (i32.const 1) (i32.const 100) (i32.const 3))
    (call $add (local.get $m) (i32.const 110) (i32.const 1) (i32.const 103) (i32.const 3))
    (call $add (local.get $m) (i32.const 106) (i32.const 1) (i32.const 106) (i32.const 1))
    (call $remove (local.get $m) (i32.const 106) (i32.const 1))
    (local.get $m))
  ;; Whether the result lies at 256 already.
  (func $run (param $m i32) (result i32)
    (local $p i32) (local $do i32) (local $n i32)
    (call $data (local.get $m) (i32.const 512))
    (local.set $p (i32.load (i32.const 512)))
    (local.set $n (i32.sub (i32.load (i32.const 516)) (i32.const 1)))
    (local.set $do (i32.load8_u (local.get $p)))
    (local.set $p (i32.add (local.get $p) (i32.const 1)))
    (if (i32.eq (local.get $do) (i32.const 0x4c)) (then (call $show (local.get $m)))) ;; L
    (if (i32.eq (local.get $do) (i32.const 0x46)) (then ;; F
      (call $publish (local.get $m) (local.get $p) (local.get $n))
      (return (i32.const 0))))
    (if (i32.eq (local.get $do) (i32.const 0x4e)) (then ;; N
      (call $publish (call $made) (local.get $p) (local.get $n))))
    (if (i32.eq (local.get $do) (i32.const 0x48)) (then ;; H
      (call $publish (call $made) (i32.const 16384) (i32.const 200000))))
    (if (i32.eq (local.get $do) (i32.const 0x54)) (then unreachable)) ;; T
    (if (i32.eq (local.get $do) (i32.const 0x4b)) (then ;; K
      (global.set $kept (local.get $m))
      (return (i32.const 0))))
    (if (i32.eq (local.get $do) (i32.const 0x55)) (then (call $show (global.get $kept)))) ;; U
    (if (i32.eq (local.get $do) (i32.const 0x44)) (then (call $drop (global.get $kept)))) ;; D
    (if (i32.eq (local.get $do) (i32.const 0x5a)) (then (return (i32.const 0)))) ;; Z
    (if (i32.eq (local.get $do) (i32.const 0x45)) (then ;; E
      (loop $more (drop (call $new (i32.const 100) (local.get $n))) (br $more))))
    (if (i32.eq (local.get $do) (i32.const 0x4d)) (then ;; M
      (loop $more
        (i32.store (i32.const 120) (i32.add (i32.load (i32.const 120)) (i32.const 1)))
        (i32.store (i32.const 124) (i32.and (i32.load (i32.const 120)) (i32.const 0x7f7f7f7f)))
        (call $add (local.get $m) (i32.const 124) (i32.const 4) (i32.const 100) (i32.const 3))
        (br $more))))
    (call $drop (local.get $m))
    (if (i32.eq (local.get $do) (i32.const 0x41)) (then ;; A
      (i32.store8 (i32.const 256) (i32.const 1))
      (i32.store8 (i32.const 260) (i32.sub (i32.load8_u (local.get $p)) (i32.const 48)))
      (i32.store (i32.const 264) (i32.const 100)) (i32.store (i32.const 268) (i32.const 3))
      (return (i32.const 1))))
    (i32.const 0))
  (data (i32.const 96) "nonewhynewtypek")"#;

const BODY: &str = r#"
  (if (i32.eqz (call $run (local.get 0))) (then (i32.store8 (i32.const 256) (i32.const 0))))
  (i32.const 256)"#;

const EXPORT: &str = "wasi:messaging/incoming-handler@0.2.0-draft#handle";

fn with_guest<T>(then: impl FnOnce(Foreign<'_>) -> T) -> T {
    let parts = [LOG, IMPORTS, SEND, SAY, PARTS].concat();
    then(Foreign {
        wit: "wasi-messaging.wit",
        world: "import wasi:messaging/producer@0.2.0-draft; export wasi:messaging/incoming-handler@0.2.0-draft;",
        export: EXPORT,
        ty: "(param i32)",
        parts: &parts,
        body: BODY,
        ..Foreign::default()
    })
}

fn world() -> World {
    with_guest(|guest| guest.granted(emit()))
}

#[test]
fn its_kind_is_told_and_sending_needs_the_grant() {
    assert_eq!(world().module.kind(), Kind::WasiMessaging);
    let refused = with_guest(|guest| guest.refused());
    assert!(
        refused.contains("wasi:messaging/producer@0.2.0-draft")
            && refused.contains("`emit = [\"STREAM\"]`"),
        "{refused}"
    );
}

#[tokio::test]
async fn without_a_producer_it_needs_no_grant() {
    let drop = r#"(import "wasi:messaging/types@0.2.0-draft" "[resource-drop]message" (func $drop (param i32)))"#;
    let world = Foreign {
        wit: "wasi-messaging.wit",
        world: "export wasi:messaging/incoming-handler@0.2.0-draft;",
        export: EXPORT,
        ty: "(param i32)",
        parts: &[LOG, drop].concat(),
        body: "(call $drop (local.get 0)) (i32.const 256)",
        ..Foreign::default()
    }
    .granted(Grants::default());
    let mut instance = world.instance().await;
    for _ in 0..3 {
        does(&world, &mut instance, &message()).await;
    }
}

#[test]
fn requests_are_refused_with_the_reason() {
    let more = "interface request-reply {
        use types.{message, error};
        reply: func(to: borrow<message>, message: message) -> result<_, error>;
    }";
    let reply = r#"(import "wasi:messaging/request-reply@0.2.0-draft" "reply" (func $reply (param i32 i32 i32)))"#;
    let refused = Foreign {
        wit: "wasi-messaging.wit",
        more: ("package wasi:messaging@0.2.0-draft;", more),
        world: "import wasi:messaging/request-reply@0.2.0-draft; export wasi:messaging/incoming-handler@0.2.0-draft;",
        export: EXPORT,
        ty: "(param i32)",
        parts: &[LOG, reply].concat(),
        body: "(i32.const 256)",
    }
    .refused();
    assert!(
        refused.contains("request-reply") && refused.contains("nobody answers"),
        "{refused}"
    );
}

#[tokio::test]
async fn all_of_a_message_arrives() {
    let world = world();
    let instance = &mut world.instance().await;
    let attributes = [
        ("a", "1"),
        ("content-type", "text/plain"),
        ("segmenter-id", "x"),
    ];
    let (lines, effects) = does(&world, instance, &came("ключ", "L1", &attributes)).await;
    assert!(effects.is_empty());
    let expected = "orders text/plain L1 a 1 segmenter-key ключ segmenter-id 7-1 \
        segmenter-partition 5 segmenter-attempt 2";
    assert_eq!(lines.join(" "), expected);
    let (lines, _) = does(&world, instance, &came("", "L", &[])).await;
    assert_eq!(lines[..5], ["orders", "none", "L", "segmenter-key", ""]);
}

#[tokio::test]
async fn what_is_sent_comes_with_the_ack() {
    let world = world();
    let instance = &mut world.instance().await;
    let (lines, effects) = does(&world, instance, &came("its", "Ninvoices", &[])).await;
    assert_eq!(lines, [""; 0]);
    // It names no key, and so has that of the message that was handled.
    let attributes = [("content-type", "type"), ("k", "new")];
    let expected = emitted("invoices", "its", b"new", &attributes);
    assert_eq!(effects.emits, [expected]);
    // As it came: what its metadata said of it is its key again, and otherwise gone.
    let attributes = [("content-type", "t"), ("b", "2")];
    let forwarded = came("other", "Finvoices.eu", &attributes);
    let (_, effects) = does(&world, instance, &forwarded).await;
    let expected = emitted("invoices.eu", "other", b"Finvoices.eu", &attributes);
    assert_eq!(effects.emits, [expected]);
}

#[tokio::test]
async fn what_cannot_be_sent_is_an_error_and_the_call_goes_on() {
    let world = world();
    let instance = &mut world.instance().await;
    for (payload, error, why) in [
        (
            "Naudit",
            "error 02",
            "\"audit\" is no stream that this handler may emit to",
        ),
        ("N", "error 02", "\"\" is no stream"),
        ("H", "error 02", "\"…"),
        ("Fsmall", "", ""),
        ("Fsmall-", "error 02", "\"small-\" is no stream"),
    ] {
        let (lines, effects) = does(&world, instance, &came("k", payload, &[])).await;
        let told = lines.join(" ");
        assert!(
            told.starts_with(error) && told.contains(why),
            "{payload}: {told}"
        );
        assert!(told.len() < 400, "{told}");
        assert_eq!(effects.emits.is_empty(), !error.is_empty(), "{payload}");
    }
    let long = "x".repeat(1_001);
    let (lines, effects) = does(&world, instance, &came(&long, "Ninvoices", &[("a", &long)])).await;
    assert_eq!((lines.len(), effects.emits.len()), (0, 1));
    let attributes: Vec<(String, String)> =
        (0..64).map(|n| (n.to_string(), String::new())).collect();
    let attributes: Vec<(&str, &str)> = attributes
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    let mut full = attributes.clone();
    full[0].0 = "content-type";
    let (lines, _) = does(&world, instance, &came("k", "Finvoices", &full)).await;
    assert_eq!(lines, [""; 0], "64 attributes came, and 64 go");
}

#[tokio::test]
async fn errors_are_retries_and_a_failed_call_emits_nothing() {
    let world = world();
    let instance = &mut world.instance().await;
    for (payload, reason) in [
        ("A0", "timeout"),
        ("A1", "connection: why"),
        ("A2", "permission denied: why"),
        ("A3", "why"),
    ] {
        let expected = Outcome::Retry {
            at: 0,
            reason: reason.to_owned(),
            after: None,
        };
        let outcome = world.call(instance, &came("k", payload, &[])).await.0;
        assert_eq!(outcome, expected);
        assert!(!instance.is_dead());
    }
    let trap = world.call(instance, &came("k", "T", &[])).await.0;
    assert!(trapped(trap).contains("unreachable"));
    assert!(instance.is_dead());
    let (_, effects) = does(&world, instance, &came("k", "Ninvoices", &[])).await;
    assert_eq!(effects.emits.len(), 1);
}

#[tokio::test]
async fn a_message_lives_as_long_as_its_call() {
    let world = world();
    let instance = &mut world.instance().await;
    does(&world, instance, &came("k", "K", &[])).await;
    // A garbage collector may drop it at any time, and harms no other message.
    let (lines, _) = does(&world, instance, &came("k", "D", &[])).await;
    assert_eq!(lines, [""; 0]);
    does(&world, instance, &came("k", "K", &[])).await;
    let outcome = world.call(instance, &came("k", "U", &[])).await.0;
    assert!(trapped(outcome).contains("after the call that it belonged to"));
}

#[tokio::test]
async fn what_a_guest_makes_the_host_hold_is_bounded() {
    let world = world();
    let instance = &mut world.instance().await;
    // 2,000 bytes may be emitted, and the message that came takes some more.
    for payload in ["E0123456789", "M"] {
        let outcome = world.call(instance, &came("k", payload, &[])).await.0;
        let reason = trapped(outcome);
        assert!(
            reason.contains("the messages of this call take more than 2"),
            "{payload}: {reason}"
        );
    }
    let outcome = world.call(instance, &came("k", "E", &[])).await.0;
    let reason = trapped(outcome);
    assert!(reason.contains("handles to 10000 messages"), "{reason}");
}

#[tokio::test]
async fn a_guest_that_drops_no_handle_fails_no_call() {
    let world = world();
    let mut instance = world.instance().await;
    let mut instances = 1;
    for _ in 0..12_000 {
        if instance.is_dead() {
            instance = world.instance().await;
            instances += 1;
        }
        let outcome = instance.call(&came("k", "Z", &[])).await;
        assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
    }
    assert_eq!(instances, 3);
}
