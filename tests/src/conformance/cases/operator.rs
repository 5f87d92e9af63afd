//! What an operator does to a group: seek, halt, resume, skip, delete. The owner is fenced each time.

use segmenter_core::entry;
use segmenter_core::message::EntryId;
use segmenter_core::names::Uid;
use segmenter_core::port::{
    AcquireReply, CommitReply, DeleteGroupReply, HaltReply, Position, ReleaseReply, ResumeReply,
    SeekReply, Start, SyncKind, SyncReply,
};

use std::time::Duration;

use crate::conformance::scene::{Held, P0, group, message};
use crate::conformance::{Puppet, Scene, Subject};

/// Neither a commit nor a release of this tenure has an effect any more.
fn is_fenced(scene: &mut Scene<'_>, held: &Held, to: EntryId) {
    let before = scene.lease();
    let commit = scene.commit_of(held, to, 1);
    let reply = scene.send(commit);
    assert!(matches!(reply, Ok(CommitReply::Fenced { .. })), "{reply:?}");
    let reply = scene.release(held.fence());
    assert!(matches!(reply, ReleaseReply::Fenced { .. }), "{reply:?}");
    assert_eq!(scene.lease(), before);
}

pub fn a_seek_to_the_start_gives_everything_again_and_fences_the_owner(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(4);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[2], 3, false);
    let reply = scene.try_seek(Position::Start);
    let sought = SeekReply::Sought {
        was: ids[2],
        acked: EntryId::ZERO,
        read: 0,
    };
    assert_eq!(reply, sought);
    assert_eq!(scene.lag(), Some(4));
    is_fenced(&mut scene, &held, ids[3]);
    let next = scene.acquire("a");
    assert!(next.epoch > held.epoch);
    assert!(!next.unreleased, "the owner has not crashed");
    assert_eq!((next.acked, next.read), (EntryId::ZERO, 0));
    assert_eq!(scene.read(next.acked, 10).len(), 4);
}

pub fn a_seek_to_the_start_of_a_trimmed_log_counts_what_is_left(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(6);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[3], 4, true);
    assert_eq!(scene.log_ids(), ids[4..]);
    assert_eq!(scene.seek(Position::Start), (EntryId::ZERO, 4));
    assert_eq!(scene.lag(), Some(2));
    // An entry that is gone: the first one that is left.
    assert_eq!(scene.seek(Position::From(ids[1])), (EntryId::ZERO, 4));
    assert_eq!(scene.lag(), Some(2));
}

pub fn a_seek_to_the_end_acks_everything_and_trimming_may_take_it(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(5);
    let held = scene.acquire("a");
    assert_eq!(scene.seek(Position::End), (ids[4], 5));
    assert_eq!(scene.lag(), Some(0));
    is_fenced(&mut scene, &held, ids[4]);
    let more = scene.append(1);
    let mut held = scene.acquire("a");
    assert_eq!((held.acked, held.read), (ids[4], 5));
    scene.commit(&mut held, more[0], 1, true);
    assert!(scene.log_ids().is_empty());
    // Of an empty log the last id that was given out.
    assert_eq!(scene.seek(Position::End), (more[0], 6));
    assert_eq!(scene.seek(Position::Start), (EntryId::ZERO, 6));
    assert_eq!(scene.lag(), Some(0));
}

pub fn a_seek_to_an_id_goes_on_with_that_entry_or_the_next_one(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 100);
    let stream = scene.stream.clone();
    let id = |ms, seq| EntryId { ms, seq };
    let ids = [id(10, 0), id(10, 1), id(20, u64::MAX), id(30, 0), id(30, 9)];
    for id in ids {
        let fields = entry::encode(&message(1));
        scene.subject.add(&stream, P0, id, fields);
    }
    for (from, acked, read) in [
        (id(0, 1), EntryId::ZERO, 0),
        (ids[0], EntryId::ZERO, 0),
        (ids[1], ids[0], 1),
        (ids[3], ids[2], 3),
        (ids[4], ids[3], 4),
        // Between two entries, as a moment is.
        (id(15, 0), ids[1], 2),
        (id(20, 0), ids[1], 2),
        (id(21, 0), ids[2], 3),
        // Above the last one: what comes later has a higher id, but perhaps not a higher one than this.
        (id(30, 10), ids[4], 5),
        (id(u64::MAX, u64::MAX), ids[4], 5),
    ] {
        assert_eq!(scene.seek(Position::From(from)), (acked, read), "{from}");
        assert_eq!(scene.lag(), Some(5 - read), "{from}");
    }
    let more = scene.append(1);
    let held = scene.acquire("a");
    assert_eq!(scene.read(held.acked, 10)[0].id, more[0]);
}

pub fn a_seek_counts_a_log_of_many_entries_exactly(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 20_000);
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.extend(scene.append(500));
    }
    for n in [1, 4_095, 4_096, 4_097, 9_999] {
        let expected = (ids[n - 1], n as u64);
        assert_eq!(scene.seek(Position::From(ids[n])), expected, "{n}");
        assert_eq!(scene.lag(), Some(10_000 - n as u64), "{n}");
    }
    // Entries that others deleted do not follow any more.
    let stream = scene.stream.clone();
    scene.subject.remove(&stream, P0, ids[5_000]);
    assert_eq!(scene.seek(Position::From(ids[4_000])), (ids[3_999], 4_001));
}

pub fn a_halted_partition_is_acquired_by_nobody_until_it_is_resumed(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(2);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[0], 1, false);
    assert_eq!(scene.halt("paused"), HaltReply::Halted);
    is_fenced(&mut scene, &held, ids[1]);
    let lease = scene.lease().expect("a lease");
    assert_eq!(lease.halt.as_deref(), Some("paused"));
    assert_eq!((lease.incarnation, lease.acked), (None, ids[0]));
    assert!(lease.epoch > held.epoch);
    let refused = AcquireReply::Halted {
        reason: "paused".to_owned(),
        epoch: lease.epoch,
        acked: ids[0],
    };
    assert_eq!(scene.try_acquire("b", "billing"), refused);
    let again = scene.halt("again");
    let already = HaltReply::Already {
        reason: "paused".to_owned(),
    };
    assert_eq!(again, already, "the first reason stays");
    assert_eq!(scene.resume(None), ResumeReply::Resumed { skipped: None });
    let next = scene.acquire("b");
    assert!(next.epoch > lease.epoch);
    assert_eq!((next.acked, next.read, next.unreleased), (ids[0], 1, false));
    assert_eq!(scene.resume(None), ResumeReply::NotHalted);
    assert_eq!(scene.lease().expect("a lease").epoch, next.epoch);
}

pub fn a_seek_of_a_halted_partition_leaves_it_halted(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(2);
    scene.halt("paused");
    scene.seek(Position::End);
    let lease = scene.lease().expect("a lease");
    assert_eq!(
        (lease.halt.as_deref(), lease.acked),
        (Some("paused"), ids[1])
    );
}

pub fn a_skip_makes_the_head_a_dead_letter_and_goes_on(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(3);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[0], 1, false);
    assert_eq!(
        scene.resume(Some("skipped")),
        ResumeReply::NotHalted,
        "nothing is skipped of a partition that runs"
    );
    scene.halt("paused");
    for (n, lag) in [(1, 1), (2, 0)] {
        let skipped = ResumeReply::Resumed {
            skipped: Some(ids[n]),
        };
        assert_eq!(scene.resume(Some("skipped")), skipped);
        assert_eq!(scene.lag(), Some(lag));
        scene.halt("paused");
    }
    assert_eq!(
        scene.resume(Some("skipped")),
        ResumeReply::Resumed { skipped: None },
        "nothing is left"
    );
    let next = scene.acquire("a");
    assert_eq!((next.acked, next.read), (ids[2], 3));
    let (stream, billing) = (scene.stream.clone(), scene.group.clone());
    let now_ms = scene.subject.now_us() / 1_000;
    let dead = scene.subject.dead(&stream, P0, &billing);
    assert_eq!(dead.len(), 2, "{dead:?}");
    for ((letter, at_ms), n) in dead.iter().zip([1, 2]) {
        assert_eq!((letter.id, letter.reason.as_str()), (ids[n], "skipped"));
        assert_eq!((letter.attempts, letter.version.as_str()), (0, ""));
        assert_eq!(letter.fields, entry::encode(&message(n)), "it is whole");
        assert!(*at_ms <= now_ms && at_ms + 60_000 > now_ms);
    }
}

pub fn a_skipped_entry_with_thousands_of_fields_is_kept_whole(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let (stream, billing) = (scene.stream.clone(), scene.group.clone());
    let field = |n: u32| (format!("f{n}").into_bytes(), vec![b':'; (n % 9) as usize]);
    let fields: Vec<_> = (0..3_000).map(field).collect();
    let id = EntryId { ms: 1, seq: 1 };
    scene.subject.add(&stream, P0, id, fields.clone());
    scene.halt("paused");
    let skipped = ResumeReply::Resumed { skipped: Some(id) };
    assert_eq!(scene.resume(Some("skipped")), skipped);
    let dead = scene.subject.dead(&stream, P0, &billing);
    assert_eq!(dead[0].0.fields, fields);
}

pub fn a_deleted_group_is_gone_with_what_it_alone_needed(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    scene.ensure("audit");
    let ids = scene.append(4);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[2], 3, true);
    assert_eq!(scene.log_ids(), ids, "audit needs them all");
    scene.halt("paused");
    scene.resume(Some("skipped"));
    scene.group = group("audit");
    let audit = scene.acquire_for("b", "audit");
    assert_eq!(
        scene.delete_group(),
        DeleteGroupReply::Deleted { existed: true }
    );
    assert!(scene.log_ids().is_empty(), "billing needs none of them");
    let commit = scene.commit_of(&audit, ids[0], 1);
    assert_eq!(scene.send(commit), Ok(CommitReply::Fenced { found: None }));
    assert_eq!(scene.lease(), None);
    assert_eq!(scene.try_acquire("b", "audit"), AcquireReply::GroupGone);
    assert_eq!(scene.try_seek(Position::Start), SeekReply::GroupGone);
    assert_eq!(scene.halt("paused"), HaltReply::GroupGone);
    assert_eq!(scene.resume(None), ResumeReply::GroupGone);
    assert_eq!(
        scene.delete_group(),
        DeleteGroupReply::Deleted { existed: false }
    );
    scene.group = group("billing");
    let stream = scene.stream.clone();
    assert_eq!(scene.subject.dead(&stream, P0, &group("billing")).len(), 1);
    scene.delete_group();
    assert!(
        scene
            .subject
            .dead(&stream, P0, &group("billing"))
            .is_empty()
    );
    // The next of that name begins anew.
    scene.ensure_from("billing", Start::End);
    assert_eq!(scene.lag(), Some(0));
}

pub fn nobody_joins_a_group_that_was_deleted(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let mut member = Puppet::new("a", "a1", Duration::from_secs(60));
    let reply = member.asks(&mut scene, SyncKind::Join);
    assert!(matches!(reply, SyncReply::Member(_)), "{reply:?}");
    scene.delete_group();
    member.incarnation = "a2".to_owned();
    let reply = member.asks(&mut scene, SyncKind::Join);
    assert_eq!(reply, SyncReply::GroupGone);
    scene.ensure("billing");
    let reply = member.asks(&mut scene, SyncKind::Join);
    assert!(matches!(reply, SyncReply::Member(_)), "{reply:?}");
}

pub fn a_delete_spares_a_group_of_that_name_that_is_someone_elses(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(2);
    let stream = scene.stream.clone();
    let theirs = group("theirs");
    scene
        .subject
        .add_foreign_group(&stream, P0, &theirs, EntryId::ZERO, 0);
    scene.group = theirs;
    assert_eq!(
        scene.delete_group(),
        DeleteGroupReply::Deleted { existed: false }
    );
    scene.group = group("billing");
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[1], 2, true);
    assert_eq!(scene.log_ids(), ids, "it still needs them");
}

pub fn nothing_is_done_to_a_stream_that_is_another_by_now(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let held = scene.acquire("a");
    let uid = std::mem::replace(&mut scene.uid, Uid::new("uid-old").expect("a name"));
    for to in [
        Position::Start,
        Position::End,
        Position::From(EntryId { ms: 1, seq: 1 }),
    ] {
        assert_eq!(scene.try_seek(to), SeekReply::StreamGone);
    }
    assert_eq!(scene.halt("paused"), HaltReply::StreamGone);
    assert_eq!(scene.resume(None), ResumeReply::StreamGone);
    assert_eq!(scene.delete_group(), DeleteGroupReply::StreamGone);
    scene.uid = uid;
    assert_eq!(scene.lease().expect("a lease").epoch, held.epoch);
}
