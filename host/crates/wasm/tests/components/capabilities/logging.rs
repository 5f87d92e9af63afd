//! `wasi:logging/logging`.

use segmenter_core::outcome::Outcome;

use crate::guests::{Guest, LIMITS, LOG, OK, message};

#[tokio::test]
async fn a_line_has_its_level_and_its_context() {
    let body: String = (0..6)
        .map(|level| {
            format!("(call $log (i32.const {level}) (i32.const 40) (i32.const 4) (local.get 4) (local.get 5))")
        })
        .collect();
    let guest = Guest {
        parts: LOG,
        body: &(body + OK),
        ..Guest::default()
    };
    let (mut instance, lines) = guest.instance(LIMITS).await;
    assert!(matches!(instance.call(&message()).await, Outcome::Ok(_)));
    let levels = ["trace", "debug", "info", "warn", "error", "critical"];
    assert_eq!(
        lines.all(),
        levels.map(|level| format!("5 7-1 2 {level}: last: the key"))
    );
}
