//! Groups of a partition: where they begin, and what is not touched.

use segmenter_core::message::EntryId;
use segmenter_core::names::Uid;
use segmenter_core::port::{EnsureGroupReply, Start};

use crate::conformance::scene::{P0, group};
use crate::conformance::{Scene, Subject};

pub fn a_group_from_the_beginning_has_all_entries_before_it(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    scene.append(3);
    scene.ensure("billing");
    let (stream, name) = (scene.stream.clone(), scene.group.clone());
    assert_eq!(scene.subject.lag(&stream, P0, &name), Some(3));
    let held = scene.acquire("a");
    assert_eq!(
        (held.acked, held.read, held.unreleased),
        (EntryId::ZERO, 0, false)
    );
}

pub fn a_group_from_the_end_has_nothing_before_it(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    let ids = scene.append(3);
    assert_eq!(
        scene.ensure_from("billing", Start::End),
        EnsureGroupReply::Ensured { existed: false }
    );
    let (stream, name) = (scene.stream.clone(), scene.group.clone());
    assert_eq!(scene.subject.lag(&stream, P0, &name), Some(0));
    let held = scene.acquire("a");
    assert_eq!((held.acked, held.read), (ids[2], 3));
    scene.append(2);
    assert_eq!(scene.subject.lag(&stream, P0, &name), Some(2));
}

pub fn a_group_from_the_beginning_of_a_trimmed_log_has_a_right_lag(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(5);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[2], 3, true);
    scene.ensure("audit");
    let stream = scene.stream.clone();
    assert_eq!(scene.subject.lag(&stream, P0, &group("audit")), Some(2));
}

pub fn a_group_that_exists_is_left_as_it_is(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let ids = scene.append(3);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[1], 2, false);
    let before = scene.lease();
    for start in [Start::Beginning, Start::End] {
        let reply = scene.ensure_from("billing", start);
        assert_eq!(reply, EnsureGroupReply::Ensured { existed: true });
    }
    assert_eq!(scene.lease(), before);
}

pub fn a_group_of_that_name_without_a_lease_is_someone_elses(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    let stream = scene.stream.clone();
    scene
        .subject
        .add_foreign_group(&stream, P0, &group("billing"), EntryId::ZERO, 0);
    let reply = scene.ensure_from("billing", Start::Beginning);
    assert_eq!(reply, EnsureGroupReply::ForeignGroup);
    assert_eq!(scene.lease(), None);
}

pub fn a_group_of_a_stream_that_is_another_by_now_is_not_made(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    scene.uid = Uid::new("uid-old").unwrap();
    let reply = scene.ensure_from("billing", Start::Beginning);
    assert_eq!(reply, EnsureGroupReply::StreamGone);
    assert_eq!(scene.lease(), None);
}
