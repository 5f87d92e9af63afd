//! A short run of chaos: every kind of fault once, with a short session timeout. The long ones are
//! `cargo xtask chaos`.

use std::time::Duration;

use segmenter_tests::chaos::{self, Kind, Settings};

fn run(seed: u64, seconds: u64, kinds: &[Kind]) {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings {
        seed,
        seconds,
        partitions: 8,
        rate: 800,
        session: Duration::from_millis(700),
        kinds: kinds.to_vec(),
        folder: folder.path().join("chaos"),
    };
    let report = chaos::run(&settings, &|what| println!("{what}")).expect("it runs");
    let table = report.table();
    if !report.held() {
        // The hosts' logs are what a defect is found in.
        panic!("seed {seed}: see {}\n{table}", folder.keep().display());
    }
    for kind in kinds {
        assert!(report.faults.contains_key(kind), "{}: {table}", kind.name());
    }
    println!("{table}");
}

#[test]
fn hosts_die_pause_and_leave() {
    run(1, 16, &[Kind::Kill, Kind::Revive, Kind::Pause, Kind::Churn]);
}

#[test]
fn the_network_and_redis_fail() {
    run(
        2,
        14,
        &[Kind::Redis, Kind::Delay, Kind::Cut, Kind::Blackhole],
    );
}
