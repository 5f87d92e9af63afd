//! What a handler changes through the host: state and emitted messages, in the commit that acks.

use std::collections::BTreeMap;

use segmenter_core::effects::Emit;
use segmenter_core::lease::Attempts;
use segmenter_core::limits;
use segmenter_core::message::{Content, EntryId};
use segmenter_core::port::{Commit, CommitReply, Failure, Stamped};

use crate::conformance::scene::message;
use crate::conformance::{Held, Scene, Subject};

fn value(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

fn changes(all: &[(&str, Option<Vec<u8>>)]) -> BTreeMap<String, Option<Vec<u8>>> {
    all.iter()
        .map(|(n, v)| ((*n).to_owned(), v.clone()))
        .collect()
}

fn stamped(held: &Held, seq: u64) -> Stamped {
    Stamped {
        stamp: EntryId {
            ms: held.epoch.0,
            seq,
        },
        emit: Emit {
            to: "invoices".parse().expect("a name"),
            content: message(usize::try_from(seq).expect("a small number")),
        },
    }
}

fn committed(scene: &mut Scene<'_>, held: &mut Held, commit: Commit) {
    let to = commit.to;
    match scene.send(commit) {
        Ok(CommitReply::Committed { read }) => {
            held.acked = to;
            held.read = read;
        }
        other => panic!("{other:?}"),
    }
}

pub fn state_is_changed_with_the_ack(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(2);
    let mut held = scene.acquire("a");
    assert!(scene.state().is_empty());
    let binary = Some(vec![0, 255, 10]);
    let state = changes(&[
        ("count", value("1")),
        ("", value("empty name")),
        ("ключ", binary),
    ]);
    let commit = Commit {
        state,
        ..scene.commit_of(&held, ids[0], 1)
    };
    committed(&mut scene, &mut held, commit);
    let found = scene.state();
    assert_eq!(found.len(), 3);
    assert_eq!(found["ключ"], [0, 255, 10]);
    assert_eq!(found[""], b"empty name");
    let state = changes(&[("count", value("2")), ("", None), ("never", None)]);
    let commit = Commit {
        state,
        ..scene.commit_of(&held, ids[1], 1)
    };
    committed(&mut scene, &mut held, commit);
    let found = scene.state();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["count", "ключ"]);
    assert_eq!(found["count"], b"2");
}

pub fn thousands_of_values_change_at_once(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(2);
    let mut held = scene.acquire("a");
    let all = |value: Option<Vec<u8>>| -> BTreeMap<String, Option<Vec<u8>>> {
        (0..3_333)
            .map(|n| (format!("n{n}"), value.clone()))
            .collect()
    };
    let commit = Commit {
        state: all(value("x")),
        ..scene.commit_of(&held, ids[0], 1)
    };
    committed(&mut scene, &mut held, commit);
    assert_eq!(scene.state().len(), 3_333);
    let commit = Commit {
        state: all(None),
        ..scene.commit_of(&held, ids[1], 1)
    };
    committed(&mut scene, &mut held, commit);
    assert!(scene.state().is_empty());
}

pub fn each_group_has_a_state_of_its_own(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    scene.ensure("audit");
    let ids = scene.append(1);
    let mut held = scene.acquire("a");
    let commit = Commit {
        state: changes(&[("n", value("1"))]),
        ..scene.commit_of(&held, ids[0], 1)
    };
    committed(&mut scene, &mut held, commit);
    scene.group = "audit".parse().expect("a name");
    assert!(scene.state().is_empty());
}

pub fn emitted_messages_wait_in_the_outbox_in_the_order_of_their_stamps(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(2);
    let mut held = scene.acquire("a");
    let emits = vec![stamped(&held, 1), stamped(&held, 2)];
    let commit = Commit {
        emits: emits.clone(),
        ..scene.commit_of(&held, ids[0], 1)
    };
    committed(&mut scene, &mut held, commit);
    assert_eq!(scene.outbox(), emits);
    // The next owner's stamps are above those, though it counts from 1 again.
    let mut next = scene.acquire("b");
    let more = stamped(&next, 1);
    let commit = Commit {
        emits: vec![more.clone()],
        ..scene.commit_of(&next, ids[1], 1)
    };
    committed(&mut scene, &mut next, commit);
    assert_eq!(scene.outbox(), [emits, vec![more]].concat());
}

pub fn emitted_messages_that_differ_in_target_and_attributes_keep_their_order(
    subject: &mut dyn Subject,
) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(1);
    let mut held = scene.acquire("a");
    // Target and number of attributes of each: both change, one at a time and together.
    let unlike = [("x", 0), ("x", 0), ("x", 2), ("y", 2), ("y", 0), ("x", 1)];
    let emits = (1..).zip(unlike).map(|(seq, (to, attributes))| {
        let named = (0..attributes).map(|n| (format!("a{n}"), format!("{seq}")));
        let payload = seq.to_string().into_bytes();
        let content = Content::new("k", payload, named.collect(), limits::PAYLOAD_BYTES_MAX);
        let to = to.parse().expect("a name");
        let content = content.expect("a message");
        let emit = Emit { to, content };
        Stamped {
            emit,
            ..stamped(&held, seq)
        }
    });
    let emits: Vec<_> = emits.collect();
    let attempts = Some(Attempts {
        id: ids[0],
        failed: 2,
        version: "v1".parse().expect("a name"),
    });
    let commit = Commit {
        state: changes(&[("gone", None), ("n", value("1"))]),
        emits: emits.clone(),
        attempts: attempts.clone(),
        ..scene.commit_of(&held, held.acked, 0)
    };
    committed(&mut scene, &mut held, commit);
    assert_eq!(scene.outbox(), emits);
    assert_eq!(scene.state().len(), 1);
    // What follows them in the request arrived, too.
    scene.release(held.fence());
    assert_eq!(scene.acquire("b").attempts, attempts);
}

pub fn a_fenced_commit_changes_no_state_and_emits_nothing(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(1);
    let zombie = scene.acquire("a");
    scene.acquire("b");
    let commit = Commit {
        state: changes(&[("n", value("1"))]),
        emits: vec![stamped(&zombie, 1)],
        ..scene.commit_of(&zombie, ids[0], 1)
    };
    assert!(matches!(scene.send(commit), Ok(CommitReply::Fenced { .. })));
    assert!(scene.state().is_empty() && scene.outbox().is_empty());
}

pub fn a_stamp_that_was_given_out_is_refused_and_changes_nothing(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(2);
    let mut held = scene.acquire("a");
    let commit = Commit {
        emits: vec![stamped(&held, 5)],
        ..scene.commit_of(&held, ids[0], 1)
    };
    committed(&mut scene, &mut held, commit);
    let again = Commit {
        emits: vec![stamped(&held, 5)],
        state: changes(&[("n", value("1"))]),
        ..scene.commit_of(&held, ids[1], 1)
    };
    assert!(matches!(scene.send(again), Err(Failure::Fatal(_))));
    assert!(scene.state().is_empty());
    assert_eq!(scene.outbox().len(), 1);
    assert_eq!(scene.lease().expect("a lease").acked, ids[0]);
}
