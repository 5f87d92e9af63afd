//! What only a real server can show of the Redis adapter: races between processes, lost scripts, wrong
//! types, short memory, missing permissions, old versions, TLS, and the reader.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use segmenter_core::lease::Epoch;
use segmenter_core::message::{Content, EntryId};
use segmenter_core::names::{Partition, Uid};
use segmenter_core::port::{
    AcquireReply, AppendReply, Commit, CommitReply, DeadLetter, Failure, Register, RegisterReply,
    Reply, Request, Start, SyncKind, SyncReply,
};
use segmenter_redis::{Address, Broker, ConnectError, Delivery, Key, Reader};
use segmenter_tests::conformance::scene::{P0, group, message, shape, stream_id};
use segmenter_tests::conformance::{RealSubject, Scene, Subject};
use segmenter_tests::server::{Options, Server};

const LONG: Duration = Duration::from_secs(60);

fn connect(real: &RealSubject, url: &str) -> Result<Broker, ConnectError> {
    let address = Address::new(url, None).expect("a URL");
    real.runtime.block_on(Broker::connect(&address))
}

#[test]
fn two_processes_that_register_4_and_8_partitions_at_once_never_disagree() {
    let mut real = RealSubject::default();
    // Two connections are as good as two processes: nothing is shared between them.
    let url = real.server.url();
    let other = connect(&real, &url).unwrap();
    for race in 0..50 {
        let name = format!("race-{race}");
        let ask = |partitions, uid: &str| {
            Request::Register(Register {
                stream: stream_id(&name),
                shape: shape(partitions, 10),
                retain: None,
                uid: Uid::new(uid).unwrap(),
            })
        };
        let broker = real.broker.clone();
        let (four, eight) = real.runtime.block_on(async {
            tokio::join!(
                broker.execute(ask(4, "four")),
                other.execute(ask(8, "eight"))
            )
        });
        let won = match (four.unwrap(), eight.unwrap()) {
            (
                Reply::Register(RegisterReply::Registered {
                    uid,
                    existed: false,
                }),
                Reply::Register(RegisterReply::ShapeDiffers { found }),
            ) if uid.as_str() == "four" => found,
            (
                Reply::Register(RegisterReply::ShapeDiffers { found }),
                Reply::Register(RegisterReply::Registered {
                    uid,
                    existed: false,
                }),
            ) if uid.as_str() == "eight" => found,
            other => panic!("race {race}: {other:?}"),
        };
        let metas: Vec<String> = real.command(&["KEYS", &format!("seg:{{shop/{name}/*}}:meta")]);
        assert_eq!(metas.len(), won.partitions() as usize, "race {race}");
    }
}

#[test]
fn many_registrations_of_one_shape_at_once_agree_on_the_uid() {
    let real = RealSubject::default();
    let ask = |n: usize| {
        Request::Register(Register {
            stream: stream_id("orders"),
            shape: shape(8, 10),
            retain: None,
            uid: Uid::new(format!("uid-{n}")).unwrap(),
        })
    };
    let broker = &real.broker;
    let replies = real.runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..20 {
            let (broker, request) = (broker.clone(), ask(n));
            tasks.spawn(async move { broker.execute(request).await });
        }
        tasks.join_all().await
    });
    let (mut uids, mut created) = (HashSet::new(), 0);
    for reply in replies {
        match reply {
            Ok(Reply::Register(RegisterReply::Registered { uid, existed })) => {
                uids.insert(uid);
                created += usize::from(!existed);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((uids.len(), created), (1, 1), "{uids:?}");
}

#[test]
fn a_registration_that_crashed_in_the_middle_is_completed() {
    let mut real = RealSubject::default();
    let stream = stream_id("orders");
    {
        let mut scene = Scene::new(&mut real, 4, 10);
        scene.append(1);
    }
    let (meta, log) = (
        Key::Meta(&stream, Partition(3)).to_string(),
        Key::Log(&stream, Partition(3)).to_string(),
    );
    let _: u64 = real.command(&["DEL", &meta, &log]);
    let request = Register {
        stream: stream.clone(),
        shape: shape(4, 10),
        retain: None,
        uid: Uid::new("uid-2").unwrap(),
    };
    let reply = real.execute(Request::Register(request));
    let uid = Uid::new("uid-1").unwrap();
    assert_eq!(
        reply,
        Ok(Reply::Register(RegisterReply::Registered {
            uid,
            existed: true
        }))
    );
    let (meta, log): (u64, u64) = (
        real.command(&["EXISTS", &meta]),
        real.command(&["EXISTS", &log]),
    );
    assert_eq!((meta, log), (1, 1));
    assert_eq!(real.log(&stream, P0).len(), 1, "what was there stays");
}

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
    scene.sync(SyncKind::Join, "m", "m1", 1, LONG);
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
    let sync = |counter| segmenter_core::port::Sync {
        stream: stream.clone(),
        uid: uid.clone(),
        group: billing.clone(),
        kind: SyncKind::Join,
        member: "other".parse().unwrap(),
        incarnation: "o1".parse().unwrap(),
        counter,
        session_timeout: LONG,
    };
    for (n, key) in keys.iter().enumerate() {
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
            Request::Sync(sync(n as u64 + 1)),
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
                    restore(&mut real, &before);
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

fn restore(real: &mut RealSubject, everything: &[(String, Vec<u8>)]) {
    let _: () = real.command(&["FLUSHDB"]);
    for (key, dump) in everything {
        let _: () = redis::cmd("RESTORE")
            .arg(key)
            .arg(0)
            .arg(dump.as_slice())
            .query(&mut real.hands)
            .unwrap();
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
    let joined = scene.sync(SyncKind::Join, "a", "a1", 1, LONG);
    assert!(
        matches!(joined, SyncReply::Member { active: true, .. }),
        "{joined:?}"
    );
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

#[test]
fn an_unreachable_server_did_nothing_and_a_server_that_comes_back_is_used_again() {
    let mut real = RealSubject::start(Options {
        appendonly: true,
        ..Options::default()
    });
    let mut scene = Scene::new(&mut real, 1, 10);
    scene.append(1);
    drop(scene);
    let append = || {
        Request::Append(segmenter_core::port::Append {
            stream: stream_id("orders"),
            uid: Uid::new("uid-1").unwrap(),
            partition: P0,
            messages: vec![message(1)],
        })
    };
    real.server.kill();
    // The first may have been under way when the connection broke; it says so.
    let first = real.execute(append());
    assert!(
        matches!(first, Err(Failure::Unknown(_) | Failure::NotDone(_))),
        "{first:?}"
    );
    let next = real.execute(append());
    assert!(matches!(next, Err(Failure::NotDone(_))), "{next:?}");
    real.server.restart();
    let back = real.execute(append());
    assert!(
        matches!(back, Ok(Reply::Append(AppendReply::Appended { .. }))),
        "{back:?}"
    );
    let url = real.server.url();
    real.hands = redis::Client::open(url).unwrap().get_connection().unwrap();
    assert_eq!(
        real.log(&stream_id("orders"), P0).len(),
        2,
        "nothing was sent twice"
    );
}

#[test]
fn a_wrong_or_missing_password_is_told_apart_from_no_server() {
    let mut real = RealSubject::start(Options {
        password: Some("geheim".to_owned()),
        ..Options::default()
    });
    let port = real.server.port();
    for url in [
        format!("redis://127.0.0.1:{port}"),
        format!("redis://:falsch@127.0.0.1:{port}"),
        format!("redis://nobody:falsch@127.0.0.1:{port}"),
    ] {
        let error = connect(&real, &url).unwrap_err();
        assert!(
            matches!(error, ConnectError::Authentication(_)),
            "{url}: {error:?}"
        );
        assert!(!error.to_string().contains("falsch"), "{error}");
    }
    real.server.kill();
    let error = connect(&real, &format!("redis://:geheim@127.0.0.1:{port}")).unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
}

#[test]
fn a_user_without_scripts_is_told_which_command_it_lacks() {
    let mut real = RealSubject::default();
    let _: () = real.command(&[
        "ACL", "SETUSER", "weak", "on", ">pw", "~*", "&*", "+@all", "-script", "-eval", "-evalsha",
    ]);
    let url = format!("redis://weak:pw@127.0.0.1:{}", real.server.port());
    let error = connect(&real, &url).unwrap_err();
    assert!(matches!(error, ConnectError::Permission(_)), "{error:?}");
    assert!(error.to_string().contains("script"), "{error}");
}

#[test]
fn a_server_that_is_too_old_is_refused_with_its_version() {
    let Some(old) = std::env::var_os("SEGMENTER_TEST_OLD_SERVER") else {
        eprintln!("left out: SEGMENTER_TEST_OLD_SERVER names no Redis 6.2");
        return;
    };
    let server = Server::start(Options {
        binary: Some(PathBuf::from(old)),
        ..Options::default()
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = Address::new(&server.url(), None).unwrap();
    match runtime.block_on(Broker::connect(&address)) {
        Err(ConnectError::TooOld { software, found }) => {
            assert_eq!(software, "redis");
            assert!(found.starts_with("6."), "{found}");
        }
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn tls_to_a_server_without_it_is_an_error_and_no_panic() {
    let real = RealSubject::default();
    let url = format!("rediss://127.0.0.1:{}", real.server.port());
    let error = connect(&real, &url).unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
}

/// A reader whose deliveries arrive on a channel.
fn reader(real: &RealSubject) -> (Reader, Receiver<Delivery>) {
    let (tell, told) = channel();
    let tell = std::sync::Mutex::new(tell);
    let address = Address::new(&real.server.url(), None).unwrap();
    let _inside = real.runtime.enter();
    let reader = Reader::start(
        address,
        real.broker.clone(),
        stream_id("orders"),
        move |delivery| {
            // The test may have ended.
            let _ = tell.lock().unwrap().send(delivery);
        },
    );
    (reader, told)
}

/// The next delivery of entries: partition, what it was asked with, ids.
fn entries(told: &Receiver<Delivery>) -> (Partition, Epoch, EntryId, Vec<EntryId>) {
    loop {
        match told.recv_timeout(LONG).expect("a delivery") {
            Delivery::Entries {
                partition,
                epoch,
                after,
                entries,
            } => {
                return (
                    partition,
                    epoch,
                    after,
                    entries.iter().map(|e| e.id).collect(),
                );
            }
            Delivery::Connected | Delivery::Disconnected { .. } => {}
        }
    }
}

fn id(ms: u64) -> EntryId {
    EntryId { ms, seq: 0 }
}

fn put(real: &mut RealSubject, partition: u32, ms: u64) {
    let fields = vec![
        (b"k".to_vec(), b"v".to_vec()),
        (b"p".to_vec(), b"x".to_vec()),
    ];
    real.add(&stream_id("orders"), Partition(partition), id(ms), fields);
}

#[test]
fn an_ask_is_answered_with_what_lies_there_and_with_what_comes() {
    let mut real = RealSubject::default();
    Scene::new(&mut real, 3, 100);
    put(&mut real, 1, 1);
    put(&mut real, 1, 2);
    let (reader, told) = reader(&real);
    reader.ask(Partition(1), Epoch(7), id(1));
    assert_eq!(entries(&told), (Partition(1), Epoch(7), id(1), vec![id(2)]));
    // Nothing there yet; another partition is asked for while it blocks, and must not wait for its end.
    reader.ask(Partition(1), Epoch(7), id(2));
    put(&mut real, 2, 5);
    reader.ask(Partition(2), Epoch(8), EntryId::ZERO);
    assert_eq!(
        entries(&told),
        (Partition(2), Epoch(8), EntryId::ZERO, vec![id(5)])
    );
    put(&mut real, 1, 3);
    assert_eq!(entries(&told), (Partition(1), Epoch(7), id(2), vec![id(3)]));
}

#[test]
fn a_later_ask_replaces_an_earlier_one() {
    let mut real = RealSubject::default();
    Scene::new(&mut real, 1, 100);
    let (reader, told) = reader(&real);
    reader.ask(P0, Epoch(1), id(9));
    reader.ask(P0, Epoch(2), id(5));
    put(&mut real, 0, 6);
    assert_eq!(entries(&told), (P0, Epoch(2), id(5), vec![id(6)]));
}

#[test]
fn a_woken_read_waits_for_no_block_to_end() {
    let mut real = RealSubject::default();
    Scene::new(&mut real, 2, 100_000);
    let (reader, told) = reader(&real);
    reader.ask(Partition(1), Epoch(1), EntryId::ZERO);
    put(&mut real, 0, 1);
    let began = Instant::now();
    let mut after = EntryId::ZERO;
    for n in 2..202 {
        reader.ask(P0, Epoch(1), after);
        assert_eq!(entries(&told).3, [id(n - 1)]);
        after = id(n - 1);
        put(&mut real, 0, n);
    }
    // Each would take two seconds if the block had to end; a busy machine takes a while for 200 anyway.
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn idle_partitions_cost_next_to_nothing() {
    let mut real = RealSubject::default();
    Scene::new(&mut real, 64, 100);
    let (reader, told) = reader(&real);
    for partition in 0..64 {
        reader.ask(Partition(partition), Epoch(1), EntryId::ZERO);
    }
    // Once it blocks over all, an entry in the last one arrives.
    put(&mut real, 63, 1);
    assert_eq!(entries(&told).0, Partition(63));
    reader.ask(Partition(63), Epoch(1), id(1));
    let count = |real: &mut RealSubject| -> u64 {
        let info: String = real.command(&["INFO", "commandstats"]);
        let calls = |name: &str| -> u64 {
            let line = info
                .lines()
                .find_map(|l| l.strip_prefix(name)?.strip_prefix(":calls="));
            line.map_or(0, |l| l.split(',').next().unwrap().parse().unwrap())
        };
        calls("cmdstat_xread") + calls("cmdstat_client|unblock")
    };
    real.let_time_pass(Duration::from_millis(500));
    let before = count(&mut real);
    real.let_time_pass(Duration::from_secs(4));
    let asked = count(&mut real) - before;
    assert!((1..=4).contains(&asked), "{asked} requests in 4 s");
}

#[test]
fn a_reader_outlives_its_server() {
    let mut real = RealSubject::start(Options {
        appendonly: true,
        ..Options::default()
    });
    Scene::new(&mut real, 1, 100);
    let (reader, told) = reader(&real);
    put(&mut real, 0, 1);
    reader.ask(P0, Epoch(1), EntryId::ZERO);
    assert_eq!(entries(&told).3, [id(1)]);
    reader.ask(P0, Epoch(1), id(1));
    real.server.kill();
    loop {
        if let Delivery::Disconnected { .. } = told.recv_timeout(LONG).expect("it is told") {
            break;
        }
    }
    real.server.restart();
    real.hands = redis::Client::open(real.server.url())
        .unwrap()
        .get_connection()
        .unwrap();
    put(&mut real, 0, 2);
    assert_eq!(
        entries(&told),
        (P0, Epoch(1), id(1), vec![id(2)]),
        "the ask was kept"
    );
}

#[test]
fn a_backlog_of_large_entries_comes_in_bounded_replies() {
    let mut real = RealSubject::default();
    let big = || Content::new("k", vec![b'x'; 900_000], Vec::new(), 1_000_000).unwrap();
    let mut scene = Scene::new(&mut real, 1, 100);
    for _ in 0..40 {
        let reply = scene.append_all(vec![big()]);
        assert!(
            matches!(reply, Ok(AppendReply::Appended { .. })),
            "{reply:?}"
        );
    }
    drop(scene);
    let (reader, told) = reader(&real);
    let (mut after, mut seen, mut largest) = (EntryId::ZERO, 0, 0);
    let mut replies = 0;
    while seen < 40 {
        reader.ask(P0, Epoch(1), after);
        let (_, _, _, ids) = entries(&told);
        seen += ids.len();
        after = *ids.last().unwrap();
        replies += 1;
        if replies > 1 {
            largest = largest.max(ids.len());
        }
    }
    assert!(
        largest <= 10,
        "{largest} entries of 900 kB after the first reply had shown their size"
    );
}
