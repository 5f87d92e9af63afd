//! What an operator does, under odd conditions: keys of other types, commands that are denied, a log that
//! is trimmed while it is counted, no memory.

use segmenter_core::port::{
    DeleteGroup, Failure, Halt, HaltReply, Position, Reply, Request, Resume, ResumeReply, Seek,
    SeekReply,
};
use segmenter_redis::{ACL_RULES, Address, Broker, ConnectError, Key};
use segmenter_tests::conformance::scene::{P0, group, stream_id};
use segmenter_tests::conformance::{RealSubject, Scene, Subject};
use segmenter_tests::server::Options;

/// Every operator's request about the stream `orders` and the group `billing`.
fn requests(from: segmenter_core::message::EntryId) -> Vec<Request> {
    let uid = || "uid-1".parse().unwrap();
    let seek = |to| {
        Request::Seek(Seek {
            stream: stream_id("orders"),
            uid: uid(),
            partition: P0,
            group: group("billing"),
            to,
        })
    };
    let resume = |skip| {
        Request::Resume(Resume {
            stream: stream_id("orders"),
            uid: uid(),
            partition: P0,
            group: group("billing"),
            skip,
        })
    };
    vec![
        seek(Position::Start),
        seek(Position::End),
        seek(Position::From(from)),
        resume(Some("skipped".to_owned())),
        Request::Halt(Halt {
            stream: stream_id("orders"),
            uid: uid(),
            partition: P0,
            group: group("billing"),
            reason: "again".to_owned(),
        }),
        Request::DeleteGroup(DeleteGroup {
            stream: stream_id("orders"),
            uid: uid(),
            partition: P0,
            group: group("billing"),
        }),
    ]
}

/// A halted group with one acked entry of three, so that each request has something to do.
fn halted(real: &mut RealSubject) -> Vec<segmenter_core::message::EntryId> {
    let mut scene = Scene::with_group(real, 10);
    let ids = scene.append(3);
    let mut held = scene.acquire("a");
    scene.commit(&mut held, ids[0], 1, false);
    scene.halt("paused");
    ids
}

#[test]
fn keys_of_another_type_are_an_error_that_changes_nothing() {
    let mut real = RealSubject::default();
    let ids = halted(&mut real);
    let (stream, billing) = (stream_id("orders"), group("billing"));
    let whole = real.everything();
    for (key, minds) in [
        (Key::Meta(&stream, P0), 6),
        (Key::Log(&stream, P0), 6),
        (Key::Lease(&stream, P0, &billing), 6),
        // Only a skip writes there; a delete removes it, whatever it is.
        (Key::Dead(&stream, P0, &billing), 1),
    ] {
        let key = key.to_string();
        let _: u64 = real.command(&["DEL", &key]);
        let _: u64 = real.command(&["SADD", &key, "odd"]);
        let before = real.everything();
        let mut refused = 0;
        for request in requests(ids[1]) {
            match real.execute(request.clone()) {
                Err(Failure::Fatal(why)) => {
                    assert!(why.contains("WRONGTYPE"), "{key}: {why}");
                    assert_eq!(real.everything(), before, "{key}: {request:?}");
                    refused += 1;
                }
                Err(other) => panic!("{key}: {request:?}: {other:?}"),
                Ok(_) => real.restore(&before),
            }
        }
        assert_eq!(refused, minds, "{key}");
        real.restore(&whole);
    }
}

#[test]
fn without_memory_an_operator_can_still_act() {
    let mut real = RealSubject::default();
    let ids = halted(&mut real);
    let _: () = real.command(&["CONFIG", "SET", "maxmemory", "1"]);
    for request in requests(ids[1]) {
        let reply = real.execute(request.clone());
        assert!(
            matches!(
                reply,
                Ok(Reply::Seek(SeekReply::Sought { .. })
                    | Reply::Resume(ResumeReply::Resumed { .. })
                    | Reply::Halt(HaltReply::Halted)
                    | Reply::DeleteGroup(_))
            ),
            "{request:?}: {reply:?}"
        );
    }
}

/// The lag must be right, whatever is appended and trimmed between the count and the move.
#[test]
fn a_seek_counts_right_while_others_append_and_trim() {
    let mut real = RealSubject::default();
    let mut scene = Scene::with_group(&mut real, 1_000_000);
    scene.ensure("audit");
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.extend(scene.append(500));
    }
    drop(scene);
    let log = Key::Log(&stream_id("orders"), P0).to_string();
    let mut other = redis::Client::open(real.server.hands_url())
        .and_then(|c| c.get_connection())
        .unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (log, stop, ids) = (&log, &stop, &ids);
        scope.spawn(move || {
            for id in ids[..10_000].iter().step_by(100) {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let minid = id.to_string();
                let _: u64 = redis::cmd("XTRIM")
                    .arg(&[log.as_str(), "MINID", "=", &minid])
                    .query(&mut other)
                    .unwrap();
                let _: String = redis::cmd("XADD")
                    .arg(&[log.as_str(), "*", "k", "key", "p", "x"])
                    .query(&mut other)
                    .unwrap();
            }
        });
        for n in [2_000, 5_000, 9_000, 12_000] {
            let seek = Request::Seek(Seek {
                stream: stream_id("orders"),
                uid: "uid-1".parse().unwrap(),
                partition: P0,
                group: group("billing"),
                to: Position::From(ids[n]),
            });
            match real.execute(seek) {
                Ok(Reply::Seek(SeekReply::Sought { acked, read, .. })) => {
                    // Either the entry before it is still there, or the log begins at or behind it.
                    let exact = acked == ids[n - 1] && read == n as u64;
                    let trimmed = acked.ms == 0 && read >= n as u64;
                    assert!(exact || trimmed, "{n}: {acked}, {read}");
                }
                other => panic!("{n}: {other:?}"),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn the_rules_grant_exactly_what_is_asked_for() {
    let mut real = RealSubject::default();
    let namespace = "shop".parse().unwrap();
    let rules: Vec<&str> = ACL_RULES.split(' ').collect();
    let mut check = |without: Option<&str>| {
        let mut setuser = vec!["ACL", "SETUSER", "weak", "reset", "on", ">pw"];
        setuser.extend(rules.iter().filter(|rule| Some(**rule) != without));
        let _: () = real.command(&setuser);
        let url = format!("redis://weak:pw@127.0.0.1:{}", real.server.port());
        let broker = crate::connect(&real, &url)?;
        real.runtime.block_on(broker.check_permissions(&namespace))
    };
    check(None).expect("the rules suffice");
    for rule in &rules {
        let refused = check(Some(rule));
        let Err(ConnectError::Permission(why)) = refused else {
            panic!("without {rule}: {refused:?}");
        };
        if let Some(command) = rule.strip_prefix('+') {
            let words = command.to_uppercase().replace('|', " ");
            assert!(
                why.contains(&words) || why.contains(command),
                "without {rule}: {why}"
            );
        }
    }
}

#[test]
fn the_readme_shows_the_rules_as_they_are() {
    let readme = include_str!("../../../README.md").replace("\\\n", "");
    let one_line = readme.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(one_line.contains(ACL_RULES), "{ACL_RULES}");
}

#[test]
fn the_doctor_finds_what_is_wrong_and_says_what_to_do() {
    use segmenter_redis::doctor::{Check, Status, examine};
    let mut real = RealSubject::start(Options {
        appendonly: true,
        ..Options::default()
    });
    let namespace = "shop".parse().unwrap();
    let find = |checks: Vec<Check>, name: &str| {
        let found = checks.into_iter().find(|check| check.name == name);
        found.unwrap_or_else(|| panic!("no check {name}"))
    };
    let whole = |real: &RealSubject| real.runtime.block_on(examine(&real.broker, &namespace));
    for check in whole(&real) {
        assert_eq!(check.status, Status::Ok, "{check:?}");
    }
    // Who may see the settings is told what they mean.
    let address = Address::new(&real.server.hands_url(), None).unwrap();
    let all = real.runtime.block_on(async {
        let broker = Broker::connect(&address).await.unwrap();
        examine(&broker, &namespace).await
    });
    let check = find(all, "persistence");
    assert!(check.found.contains("always"), "{check:?}");
    for (name, setting, value, status) in [
        (
            "eviction",
            "maxmemory-policy",
            "allkeys-lru",
            Status::Failed,
        ),
        ("memory", "maxmemory", "1", Status::Failed),
        ("persistence", "appendonly", "no", Status::Warning),
    ] {
        let (_, before): (String, String) = real.command(&["CONFIG", "GET", setting]);
        let _: () = real.command(&["CONFIG", "SET", setting, value]);
        let check = find(whole(&real), name);
        assert_eq!(check.status, status, "{check:?}");
        assert!(check.advice.is_some(), "{check:?}");
        let _: () = real.command(&["CONFIG", "SET", setting, &before]);
    }
    let replica = RealSubject::default();
    let port = real.server.port().to_string();
    let mut hands = redis::Client::open(replica.server.hands_url())
        .and_then(|c| c.get_connection())
        .unwrap();
    let _: () = redis::cmd("REPLICAOF")
        .arg(&["127.0.0.1", &port])
        .query(&mut hands)
        .unwrap();
    let check = find(whole(&replica), "replicas");
    assert_eq!(check.status, Status::Failed, "{check:?}");
    assert!(check.found.contains(&port), "{check:?}");
    let check = segmenter_tests::process::until("the replica is heard", || {
        let check = find(whole(&real), "replicas");
        check.found.contains("online").then_some(check)
    });
    assert_eq!(check.status, Status::Ok, "{check:?}");
}
