//! Registrations that race, and one that stopped in the middle.

use crate::connect;
use segmenter_core::names::{Partition, Uid};
use segmenter_core::port::{Register, RegisterReply, Reply, Request};
use segmenter_redis::Key;
use segmenter_tests::conformance::scene::{P0, shape, stream_id};
use segmenter_tests::conformance::{RealSubject, Scene, Subject};
use std::collections::HashSet;

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
                source: None,
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
            source: None,
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
        source: None,
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
fn a_description_without_a_payload_limit_means_the_default_and_an_odd_one_is_told() {
    let mut real = RealSubject::default();
    let stream = stream_id("orders");
    let limited = |bytes| shape(1, 10).with_payload_max(bytes).unwrap();
    drop(Scene::new(&mut real, 1, 10));
    let key = Key::Stream(&stream).to_string();
    let written =
        |real: &mut RealSubject| -> Option<String> { real.command(&["HGET", &key, "payload_max"]) };
    let find = |real: &RealSubject| {
        let found = segmenter_redis::admin::find_stream(&real.broker, &stream);
        real.runtime
            .block_on(found)
            .map(|found| found.unwrap().shape)
    };
    // As every host before wrote it.
    assert_eq!(written(&mut real), None);
    assert_eq!(find(&real).unwrap(), shape(1, 10));
    real.delete_stream(&stream);
    Scene::bare(&mut real).register("uid-2", limited(7), None);
    assert_eq!(written(&mut real).as_deref(), Some("7"));
    assert_eq!(find(&real).unwrap(), limited(7));
    for odd in ["0", "x", "-1", "67108865"] {
        let _: u64 = real.command(&["HSET", &key, "payload_max", odd]);
        let why = find(&real).unwrap_err().to_string();
        assert!(
            why.contains("orders") && why.contains("damaged"),
            "{odd}: {why}"
        );
    }
}
