//! `segmenter:handler/emit`.

use segmenter_core::effects::{Effects, Emit};
use segmenter_core::message::{Content, Message};
use segmenter_core::outcome::{Fault, Outcome};
use segmenter_wasm::{Grants, Instance};

use crate::guests::{Guest, LOG, SAY, World, asking, end_by_attempt, message};

/// Sends the payload to the stream in the key, with key and attributes of the message, as often as the
/// payload's first digit says; with `!` there, once with an attribute that has no name. Logs each answer.
const RUN: &str = r#"
  (import "segmenter:handler/emit@0.1.0" "send"
    (func $send (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#;
const BODY: &str = r#"
  (if (i32.eq (i32.load8_u (local.get 6)) (i32.const 0x21))
    (then
      (local.set 8 (i32.const 1024))
      (local.set 9 (i32.const 1))
      (local.set 2 (i32.const 1)))
    (else (local.set 2 (i32.sub (i32.load8_u (local.get 6)) (i32.const 48)))))
  (block $done (loop $next
    (br_if $done (i32.eqz (local.get 2)))
    (call $send (local.get 4) (local.get 5) (local.get 4) (local.get 5) (local.get 6) (local.get 7)
      (local.get 8) (local.get 9) (i32.const 512))
    (if (i32.load8_u (i32.const 512))
      (then
        (call $error (i32.load8_u (i32.const 520)))
        ;; too-many(u32) fits into a line of two digits.
        (if (i32.eq (i32.load8_u (i32.const 520)) (i32.const 2))
          (then (call $number (i32.load (i32.const 528)))))))
    (local.set 2 (i32.sub (local.get 2) (i32.const 1)))
    (br $next)))"#;

fn with_guest<T>(then: impl FnOnce(Guest<'_>) -> T) -> T {
    let parts = [LOG, RUN, SAY].concat();
    let body = BODY.to_owned() + &end_by_attempt();
    then(Guest {
        parts: &parts,
        body: &body,
        world: "import segmenter:handler/emit@0.1.0;",
        ..Guest::default()
    })
}

fn world() -> World {
    let grants = Grants {
        emit: ["invoices", "audit", "small"]
            .map(|s| s.parse().unwrap())
            .into(),
        ..Grants::default()
    };
    with_guest(|guest| guest.granted(grants))
}

async fn emits(world: &World, instance: &mut Instance, message: &Message) -> (String, Vec<Emit>) {
    match world.call(instance, message).await {
        (Outcome::Ok(Effects { emits, .. }), lines) => (lines.join(" "), emits),
        (other, _) => panic!("{other:?}"),
    }
}

#[test]
fn without_the_grant() {
    with_guest(|guest| {
        guest.refused_without("segmenter:handler/emit@0.1.0", "`emit = [\"STREAM\"]`")
    });
}

#[tokio::test]
async fn what_is_emitted_comes_with_the_ack_as_it_was_given() {
    let world = world();
    let instance = &mut world.instance().await;
    let attributes = vec![
        ("a".to_owned(), "1".to_owned()),
        ("b".to_owned(), "é".to_owned()),
    ];
    let content = Content::new("audit", b"2\0\xff".to_vec(), attributes, 100).unwrap();
    let asked = Message {
        attempt: 1,
        content: content.clone(),
        ..message()
    };
    let (told, sent) = emits(&world, instance, &asked).await;
    let emit = Emit {
        to: "audit".parse().unwrap(),
        content,
    };
    assert_eq!((told, sent), (String::new(), vec![emit.clone(), emit]));
    // The next call begins with nothing.
    let (_, sent) = emits(&world, instance, &asking(1, "audit", "0")).await;
    assert_eq!(sent, []);
}

#[tokio::test]
async fn only_granted_streams_are_reached() {
    let world = world();
    let instance = &mut world.instance().await;
    for to in ["orders", "Audit", "audit ", "", "no name", "ns/audit"] {
        let answer = emits(&world, instance, &asking(1, to, "1")).await;
        assert_eq!(answer, ("error 00".to_owned(), vec![]), "{to:?}");
    }
}

#[tokio::test]
async fn number_and_bytes_are_bounded() {
    let world = world();
    let instance = &mut world.instance().await;
    let (told, sent) = emits(&world, instance, &asking(1, "audit", "5")).await;
    assert_eq!((told.as_str(), sent.len()), ("error 02 03 error 02 03", 3));
    // One payload of 1,000 bytes is the most, and 2,000 bytes all of them, keys included.
    let sized = |bytes: usize| format!("3{}", "x".repeat(bytes - 1));
    let (told, sent) = emits(&world, instance, &asking(1, "audit", sized(1_001))).await;
    assert_eq!(
        (told.as_str(), sent.len()),
        ("error 01 error 01 error 01", 0)
    );
    let (told, sent) = emits(&world, instance, &asking(1, "audit", sized(1_000))).await;
    assert_eq!((told.as_str(), sent.len()), ("error 01 error 01", 1));
    let (told, sent) = emits(&world, instance, &asking(1, "audit", sized(995))).await;
    assert_eq!((told.as_str(), sent.len()), ("error 01", 2));
}

#[tokio::test]
async fn a_target_with_a_payload_limit_of_its_own_keeps_it() {
    let world = world();
    let instance = &mut world.instance().await;
    for (payload, expected) in [("1234567890", ("", 1)), ("12345678901", ("error 01", 0))] {
        let (told, sent) = emits(&world, instance, &asking(1, "small", payload)).await;
        assert_eq!((told.as_str(), sent.len()), expected, "{payload}");
    }
}

#[tokio::test]
async fn a_failed_call_emits_nothing() {
    let world = world();
    let instance = &mut world.instance().await;
    for attempt in 2..=4 {
        let (outcome, lines) = world.call(instance, &asking(attempt, "audit", "3")).await;
        assert!(!matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
        assert_eq!(lines, [""; 0]);
        let (_, sent) = emits(&world, instance, &asking(1, "audit", "1")).await;
        assert_eq!(sent.len(), 1, "after attempt {attempt}");
    }
}

#[tokio::test]
async fn a_message_that_no_stream_can_take_is_a_mistake_that_is_told() {
    let world = world();
    let instance = &mut world.instance().await;
    match world.call(instance, &asking(1, "audit", "!")).await.0 {
        Outcome::Broken { fault, reason } => {
            assert_eq!(fault, Fault::Trap);
            assert!(
                reason.contains("audit") && reason.contains("attribute has no name"),
                "{reason}"
            );
        }
        other => panic!("{other:?}"),
    }
}
