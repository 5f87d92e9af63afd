//! A stream that other programs write, bound as it is: handled like any other, and never changed.

use segmenter_core::entry::Fields;
use segmenter_core::message::{Content, EntryId};
use segmenter_core::names::Sender;
use segmenter_core::port::{
    AppendFrom, AppendReply, CommitReply, DeadLetter, DeleteGroupReply, EnsureGroupReply, Position,
    Redrive, RedriveReply, Redriven, RegisterReply, Reply, Request, ResumeReply, Sourced,
};
use segmenter_core::source::Source;

use crate::conformance::scene::{P0, group, message, shape};
use crate::conformance::{Scene, Subject};

const EVENTS: &str = "app:events";

fn events() -> Source {
    Source::new(EVENTS, "user", "body").expect("a source")
}

fn id(ms: u64) -> EntryId {
    EntryId { ms, seq: 1 }
}

fn fields(n: u64) -> Fields {
    let body = n.to_string().into_bytes();
    vec![(b"at".to_vec(), b"noon".to_vec()), (b"body".to_vec(), body)]
}

/// Ids of what lies in the stream of others.
fn theirs(scene: &mut Scene) -> Vec<EntryId> {
    let log = scene.subject.source_log(EVENTS);
    log.iter().map(|entry| entry.id).collect()
}

/// `count` entries are there before the stream `orders` is bound to them; without a group.
fn bound(subject: &mut dyn Subject, count: u64) -> Scene<'_> {
    for n in 1..=count {
        subject.add_to_source(EVENTS, id(n), fields(n));
    }
    let mut scene = Scene::bare(subject);
    let reply = scene.bind("uid-1", events());
    assert!(
        matches!(reply, Ok(RegisterReply::Registered { existed: false, .. })),
        "{reply:?}"
    );
    scene
}

pub fn a_stream_that_nobody_writes_yet_is_bound_once_it_is_there(subject: &mut dyn Subject) {
    let mut scene = Scene::bare(subject);
    let refused = scene.bind("uid-1", events()).expect_err("it is not there");
    assert!(refused.to_string().contains(EVENTS), "{refused}");
    assert!(theirs(&mut scene).is_empty(), "nobody else makes it");
    scene.subject.add_to_source(EVENTS, id(1), fields(1));
    let reply = scene.bind("uid-2", events());
    assert!(
        matches!(reply, Ok(RegisterReply::Registered { existed: false, .. })),
        "{reply:?}"
    );
    let again = scene.bind("uid-3", events());
    assert!(
        matches!(&again, Ok(RegisterReply::Registered { uid, existed: true }) if uid.as_str() == "uid-2"),
        "{again:?}"
    );
}

pub fn another_source_is_refused_and_told(subject: &mut dyn Subject) {
    let mut scene = bound(subject, 1);
    for other in [
        Source::new(EVENTS, "user", "text").unwrap(),
        Source::new(EVENTS, "id", "body").unwrap(),
    ] {
        let reply = scene.bind("uid-2", other);
        let found = Some(events());
        assert_eq!(reply, Ok(RegisterReply::SourceDiffers { found }));
    }
    let found = Some(events());
    let plain = scene.register("uid-2", shape(1, 10), None);
    assert_eq!(plain, RegisterReply::SourceDiffers { found });
}

pub fn a_stream_of_our_own_is_not_bound_afterwards(subject: &mut dyn Subject) {
    subject.add_to_source(EVENTS, id(1), fields(1));
    let mut scene = Scene::new(subject, 1, 10);
    let reply = scene.bind("uid-2", events());
    assert_eq!(reply, Ok(RegisterReply::SourceDiffers { found: None }));
    assert_eq!(scene.append(1).len(), 1);
}

pub fn entries_from_before_and_after_it_was_bound_are_read_as_they_lie(subject: &mut dyn Subject) {
    let mut scene = bound(subject, 2);
    scene.subject.add_to_source(EVENTS, id(3), fields(3));
    let read = scene.read(EntryId::ZERO, 10);
    let expected: Vec<_> = (1..=3).map(|n| (id(n), fields(n))).collect();
    let read: Vec<_> = read.into_iter().map(|e| (e.id, e.fields)).collect();
    assert_eq!(read, expected);
}

pub fn acked_entries_stay_and_the_lag_falls(subject: &mut dyn Subject) {
    let mut scene = bound(subject, 3);
    scene.ensure("billing");
    assert_eq!(scene.lag(), Some(3));
    let mut held = scene.acquire("one");
    scene.commit(&mut held, id(2), 2, true);
    assert_eq!(scene.lag(), Some(1));
    scene.commit(&mut held, id(3), 1, true);
    assert_eq!(scene.lag(), Some(0));
    assert_eq!(theirs(&mut scene), [id(1), id(2), id(3)]);
    scene.subject.add_to_source(EVENTS, id(4), fields(4));
    assert_eq!(scene.lag(), Some(1));
}

pub fn nothing_is_appended_to_what_others_write(subject: &mut dyn Subject) {
    let mut scene = bound(subject, 1);
    let refused = scene.append_all(vec![message(1)]);
    let mut refusals = vec![refused.map(|_| ())];
    let (stream, uid) = (scene.stream.clone(), scene.uid.clone());
    let relayed = Request::AppendFrom(AppendFrom {
        stream: stream.clone(),
        uid: uid.clone(),
        partition: P0,
        source: Sender::outbox(&stream, P0, &group("billing")),
        after: None,
        messages: vec![Sourced {
            stamp: id(1),
            content: message(1),
            only: None,
        }],
    });
    refusals.push(scene.subject.execute(relayed).map(|_| ()));
    scene.ensure("billing");
    let back = Request::Redrive(Redrive {
        stream: stream.clone(),
        uid,
        partition: P0,
        group: group("billing"),
        source: Some(events()),
        letters: vec![Redriven {
            dead_id: id(1),
            to: stream.stream.clone(),
            only: true,
            emitted: false,
        }],
    });
    refusals.push(scene.subject.execute(back).map(|_| ()));
    for refused in refusals {
        let why = refused.expect_err("it is refused").to_string();
        assert!(why.contains("other programs write"), "{why}");
    }
    assert_eq!(theirs(&mut scene), [id(1)]);
}

pub fn dead_letters_seek_and_skip_are_as_in_any_stream(subject: &mut dyn Subject) {
    let mut scene = bound(subject, 3);
    scene.ensure("billing");
    let held = scene.acquire("one");
    let letter = DeadLetter {
        id: id(1),
        reason: "no".to_owned(),
        attempts: 1,
        version: "v1".to_owned(),
        fields: fields(1),
    };
    let mut commit = scene.commit_of(&held, id(1), 1);
    commit.dead = vec![letter.clone()];
    assert_eq!(scene.send(commit), Ok(CommitReply::Committed { read: 1 }));
    scene.halt("stop");
    let skipped = scene.resume(Some("skipped"));
    let expected = Some(id(2));
    assert_eq!(skipped, ResumeReply::Resumed { skipped: expected });
    let (stream, of) = (scene.stream.clone(), scene.group.clone());
    let dead = scene.subject.dead(&stream, P0, &of);
    let dead: Vec<_> = dead.into_iter().map(|(letter, _)| letter).collect();
    assert_eq!(dead.len(), 2);
    assert_eq!(dead[0], letter);
    assert_eq!((dead[1].id, &dead[1].fields), (id(2), &fields(2)));
    assert_eq!(scene.seek(Position::End), (id(3), 3));
    assert_eq!(scene.seek(Position::From(id(2))), (id(1), 1));
    assert_eq!(scene.lag(), Some(2));
    assert_eq!(theirs(&mut scene), [id(1), id(2), id(3)]);
}

pub fn dead_letters_go_on_to_a_stream_of_ours_under_our_names(subject: &mut dyn Subject) {
    let text = |text: &str| text.as_bytes().to_vec();
    let fields = |pairs: &[(&str, &str)]| -> Fields {
        pairs.iter().map(|(n, v)| (text(n), text(v))).collect()
    };
    let mut scene = bound(subject, 5);
    scene.ensure("billing");
    let held = scene.acquire("one");
    let letters = [
        // In the order in which they wrote it; names that are ours are theirs here.
        fields(&[
            ("#g", "1"),
            ("body", "b"),
            ("k", "2"),
            ("user", "u"),
            ("@x", "3"),
        ]),
        fields(&[("body", "without a key")]),
        // A handler emitted it.
        fields(&[
            ("#to", "gone"),
            ("k", "key"),
            ("p", "payload"),
            ("@user", "u"),
        ]),
        fields(&[("body", "stays")]),
    ];
    let letter = |(n, fields): (u64, &Fields)| DeadLetter {
        id: id(n),
        reason: "no".to_owned(),
        attempts: 1,
        version: "v1".to_owned(),
        fields: fields.clone(),
    };
    let mut commit = scene.commit_of(&held, id(4), 4);
    commit.dead = (1..).zip(&letters).map(letter).collect();
    assert_eq!(scene.send(commit), Ok(CommitReply::Committed { read: 4 }));
    let (stream, billing) = (scene.stream.clone(), scene.group.clone());
    let dead_ids = scene.subject.dead_ids(&stream, P0, &billing);
    let redriven = |n: usize, emitted| Redriven {
        dead_id: dead_ids[n],
        to: "retries".parse().expect("a name"),
        only: false,
        emitted,
    };
    let request = Request::Redrive(Redrive {
        stream: stream.clone(),
        uid: scene.uid.clone(),
        partition: P0,
        group: billing.clone(),
        source: Some(events()),
        letters: vec![redriven(0, false), redriven(1, false), redriven(2, true)],
    });
    let moved = scene.subject.execute(request);
    assert!(
        matches!(&moved, Ok(Reply::Redrive(RedriveReply::Moved { letters, .. })) if letters.len() == 3),
        "{moved:?}"
    );
    let content = |key: &str, payload: &str, attributes: &[(&str, &str)]| {
        let attributes = attributes
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Content::new(key, text(payload), attributes.collect(), 100).expect("a message")
    };
    let expected = [
        content("u", "b", &[("#g", "1"), ("k", "2"), ("@x", "3")]),
        content("", "without a key", &[]),
        content("key", "payload", &[("user", "u")]),
    ];
    let out = scene.outbox();
    let found: Vec<_> = out
        .into_iter()
        .map(|s| (s.emit.to, s.emit.content))
        .collect();
    let expected = expected.map(|content| ("retries".parse().expect("a name"), content));
    assert_eq!(found, expected);
    let left = scene.subject.dead_ids(&stream, P0, &billing);
    assert_eq!(left, [dead_ids[3]]);
    assert_eq!(
        theirs(&mut scene).len(),
        5,
        "what others write is as it was"
    );
}

pub fn groups_of_others_are_left_as_they_are(subject: &mut dyn Subject) {
    let mut scene = bound(subject, 3);
    let stream = scene.stream.clone();
    let their_group = group("theirs");
    scene
        .subject
        .add_foreign_group(&stream, P0, &their_group, EntryId::ZERO, 2);
    let ensured = scene.ensure_from("theirs", Default::default());
    assert_eq!(ensured, EnsureGroupReply::ForeignGroup);
    scene.ensure("billing");
    let mut held = scene.acquire("one");
    scene.commit(&mut held, id(3), 3, true);
    assert_eq!(theirs(&mut scene), [id(1), id(2), id(3)]);
}

pub fn a_deleted_group_leaves_all_entries(subject: &mut dyn Subject) {
    let mut scene = bound(subject, 2);
    scene.ensure("billing");
    let mut held = scene.acquire("one");
    scene.commit(&mut held, id(2), 2, true);
    let deleted = scene.delete_group();
    assert_eq!(deleted, DeleteGroupReply::Deleted { existed: true });
    assert_eq!(theirs(&mut scene), [id(1), id(2)]);
    scene.ensure("billing");
    assert_eq!(scene.lag(), Some(2));
}

pub fn a_deleted_stream_leaves_what_others_wrote_and_is_bound_anew(subject: &mut dyn Subject) {
    let mut scene = bound(subject, 2);
    scene.ensure("billing");
    let mut held = scene.acquire("one");
    scene.commit(&mut held, id(2), 2, true);
    let stream = scene.stream.clone();
    scene.subject.delete_stream(&stream);
    assert_eq!(theirs(&mut scene), [id(1), id(2)]);
    let reply = scene.bind("uid-2", events());
    let Ok(RegisterReply::Registered { uid, existed }) = reply else {
        panic!("{reply:?}");
    };
    assert!(!existed);
    let old = scene.ensure_from("billing", Default::default());
    assert_eq!(old, EnsureGroupReply::StreamGone, "with the old uid");
    scene.uid = uid;
    scene.ensure("billing");
    assert_eq!(scene.lag(), Some(2), "nothing of the old group is left");
}

pub fn a_name_that_was_bound_may_become_a_stream_of_our_own(subject: &mut dyn Subject) {
    let mut scene = bound(subject, 2);
    scene.ensure("billing");
    let uid = scene.recreate("uid-2", shape(2, 10));
    scene.uid = uid;
    let appended = scene.append_all(vec![message(1)]);
    assert!(
        matches!(&appended, Ok(AppendReply::Appended { ids }) if ids.len() == 1),
        "{appended:?}"
    );
    assert_eq!(theirs(&mut scene), [id(1), id(2)]);
}
