//! Append and read.

use segmenter_core::entry::{Entry, decode};
use segmenter_core::message::{Content, EntryId};
use segmenter_core::names::{Partition, Uid};
use segmenter_core::port::AppendReply;

use crate::conformance::scene::{P0, message};
use crate::conformance::{Scene, Subject};

pub fn what_was_appended_is_read_whole_and_in_order(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    let attributes = vec![
        ("path".to_owned(), "a/b".to_owned()),
        ("ü".to_owned(), String::new()),
    ];
    let odd = Content::new("ключ", b"\0\xff\r\n$5".to_vec(), attributes, 100).unwrap();
    let empty = Content::new("", Vec::new(), Vec::new(), 100).unwrap();
    let sent = vec![odd, empty, message(3)];
    let Ok(AppendReply::Appended { ids }) = scene.append_all(sent.clone()) else {
        panic!("refused");
    };
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    let read: Vec<Entry> = scene
        .read(EntryId::ZERO, 10)
        .into_iter()
        .map(|e| decode(e, 100))
        .collect();
    let expected: Vec<Entry> = ids
        .into_iter()
        .zip(sent)
        .map(|(id, content)| Entry::Ours {
            id,
            content,
            only: None,
        })
        .collect();
    assert_eq!(read, expected);
}

pub fn an_append_to_a_nearly_full_partition_accepts_a_prefix(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 5);
    assert_eq!(scene.append(3).len(), 3);
    let ids = scene.append(4);
    assert_eq!(ids.len(), 2);
    let log = scene.subject.log(&scene.stream.clone(), P0);
    let payloads: Vec<&[u8]> = log.iter().map(|e| e.fields[1].1.as_slice()).collect();
    assert_eq!(payloads, [b"0", b"1", b"2", b"0", b"1"]);
    assert!(scene.append(1).is_empty(), "full");
}

pub fn without_a_group_a_full_partition_refuses_and_keeps_everything(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 4);
    let ids = scene.append(9);
    assert_eq!(ids.len(), 4);
    assert!(scene.append(1).is_empty());
    assert_eq!(scene.log_ids(), ids);
}

pub fn an_append_with_another_uid_or_to_no_partition_writes_nothing(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 4);
    scene.uid = Uid::new("uid-old").unwrap();
    assert_eq!(
        scene.append_all(vec![message(1)]),
        Ok(AppendReply::StreamGone)
    );
    assert!(scene.log_ids().is_empty());
    let stream = scene.stream.clone();
    assert!(scene.subject.log(&stream, Partition(1)).is_empty());
}

pub fn a_read_begins_above_its_position_and_ends_at_its_count(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    let ids = scene.append(5);
    let read: Vec<EntryId> = scene.read(ids[1], 2).iter().map(|e| e.id).collect();
    assert_eq!(read, ids[2..4]);
    assert!(scene.read(ids[4], 2).is_empty());
}

pub fn an_entry_from_elsewhere_is_read_as_it_lies(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    let id = EntryId {
        ms: 5,
        seq: u64::MAX,
    };
    // Names twice, binary, not ours.
    let fields = vec![
        (b"x".to_vec(), b"1".to_vec()),
        (b"x".to_vec(), b"2".to_vec()),
        (b"\xff".to_vec(), Vec::new()),
    ];
    let stream = scene.stream.clone();
    scene.subject.add(&stream, P0, id, fields.clone());
    let read = scene.read(EntryId::ZERO, 10);
    assert_eq!(read.len(), 1);
    assert_eq!((read[0].id, &read[0].fields), (id, &fields));
}
