//! `wasmcloud:messaging/handler@0.2`.

use segmenter_core::outcome::Outcome;
use segmenter_wasm::{Grants, Kind};

use super::{Foreign, came, does, emit, emitted, trapped};
use crate::guests::{LOG, SAY, World};

const IMPORTS: &str = r#"
  (import "wasmcloud:messaging/consumer@0.2.0" "publish" (func $publish (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "wasmcloud:messaging/consumer@0.2.0" "request" (func $request (param i32 i32 i32 i32 i32 i32)))"#;

/// The body's first letter says what is done: Log the message,
const LOGS: &str = r#"
  (local $do i32)
  (local.set $do (i32.load8_u (local.get 2)))
  (if (i32.eq (local.get $do) (i32.const 0x4c)) (then ;; L
    (call $say (local.get 0) (local.get 1))
    (call $say (local.get 2) (local.get 3))
    (if (local.get 4) (then (call $say (local.get 5) (local.get 6))))))"#;
/// Publish it to the subject that follows, or to a Huge one, with its reply-to, Request there,
const PUBLISHES: &str = r#"
  (if (i32.eq (local.get $do) (i32.const 0x50)) (then ;; P
    (call $publish (i32.add (local.get 2) (i32.const 1)) (i32.sub (local.get 3) (i32.const 1))
      (local.get 2) (local.get 3) (local.get 4) (local.get 5) (local.get 6) (i32.const 512))
    (call $failed)))
  (if (i32.eq (local.get $do) (i32.const 0x48)) (then ;; H
    (call $publish (i32.const 16384) (i32.const 200000)
      (local.get 2) (local.get 3) (local.get 4) (local.get 5) (local.get 6) (i32.const 512))
    (call $failed)))
  (if (i32.eq (local.get $do) (i32.const 0x52)) (then ;; R
    (call $request (local.get 0) (local.get 1) (local.get 2) (local.get 3) (i32.const 1000) (i32.const 512))
    (call $failed)))"#;
/// Trap, Answer with the body as an error; otherwise ok.
const ENDS: &str = r#"
  (if (i32.eq (local.get $do) (i32.const 0x54)) (then unreachable)) ;; T
  (i32.store8 (i32.const 256) (i32.const 0))
  (if (i32.eq (local.get $do) (i32.const 0x41)) (then ;; A
    (i32.store8 (i32.const 256) (i32.const 1))
    (i32.store (i32.const 260) (local.get 2)) (i32.store (i32.const 264) (local.get 3))))
  (i32.const 256)"#;

const FAILED: &str = r#"
  (func $failed
    (if (i32.load8_u (i32.const 512))
      (then (call $say (i32.load (i32.const 516)) (i32.load (i32.const 520))))))"#;

const EXPORT: &str = "wasmcloud:messaging/handler@0.2.0#handle-message";
const TY: &str = "(param i32 i32 i32 i32 i32 i32 i32)";

fn with_guest<T>(then: impl FnOnce(Foreign<'_>) -> T) -> T {
    let parts = [LOG, IMPORTS, SAY, FAILED].concat();
    then(Foreign {
        wit: "wasmcloud-messaging.wit",
        world: "import wasmcloud:messaging/consumer@0.2.0; export wasmcloud:messaging/handler@0.2.0;",
        export: EXPORT,
        ty: TY,
        parts: &parts,
        body: &[LOGS, PUBLISHES, ENDS].concat(),
        ..Foreign::default()
    })
}

fn world() -> World {
    with_guest(|guest| guest.granted(emit()))
}

#[test]
fn its_kind_is_told_and_publishing_needs_the_grant() {
    assert_eq!(world().module.kind(), Kind::WasmCloud);
    let refused = with_guest(|guest| guest.refused());
    assert!(
        refused.contains("wasmcloud:messaging/consumer@0.2.0")
            && refused.contains("`emit = [\"STREAM\"]`"),
        "{refused}"
    );
}

#[tokio::test]
async fn what_its_world_has_words_for_arrives_without_a_grant() {
    let world = Foreign {
        wit: "wasmcloud-messaging.wit",
        world: "export wasmcloud:messaging/handler@0.2.0;",
        export: EXPORT,
        ty: TY,
        parts: &[LOG, SAY].concat(),
        body: &[LOGS, ENDS].concat(),
        ..Foreign::default()
    }
    .granted(Grants::default());
    let instance = &mut world.instance().await;
    let message = came("a.ключ", "Lx", &[("reply-to", "answers"), ("b", "2")]);
    let (lines, effects) = does(&world, instance, &message).await;
    assert!(effects.is_empty());
    assert_eq!(lines, ["orders.a.ключ", "Lx", "answers"]);
    let (lines, _) = does(&world, instance, &came("", "L", &[])).await;
    assert_eq!(lines, ["orders", "L"]);
}

#[tokio::test]
async fn what_is_published_comes_with_the_ack() {
    let world = world();
    let instance = &mut world.instance().await;
    let reply = [("reply-to", "answers")];
    for (payload, to, key) in [
        ("Pinvoices", "invoices", "its"),
        ("Pinvoices.a.b", "invoices", "a.b"),
        ("Pinvoices.eu", "invoices.eu", "its"),
        ("Pinvoices.eu.x", "invoices.eu", "x"),
    ] {
        let (lines, effects) = does(&world, instance, &came("its", payload, &reply)).await;
        assert_eq!(lines, [""; 0], "{payload}");
        let expected = emitted(to, key, payload.as_bytes(), &reply);
        assert_eq!(effects.emits, [expected], "{payload}");
    }
}

#[tokio::test]
async fn what_cannot_be_published_is_an_error_and_the_call_goes_on() {
    let world = world();
    let instance = &mut world.instance().await;
    for (payload, why) in [
        (
            "Paudit.k",
            "\"audit.k\" is no stream that this handler may emit to",
        ),
        ("P", "\"\" is no stream"),
        ("H", "\"…"),
        ("Psmall.k345", "exceeds 10 bytes"),
        ("R", "nobody answers to a message here"),
    ] {
        let (lines, effects) = does(&world, instance, &came("k", payload, &[])).await;
        let told = lines.join(" ");
        assert!(told.contains(why), "{payload}: {told}");
        assert!(told.len() < 400, "{told}");
        assert!(effects.is_empty(), "{payload}");
    }
}

#[tokio::test]
async fn an_error_is_a_retry_and_so_is_a_trap() {
    let world = world();
    let instance = &mut world.instance().await;
    let outcome = world.call(instance, &came("k", "A: not now", &[])).await.0;
    let expected = Outcome::Retry {
        at: 0,
        reason: "A: not now".to_owned(),
        after: None,
    };
    assert_eq!(outcome, expected);
    assert!(!instance.is_dead());
    let trap = world.call(instance, &came("k", "T", &[])).await.0;
    assert!(trapped(trap).contains("unreachable"));
}
