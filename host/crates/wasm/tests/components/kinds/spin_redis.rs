//! `fermyon:spin/inbound-redis`, and what of Spin is here.

use segmenter_core::outcome::Outcome;
use segmenter_wasm::{Grants, Kind, LoadError};

use super::{Foreign, came, does, trapped};
use crate::guests::{LIMITS, LOG, SAY, World, load};

const KEY_VALUE: &str = r#"
  (import "fermyon:spin/key-value@2.0.0" "[static]store.open" (func $open (param i32 i32 i32)))
  (import "fermyon:spin/key-value@2.0.0" "[resource-drop]store" (func $drop (param i32)))
  (import "fermyon:spin/key-value@2.0.0" "[method]store.get" (func $get (param i32 i32 i32 i32)))
  (import "fermyon:spin/key-value@2.0.0" "[method]store.set" (func $set (param i32 i32 i32 i32 i32 i32)))
  (import "fermyon:spin/key-value@2.0.0" "[method]store.delete" (func $delete (param i32 i32 i32 i32)))
  (import "fermyon:spin/key-value@2.0.0" "[method]store.exists" (func $exists (param i32 i32 i32 i32)))
  (import "fermyon:spin/key-value@2.0.0" "[method]store.get-keys" (func $keys (param i32 i32)))"#;
const VARIABLES: &str = r#"
  (import "fermyon:spin/variables@2.0.0" "get" (func $variable (param i32 i32 i32)))"#;

/// The payload's first letter says what is done: Open a store of the name that follows, Set what follows
/// the name of one letter, Get, Delete it or look for it (X), list the Keys, tell a Variable, Trap.
const PARTS: &str = r#"
  (global $store (mut i32) (i32.const 0))
  (func $failed (result i32)
    (if (i32.eqz (i32.load8_u (i32.const 512))) (then (return (i32.const 0))))
    (if (i32.eq (i32.load8_u (i32.const 516)) (i32.const 3))
      (then (call $say (i32.load (i32.const 520)) (i32.load (i32.const 524))))
      (else (call $error (i32.load8_u (i32.const 516)))))
    (i32.const 1))
  (func $run (param $p i32) (param $n i32)
    (local $do i32) (local $k i32) (local $at i32) (local $left i32)
    (local.set $do (i32.load8_u (local.get $p)))
    (local.set $k (i32.add (local.get $p) (i32.const 1)))
    (local.set $n (i32.sub (local.get $n) (i32.const 1)))
    (if (i32.eq (local.get $do) (i32.const 0x54)) (then unreachable)) ;; T
    (if (i32.eq (local.get $do) (i32.const 0x56)) (then ;; V
      (call $variable (local.get $k) (local.get $n) (i32.const 512))
      (if (i32.load8_u (i32.const 512))
        (then
          (call $error (i32.load8_u (i32.const 516)))
          (call $say (i32.load (i32.const 520)) (i32.load (i32.const 524))))
        (else (call $say (i32.load (i32.const 516)) (i32.load (i32.const 520)))))
      (return)))
    (if (i32.eq (local.get $do) (i32.const 0x4f)) (then ;; O
      (call $open (local.get $k) (local.get $n) (i32.const 512))
      (if (call $failed) (then (return)))
      (call $drop (i32.load (i32.const 516)))
      (return)))
    (call $open (i32.const 96) (i32.const 7) (i32.const 512))
    (if (call $failed) (then (return)))
    (global.set $store (i32.load (i32.const 516)))
    (if (i32.eq (local.get $do) (i32.const 0x53)) (then ;; S
      (call $set (global.get $store) (local.get $k) (i32.const 1) (i32.add (local.get $k) (i32.const 1))
        (i32.sub (local.get $n) (i32.const 1)) (i32.const 512))
      (drop (call $failed))))
    (if (i32.eq (local.get $do) (i32.const 0x47)) (then ;; G
      (call $get (global.get $store) (local.get $k) (i32.const 1) (i32.const 512))
      (if (i32.eqz (call $failed)) (then
        (if (i32.load8_u (i32.const 516))
          (then (call $say (i32.load (i32.const 520)) (i32.load (i32.const 524))))
          (else (call $say (i32.const 103) (i32.const 4))))))))
    (if (i32.eq (local.get $do) (i32.const 0x44)) (then ;; D
      (call $delete (global.get $store) (local.get $k) (i32.const 1) (i32.const 512))
      (drop (call $failed))))
    (if (i32.eq (local.get $do) (i32.const 0x58)) (then ;; X
      (call $exists (global.get $store) (local.get $k) (i32.const 1) (i32.const 512))
      (if (i32.eqz (call $failed)) (then (call $number (i32.load8_u (i32.const 516)))))))
    (if (i32.eq (local.get $do) (i32.const 0x4b)) (then ;; K
      (call $keys (global.get $store) (i32.const 512))
      (if (i32.eqz (call $failed)) (then
        (local.set $at (i32.load (i32.const 516)))
        (local.set $left (i32.load (i32.const 520)))
        (block $done (loop $next
          (br_if $done (i32.eqz (local.get $left)))
          (call $say (i32.load (local.get $at)) (i32.load offset=4 (local.get $at)))
          (local.set $at (i32.add (local.get $at) (i32.const 8)))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br $next)))))))
    (call $drop (global.get $store)))
  (data (i32.const 96) "defaultnone")"#;

/// Ends with an error if the payload begins with E.
const BODY: &str = r#"
  (call $run (local.get 0) (local.get 1))
  (i32.store8 (i32.const 256) (i32.eq (i32.load8_u (local.get 0)) (i32.const 0x45)))
  (i32.store8 (i32.const 257) (i32.const 1))
  (i32.const 256)"#;

/// A guest that may import what is named.
fn guest<'a>(world: &'a str, parts: &'a str, body: &'a str) -> Foreign<'a> {
    Foreign {
        wit: "spin.wit",
        world,
        export: "fermyon:spin/inbound-redis#handle-message",
        ty: "(param i32 i32)",
        parts,
        body,
        ..Foreign::default()
    }
}

fn world() -> World {
    let parts = [LOG, KEY_VALUE, VARIABLES, SAY, PARTS].concat();
    let world = "import fermyon:spin/key-value@2.0.0; import fermyon:spin/variables@2.0.0; export fermyon:spin/inbound-redis;";
    guest(world, &parts, BODY).granted(Grants {
        state: true,
        config: Some([("currency".to_owned(), "EUR".to_owned())].into()),
        ..Grants::default()
    })
}

#[test]
fn its_kind_is_told_and_what_it_imports_needs_its_grant() {
    assert_eq!(world().module.kind(), Kind::SpinRedis);
    for (import, parts, setting) in [
        ("fermyon:spin/key-value@2.0.0", KEY_VALUE, "`state = true`"),
        ("fermyon:spin/variables@2.0.0", VARIABLES, "`config = {"),
    ] {
        let world = format!("import {import}; export fermyon:spin/inbound-redis;");
        let parts = [LOG, parts].concat();
        let refused = guest(&world, &parts, "(i32.const 256)").refused();
        assert!(
            refused.contains(import) && refused.contains(setting),
            "{refused}"
        );
    }
}

#[test]
fn what_of_spin_is_not_here_is_told() {
    let parts = [
        LOG,
        r#"(import "fermyon:spin/llm@2.0.0" "infer" (func $infer))"#,
    ]
    .concat();
    let world = "import fermyon:spin/llm@2.0.0; export fermyon:spin/inbound-redis;";
    let refused = Foreign {
        more: (
            "package fermyon:spin@2.0.0 {",
            "interface llm { infer: func(); }",
        ),
        ..guest(world, &parts, "(i32.const 256)")
    }
    .refused();
    assert!(
        refused.contains("fermyon:spin/llm@2.0.0")
            && refused.contains("has fermyon:spin/key-value@2.0.0"),
        "{refused}"
    );
}

#[tokio::test]
async fn the_payload_arrives_and_needs_no_grant() {
    let parts = [LOG, SAY].concat();
    let body = "(call $say (local.get 0) (local.get 1)) (i32.store8 (i32.const 256) (i32.const 0)) (i32.const 256)";
    let world =
        guest("export fermyon:spin/inbound-redis;", &parts, body).granted(Grants::default());
    let instance = &mut world.instance().await;
    for payload in ["3 äpfel", ""] {
        let (lines, effects) = does(&world, instance, &came("k", payload, &[("a", "1")])).await;
        assert!(effects.is_empty());
        assert_eq!(lines, [payload]);
    }
}

#[tokio::test]
async fn its_store_is_the_state_and_its_variables_are_the_configuration() {
    let world = world();
    let instance = &mut world.instance().await;
    let long = format!("Sk{}", "x".repeat(65));
    for (payload, answer) in [
        ("Odefault", ""),
        ("Oother", "error 01"),
        ("Gk", "none"),
        ("Xk", "00"),
        ("Skvalue", ""),
        ("Sj", ""),
        ("Gk", "value"),
        ("Gj", ""),
        ("Xk", "01"),
        ("K", "j k"),
        ("Dk", ""),
        ("Gk", "none"),
        ("K", "j"),
        (&long, "the name or value exceeds 64 bytes"),
        ("Vcurrency", "EUR"),
        (
            "Vother",
            "error 01 write it into `config` under [handler.grants]",
        ),
    ] {
        let (lines, _) = does(&world, instance, &came("k", payload, &[])).await;
        assert_eq!(lines.join(" "), answer, "{payload}");
    }
}

#[tokio::test]
async fn an_error_is_a_retry_and_so_is_a_trap() {
    let world = world();
    let instance = &mut world.instance().await;
    let outcome = world.call(instance, &came("k", "E", &[])).await.0;
    let expected = Outcome::Retry {
        at: 0,
        reason: "it answered with an error".to_owned(),
        after: None,
    };
    assert_eq!(outcome, expected);
    assert!(!instance.is_dead());
    let trap = world.call(instance, &came("k", "T", &[])).await.0;
    assert!(trapped(trap).contains("unreachable"));
}

/// Spin's SDKs from 6 on export a function that is async in its type.
#[test]
fn the_world_of_later_sdks_is_refused_with_the_reason() {
    let component = wat::parse_str(
        r#"(component
  (type $handle (func async (param "message" (list u8)) (result (result))))
  (import "redis" (instance $redis (export "handle-message" (func (type $handle)))))
  (export "spin:redis/inbound-redis@3.0.0" (instance $redis)))"#,
    )
    .expect("a component");
    match load(&component, LIMITS) {
        Err(LoadError::Async) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was loaded"),
    }
}
