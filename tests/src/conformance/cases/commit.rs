//! Commits: what they move, what they keep, and what the mirror shows.

use segmenter_core::lease::Attempts;
use segmenter_core::message::EntryId;
use segmenter_core::port::{Commit, CommitReply, DeadLetter, Failure, ReleaseReply};

use crate::conformance::scene::P0;
use crate::conformance::{Scene, Subject};

fn letter(id: EntryId, reason: &str, fields: Vec<(Vec<u8>, Vec<u8>)>) -> DeadLetter {
    DeadLetter {
        id,
        reason: reason.to_owned(),
        attempts: 3,
        version: "v1".to_owned(),
        fields,
    }
}

pub fn the_lag_falls_to_nothing_when_all_is_acked(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(4);
    let (stream, name) = (scene.stream.clone(), scene.group.clone());
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[0], 1, false);
    assert_eq!(scene.subject.lag(&stream, P0, &name), Some(3));
    scene.commit(&mut held, ids[3], 3, true);
    assert_eq!(scene.subject.lag(&stream, P0, &name), Some(0));
}

pub fn a_commit_of_the_last_entry_corrects_a_count_that_is_off(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(4);
    let (stream, name) = (scene.stream.clone(), scene.group.clone());
    // Someone deletes an entry before it was read: the owner counts one less than was ever added.
    scene.subject.remove(&stream, P0, ids[1]);
    let held = scene.acquire("a");
    let commit = Commit {
        caught_up: true,
        ..scene.commit_of(&held, ids[3], 3)
    };
    assert_eq!(scene.send(commit), Ok(CommitReply::Committed { read: 4 }));
    assert_eq!(scene.subject.lag(&stream, P0, &name), Some(0));
    let next = scene.acquire("b");
    assert_eq!(next.read, 4);
}

pub fn a_count_is_not_corrected_if_entries_follow(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(4);
    let held = scene.acquire("a");
    let commit = Commit {
        caught_up: true,
        ..scene.commit_of(&held, ids[1], 2)
    };
    assert_eq!(scene.send(commit), Ok(CommitReply::Committed { read: 2 }));
}

pub fn a_dead_letter_keeps_the_message_whole(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let (stream, name) = (scene.stream.clone(), scene.group.clone());
    // Names that are ours among dead letters too, one name twice, and bytes that are no text.
    let odd = vec![
        (b"id".to_vec(), b"mine".to_vec()),
        (b"reason".to_vec(), Vec::new()),
        (b"f:id".to_vec(), b"x".to_vec()),
        (b"id".to_vec(), b"again".to_vec()),
        (Vec::new(), b"\0\xff\r\n".to_vec()),
    ];
    let first = EntryId {
        ms: 7,
        seq: u64::MAX,
    };
    scene.subject.add(&stream, P0, first, odd.clone());
    let ids = scene.append(1);
    let ours = scene.subject.log(&stream, P0)[1].fields.clone();
    let held = scene.acquire("a");
    let before = scene.subject.now_us() / 1_000;
    let letters = vec![
        letter(first, "no field 'k'", odd),
        letter(ids[0], "bäd\n", ours),
    ];
    let commit = Commit {
        dead: letters.clone(),
        trim: true,
        ..scene.commit_of(&held, ids[0], 2)
    };
    assert_eq!(scene.send(commit), Ok(CommitReply::Committed { read: 2 }));
    let kept = scene.subject.dead(&stream, P0, &name);
    let after = scene.subject.now_us() / 1_000;
    let found: Vec<DeadLetter> = kept.iter().map(|(letter, _)| letter.clone()).collect();
    assert_eq!(found, letters);
    for (_, at_ms) in kept {
        assert!(
            (before..=after).contains(&at_ms),
            "{before} {at_ms} {after}"
        );
    }
    assert!(
        scene.log_ids().is_empty(),
        "trimmed, but kept among the dead"
    );
}

pub fn a_dead_letter_with_thousands_of_fields_is_kept_whole(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let (stream, name) = (scene.stream.clone(), scene.group.clone());
    let fields: Vec<_> = (0..9_000)
        .map(|n| {
            (
                format!("field-{n}").into_bytes(),
                n.to_string().into_bytes(),
            )
        })
        .collect();
    let id = EntryId { ms: 7, seq: 1 };
    scene.subject.add(&stream, P0, id, fields.clone());
    let read = scene.read(EntryId::ZERO, 1);
    assert_eq!(read[0].fields, fields);
    let held = scene.acquire("a");
    let commit = Commit {
        dead: vec![letter(id, "not ours", fields.clone())],
        ..scene.commit_of(&held, id, 1)
    };
    assert_eq!(scene.send(commit), Ok(CommitReply::Committed { read: 1 }));
    assert_eq!(scene.subject.dead(&stream, P0, &name)[0].0.fields, fields);
}

pub fn a_fenced_commit_keeps_no_dead_letter(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let (stream, name) = (scene.stream.clone(), scene.group.clone());
    let ids = scene.append(1);
    let zombie = scene.acquire("a");
    scene.acquire("b");
    let fields = scene.subject.log(&stream, P0)[0].fields.clone();
    let commit = Commit {
        dead: vec![letter(ids[0], "no", fields)],
        ..scene.commit_of(&zombie, ids[0], 1)
    };
    assert!(matches!(scene.send(commit), Ok(CommitReply::Fenced { .. })));
    assert!(scene.subject.dead(&stream, P0, &name).is_empty());
}

pub fn a_commit_never_goes_back(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(2);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[1], 2, false);
    let view = scene.lease();
    let commit = scene.commit_of(&held, ids[0], 1);
    assert!(matches!(scene.send(commit), Err(Failure::Fatal(_))));
    assert_eq!(scene.lease(), view);
}

pub fn a_commit_may_ack_an_id_that_is_no_entry(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(2);
    let stream = scene.stream.clone();
    let mut held = scene.acquire("a");
    scene.subject.remove(&stream, P0, ids[0]);
    scene.commit(&mut held, ids[0], 1, true);
    assert_eq!(scene.log_ids(), ids[1..]);
}

/// Failed attempts at `id`.
fn attempts(id: EntryId, failed: u32) -> Attempts {
    attempts_of(id, failed, "v1")
}

fn attempts_of(id: EntryId, failed: u32, version: &str) -> Attempts {
    Attempts {
        id,
        failed,
        version: version.parse().expect("a name"),
    }
}

pub fn a_failed_attempt_is_recorded_without_an_ack_and_outlives_its_owner(
    subject: &mut dyn Subject,
) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(1);
    let held = scene.acquire("a");
    assert_eq!(held.attempts, None);
    let commit = Commit {
        attempts: Some(attempts(ids[0], 2)),
        ..scene.commit_of(&held, held.acked, 0)
    };
    assert!(matches!(
        scene.send(commit),
        Ok(CommitReply::Committed { .. })
    ));
    assert_eq!(scene.release(held.fence()), ReleaseReply::Released);
    let next = scene.acquire("b");
    assert_eq!(
        next.attempts,
        Some(attempts(ids[0], 2)),
        "released: no more than that"
    );
    let third = scene.acquire("c");
    assert!(third.unreleased);
    assert_eq!(
        third.attempts,
        Some(attempts(ids[0], 3)),
        "taken over: one more"
    );
}

pub fn a_takeover_counts_against_the_first_message_that_is_not_acked(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(2);
    scene.acquire("a");
    let mut held = scene.acquire("b");
    assert_eq!(
        held.attempts.clone().map(|a| (a.id, a.failed)),
        Some((ids[0], 1))
    );
    scene.commit(&mut held, ids[0], 1, false);
    let mut held = scene.acquire("c");
    assert_eq!(
        held.attempts.clone().map(|a| (a.id, a.failed)),
        Some((ids[1], 1))
    );
    scene.commit(&mut held, ids[1], 1, false);
    let held = scene.acquire("d");
    assert_eq!(
        held.attempts.map(|a| (a.id, a.failed)),
        Some((ids[1], 1)),
        "there is no message that it could count against"
    );
}

pub fn a_commit_may_halt_the_partition_and_a_resume_forgets_the_attempts(
    subject: &mut dyn Subject,
) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(2);
    let held = scene.acquire("a");
    let commit = Commit {
        attempts: Some(attempts(ids[1], 5)),
        halt: Some("it failed 5 times".to_owned()),
        ..scene.commit_of(&held, ids[0], 1)
    };
    assert!(matches!(
        scene.send(commit),
        Ok(CommitReply::Committed { .. })
    ));
    let lease = scene.lease().expect("a lease");
    assert_eq!((lease.acked, lease.incarnation), (ids[0], None));
    assert_eq!(lease.halt.as_deref(), Some("it failed 5 times"));
    scene.resume(None);
    let next = scene.acquire("b");
    assert_eq!(
        (next.acked, next.unreleased, next.attempts),
        (ids[0], false, None)
    );
}

/// Who takes it over counts the crash under the version that handled.
pub fn a_commit_may_say_which_version_handles_by_now(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(2);
    let mut held = scene.acquire("a");
    let commit = Commit {
        version: Some("v2".parse().expect("a name")),
        ..scene.commit_of(&held, held.acked, 0)
    };
    let reply = scene.send(commit.clone());
    assert_eq!(reply, Ok(CommitReply::Committed { read: 0 }));
    scene.commit(&mut held, ids[0], 1, false);
    let next = scene.acquire("b");
    assert_eq!(
        next.attempts,
        Some(attempts_of(ids[1], 1, "v2")),
        "a commit that says nothing leaves it"
    );
    assert_eq!(
        scene
            .send(commit)
            .map(|reply| matches!(reply, CommitReply::Fenced { .. })),
        Ok(true),
        "fenced like all else"
    );
    assert_eq!(
        scene.acquire("c").attempts,
        Some(attempts_of(ids[1], 2, "v2"))
    );
    let held = scene.acquire("d");
    let commit = scene.commit_of(&held, ids[1], 1);
    assert_eq!(scene.send(commit), Ok(CommitReply::Committed { read: 2 }));
    let third = scene.append(1);
    assert_eq!(
        scene.acquire("e").attempts,
        Some(attempts_of(third[0], 1, "v1")),
        "each acquire says it anew"
    );
}

pub fn a_crash_counts_under_the_version_that_the_lease_has_for_its_entry(
    subject: &mut dyn Subject,
) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(2);
    let held = scene.acquire("a");
    // The version on trial did not ack it: another one is asked, and has not failed yet.
    let commit = Commit {
        attempts: Some(attempts_of(ids[0], 0, "v0")),
        version: Some("v2".parse().expect("a name")),
        ..scene.commit_of(&held, held.acked, 0)
    };
    assert_eq!(scene.send(commit), Ok(CommitReply::Committed { read: 0 }));
    assert_eq!(scene.release(held.fence()), ReleaseReply::Released);
    let held = scene.acquire("b");
    assert_eq!(held.attempts, Some(attempts_of(ids[0], 0, "v0")));
    let mut held = scene.acquire("c");
    assert_eq!(held.attempts, Some(attempts_of(ids[0], 1, "v0")));
    scene.commit(&mut held, ids[0], 1, false);
    assert_eq!(
        scene.acquire("d").attempts,
        Some(attempts_of(ids[1], 1, "v1")),
        "of another entry: under the one that handled"
    );
}
