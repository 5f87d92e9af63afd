//! `wasi:config/store`.

use segmenter_core::outcome::Outcome;
use segmenter_wasm::{Grants, LoadError};

use crate::guests::{Guest, LIMITS, LOG, OK, SAY, asking, load};

const IMPORTS: &str = r#"
  (import "wasi:config/store@0.2.0-rc.1" "get" (func $get (param i32 i32 i32)))
  (import "wasi:config/store@0.2.0-rc.1" "get-all" (func $all (param i32)))"#;

/// Logs the value that the key names, or the number of all values.
const BODY: &str = r#"
  (call $get (local.get 4) (local.get 5) (i32.const 512))
  (if (i32.load8_u (i32.const 512)) (then unreachable))
  (if (i32.load8_u (i32.const 516))
    (then (call $say (i32.load (i32.const 520)) (i32.load (i32.const 524))))
    (else
      (call $all (i32.const 512))
      (if (i32.load8_u (i32.const 512)) (then unreachable))
      (call $number (i32.load (i32.const 520)))))"#;

fn with_guest<T>(then: impl FnOnce(Guest<'_>) -> T) -> T {
    let parts = [LOG, IMPORTS, SAY].concat();
    then(Guest {
        parts: &parts,
        body: &(BODY.to_owned() + OK),
        world: "import wasi:config/store@0.2.0-rc.1;",
        ..Guest::default()
    })
}

#[test]
fn without_the_grant() {
    with_guest(|guest| guest.refused_without("wasi:config/store@0.2.0-rc.1", "`config = {"));
}

#[tokio::test]
async fn values_are_those_that_were_granted() {
    let pairs = [("currency", "EUR"), ("empty", "")];
    let grants = Grants {
        config: Some(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
        ..Grants::default()
    };
    let world = with_guest(|guest| guest.granted(grants));
    let instance = &mut world.instance().await;
    for (key, answer) in [
        ("currency", "EUR"),
        ("empty", ""),
        ("Currency", "02"),
        ("", "02"),
    ] {
        let (outcome, lines) = world.call(instance, &asking(1, key, "")).await;
        assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
        assert_eq!(lines, [answer], "{key}");
    }
}

/// Drafts change without a change of their number, so that only the same text is the same interface.
#[test]
fn another_draft_is_refused_by_name() {
    let text = r#"(component
      (import "wasi:config/store@0.2.0-draft" (instance (export "get-all" (func))))
      (instance $handler)
      (export "segmenter:handler/handler@0.1.0" (instance $handler)))"#;
    let bytes = wat::parse_str(text).expect("a component");
    match load(&bytes, LIMITS) {
        Err(error @ LoadError::MissingImport { .. }) => {
            let text = error.to_string();
            assert!(text.contains("config = {"), "{text}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was loaded"),
    }
    let grants = Grants {
        config: Some([].into()),
        ..Grants::default()
    };
    let module = segmenter_wasm::Module::load(&crate::guests::engine(), &bytes, LIMITS, grants);
    let text = module.err().expect("another draft").to_string();
    assert!(
        text.contains("wasi:config/store@0.2.0-rc.1") && text.contains("exactly"),
        "{text}"
    );
}
