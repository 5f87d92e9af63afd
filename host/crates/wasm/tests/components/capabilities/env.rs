//! `wasi:cli/environment`.

use segmenter_core::outcome::Outcome;
use segmenter_wasm::Grants;

use crate::guests::{Guest, LOG, OK, SAY, message};

/// Logs each variable, its name and its value.
const PARTS: &str = r#"
  (import "wasi:cli/environment@0.2.0" "get-environment" (func $ask (param i32)))"#;
const BODY: &str = r#"
  (call $ask (i32.const 512))
  (local.set 8 (i32.load (i32.const 512)))
  (local.set 9 (i32.load (i32.const 516)))
  (block $done (loop $next
    (br_if $done (i32.eqz (local.get 9)))
    (call $say (i32.load (local.get 8)) (i32.load offset=4 (local.get 8)))
    (call $say (i32.load offset=8 (local.get 8)) (i32.load offset=12 (local.get 8)))
    (local.set 8 (i32.add (local.get 8) (i32.const 16)))
    (local.set 9 (i32.sub (local.get 9) (i32.const 1)))
    (br $next)))"#;

async fn sees(grants: Grants) -> Vec<String> {
    let guest = Guest {
        parts: &[LOG, PARTS, SAY].concat(),
        body: &(BODY.to_owned() + OK),
        world: "import wasi:cli/environment@0.2.0;",
        ..Guest::default()
    };
    let world = guest.granted(grants);
    let instance = &mut world.instance().await;
    let (outcome, lines) = world.call(instance, &message()).await;
    assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
    lines
}

/// This process has variables of its own.
#[tokio::test]
async fn without_the_grant() {
    assert!(std::env::vars_os().next().is_some());
    assert_eq!(sees(Grants::default()).await, [""; 0]);
}

#[tokio::test]
async fn variables_are_those_that_were_granted() {
    let env = [("REGION", "eu"), ("EMPTY", "")];
    let grants = Grants {
        env: env.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..Grants::default()
    };
    assert_eq!(sees(grants).await, ["EMPTY", "", "REGION", "eu"]);
}
