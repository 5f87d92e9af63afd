//! The reader: answers, wakes, idles, comes back, and bounds what it asks for.

use crate::LONG;
use segmenter_core::lease::Epoch;
use segmenter_core::message::{Content, EntryId};
use segmenter_core::names::Partition;
use segmenter_core::port::{Append, AppendReply, Reply, Request};
use segmenter_redis::{Address, Delivery, Reader};
use segmenter_tests::conformance::scene::{P0, stream_id};
use segmenter_tests::conformance::{RealSubject, Scene, Subject};
use segmenter_tests::server::Options;
use std::time::{Duration, Instant};

use std::sync::mpsc::{Receiver, channel};

/// More than any of these tests needs.
const ROOM: usize = 64 << 20;

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
    reader.ask(Partition(1), Epoch(7), id(1), ROOM);
    assert_eq!(entries(&told), (Partition(1), Epoch(7), id(1), vec![id(2)]));
    // Nothing there yet; another partition is asked for while it blocks, and must not wait for its end.
    reader.ask(Partition(1), Epoch(7), id(2), ROOM);
    put(&mut real, 2, 5);
    reader.ask(Partition(2), Epoch(8), EntryId::ZERO, ROOM);
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
    reader.ask(P0, Epoch(1), id(9), ROOM);
    reader.ask(P0, Epoch(2), id(5), ROOM);
    put(&mut real, 0, 6);
    assert_eq!(entries(&told), (P0, Epoch(2), id(5), vec![id(6)]));
}

#[test]
fn a_woken_read_waits_for_no_block_to_end() {
    let mut real = RealSubject::default();
    Scene::new(&mut real, 2, 100_000);
    let (reader, told) = reader(&real);
    reader.ask(Partition(1), Epoch(1), EntryId::ZERO, ROOM);
    put(&mut real, 0, 1);
    let began = Instant::now();
    let mut after = EntryId::ZERO;
    for n in 2..202 {
        reader.ask(P0, Epoch(1), after, ROOM);
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
        reader.ask(Partition(partition), Epoch(1), EntryId::ZERO, ROOM);
    }
    // Once it blocks over all, an entry in the last one arrives.
    put(&mut real, 63, 1);
    assert_eq!(entries(&told).0, Partition(63));
    reader.ask(Partition(63), Epoch(1), id(1), ROOM);
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
    reader.ask(P0, Epoch(1), EntryId::ZERO, ROOM);
    assert_eq!(entries(&told).3, [id(1)]);
    reader.ask(P0, Epoch(1), id(1), ROOM);
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

/// Bytes of the next delivery of entries, how many there are, and the last id.
fn next(told: &Receiver<Delivery>) -> (usize, usize, EntryId) {
    loop {
        if let Delivery::Entries { entries, .. } = told.recv_timeout(LONG).expect("a delivery") {
            let values = entries.iter().flat_map(|entry| &entry.fields);
            let bytes = values.map(|(name, value)| name.len() + value.len()).sum();
            let last = entries.last().expect("at least one").id;
            return (bytes, entries.len(), last);
        }
    }
}

fn append(real: &mut RealSubject, bytes: usize, entries: usize) {
    let content = || Content::new("k", vec![b'x'; bytes], Vec::new(), 1 << 20).unwrap();
    let request = |contents| {
        Request::Append(Append {
            stream: stream_id("orders"),
            uid: "uid-1".parse().unwrap(),
            partition: P0,
            messages: contents,
        })
    };
    // As few in one script as their bytes allow.
    let at_once = (1 << 20) / bytes.max(4_096);
    let mut left = entries;
    while left > 0 {
        let contents: Vec<_> = (0..left.min(at_once)).map(|_| content()).collect();
        left -= contents.len();
        let reply = real.execute(request(contents));
        assert!(
            matches!(reply, Ok(Reply::Append(AppendReply::Appended { .. }))),
            "{reply:?}"
        );
    }
}

#[test]
fn however_entries_turn_from_small_to_large_a_reply_is_no_larger_than_its_room() {
    const ROOM: usize = 4 << 20;
    const LARGE: usize = 900_000;
    let mut real = RealSubject::default();
    Scene::new(&mut real, 1, 10_000);
    append(&mut real, 100, 1_500);
    let (reader, told) = reader(&real);
    let (mut after, mut seen) = (EntryId::ZERO, 0);
    while seen < 1_500 {
        reader.ask(P0, Epoch(1), after, ROOM);
        let (_, entries, last) = next(&told);
        (after, seen) = (last, seen + entries);
    }
    assert!(seen == 1_500, "small ones come in large replies");
    // Nobody asks meanwhile: the reader has only seen small ones.
    append(&mut real, 100, 500);
    append(&mut real, LARGE, 30);
    let mut replies = 0;
    while seen < 2_030 {
        reader.ask(P0, Epoch(1), after, ROOM);
        let (bytes, entries, last) = next(&told);
        assert!(bytes <= ROOM, "{entries} entries have {bytes} bytes");
        (after, seen, replies) = (last, seen + entries, replies + 1);
    }
    assert!(replies >= 30 * LARGE / ROOM);
    // Without room for one there is one.
    reader.ask(P0, Epoch(1), EntryId::ZERO, 0);
    assert_eq!(next(&told).1, 1);
}

#[test]
fn a_large_entry_among_small_ones_makes_replies_no_smaller_than_they_must_be() {
    const ROOM: usize = 4 << 20;
    let mut real = RealSubject::default();
    Scene::new(&mut real, 1, 10_000);
    append(&mut real, 900_000, 1);
    append(&mut real, 100, 3_000);
    append(&mut real, 900_000, 9);
    let (reader, told) = reader(&real);
    let (mut after, mut seen, mut replies) = (EntryId::ZERO, 0, 0);
    while seen < 3_010 {
        reader.ask(P0, Epoch(1), after, ROOM);
        let (bytes, entries, last) = next(&told);
        assert!(bytes <= ROOM, "{entries} entries have {bytes} bytes");
        (after, seen, replies) = (last, seen + entries, replies + 1);
    }
    // Four of the largest at once would make 750 of it.
    assert!(replies <= 20, "{replies} replies");
    // With nothing there it blocks, and is woken.
    reader.ask(P0, Epoch(1), after, ROOM);
    append(&mut real, 100, 1);
    assert_eq!(next(&told).1, 1);
}

#[test]
fn where_nobody_keeps_how_large_entries_are_they_are_bounded_once_a_large_one_was_seen() {
    const ROOM: usize = 4 << 20;
    let mut real = RealSubject::default();
    Scene::new(&mut real, 1, 10_000);
    // As something else than append writes them.
    for ms in 1..=600 {
        let fields = vec![
            (b"k".to_vec(), b"v".to_vec()),
            (b"p".to_vec(), vec![b'x'; 100_000]),
        ];
        real.add(&stream_id("orders"), P0, id(ms), fields);
    }
    let (reader, told) = reader(&real);
    let (mut after, mut seen, mut first) = (EntryId::ZERO, 0, None);
    while seen < 600 {
        reader.ask(P0, Epoch(1), after, ROOM);
        let (bytes, entries, last) = next(&told);
        // The worst case: as many as there were room for if each had 8 KiB.
        let bound = first.map_or(ROOM / (8 << 10), |_| ROOM / 100_000);
        first.get_or_insert(entries);
        assert!(entries <= bound, "{entries} entries have {bytes} bytes");
        (after, seen) = (last, seen + entries);
    }
}
