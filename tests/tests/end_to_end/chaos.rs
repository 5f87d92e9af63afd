//! A short run of chaos: every kind of fault once, with a short session timeout; and one without the fence,
//! which must fail. The long ones are `cargo xtask chaos`.

use std::time::Duration;

use segmenter_tests::chaos::{self, Kind, Report, Settings};

fn report(
    seed: u64,
    seconds: u64,
    kinds: &[Kind],
    without_fence: bool,
) -> (Report, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings {
        seed,
        seconds,
        partitions: 8,
        rate: 800,
        session: Duration::from_millis(700),
        kinds: kinds.to_vec(),
        without_fence,
        folder: folder.path().join("chaos"),
    };
    let report = chaos::run(&settings, &|what| println!("{what}")).expect("it runs");
    (report, folder)
}

fn run(seed: u64, seconds: u64, kinds: &[Kind]) {
    let (report, folder) = report(seed, seconds, kinds, false);
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
        18,
        &[
            Kind::Redis,
            Kind::Delay,
            Kind::Cut,
            Kind::Blackhole,
            Kind::Late,
        ],
    );
}

#[test]
fn without_the_fence_it_fails() {
    let (report, _) = report(1, 6, &[Kind::Late], true);
    assert!(report.noticed(), "{}", report.table());
    assert!(!report.held(), "{}", report.table());
}
