//! The reader: answers, wakes, idles, comes back, and bounds what it asks for.

use crate::LONG;
use segmenter_core::lease::Epoch;
use segmenter_core::message::{Content, EntryId};
use segmenter_core::names::Partition;
use segmenter_core::port::AppendReply;
use segmenter_redis::{Address, Delivery, Reader};
use segmenter_tests::conformance::scene::{P0, stream_id};
use segmenter_tests::conformance::{RealSubject, Scene, Subject};
use segmenter_tests::server::Options;
use std::time::{Duration, Instant};

use std::sync::mpsc::{Receiver, channel};

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
    real.hands = redis::Client::open(real.server.hands_url())
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
