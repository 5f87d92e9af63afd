//! `segmenter:handler/context`.

use segmenter_core::outcome::Outcome;

use crate::guests::{Guest, LIMITS, LOG, message};

#[tokio::test]
async fn the_context_says_where_it_runs() {
    let mut imports = LOG.to_owned();
    let mut body = String::new();
    for (name, function) in [
        ("namespace", "namespace"),
        ("stream", "stream"),
        ("group", "group"),
        ("handler", "handler-name"),
        ("version", "version"),
    ] {
        imports += &format!(
            r#"(import "segmenter:handler/context@0.1.0" "{function}" (func ${name} (param i32)))"#
        );
        body += &format!(
            "(call ${name} (i32.const 512)) (call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.load (i32.const 512)) (i32.load (i32.const 516)))"
        );
    }
    imports += r#"
      (import "segmenter:handler/context@0.1.0" "partitions" (func $partitions (result i32)))
      (import "segmenter:handler/context@0.1.0" "lease-epoch" (func $epoch (result i64)))"#;
    body += r#"
      (if (i32.ne (call $partitions) (i32.const 8)) (then unreachable))
      (if (i64.ne (call $epoch) (i64.const 77)) (then unreachable))
      (i32.store8 (i32.const 256) (i32.const 0)) (i32.const 256)"#;
    let guest = Guest {
        parts: &imports,
        body: &body,
        ..Guest::default()
    };
    let (mut instance, lines) = guest.instance(LIMITS).await;
    assert!(matches!(instance.call(&message()).await, Outcome::Ok(_)));
    let texts: Vec<_> = lines
        .all()
        .iter()
        .map(|l| l.rsplit(' ').next().unwrap().to_owned())
        .collect();
    let version = guest.load(LIMITS).version().to_string();
    assert_eq!(texts, ["ns", "orders", "g", "h", version.as_str()]);
}
