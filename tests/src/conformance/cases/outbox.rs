//! The way of messages between partitions: append with a source, the outbox, what is buried, redriven and
//! purged.

use segmenter_core::entry::{self, Entry, RawEntry};
use segmenter_core::lease::Epoch;
use segmenter_core::limits;
use segmenter_core::message::{Content, EntryId};
use segmenter_core::names::{Sender, Uid};
use segmenter_core::port::{
    AppendFrom, AppendFromReply, Buried, Bury, BuryReply, Commit, CommitReply, DeadLetter, Failure,
    LoadOutbox, Outgoing, Purge, Redrive, RedriveReply, Redriven, Relayed, Reply, Request, Sourced,
    Stamped, Waiting,
};

use crate::conformance::scene::{P0, group, message, stream_id};
use crate::conformance::{Held, Scene, Subject};

fn stamp(ms: u64, seq: u64) -> EntryId {
    EntryId { ms, seq }
}

fn source(name: &str) -> Sender {
    Sender::outbox(&stream_id(name), P0, &group("billing"))
}

/// Messages with these stamps; the payload of each is the `ms` of its stamp.
fn sourced(stamps: &[EntryId]) -> Vec<Sourced> {
    let message = |stamp: &EntryId| Sourced {
        stamp: *stamp,
        content: message(usize::try_from(stamp.ms).expect("a small number")),
        only: None,
    };
    stamps.iter().map(message).collect()
}

fn append_from(scene: &mut Scene<'_>, from: &str, messages: Vec<Sourced>) -> AppendFromReply {
    append_after(scene, from, None, messages)
}

fn append_after(
    scene: &mut Scene<'_>,
    from: &str,
    after: Option<EntryId>,
    messages: Vec<Sourced>,
) -> AppendFromReply {
    let request = Request::AppendFrom(AppendFrom {
        stream: scene.stream.clone(),
        uid: scene.uid.clone(),
        partition: P0,
        source: source(from),
        after,
        messages,
    });
    match scene.subject.execute(request) {
        Ok(Reply::AppendFrom(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

/// Which were appended (true) and which were there already, of those that were accepted.
fn accepted(scene: &mut Scene<'_>, from: &str, stamps: &[EntryId]) -> Vec<bool> {
    match append_from(scene, from, sourced(stamps)) {
        AppendFromReply::Accepted { ids } => ids.iter().map(Option::is_some).collect(),
        other => panic!("{other:?}"),
    }
}

fn payloads(scene: &mut Scene<'_>) -> Vec<String> {
    let log = scene.subject.log(&scene.stream.clone(), P0);
    let payload = |e: &RawEntry| String::from_utf8(e.fields[1].1.clone()).expect("text");
    log.iter().map(payload).collect()
}

pub fn what_a_source_sends_again_is_there_already(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 100);
    let (a, b, c) = (stamp(1, 1), stamp(1, 2), stamp(2, 1));
    assert_eq!(accepted(&mut scene, "a", &[a, b]), [true, true]);
    assert_eq!(accepted(&mut scene, "a", &[a, b, c]), [false, false, true]);
    assert_eq!(accepted(&mut scene, "a", &[b]), [false]);
    assert_eq!(accepted(&mut scene, "a", &[]), [] as [bool; 0]);
    // Another source has stamps of its own.
    assert_eq!(accepted(&mut scene, "b", &[b]), [true]);
    assert_eq!(payloads(&mut scene), ["1", "1", "2", "1"]);
}

pub fn messages_of_a_source_that_differ_in_their_fields_arrive_whole(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 100);
    assert_eq!(accepted(&mut scene, "a", &[stamp(1, 2)]), [true]);
    // Number of attributes of each, and whether it is for one group only.
    let unlike = [
        (0, false),
        (0, false),
        (2, false),
        (1, true),
        (2, false),
        (0, true),
    ];
    let messages = (1..).zip(unlike).map(|(seq, (attributes, only))| {
        let named = (0..attributes).map(|n| (format!("a{n}"), format!("{seq}")));
        let payload = seq.to_string().into_bytes();
        let content = Content::new("k", payload, named.collect(), limits::PAYLOAD_BYTES_MAX);
        Sourced {
            stamp: stamp(1, seq),
            content: content.expect("a message"),
            only: only.then(|| group("billing")),
        }
    });
    let messages: Vec<_> = messages.collect();
    let reply = append_from(&mut scene, "a", messages.clone());
    let AppendFromReply::Accepted { ids } = reply else {
        panic!("{reply:?}");
    };
    // The first two were there already.
    let new: Vec<_> = ids.iter().map(Option::is_some).collect();
    assert_eq!(new, [false, false, true, true, true, true]);
    let log = scene.subject.log(&scene.stream.clone(), P0);
    for (entry, sent) in log.into_iter().skip(1).zip(&messages[2..]) {
        match entry::decode(entry, usize::MAX) {
            Entry::Ours { content, only, .. } => {
                assert_eq!((&content, &only), (&sent.content, &sent.only));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(scene.log_ids().len(), 5);
}

pub fn a_target_that_lost_what_its_source_knows_to_be_there_takes_nothing(
    subject: &mut dyn Subject,
) {
    let mut scene = Scene::new(subject, 1, 100);
    let (a, b, c) = (stamp(1, 1), stamp(1, 2), stamp(2, 1));
    let reply = append_after(&mut scene, "a", Some(a), sourced(&[b]));
    assert_eq!(reply, AppendFromReply::Behind);
    assert_eq!(accepted(&mut scene, "a", &[a]), [true]);
    let reply = append_after(&mut scene, "a", Some(b), sourced(&[c]));
    assert_eq!(reply, AppendFromReply::Behind);
    assert_eq!(scene.log_ids().len(), 1);
    // More than that may be there, by another relay.
    assert_eq!(accepted(&mut scene, "a", &[b]), [true]);
    let reply = append_after(&mut scene, "a", Some(a), sourced(&[b, c]));
    assert!(matches!(reply, AppendFromReply::Accepted { ids } if ids.len() == 2));
    assert_eq!(scene.log_ids().len(), 3);
}

/// Answers the stamps' fate as [`accepted`] does, or nothing if there are too many producers.
fn produced(scene: &mut Scene<'_>, producer: &str, numbers: &[u64]) -> Option<Vec<bool>> {
    let stamps: Vec<_> = numbers.iter().map(|n| stamp(0, *n)).collect();
    let request = Request::AppendFrom(AppendFrom {
        stream: scene.stream.clone(),
        uid: scene.uid.clone(),
        partition: P0,
        source: Sender::producer(&producer.parse().expect("a name")),
        after: None,
        messages: sourced(&stamps),
    });
    match scene.subject.execute(request) {
        Ok(Reply::AppendFrom(AppendFromReply::Accepted { ids })) => {
            Some(ids.iter().map(Option::is_some).collect())
        }
        Ok(Reply::AppendFrom(AppendFromReply::Crowded)) => None,
        other => panic!("{other:?}"),
    }
}

pub fn a_producers_numbers_are_its_own(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 100);
    let mut of = |producer, numbers: &[u64]| produced(&mut scene, producer, numbers).expect("room");
    assert_eq!(of("a", &[0]), [true]);
    assert_eq!(of("a", &[0, 3, 4]), [false, true, true]);
    // What it left out is not above what it sent.
    assert_eq!(of("a", &[1, 2, 5]), [false, false, true]);
    assert_eq!(of("b", &[u64::MAX - 1]), [true]);
    assert_eq!(of("b", &[u64::MAX, u64::MAX]), [true, false]);
    for name in ["protocol", "producers", "producer"] {
        assert_eq!(of(name, &[1, 1]), [true, false]);
    }
    assert_eq!(scene.log_ids().len(), 9);
}

pub fn a_partition_remembers_so_many_producers_and_no_more(subject: &mut dyn Subject) {
    let most = limits::PRODUCERS_MAX;
    let mut scene = Scene::new(subject, 1, 2 * most);
    assert_eq!(accepted(&mut scene, "outbox", &[stamp(1, 1)]), [true]);
    for n in 0..most {
        let one = produced(&mut scene, &format!("p{n}"), &[7]);
        assert_eq!(one, Some(vec![true]), "{n}");
    }
    assert_eq!(produced(&mut scene, "one-more", &[7]), None);
    // Those that it knows go on, and outboxes are not counted.
    let known = produced(&mut scene, "p3", &[7, 8]);
    assert_eq!(known, Some(vec![false, true]));
    assert_eq!(accepted(&mut scene, "another", &[stamp(1, 1)]), [true]);
    assert_eq!(scene.log_ids().len() as u64, most + 3);
}

pub fn an_append_from_a_source_tells_ids_and_lies_there_whole(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    let attributes = vec![("a".to_owned(), "ключ".to_owned())];
    let content = Content::new("key", vec![0, 255], attributes, 100).expect("valid");
    let messages = vec![
        Sourced {
            stamp: stamp(1, 1),
            content: content.clone(),
            only: Some(group("audit")),
        },
        Sourced {
            stamp: stamp(1, 2),
            content: content.clone(),
            only: None,
        },
    ];
    let AppendFromReply::Accepted { ids } = append_from(&mut scene, "a", messages) else {
        panic!("the stream is there");
    };
    let read = scene.read(EntryId::ZERO, 10);
    let read: Vec<_> = read
        .into_iter()
        .map(|raw| entry::decode(raw, 100))
        .collect();
    let only = [Some(group("audit")), None];
    let expected: Vec<_> = std::iter::zip(ids, only)
        .map(|(id, only)| Entry::Ours {
            id: id.expect("it is new"),
            content: content.clone(),
            only,
        })
        .collect();
    assert_eq!(read, expected);
}

pub fn a_full_target_accepts_a_prefix_and_goes_on_from_there(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 3);
    let stamps: Vec<_> = (1..=5).map(|n| stamp(n, 0)).collect();
    assert_eq!(accepted(&mut scene, "a", &stamps), [true; 3]);
    assert_eq!(accepted(&mut scene, "a", &stamps[3..]), [] as [bool; 0]);
    // What is there already is accepted by a full partition, too.
    assert_eq!(accepted(&mut scene, "a", &stamps), [false; 3]);
    let ids = scene.log_ids();
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[1], 2, false);
    assert_eq!(
        accepted(&mut scene, "a", &stamps),
        [false, false, false, true, true],
        "a trim makes room"
    );
    assert_eq!(payloads(&mut scene), ["3", "4", "5"]);
}

pub fn stamps_beyond_53_bits_are_compared_exactly(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 100);
    let near = |seq| Sourced {
        stamp: stamp(u64::MAX - 1, seq),
        content: message(0),
        only: None,
    };
    let ids = |scene: &mut Scene<'_>, seqs: &[u64]| {
        let messages = seqs.iter().map(|seq| near(*seq)).collect();
        match append_from(scene, "a", messages) {
            AppendFromReply::Accepted { ids } => ids.len(),
            other => panic!("{other:?}"),
        }
    };
    ids(&mut scene, &[u64::MAX - 2]);
    ids(&mut scene, &[u64::MAX - 2, u64::MAX - 1]);
    ids(&mut scene, &[u64::MAX - 1, u64::MAX]);
    assert_eq!(scene.log_ids().len(), 3);
}

pub fn an_append_from_a_source_to_another_creation_of_a_stream_writes_nothing(
    subject: &mut dyn Subject,
) {
    let mut scene = Scene::new(subject, 1, 4);
    assert_eq!(accepted(&mut scene, "a", &[stamp(1, 0)]), [true]);
    let uid = scene.recreate("uid-2", crate::conformance::scene::shape(1, 4));
    let reply = append_from(&mut scene, "a", sourced(&[stamp(2, 0)]));
    assert_eq!(reply, AppendFromReply::StreamGone);
    assert!(scene.log_ids().is_empty());
    scene.uid = uid;
    // The new one has no memory of the old one's sources.
    assert_eq!(accepted(&mut scene, "a", &[stamp(1, 0)]), [true]);
    scene.uid = Uid::new("uid-1").expect("a name");
}

/// Messages of one entry.
const ENTRY: u64 = segmenter_core::limits::PARCEL_MESSAGES_MAX as u64;

/// `count` messages for `invoices` wait in the outbox.
fn emitted(scene: &mut Scene<'_>, count: u64) -> (Held, Vec<Stamped>) {
    let ids = scene.append(1);
    let mut held = scene.acquire("a");
    let emits: Vec<_> = (1..=count)
        .map(|seq| Stamped {
            stamp: stamp(held.epoch.0, seq),
            emit: segmenter_core::effects::Emit {
                to: "invoices".parse().expect("a name"),
                content: message(usize::try_from(seq).expect("a small number")),
            },
        })
        .collect();
    let commit = Commit {
        emits: emits.clone(),
        ..scene.commit_of(&held, ids[0], 1)
    };
    let reply = scene.send(commit);
    assert!(matches!(reply, Ok(CommitReply::Committed { .. })));
    held.acked = ids[0];
    held.read += 1;
    (held, emits)
}

fn load(scene: &mut Scene<'_>, after: EntryId, count: usize) -> Vec<Waiting> {
    let request = Request::LoadOutbox(LoadOutbox {
        stream: scene.stream.clone(),
        partition: P0,
        group: scene.group.clone(),
        after,
        count,
    });
    match scene.subject.execute(request) {
        Ok(Reply::LoadOutbox(reply)) => reply.waiting,
        other => panic!("{other:?}"),
    }
}

fn relayed(scene: &mut Scene<'_>, entries: Vec<EntryId>) -> u64 {
    let request = Request::Relayed(Relayed {
        stream: scene.stream.clone(),
        partition: P0,
        group: scene.group.clone(),
        entries,
    });
    match scene.subject.execute(request) {
        Ok(Reply::Relayed(reply)) => reply.removed,
        other => panic!("{other:?}"),
    }
}

fn bury(scene: &mut Scene<'_>, epoch: Epoch, entries: Vec<Buried>) -> BuryReply {
    let request = Request::Bury(Bury {
        stream: scene.stream.clone(),
        partition: P0,
        group: scene.group.clone(),
        epoch,
        entries,
        reason: "no such stream".to_owned(),
    });
    match scene.subject.execute(request) {
        Ok(Reply::Bury(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

pub fn an_outbox_is_loaded_in_pages_and_emptied_by_stamps(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    assert!(load(&mut scene, EntryId::ZERO, 10).is_empty());
    let (_, emits) = emitted(&mut scene, 5 * ENTRY - 1);
    let entries: Vec<_> = emits.chunks(ENTRY as usize).collect();
    let ids: Vec<_> = entries.iter().map(|e| e[e.len() - 1].stamp).collect();
    let page = load(&mut scene, EntryId::ZERO, 3);
    let expected: Vec<_> = entries[..3]
        .iter()
        .zip(&ids)
        .map(|(entry, id)| Waiting {
            id: *id,
            messages: Ok(entry
                .iter()
                .map(|one| Outgoing {
                    to: one.emit.to.clone(),
                    content: one.emit.content.clone(),
                    only: None,
                })
                .collect()),
        })
        .collect();
    assert_eq!(page, expected);
    let rest = load(&mut scene, ids[2], 3);
    assert_eq!(rest.iter().map(|e| e.id).collect::<Vec<_>>(), ids[3..]);
    let some = vec![ids[1], ids[3]];
    assert_eq!(relayed(&mut scene, some.clone()), 2);
    assert_eq!(relayed(&mut scene, some), 0, "it may be said twice");
    assert_eq!(relayed(&mut scene, Vec::new()), 0);
    assert_eq!(
        scene.outbox(),
        [entries[0], entries[2], entries[4]].concat()
    );
}

pub fn what_cannot_be_relayed_is_a_dead_letter_with_its_target(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    // Of the first entry two, of which one is at its target; the second is whole.
    let (held, emits) = emitted(&mut scene, ENTRY + 2);
    let lost = [&emits[1..3], &emits[ENTRY as usize..]].concat();
    let entry = |stamps: &[Stamped], last: u64| Buried {
        id: stamp(held.epoch.0, last),
        stamps: stamps.iter().map(|one| one.stamp).collect(),
    };
    let first = vec![entry(&lost[..2], ENTRY), entry(&lost[2..], ENTRY + 2)];
    let older = Epoch(held.epoch.0 - 1);
    assert_eq!(bury(&mut scene, older, first.clone()), BuryReply::Fenced);
    assert_eq!(scene.outbox(), emits);
    for _ in 0..2 {
        // Twice: the second time there is nothing left to bury.
        assert_eq!(
            bury(&mut scene, held.epoch, first.clone()),
            BuryReply::Buried
        );
        let (stream, billing) = (scene.stream.clone(), scene.group.clone());
        let dead = scene.subject.dead(&stream, P0, &billing);
        assert_eq!(dead.len(), 4, "{dead:?}");
        for ((letter, _), emit) in dead.iter().zip(&lost) {
            assert_eq!(letter.id, emit.stamp);
            assert_eq!(
                (letter.reason.as_str(), letter.attempts),
                ("no such stream", 0)
            );
            let whole = entry::decode_letter(&letter.fields);
            let expected = (Some(emit.emit.to.clone()), emit.emit.content.clone());
            assert_eq!(whole, Ok(expected));
        }
        assert!(scene.outbox().is_empty());
    }
}

/// Three dead letters, of which the second is not ours in shape.
fn dead(scene: &mut Scene<'_>) -> (Held, Vec<EntryId>) {
    let ids = scene.append(3);
    let mut held = scene.acquire("a");
    let letters = ids.iter().zip(0..).map(|(id, n)| DeadLetter {
        id: *id,
        reason: "no".to_owned(),
        attempts: 1,
        version: "v1".to_owned(),
        fields: match n {
            1 => vec![(b"x".to_vec(), b"\xff".to_vec())],
            n => entry::encode(&message(n)),
        },
    });
    let commit = Commit {
        dead: letters.collect(),
        ..scene.commit_of(&held, ids[2], 3)
    };
    let reply = scene.send(commit);
    assert!(matches!(reply, Ok(CommitReply::Committed { .. })));
    held.acked = ids[2];
    held.read += 3;
    let (stream, billing) = (scene.stream.clone(), scene.group.clone());
    let dead_ids = scene.subject.dead_ids(&stream, P0, &billing);
    assert_eq!(dead_ids.len(), 3);
    (held, dead_ids)
}

fn redrive(scene: &mut Scene<'_>, letters: &[(EntryId, &str, bool)]) -> RedriveReply {
    let letters = letters.iter().map(|(dead_id, to, only)| Redriven {
        dead_id: *dead_id,
        to: to.parse().expect("a name"),
        only: *only,
        emitted: false,
    });
    let request = Request::Redrive(Redrive {
        stream: scene.stream.clone(),
        uid: scene.uid.clone(),
        partition: P0,
        group: scene.group.clone(),
        source: None,
        letters: letters.collect(),
    });
    match scene.subject.execute(request) {
        Ok(Reply::Redrive(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

pub fn redriven_letters_move_into_the_outbox_and_fence_the_owner(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let (held, dead_ids) = dead(&mut scene);
    let never = stamp(1, 1);
    // In the order asked, which need not be theirs.
    let moved = redrive(
        &mut scene,
        &[
            (dead_ids[2], "orders", true),
            (never, "orders", true),
            (dead_ids[0], "invoices", false),
        ],
    );
    let RedriveReply::Moved { epoch, letters } = moved else {
        panic!("{moved:?}");
    };
    assert_eq!(letters, [dead_ids[2], dead_ids[0]]);
    assert!(epoch > held.epoch);
    let out = |seq, to: &str, n, only| Waiting {
        id: stamp(epoch.0, seq),
        messages: Ok(vec![Outgoing {
            to: to.parse().expect("a name"),
            content: message(n),
            only,
        }]),
    };
    assert_eq!(
        load(&mut scene, EntryId::ZERO, 10),
        [
            out(1, "orders", 2, Some(group("billing"))),
            out(2, "invoices", 0, None)
        ]
    );
    let (stream, billing) = (scene.stream.clone(), scene.group.clone());
    assert_eq!(scene.subject.dead_ids(&stream, P0, &billing), [dead_ids[1]]);
    let lease = scene.lease().expect("a lease");
    assert_eq!(
        (lease.incarnation, lease.epoch, lease.acked),
        (None, epoch, held.acked)
    );
    // Again: nothing is there any more, and nobody is fenced for nothing.
    let again = redrive(&mut scene, &[(dead_ids[0], "orders", true)]);
    let nothing = RedriveReply::Moved {
        epoch,
        letters: Vec::new(),
    };
    assert_eq!(again, nothing);
    // The owner acquires again, and its stamps come later.
    let next = scene.acquire("a");
    assert!(next.epoch > epoch && !next.unreleased);
}

pub fn a_buried_message_is_redriven_as_it_was_emitted(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let (held, emits) = emitted(&mut scene, 1);
    let entry = Buried {
        id: emits[0].stamp,
        stamps: vec![emits[0].stamp],
    };
    bury(&mut scene, held.epoch, vec![entry]);
    let (stream, billing) = (scene.stream.clone(), scene.group.clone());
    let dead_ids = scene.subject.dead_ids(&stream, P0, &billing);
    redrive(&mut scene, &[(dead_ids[0], "payments", false)]);
    let waiting = load(&mut scene, EntryId::ZERO, 10);
    assert_eq!(
        waiting[0].messages,
        Ok(vec![Outgoing {
            to: "payments".parse().expect("a name"),
            content: emits[0].emit.content.clone(),
            only: None,
        }])
    );
}

pub fn letters_of_a_stream_or_group_that_is_gone_are_not_redriven(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let (_, dead_ids) = dead(&mut scene);
    let letters = [(dead_ids[0], "orders", true)];
    let uid = std::mem::replace(&mut scene.uid, Uid::new("uid-old").expect("a name"));
    assert_eq!(redrive(&mut scene, &letters), RedriveReply::StreamGone);
    scene.uid = uid;
    scene.group = group("audit");
    assert_eq!(redrive(&mut scene, &letters), RedriveReply::GroupGone);
    scene.group = group("billing");
    assert!(scene.outbox().is_empty());
}

pub fn purged_letters_are_gone_and_counted(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let (held, dead_ids) = dead(&mut scene);
    let mut purge = |letters: &[EntryId]| {
        let request = Request::Purge(Purge {
            stream: scene.stream.clone(),
            partition: P0,
            group: scene.group.clone(),
            letters: letters.to_vec(),
        });
        match scene.subject.execute(request) {
            Ok(Reply::Purge(reply)) => reply.removed,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(purge(&[]), 0);
    assert_eq!(purge(&dead_ids[1..]), 2);
    assert_eq!(purge(&dead_ids), 1);
    assert_eq!(purge(&dead_ids), 0);
    assert_eq!(scene.lease().expect("a lease").epoch, held.epoch);
}

pub fn emitted_messages_of_an_older_epoch_are_refused_after_a_redrive(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let (held, dead_ids) = dead(&mut scene);
    redrive(&mut scene, &[(dead_ids[0], "orders", true)]);
    let ids = scene.append(1);
    let commit = scene.commit_of(&held, ids[0], 1);
    let reply: Result<CommitReply, Failure> = scene.send(commit);
    assert!(matches!(reply, Ok(CommitReply::Fenced { .. })), "{reply:?}");
}
