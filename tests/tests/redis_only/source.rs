//! Streams of others, bound: what lies where in Redis, and what they see of us.

use std::collections::HashMap;

use redis::Value;
use segmenter_core::message::EntryId;
use segmenter_core::names::Uid;
use segmenter_core::port::{AppendReply, Failure, Register, RegisterReply, Reply, Request};
use segmenter_core::source::Source;
use segmenter_redis::admin;
use segmenter_tests::conformance::scene::{message, shape, stream_id};
use segmenter_tests::conformance::{RealSubject, Scene, Subject};

use crate::connect;

fn source(redis_key: &str) -> Source {
    Source::new(redis_key, "user", "body").expect("a source")
}

fn entry(real: &mut RealSubject, redis_key: &str, ms: u64) {
    let fields = vec![(b"body".to_vec(), ms.to_string().into_bytes())];
    real.add_to_source(redis_key, EntryId { ms, seq: 0 }, fields);
}

fn keys(real: &mut RealSubject) -> Vec<String> {
    let mut keys: Vec<String> = real.command(&["KEYS", "*"]);
    keys.sort();
    keys
}

#[test]
fn our_keys_lie_in_the_slot_of_theirs() {
    for (redis_key, tag) in [
        ("events", "events"),
        ("app:{eu}:events", "eu"),
        // No other key can be in its slot; on a single server that does not matter.
        ("odd}key", "odd}key"),
    ] {
        let mut real = RealSubject::default();
        entry(&mut real, redis_key, 1);
        let mut scene = Scene::bare(&mut real);
        let reply = scene.bind("uid-1", source(redis_key));
        assert!(
            matches!(reply, Ok(RegisterReply::Registered { .. })),
            "{reply:?}"
        );
        scene.ensure("billing");
        let mut held = scene.acquire("one");
        scene.commit(&mut held, EntryId { ms: 1, seq: 0 }, 1, true);
        let mut expected = vec![
            redis_key.to_owned(),
            format!("seg:{{{tag}}}:shop/orders/0:lease:billing"),
            format!("seg:{{{tag}}}:shop/orders/0:meta"),
            "seg:{shop/orders}:stream".to_owned(),
        ];
        expected.sort();
        assert_eq!(keys(&mut real), expected);
        real.delete_stream(&stream_id("orders"));
        assert_eq!(keys(&mut real), [redis_key]);
        let groups: Vec<Value> = real.command(&["XINFO", "GROUPS", redis_key]);
        assert!(groups.is_empty(), "{groups:?}");
    }
}

#[test]
fn what_a_group_of_others_has_pending_stays_pending() {
    let mut real = RealSubject::default();
    for ms in 1..=4 {
        entry(&mut real, "events", ms);
    }
    let _: Value = real.command(&["XGROUP", "CREATE", "events", "theirs", "0"]);
    let read = [
        "XREADGROUP",
        "GROUP",
        "theirs",
        "w",
        "COUNT",
        "2",
        "STREAMS",
        "events",
        ">",
    ];
    let _: Value = real.command(&read);
    let before: Value = real.command(&["XPENDING", "events", "theirs", "-", "+", "10"]);
    let mut scene = Scene::bare(&mut real);
    scene.bind("uid-1", source("events")).expect("bound");
    scene.ensure("billing");
    let mut held = scene.acquire("one");
    scene.commit(&mut held, EntryId { ms: 4, seq: 0 }, 4, true);
    scene.delete_group();
    real.delete_stream(&stream_id("orders"));
    let after: Value = real.command(&["XPENDING", "events", "theirs", "-", "+", "10"]);
    // The third field is how long ago it was delivered.
    let ids = |value: Value| -> Vec<(String, String, u64)> {
        let rows: Vec<(String, String, u64, u64)> = redis::from_redis_value(value).unwrap();
        rows.into_iter()
            .map(|(id, who, _, times)| (id, who, times))
            .collect()
    };
    let before = ids(before);
    assert_eq!(before.len(), 2);
    assert_eq!(ids(after), before);
    let length: u64 = real.command(&["XLEN", "events"]);
    assert_eq!(length, 4);
}

#[test]
fn the_mirror_shows_others_how_far_we_are() {
    let mut real = RealSubject::default();
    for ms in 1..=3 {
        entry(&mut real, "events", ms);
    }
    let mut scene = Scene::bare(&mut real);
    scene.bind("uid-1", source("events")).expect("bound");
    scene.ensure("billing");
    let mut held = scene.acquire("one");
    scene.commit(&mut held, EntryId { ms: 2, seq: 0 }, 2, false);
    let groups: Vec<HashMap<String, Value>> = real.command(&["XINFO", "GROUPS", "events"]);
    let number = |name: &str| redis::from_redis_value::<u64>(groups[0][name].clone()).unwrap();
    assert_eq!(
        (number("lag"), number("pending"), number("entries-read")),
        (1, 0, 2)
    );
}

#[test]
fn a_key_that_is_no_stream_or_not_ours_to_read_is_refused_and_nothing_is_written() {
    let mut real = RealSubject::default();
    let _: Value = real.command(&["SET", "text", "x"]);
    entry(&mut real, "denied", 1);
    let user = segmenter_tests::server::USER;
    let _: Value = real.command(&["ACL", "SETUSER", user, "resetkeys", "~seg:*", "~text"]);
    for (redis_key, says) in [("text", "is a string, not a stream"), ("denied", "~denied")] {
        let mut scene = Scene::bare(&mut real);
        match scene.bind("uid-1", source(redis_key)) {
            Err(Failure::Fatal(why)) => assert!(why.contains(says), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(keys(&mut real), ["denied", "text"]);
}

#[test]
fn whoever_looked_the_stream_up_before_it_moved_finds_the_new_place_or_nothing() {
    let mut real = RealSubject::default();
    entry(&mut real, "events", 1);
    let url = real.server.url();
    let other = connect(&real, &url).unwrap();
    let mut scene = Scene::bare(&mut real);
    scene.bind("uid-1", source("events")).expect("bound");
    let stream = stream_id("orders");
    // Another process learns where it lies, and then it is a stream of our own.
    let looked = real.runtime.block_on(admin::find_stream(&other, &stream));
    assert_eq!(looked.unwrap().unwrap().source, Some(source("events")));
    real.delete_stream(&stream);
    let anew = Request::Register(Register {
        stream: stream.clone(),
        shape: shape(1, 10),
        retain: None,
        source: None,
        uid: Uid::new("uid-2").unwrap(),
    });
    real.execute(anew).expect("registered");
    let append = |uid: &str| {
        Request::Append(segmenter_core::port::Append {
            stream: stream.clone(),
            uid: Uid::new(uid).unwrap(),
            partition: segmenter_core::names::Partition(0),
            messages: vec![message(1)],
        })
    };
    let old = real.runtime.block_on(other.execute(append("uid-1")));
    assert!(matches!(old, Err(Failure::Fatal(_))), "{old:?}");
    let looked = real.runtime.block_on(admin::find_stream(&other, &stream));
    assert_eq!(looked.unwrap().unwrap().shape, shape(1, 10));
    let new = real.runtime.block_on(other.execute(append("uid-2")));
    assert!(
        matches!(&new, Ok(Reply::Append(AppendReply::Appended { ids })) if ids.len() == 1),
        "{new:?}"
    );
    let length: u64 = real.command(&["XLEN", "events"]);
    assert_eq!(length, 1);
}

#[test]
fn a_delete_that_is_asked_for_again_and_a_commit_without_meta_leave_the_log_of_others() {
    let mut real = RealSubject::default();
    for ms in 1..=3 {
        entry(&mut real, "events", ms);
    }
    let mut scene = Scene::bare(&mut real);
    scene.bind("uid-1", source("events")).expect("bound");
    scene.ensure("billing");
    let mut held = scene.acquire("one");
    // As after a crash in the middle of creating or deleting it.
    let lost: u64 = real.command(&["DEL", "seg:{events}:shop/orders/0:meta"]);
    assert_eq!(lost, 1);
    let mut scene = Scene::bare(&mut real);
    scene.commit(&mut held, EntryId { ms: 3, seq: 0 }, 3, true);
    let length: u64 = real.command(&["XLEN", "events"]);
    assert_eq!(length, 3, "a trim without meta");
    real.delete_stream(&stream_id("orders"));
    let length: u64 = real.command(&["XLEN", "events"]);
    assert_eq!(length, 3, "a delete without meta");
}
