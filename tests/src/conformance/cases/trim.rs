//! What may be dropped: never what some group needs.

use segmenter_core::message::EntryId;

use crate::conformance::scene::{P0, group};
use crate::conformance::{Scene, Subject};

pub fn a_commit_trims_behind_the_slowest_group_only(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    scene.ensure("audit");
    let ids = scene.append(6);
    let mut billing = scene.acquire("a");
    scene.commit(&mut billing, ids[4], 5, true);
    assert_eq!(scene.log_ids(), ids, "audit has acked nothing");
    scene.group = group("audit");
    let mut audit = scene.acquire("b");
    scene.commit(&mut audit, ids[1], 2, true);
    assert_eq!(scene.log_ids(), ids[2..]);
}

pub fn a_commit_that_does_not_ask_for_it_trims_nothing(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(3);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[2], 3, false);
    assert_eq!(scene.log_ids(), ids);
}

pub fn a_full_partition_makes_room_from_what_all_groups_acked(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 5);
    let ids = scene.append(5);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[1], 2, false);
    let more = scene.append(4);
    assert_eq!(more.len(), 2, "as many as were acked");
    assert_eq!(scene.log_ids(), [&ids[2..], &more].concat());
}

pub fn a_group_that_is_not_ours_keeps_its_pending_entries(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(6);
    let stream = scene.stream.clone();
    // It has 1 and 2 pending and is delivered through 2.
    scene
        .subject
        .add_foreign_group(&stream, P0, &group("theirs"), ids[0], 2);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[5], 6, true);
    assert_eq!(scene.log_ids(), ids[1..]);
}

pub fn a_group_that_is_not_ours_keeps_what_it_was_not_given(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(6);
    let stream = scene.stream.clone();
    scene
        .subject
        .add_foreign_group(&stream, P0, &group("theirs"), ids[3], 0);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[5], 6, true);
    assert_eq!(scene.log_ids(), ids[4..]);
}

pub fn retained_entries_stay_while_there_is_room(subject: &mut dyn Subject) {
    let mut scene = Scene::retaining(subject, 1, 10, 3);
    scene.ensure("billing");
    let ids = scene.append(8);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[1], 2, true);
    assert_eq!(scene.log_ids(), ids, "two acked ones are retained");
    scene.commit(&mut held, ids[5], 4, true);
    assert_eq!(
        scene.log_ids(),
        ids[3..],
        "of six acked ones three are retained"
    );
}

pub fn a_full_partition_drops_retained_entries_but_no_more_than_it_needs(
    subject: &mut dyn Subject,
) {
    let mut scene = Scene::retaining(subject, 1, 10, 5);
    scene.ensure("billing");
    let ids = scene.append(10);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[4], 5, true);
    assert_eq!(scene.log_ids(), ids);
    let more = scene.append(2);
    assert_eq!(more.len(), 2);
    assert_eq!(scene.log_ids(), [&ids[2..], &more].concat());
    let more = scene.append(9);
    assert_eq!(more.len(), 3, "what is not acked stays");
}

pub fn ids_beyond_53_bits_are_compared_and_carried_exactly(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let id = |ms, seq| EntryId { ms, seq };
    let big = (1 << 60) + 1;
    let ids = [
        id(9, u64::MAX - 1),
        id(9, u64::MAX),
        id(10, 0),
        id(10, 9),
        id(10, 10),
        id(10, 99),
        id(10, 100),
        id(10, big),
        id(10, big + 1),
        id(big, u64::MAX),
        id(big + 1, 0),
    ];
    let stream = scene.stream.clone();
    for id in ids {
        scene
            .subject
            .add(&stream, P0, id, vec![(b"k".to_vec(), b"v".to_vec())]);
    }
    let mut held = scene.acquire("a");
    for (n, acked) in ids.iter().enumerate() {
        scene.commit(&mut held, *acked, 1, true);
        assert_eq!(scene.log_ids(), ids[n + 1..], "after {acked}");
    }
}

pub fn the_slowest_of_groups_with_large_ids_is_found(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    scene.ensure("audit");
    let ids = [9, 10, (1 << 53) + 1, (1 << 53) + 2].map(|seq| EntryId { ms: 1, seq });
    let stream = scene.stream.clone();
    for id in ids {
        scene
            .subject
            .add(&stream, P0, id, vec![(b"k".to_vec(), b"v".to_vec())]);
    }
    let mut billing = scene.acquire("a");
    scene.group = group("audit");
    let mut audit = scene.acquire("b");
    // As text "10" is below "9", and as doubles the last two are one.
    scene.commit(&mut audit, ids[1], 2, false);
    scene.group = group("billing");
    scene.commit(&mut billing, ids[0], 1, true);
    assert_eq!(scene.log_ids(), ids[1..]);
    scene.commit(&mut billing, ids[3], 3, false);
    scene.group = group("audit");
    scene.commit(&mut audit, ids[2], 1, true);
    assert_eq!(scene.log_ids(), ids[3..]);
}
