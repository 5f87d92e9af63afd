//! Leases: acquire, release, verify, and the three parts of the fence.

use segmenter_core::lease::{Epoch, Fence, LeaseView};
use segmenter_core::message::EntryId;
use segmenter_core::names::{Partition, Uid};
use segmenter_core::port::{AcquireReply, CommitReply, ReleaseReply};

use crate::conformance::scene::{Held, P0, incarnation, shape};
use crate::conformance::{Scene, Subject};

pub fn an_acquire_takes_the_lease_whoever_holds_it(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let before = scene.subject.now_us();
    let first = scene.acquire("a");
    assert!(!first.unreleased, "nobody had it");
    assert!(
        first.epoch.0 >= before,
        "{} is not above the time {before}",
        first.epoch.0
    );
    let second = scene.acquire("b");
    assert!(second.unreleased, "a has not released it");
    assert!(second.epoch > first.epoch);
    let again = scene.acquire("b");
    assert!(again.epoch > second.epoch, "also by the same one");
    assert_eq!(
        scene.lease(),
        Some(LeaseView {
            incarnation: Some(incarnation("b")),
            epoch: again.epoch,
            acked: EntryId::ZERO,
            halt: None,
        })
    );
}

pub fn a_released_lease_keeps_what_is_acked(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(3);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[1], 2, false);
    assert_eq!(scene.release(held.fence()), ReleaseReply::Released);
    let next = scene.acquire("b");
    assert_eq!((next.acked, next.read, next.unreleased), (ids[1], 2, false));
    assert!(next.epoch > held.epoch);
}

fn wrong_fences(held: &Held) -> Vec<(&'static str, Fence)> {
    let right = held.fence();
    vec![
        (
            "incarnation",
            Fence {
                incarnation: incarnation("other"),
                ..right.clone()
            },
        ),
        (
            "lower epoch",
            Fence {
                epoch: Epoch(right.epoch.0 - 1),
                ..right.clone()
            },
        ),
        (
            "higher epoch",
            Fence {
                epoch: Epoch(right.epoch.0 + 1),
                ..right.clone()
            },
        ),
        (
            "from",
            Fence {
                from: EntryId { ms: 0, seq: 1 },
                ..right
            },
        ),
    ]
}

pub fn a_commit_is_fenced_by_each_part_of_its_fence(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(3);
    let held = scene.acquire("a");
    let view = scene.lease();
    for (part, fence) in wrong_fences(&held) {
        let mut commit = scene.commit_of(&held, ids[0], 1);
        commit.fence = fence;
        commit.trim = true;
        let reply = scene.send(commit);
        assert_eq!(
            reply,
            Ok(CommitReply::Fenced {
                found: view.clone()
            }),
            "{part}"
        );
        assert_eq!(scene.lease(), view, "{part}");
    }
    assert_eq!(scene.log_ids(), ids);
}

pub fn a_release_is_fenced_by_each_part_of_its_fence(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let held = scene.acquire("a");
    let view = scene.lease();
    for (part, fence) in wrong_fences(&held) {
        let reply = scene.release(fence);
        assert_eq!(
            reply,
            ReleaseReply::Fenced {
                found: view.clone()
            },
            "{part}"
        );
    }
    assert_eq!(scene.lease(), view);
}

pub fn a_commit_sent_twice_is_fenced_the_second_time(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(3);
    let held = scene.acquire("a");
    let commit = scene.commit_of(&held, ids[1], 2);
    assert_eq!(
        scene.send(commit.clone()),
        Ok(CommitReply::Committed { read: 2 })
    );
    assert!(matches!(
        scene.send(commit),
        Ok(CommitReply::Fenced { found: Some(_) })
    ));
}

pub fn a_zombie_cannot_commit_after_a_release_or_another_acquire(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(3);
    let zombie = scene.acquire("a");
    scene.release(zombie.fence());
    let commit = scene.commit_of(&zombie, ids[0], 1);
    assert!(matches!(
        scene.send(commit.clone()),
        Ok(CommitReply::Fenced { .. })
    ));
    scene.acquire("a");
    let reply = scene.send(commit);
    assert!(
        matches!(reply, Ok(CommitReply::Fenced { .. })),
        "the same process, an older epoch"
    );
}

pub fn leases_are_verified_in_the_order_asked(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 3, 10);
    scene.ensure("billing");
    let held = scene.acquire("a");
    let leases = scene.verify(vec![Partition(2), P0, Partition(1)]);
    let ours = LeaseView {
        incarnation: Some(incarnation("a")),
        epoch: held.epoch,
        acked: EntryId::ZERO,
        halt: None,
    };
    assert_eq!(leases, [None, Some(ours), None]);
    assert!(scene.verify(Vec::new()).is_empty());
}

pub fn without_group_or_stream_there_is_nothing_to_acquire(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    assert_eq!(scene.try_acquire("a", "billing"), AcquireReply::GroupGone);
    scene.uid = Uid::new("uid-old").unwrap();
    assert_eq!(scene.try_acquire("a", "billing"), AcquireReply::StreamGone);
}

pub fn after_a_delete_an_owner_is_fenced_and_the_stream_is_gone(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(1);
    let held = scene.acquire("a");
    scene.recreate("uid-2", shape(1, 10));
    let commit = scene.commit_of(&held, ids[0], 1);
    assert_eq!(scene.send(commit), Ok(CommitReply::Fenced { found: None }));
    assert_eq!(
        scene.release(held.fence()),
        ReleaseReply::Fenced { found: None }
    );
    assert_eq!(scene.try_acquire("a", "billing"), AcquireReply::StreamGone);
}
