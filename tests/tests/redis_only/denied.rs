//! All or nothing, whatever fails: each command that scripts call is denied in turn, so that the script
//! fails there; then every request either did all of its work or changed nothing at all.

use segmenter_core::message::EntryId;
use segmenter_core::names::{HandlerId, MemberId, Sender, Version};
use segmenter_core::port::{
    Append, AppendFrom, Asks, Buried, Bury, Commit, DeadLetter, DeleteGroup, Deploy, DeployReply,
    EnsureGroup, Failure, FetchModule, Halt, How, Install, Position, Purge, Redrive, Redriven,
    Register, Relayed, Release, Reply, Report, Request, Resume, RollBack, Seek, Settle, Sourced,
    Stamped, Start, StoreModule, SyncKind, Verify,
};
use segmenter_core::rollout::{Candidacy, Differences, HostReport, Share, Tally, Verdict};
use segmenter_redis::{ACL_RULES, version_of};
use segmenter_tests::conformance::scene::{P0, group, message, shape, stream_id};
use segmenter_tests::conformance::{Held, Puppet, RealSubject, Scene, Subject};

use crate::LONG;

/// What scripts call, as rules of an ACL name it.
const COMMANDS: [&str; 25] = [
    "set",
    "strlen",
    "getrange",
    "hgetall",
    "type",
    "time",
    "del",
    "hmget",
    "hset",
    "hdel",
    "xadd",
    "xlen",
    "xrange",
    "xrevrange",
    "xtrim",
    "xdel",
    "xpending",
    "xinfo|stream",
    "xinfo|groups",
    "xgroup|create",
    "xgroup|setid",
    "xgroup|destroy",
    "zadd",
    "zrem",
    "zrange",
];

const TRIAL: How = How::Trial {
    share: Share::ALL,
    lasts: LONG,
};

fn charge() -> HandlerId {
    HandlerId {
        namespace: "shop".parse().unwrap(),
        handler: "charge".parse().unwrap(),
    }
}

fn module(n: usize) -> (Version, Vec<u8>) {
    let bytes = format!("module {n}").into_bytes();
    (version_of(&bytes), bytes)
}

fn store(n: usize) -> StoreModule {
    let (version, bytes) = module(n);
    StoreModule {
        namespace: "shop".parse().unwrap(),
        version,
        bytes,
    }
}

fn deploy(n: usize, how: How, again: bool) -> Request {
    Request::Deploy(Deploy {
        handler: charge(),
        version: module(n).0,
        how,
        by: "ann".to_owned(),
        again,
    })
}

fn roll_back(to: Option<Version>) -> Request {
    Request::RollBack(RollBack {
        handler: charge(),
        to,
        reason: Some("odd".to_owned()),
        by: "ann".to_owned(),
    })
}

fn report(asks: impl Fn(MemberId, HostReport) -> Asks) -> Request {
    let report = HostReport {
        stream: "orders".parse().unwrap(),
        group: "billing".parse().unwrap(),
        revision: 1,
        current: module(1).0,
        refused: None,
        candidacy: Candidacy::Loading,
        candidate: Tally::default(),
        rest: Tally::default(),
        live_versions: 1,
        differences: Differences::default(),
    };
    Request::Report(Report {
        handler: charge(),
        asks: asks("host-1".parse().unwrap(), report),
    })
}

/// Eleven versions that were current, so that the next one makes the oldest go; the bytes of more; a report.
fn deployed(real: &mut RealSubject) {
    for n in 1..=30 {
        let request = Request::StoreModule(store(n));
        real.execute(request).unwrap();
    }
    for n in 10..=21 {
        real.execute(deploy(n, How::Now, false)).unwrap();
    }
    for n in [1, 30] {
        real.execute(deploy(n, How::Now, false)).unwrap();
    }
    real.execute(report(|host, report| Asks::Told { host, report }))
        .unwrap();
}

fn stamped(held: &Held, seq: u64) -> Stamped {
    Stamped {
        stamp: EntryId {
            ms: held.epoch.0,
            seq,
        },
        emit: segmenter_core::effects::Emit {
            to: "invoices".parse().unwrap(),
            content: message(1),
        },
    }
}

/// A full partition of a group that is behind by one, a foreign group with a pending entry, an expired
/// member and a live one: every request has something to write in each of its branches.
fn prepared(real: &mut RealSubject) -> Vec<(&'static str, Request)> {
    deployed(real);
    // Settled is what this one is once it was deployed; see `on_trial`.
    let settle = |verdict| {
        Request::Settle(Settle {
            handler: charge(),
            revision: 0,
            version: module(5).0,
            verdict,
            evidence: "3 calls".to_owned(),
            by: "host-1".to_owned(),
        })
    };
    let mut scene = Scene::retaining(real, 1, 4, 1);
    scene.ensure("billing");
    let ids = scene.append(4);
    let mut held = scene.acquire("a");
    // A dead letter and an emitted message: something to redrive, to bury, to purge.
    let first = Commit {
        emits: vec![stamped(&held, 1)],
        dead: vec![DeadLetter {
            id: ids[0],
            reason: "no".to_owned(),
            attempts: 1,
            version: "v1".to_owned(),
            fields: segmenter_core::entry::encode(&message(1)),
        }],
        ..scene.commit_of(&held, ids[1], 2)
    };
    scene.send(first).unwrap();
    (held.acked, held.read) = (ids[1], 2);
    let dead_ids = scene
        .subject
        .dead_ids(&scene.stream.clone(), P0, &group("billing"));
    let foreign = group("foreign");
    let stream = scene.stream.clone();
    scene
        .subject
        .add_foreign_group(&stream, P0, &foreign, ids[0], 1);
    let (uid, billing) = (scene.uid.clone(), scene.group.clone());
    let mut dead = Puppet::new("dead", "d1", std::time::Duration::from_millis(1));
    dead.joins(&mut scene);
    let mut member = Puppet::new("m", "m1", LONG);
    let joined = member.joins(&mut scene);
    let other = Puppet::new("other", "o1", LONG).says(&scene, SyncKind::Join);
    let mut beat = member.clone();
    beat.draining = true;
    let beat = beat.says(&scene, SyncKind::Heartbeat);
    let leave = member.clone().says(&scene, SyncKind::Leave);
    let commit = Commit {
        trim: true,
        caught_up: true,
        state: [("a", Some(b"1".to_vec())), ("b", None)]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        emits: vec![stamped(&held, 2)],
        dead: [ids[2], ids[3]]
            .map(|id| DeadLetter {
                id,
                reason: "no".to_owned(),
                attempts: 1,
                version: "v1".to_owned(),
                fields: vec![(b"k".to_vec(), b"v".to_vec())],
            })
            .into(),
        ..scene.commit_of(&held, ids[3], 2)
    };
    let release = Release {
        stream: stream.clone(),
        partition: P0,
        group: billing.clone(),
        fence: held.fence(),
    };
    let resume = |skip| Resume {
        stream: stream.clone(),
        uid: uid.clone(),
        partition: P0,
        group: billing.clone(),
        skip,
    };
    let seek = |to| Seek {
        stream: stream.clone(),
        uid: uid.clone(),
        partition: P0,
        group: billing.clone(),
        to,
    };
    let register = |name: &str, uid: &str| {
        Request::Register(Register {
            stream: stream_id(name),
            shape: shape(1, 4),
            retain: Some(2),
            source: None,
            uid: uid.parse().unwrap(),
        })
    };
    let ensure = |name: &str| {
        Request::EnsureGroup(EnsureGroup {
            stream: stream.clone(),
            uid: uid.clone(),
            partition: P0,
            group: group(name),
            start: Start::Beginning,
        })
    };
    vec![
        ("register another", register("payments", "uid-2")),
        ("register again", register("orders", "uid-2")),
        ("create a group", ensure("audit")),
        ("create a group again", ensure("billing")),
        (
            "append",
            Request::Append(Append {
                stream: stream.clone(),
                uid: uid.clone(),
                partition: P0,
                messages: vec![message(1), message(2)],
            }),
        ),
        (
            "append from a source",
            Request::AppendFrom(AppendFrom {
                stream: stream.clone(),
                uid: uid.clone(),
                partition: P0,
                source: Sender::outbox(&stream, P0, &billing),
                after: None,
                messages: [1, 2]
                    .map(|seq| Sourced {
                        stamp: EntryId { ms: 1, seq },
                        content: message(1),
                        only: None,
                    })
                    .into(),
            }),
        ),
        (
            "relayed",
            Request::Relayed(Relayed {
                stream: stream.clone(),
                partition: P0,
                group: billing.clone(),
                entries: vec![stamped(&held, 1).stamp],
            }),
        ),
        (
            "bury",
            Request::Bury(Bury {
                stream: stream.clone(),
                partition: P0,
                group: billing.clone(),
                epoch: held.epoch,
                entries: vec![Buried {
                    id: stamped(&held, 1).stamp,
                    stamps: vec![stamped(&held, 1).stamp],
                }],
                reason: "no such stream".to_owned(),
            }),
        ),
        (
            "redrive",
            Request::Redrive(Redrive {
                stream: stream.clone(),
                uid: uid.clone(),
                partition: P0,
                group: billing.clone(),
                source: None,
                letters: vec![Redriven {
                    dead_id: dead_ids[0],
                    to: "orders".parse().unwrap(),
                    only: true,
                    emitted: false,
                }],
            }),
        ),
        (
            "purge",
            Request::Purge(Purge {
                stream: stream.clone(),
                partition: P0,
                group: billing.clone(),
                letters: dead_ids.clone(),
            }),
        ),
        (
            "acquire",
            Request::Acquire(segmenter_core::port::Acquire {
                stream: stream.clone(),
                uid: uid.clone(),
                partition: P0,
                group: billing.clone(),
                owner: segmenter_core::lease::Owner {
                    incarnation: "b".parse().unwrap(),
                    member: "b".parse().unwrap(),
                    version: "v".parse().unwrap(),
                },
            }),
        ),
        ("commit", Request::Commit(commit)),
        ("release", Request::Release(release)),
        (
            "verify",
            Request::Verify(Verify {
                stream: stream.clone(),
                group: billing.clone(),
                partitions: vec![P0],
            }),
        ),
        ("join", Request::Sync(other)),
        ("heartbeat", Request::Sync(beat)),
        ("leave", Request::Sync(leave)),
        (
            "install",
            Request::Install(Install {
                stream: stream.clone(),
                uid: uid.clone(),
                group: billing.clone(),
                generation: joined.generation,
                assignment: [("m".parse().unwrap(), "0".parse().unwrap())].into(),
                moves: 1,
            }),
        ),
        ("seek to the start", Request::Seek(seek(Position::Start))),
        ("seek to the end", Request::Seek(seek(Position::End))),
        ("seek to an id", Request::Seek(seek(Position::From(ids[1])))),
        ("resume", Request::Resume(resume(None))),
        ("skip", Request::Resume(resume(Some("odd".to_owned())))),
        ("deploy now", deploy(4, How::Now, true)),
        ("deploy on trial", deploy(5, TRIAL, false)),
        ("settle", settle(Verdict::Promote)),
        (
            "settle as bad",
            settle(Verdict::RollBack {
                reason: "no".to_owned(),
            }),
        ),
        ("roll back", roll_back(None)),
        ("roll back to another", roll_back(Some(module(1).0))),
        ("report", report(|host, report| Asks::Told { host, report })),
        (
            "report the end",
            report(|host, report| Asks::Left { host, report }),
        ),
        ("store a module", Request::StoreModule(store(9))),
        (
            "fetch a module",
            Request::FetchModule(FetchModule {
                namespace: "shop".parse().unwrap(),
                version: module(1).0,
            }),
        ),
        (
            "halt",
            Request::Halt(Halt {
                stream: stream.clone(),
                uid: uid.clone(),
                partition: P0,
                group: billing.clone(),
                reason: "paused".to_owned(),
            }),
        ),
        (
            "delete a group",
            Request::DeleteGroup(DeleteGroup {
                stream: stream.clone(),
                uid,
                partition: P0,
                group: billing,
            }),
        ),
    ]
}

#[test]
fn a_command_that_fails_in_the_middle_of_a_script_changes_nothing() {
    let mut real = RealSubject::default();
    let requests = prepared(&mut real);
    let running = real.everything();
    // A resume has something to do only where there is a halt, a settle only where there is a trial.
    let named = |wanted: &str| {
        let found = requests.iter().find(|(name, _)| *name == wanted);
        found.unwrap().1.clone()
    };
    real.execute(named("halt")).unwrap();
    let halted = real.everything();
    let trial = real.execute(named("deploy on trial"));
    let Ok(Reply::Deploy(DeployReply::Deployed { revision, .. })) = trial else {
        panic!("{trial:?}");
    };
    let on_trial = real.everything();
    let requests: Vec<_> = requests
        .into_iter()
        .map(|(name, request)| match request {
            Request::Settle(settle) => (name, Request::Settle(Settle { revision, ..settle })),
            other => (name, other),
        })
        .collect();
    let (mut failed, mut broken) = (0, Vec::new());
    for command in COMMANDS {
        let mut setuser = vec!["ACL", "SETUSER", "weak", "reset", "on", ">pw"];
        setuser.extend(ACL_RULES.split(' '));
        let denied = format!("-{command}");
        setuser.push(&denied);
        let _: () = real.command(&setuser);
        let url = format!("redis://weak:pw@127.0.0.1:{}", real.server.port());
        let broker = crate::connect(&real, &url).unwrap_or_else(|e| panic!("{command}: {e}"));
        for (name, request) in &requests {
            let before = match request {
                Request::Resume(_) => &halted,
                Request::Settle(_) => &on_trial,
                _ => &running,
            };
            real.restore(before);
            let reply = real.runtime.block_on(broker.execute(request.clone()));
            match reply {
                Ok(_) => {}
                Err(Failure::Fatal(_)) => {
                    failed += 1;
                    // A register of several scripts is completed by whoever comes next.
                    let several = name.starts_with("register");
                    if !several && real.everything() != *before {
                        broken.push(format!("{name} without {command}"));
                    }
                }
                Err(other) => panic!("{name} without {command}: {other:?}"),
            }
        }
    }
    assert!(
        broken.is_empty(),
        "changed something and failed: {broken:#?}"
    );
    assert!(
        failed > 60,
        "only {failed} requests met the command that was denied"
    );
}
