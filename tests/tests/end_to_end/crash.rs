//! kill -9, and who takes over.

use std::time::Instant;

use segmenter_tests::process::{Host, guest, until};

use crate::support::{World, judge};

/// Messages in front of the acked ones that a crash may repeat: what one commit can cover, per
/// partition. With the log line written before the commit, nothing acked is ever missing a line.
#[test]
fn killed_in_the_middle_and_started_again_it_handles_everything_in_order() {
    const MESSAGES: usize = 20_000;
    let world = World::with_stream(4, 10_000);
    let sent = world.send_numbered(MESSAGES, 100);
    let tally = guest("tally");
    let args = [tally.to_str().unwrap(), "--stream", "s", "--group", "g"];
    let host = Host::start(&world.url, &args);
    until("a part is handled", || {
        (host.guest_lines().len() > MESSAGES / 10).then_some(())
    });
    let mut lines = host.kill();
    let before = judge(&sent, &lines);
    assert_eq!(before.duplicates, 0, "{before:?}");
    // What is acked now was handled before.
    let acked: usize = world
        .lag_and_pending(4, "g")
        .iter()
        .zip(0u64..)
        .map(|((lag, _), p)| {
            let in_partition = sent.iter().filter(|(partition, _)| *partition == p).count();
            in_partition - usize::try_from(lag.expect("known")).unwrap()
        })
        .sum();
    assert!(
        acked <= before.handled,
        "{acked} acked, {} handled",
        before.handled
    );
    let uncommitted = before.handled - acked;

    let started = Instant::now();
    let host = Host::start(&world.url, &args);
    until("it takes over", || {
        (!host.guest_lines().is_empty()).then_some(())
    });
    let takeover = started.elapsed();
    world.until_acked(4, "g");
    lines.extend(host.stop());
    let after = judge(&sent, &lines);
    assert_eq!(
        (after.handled, after.lost, after.out_of_order),
        (MESSAGES, 0, 0),
        "{after:?}"
    );
    assert!(
        after.duplicates <= uncommitted,
        "{after:?}: at most the {uncommitted} uncommitted ones"
    );
    println!(
        "took over {takeover:?} after the start; {} of {uncommitted} uncommitted repeated",
        after.duplicates
    );
}

#[test]
fn members_share_the_partitions_and_take_over_from_one_that_is_killed_or_leaves() {
    let world = World::with_stream(4, 10_000);
    let tally = guest("tally");
    let args = [tally.to_str().unwrap(), "--stream", "s", "--group", "g"];
    let mut sent = Vec::new();
    let mut lines = Vec::new();
    let first = Host::start(&world.url, &args);
    sent.extend(world.send_numbered(100, 10));
    world.until_acked(4, "g");
    let second = Host::start(&world.url, &args);
    let third = Host::start(&world.url, &args);
    world.until_shared(&[1, 1, 2]);
    sent.extend(world.send_numbered(100, 10));
    world.until_acked(4, "g");
    for host in [&second, &third] {
        assert!(!host.guest_lines().is_empty(), "each has a share");
    }
    lines.extend(first.kill());
    world.until_shared(&[2, 2]);
    sent.extend(world.send_numbered(100, 10));
    world.until_acked(4, "g");
    lines.extend(second.stop());
    world.until_shared(&[4]);
    sent.extend(world.send_numbered(100, 10));
    world.until_acked(4, "g");
    lines.extend(third.stop());
    lines.sort_by_key(|line| line.at_us);
    let judgement = judge(&sent, &lines);
    assert_eq!(
        (judgement.lost, judgement.out_of_order, judgement.duplicates),
        (0, 0, 0),
        "{judgement:?}"
    );
}

#[test]
fn a_start_with_the_same_member_id_supersedes_the_one_before() {
    let world = World::with_stream(2, 1_000);
    let tally = guest("tally");
    let args = [
        tally.to_str().unwrap(),
        "--stream",
        "s",
        "--group",
        "g",
        "--member",
        "host-1",
    ];
    let mut first = Host::start(&world.url, &args);
    let second = Host::start(&world.url, &args);
    assert_eq!(first.ended().code(), Some(1));
    let said = first.said().join("\n");
    assert!(said.contains("same member id"), "{said}");
    let sent = world.send_numbered(50, 5);
    world.until_acked(2, "g");
    assert_eq!(judge(&sent, &second.stop()).handled, 50);
}
