//! What a guest finds around it that nothing was granted: nothing.

use segmenter_core::effects::Effects;
use segmenter_core::outcome::Outcome;

use crate::guests::{Guest, LIMITS, message};

/// ok if the list that `$ask` gives is empty, else a trap.
const EMPTY_LIST: &str = r#"
  (call $ask (i32.const 512))
  (if (i32.ne (i32.load (i32.const 516)) (i32.const 0)) (then unreachable))
  (i32.store8 (i32.const 256) (i32.const 0)) (i32.const 256)"#;

#[tokio::test]
async fn there_is_no_environment_no_argument_and_no_folder() {
    for (interface, function) in [
        ("wasi:cli/environment@0.2.0", "get-environment"),
        ("wasi:cli/environment@0.2.0", "get-arguments"),
        ("wasi:filesystem/preopens@0.2.0", "get-directories"),
    ] {
        let parts = format!(r#"(import "{interface}" "{function}" (func $ask (param i32)))"#);
        let world = format!("import {interface};");
        let guest = Guest {
            parts: &parts,
            world: &world,
            body: EMPTY_LIST,
            ..Guest::default()
        };
        let (mut instance, _) = guest.instance(LIMITS).await;
        assert_eq!(
            instance.call(&message()).await,
            Outcome::Ok(Effects::default()),
            "{function}"
        );
    }
}
