//! Scripts under odd conditions: forgotten, on keys of other types, without memory, without mirror or log.

use crate::LONG;
use segmenter_core::names::Uid;
use segmenter_core::port::{
    AcquireReply, AppendReply, Commit, CommitReply, DeadLetter, Failure, InstallReply, Register,
    Reply, Request, Start, SyncKind,
};
use segmenter_redis::Key;
use segmenter_tests::conformance::scene::{P0, group, message, shape, stream_id};
use segmenter_tests::conformance::{Puppet, RealSubject, Scene, Subject};

#[test]
fn a_server_that_forgot_the_scripts_is_told_again() {
    let mut real = RealSubject::default();
    let _: () = real.command(&["SCRIPT", "FLUSH"]);
    let mut scene = Scene::with_group(&mut real, 10);
    let ids = scene.append(2);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[1], 2, true);
    drop(scene);
    let _: () = real.command(&["SCRIPT", "FLUSH"]);
    // Many at once meet the gap.
    let broker = real.broker.clone();
    real.runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..50 {
            let broker = broker.clone();
            tasks.spawn(async move {
                let append = segmenter_core::port::Append {
                    stream: stream_id("orders"),
                    uid: Uid::new("uid-1").unwrap(),
                    partition: P0,
                    messages: vec![message(n)],
                };
                broker.execute(Request::Append(append)).await
            });
        }
        let accepted: usize = tasks
            .join_all()
            .await
            .into_iter()
            .map(|reply| match reply {
                Ok(Reply::Append(AppendReply::Appended { ids })) => ids.len(),
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!(accepted, 10, "the capacity, and not one twice");
    });
}

/// Each key in turn is replaced by a value of another type; every request must fail or answer, and change
/// nothing at all.
#[test]
fn keys_of_another_type_are_an_error_that_changes_nothing() {
    let mut real = RealSubject::default();
    let (stream, billing) = (stream_id("orders"), group("billing"));
    let keys = [
        Key::Stream(&stream),
        Key::Meta(&stream, P0),
        Key::Log(&stream, P0),
        Key::Lease(&stream, P0, &billing),
        Key::Dead(&stream, P0, &billing),
        Key::Group(&stream, &billing),
        Key::Members(&stream, &billing),
    ];
    let mut scene = Scene::with_group(&mut real, 2);
    let ids = scene.append(2);
    let held = scene.acquire("a");
    let mut other = Puppet::new("other", "o1", LONG);
    let joined = Puppet::new("m", "m1", LONG).joins(&mut scene);
    let sync = other.says(&scene, SyncKind::Join);
    let install = segmenter_core::port::Install {
        stream: stream.clone(),
        uid: scene.uid.clone(),
        group: billing.clone(),
        generation: joined.generation,
        assignment: [("m".parse().unwrap(), "0".parse().unwrap())].into(),
        moves: 1,
    };
    let commit = Commit {
        trim: true,
        caught_up: true,
        dead: vec![DeadLetter {
            id: ids[0],
            reason: "no".to_owned(),
            attempts: 1,
            version: "v1".to_owned(),
            fields: vec![(b"k".to_vec(), b"v".to_vec())],
        }],
        ..scene.commit_of(&held, ids[1], 2)
    };
    let uid = scene.uid.clone();
    drop(scene);
    for (n, key) in (1..).zip(&keys) {
        let key = key.to_string();
        let kept: u64 = real.command(&["EXISTS", &key]);
        if kept == 1 {
            let _: () = real.command(&["RENAME", &key, "kept"]);
        }
        let _: u64 = real.command(&["SADD", &key, "odd"]);
        let before = real.everything();
        let requests = [
            Request::Commit(commit.clone()),
            Request::Append(segmenter_core::port::Append {
                stream: stream.clone(),
                uid: uid.clone(),
                partition: P0,
                messages: vec![message(1)],
            }),
            Request::Sync(segmenter_core::port::Sync {
                counter: n,
                ..sync.clone()
            }),
            Request::Install(install.clone()),
            Request::EnsureGroup(segmenter_core::port::EnsureGroup {
                stream: stream.clone(),
                uid: uid.clone(),
                partition: P0,
                group: billing.clone(),
                start: Start::Beginning,
            }),
            Request::Register(Register {
                stream: stream.clone(),
                shape: shape(1, 2),
                retain: None,
                source: None,
                uid: uid.clone(),
            }),
        ];
        let mut refused = 0;
        for request in requests {
            // Those that do not look at this key may do their work: that is not what this case is about.
            match real.execute(request) {
                Err(Failure::Fatal(why)) => {
                    assert!(why.contains("WRONGTYPE"), "{key}: {why}");
                    refused += 1;
                    assert_eq!(real.everything(), before, "{key}: {why}");
                }
                Err(other) => panic!("{key}: {other:?}"),
                Ok(_) => {
                    // Put back what it did.
                    real.restore(&before);
                }
            }
        }
        assert!(refused > 0, "nobody minded {key}");
        let _: u64 = real.command(&["DEL", &key]);
        if kept == 1 {
            let _: () = real.command(&["RENAME", "kept", &key]);
        }
    }
}

#[test]
fn a_newer_protocol_is_refused_and_both_are_named() {
    let mut real = RealSubject::default();
    let stream = stream_id("orders");
    let mut scene = Scene::with_group(&mut real, 10);
    scene.append(1);
    drop(scene);
    let (meta, description) = (
        Key::Meta(&stream, P0).to_string(),
        Key::Stream(&stream).to_string(),
    );
    let _: u64 = real.command(&["HSET", &meta, "protocol", "2"]);
    let _: u64 = real.command(&["HSET", &description, "protocol", "7"]);
    let append = segmenter_core::port::Append {
        stream: stream.clone(),
        uid: Uid::new("uid-1").unwrap(),
        partition: P0,
        messages: vec![message(1)],
    };
    match real.execute(Request::Append(append)) {
        Err(Failure::Fatal(why)) => {
            assert!(
                why.contains("protocol 2") && why.contains("speaks 1"),
                "{why}"
            );
        }
        other => panic!("{other:?}"),
    }
    let found = real
        .runtime
        .block_on(segmenter_redis::admin::find_stream(&real.broker, &stream));
    match found {
        Err(Failure::Fatal(why)) => assert!(why.contains("protocol 7"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_memory_append_is_refused_and_commit_trim_and_sync_go_on() {
    let mut real = RealSubject::default();
    let mut scene = Scene::with_group(&mut real, 1_000_000);
    let ids = scene.append(100);
    let mut held = scene.acquire("a");
    drop(scene);
    let _: () = real.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let mut scene = Scene {
        subject: &mut real,
        stream: stream_id("orders"),
        uid: Uid::new("uid-1").unwrap(),
        group: group("billing"),
    };
    match scene.append_all(vec![message(1)]) {
        Err(Failure::NotDone(why)) => assert!(why.contains("OOM"), "{why}"),
        other => panic!("{other:?}"),
    }
    scene.commit(&mut held, ids[99], 100, true);
    assert!(scene.log_ids().is_empty(), "trimmed");
    let mut member = Puppet::new("a", "a1", LONG);
    let joined = member.joins(&mut scene);
    assert_eq!(
        member.installs(&mut scene, 1, &joined),
        InstallReply::Installed
    );
    assert_eq!(member.beats(&mut scene).granted.to_string(), "0");
    let next = scene.acquire("b");
    assert_eq!(next.acked, ids[99]);
}

#[test]
fn a_missing_mirror_comes_back_with_the_next_commit_and_its_group_is_not_trimmed_away() {
    let mut real = RealSubject::default();
    let (stream, billing) = (stream_id("orders"), group("billing"));
    let log = Key::Log(&stream, P0).to_string();
    let mut scene = Scene::with_group(&mut real, 10);
    scene.ensure("audit");
    let ids = scene.append(4);
    let mut held = scene.acquire("a");
    drop(scene);
    for name in ["billing", "audit"] {
        let _: u64 = real.command(&["XGROUP", "DESTROY", &log, name]);
    }
    let mut scene = Scene {
        subject: &mut real,
        stream: stream.clone(),
        uid: Uid::new("uid-1").unwrap(),
        group: billing.clone(),
    };
    scene.commit(&mut held, ids[2], 3, true);
    assert_eq!(
        scene.log_ids(),
        ids,
        "audit has acked nothing, mirror or not"
    );
    assert_eq!(scene.subject.lag(&stream, P0, &billing), Some(1));
    let reply = scene.ensure_from("audit", Start::End);
    assert_eq!(
        reply,
        segmenter_core::port::EnsureGroupReply::Ensured { existed: true }
    );
    assert_eq!(scene.subject.lag(&stream, P0, &group("audit")), Some(4));
}

#[test]
fn a_log_that_others_deleted_is_never_made_anew_in_passing() {
    let mut real = RealSubject::default();
    let stream = stream_id("orders");
    let log = Key::Log(&stream, P0).to_string();
    let mut scene = Scene::with_group(&mut real, 10);
    let ids = scene.append(1);
    let held = scene.acquire("a");
    drop(scene);
    let _: u64 = real.command(&["DEL", &log]);
    let mut scene = Scene {
        subject: &mut real,
        stream: stream.clone(),
        uid: Uid::new("uid-1").unwrap(),
        group: group("billing"),
    };
    assert_eq!(
        scene.append_all(vec![message(1)]),
        Ok(AppendReply::StreamGone)
    );
    let commit = scene.commit_of(&held, ids[0], 1);
    assert!(matches!(scene.send(commit), Ok(CommitReply::Fenced { .. })));
    assert_eq!(scene.try_acquire("a", "billing"), AcquireReply::StreamGone);
    drop(scene);
    assert_eq!(real.command::<u64>(&["EXISTS", &log]), 0);
}
