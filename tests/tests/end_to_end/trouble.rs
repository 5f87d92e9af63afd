//! Redis in trouble: emptied, out of memory, read-only, without its master, loading, a cluster without all
//! of its slots. Hosts wait it out, say so once, and go on where the lease says.

use segmenter_tests::process::{Host, guest, until};
use segmenter_tests::server::Options;

use crate::support::{World, judge};

fn tally(world: &World) -> Host {
    let tally = guest("tally");
    Host::start(
        &world.url,
        &[tally.to_str().unwrap(), "--stream", "s", "--group", "g"],
    )
}

/// One plain command.
fn command(world: &World, parts: &[&str]) {
    let mut command = redis::cmd(parts[0]);
    for part in &parts[1..] {
        command.arg(part);
    }
    let answer: redis::RedisResult<redis::Value> = command.query(&mut world.redis());
    answer.unwrap_or_else(|e| panic!("{parts:?}: {e}"));
}

/// Lines of both that Redis is away, or back.
fn said(host: &Host, event: &str) -> usize {
    let mark = format!(r#""event":"{event}""#);
    host.said()
        .iter()
        .filter(|line| line.contains(&mark))
        .count()
}

/// The same for every kind of refusal: before, then `trouble`, messages that cannot be sent meanwhile,
/// then `mended`, and everything goes on with the same process and without a loss.
fn waited_out(world: &World, trouble: impl Fn(&World), mended: impl Fn(&World)) {
    let mut host = tally(world);
    let mut sent = world.send_numbered(200, 20);
    world.until_acked(1, "g");
    trouble(world);
    host.event("redis_away");
    mended(world);
    host.event("redis_back");
    sent.extend(world.send_numbered(200, 20));
    world.until_acked(1, "g");
    let (away, back) = (said(&host, "redis_away"), said(&host, "redis_back"));
    assert_eq!((away, back), (1, 1), "one line per change of state");
    let judgement = judge(&sent, &host.stop());
    assert_eq!(
        (judgement.lost, judgement.out_of_order, judgement.duplicates),
        (0, 0, 0),
        "{judgement:?}"
    );
}

#[test]
fn a_redis_that_became_a_read_only_replica_is_waited_out() {
    let world = World::with_stream(1, 10_000);
    waited_out(
        &world,
        |world| command(world, &["REPLICAOF", "127.0.0.1", "1"]),
        |world| command(world, &["REPLICAOF", "NO", "ONE"]),
    );
}

#[test]
fn a_replica_without_its_master_is_waited_out() {
    let world = World::with_stream(1, 10_000);
    command(&world, &["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    waited_out(
        &world,
        |world| command(world, &["REPLICAOF", "127.0.0.1", "1"]),
        |world| command(world, &["REPLICAOF", "NO", "ONE"]),
    );
}

#[test]
fn a_cluster_that_lacks_a_slot_is_waited_out() {
    let world = World::with(Options {
        more: vec!["--cluster-enabled".to_owned(), "yes".to_owned()],
        ..Options::default()
    });
    command(&world, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    until("the cluster is up", || {
        let info: String = redis::cmd("CLUSTER")
            .arg("INFO")
            .query(&mut world.redis())
            .expect("CLUSTER INFO");
        info.contains("cluster_state:ok").then_some(())
    });
    world.create("s", 1, 10_000);
    let unused = slot_that_no_key_has(&world);
    waited_out(
        &world,
        |world| command(world, &["CLUSTER", "DELSLOTS", &unused]),
        |world| command(world, &["CLUSTER", "ADDSLOTS", &unused]),
    );
}

fn slot_that_no_key_has(world: &World) -> String {
    let used = |slot: u32| -> u64 {
        redis::cmd("CLUSTER")
            .arg("COUNTKEYSINSLOT")
            .arg(slot)
            .query(&mut world.redis())
            .expect("COUNTKEYSINSLOT")
    };
    let free = (0..16_384).find(|slot| used(*slot) == 0);
    free.expect("few keys in many slots").to_string()
}

#[test]
fn a_redis_that_loads_its_data_is_waited_out() {
    let mut world = World::with(Options {
        appendonly: true,
        // 10 ms for each key while it loads: seconds for a few hundred.
        more: vec!["--key-load-delay".to_owned(), "10000".to_owned()],
        ..Options::default()
    });
    world.create("s", 1, 10_000);
    let mut connection = world.redis();
    for n in 0..200 {
        let _: () = redis::cmd("SET")
            .arg(format!("other-{n}"))
            .arg(n)
            .query(&mut connection)
            .expect("SET");
    }
    let mut host = tally(&world);
    let mut sent = world.send_numbered(200, 20);
    world.until_acked(1, "g");
    world.server.restart();
    host.event("redis_back");
    sent.extend(world.send_numbered(200, 20));
    world.until_acked(1, "g");
    let judgement = judge(&sent, &host.stop());
    assert_eq!(
        (judgement.lost, judgement.out_of_order),
        (0, 0),
        "{judgement:?}"
    );
}

#[test]
fn out_of_memory_acks_trims_and_heartbeats_go_on_and_free_it() {
    let world = World::with_stream(1, 10_000);
    let sent = world.send_numbered(2_000, 20);
    command(&world, &["CONFIG", "SET", "maxmemory", "1"]);
    // Without a byte to spare it joins, creates its group, takes its lease, handles and acks.
    let host = tally(&world);
    world.until_acked(1, "g");
    let refused = world.run(&[
        "send",
        "s",
        "--key",
        "k",
        "--full-timeout",
        "1ms",
        "payload",
    ]);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("memory"), "{refused:?}");
    assert_eq!(said(&host, "redis_away"), 0, "Redis served it all the time");
    until("what is acked is trimmed", || {
        let length: u64 = redis::cmd("XLEN")
            .arg("seg:{default/s/0}:log")
            .query(&mut world.redis())
            .expect("XLEN");
        (length < 2_000).then_some(())
    });
    command(&world, &["CONFIG", "SET", "maxmemory", "0"]);
    let judgement = judge(&sent, &host.stop());
    assert_eq!(
        (judgement.lost, judgement.out_of_order, judgement.duplicates),
        (0, 0, 0),
        "{judgement:?}"
    );
}

#[test]
fn a_redis_that_comes_back_empty_is_said_loudly_and_registered_anew_and_members_find_each_other() {
    let mut world = World::new();
    let path = world.server.dir().join("segmenter.toml");
    let module = guest("tally");
    let text = format!(
        r#"
        [[stream]]
        name = "s"
        partitions = 4
        capacity = 10_000
        [[handler]]
        name = "tally"
        stream = "s"
        group = "g"
        module = "{}"
        start = "end"
        session_timeout = "1s"
        "#,
        module.display()
    );
    std::fs::write(&path, text).expect("a file");
    let args = ["-c", path.to_str().unwrap()];
    let (mut first, mut second) = (
        Host::start(&world.url, &args),
        Host::start(&world.url, &args),
    );
    world.until_shared(&[2, 2]);
    world.send_numbered(400, 40);
    world.until_acked(4, "g");
    // What is acked was said before, but perhaps not read by us yet.
    let before = until("everything is read", || {
        let said = first.guest_lines().len() + second.guest_lines().len();
        (said == 400).then_some(said)
    });
    world.server.restart();
    // A producer may be faster than every host: what it sends is handled all the same.
    until("the stream is there again", || {
        let args = ["--format", "json", "stream", "list"];
        let listed = world.run(&args);
        (listed.code() == Some(0) && !listed.objects().is_empty()).then_some(())
    });
    let sent = world.send_numbered(400, 40);
    world.until_acked(4, "g");
    world.until_shared(&[2, 2]);
    for host in [&mut first, &mut second] {
        host.event("database_lost");
    }
    let mut lines = first.stop();
    lines.extend(second.stop());
    lines.sort_by_key(|line| line.at_us);
    let after = lines.split_off(before);
    let judgement = judge(&sent, &after);
    assert_eq!(
        (judgement.lost, judgement.out_of_order, judgement.duplicates),
        (0, 0, 0),
        "{judgement:?}"
    );
}

#[test]
fn a_redis_that_went_back_to_before_the_group_was_made_gets_it_again_from_the_beginning() {
    let mut world = World::with_stream(1, 10_000);
    let sent = world.send_numbered(100, 10);
    command(&world, &["SAVE"]);
    let mut host = tally(&world);
    world.until_acked(1, "g");
    let before = until("everything is read", || {
        let said = host.guest_lines().len();
        (said == 100).then_some(said)
    });
    world.server.restart();
    host.event("database_lost");
    until("all is handled again", || {
        (host.guest_lines().len() == 2 * before).then_some(())
    });
    world.until_acked(1, "g");
    let again = host.stop().split_off(before);
    let judgement = judge(&sent, &again);
    assert_eq!(
        (judgement.lost, judgement.out_of_order, judgement.duplicates),
        (0, 0, 0),
        "{judgement:?}"
    );
}

#[test]
fn a_stream_that_no_configuration_registers_is_not_invented_after_a_loss() {
    let mut world = World::with_stream(1, 10);
    let mut host = tally(&world);
    world.server.restart();
    assert_eq!(host.ended().code(), Some(1));
    let said = host.said().join("\n");
    assert!(
        said.contains("started again without stream default/s"),
        "{said}"
    );
    let listed = world.run(&["--format", "json", "stream", "list"]).ok();
    assert!(listed.objects().is_empty());
}
