//! The group member alone.

use segmenter_core::member::{Command, Config, Event, Exit, Member, Standing};
use segmenter_core::names::{Partition, StreamId};
use segmenter_core::port::{Failure, Sync, SyncKind, SyncReply};
use segmenter_core::time::{Duration, Time};

struct Driver {
    member: Member,
    now: Time,
}

impl Driver {
    fn new() -> Driver {
        let config = Config {
            stream: StreamId {
                namespace: "ns".parse().unwrap(),
                stream: "s".parse().unwrap(),
            },
            uid: "u".parse().unwrap(),
            group: "g".parse().unwrap(),
            member: "m".parse().unwrap(),
            incarnation: "i".parse().unwrap(),
            partitions: 2,
            session_timeout: Duration::from_secs(3),
            seed: 1,
        };
        let now = Time(10_000_000);
        Driver {
            member: Member::new(config, now),
            now,
        }
    }
    fn active() -> Driver {
        let mut d = Driver::new();
        d.the_sync();
        d.answer(true, None);
        assert_eq!(
            d.commands(),
            [
                Command::Now(Standing::Active { generation: 1 }),
                Command::Assign(Partition(0)),
                Command::Assign(Partition(1)),
            ]
        );
        d
    }
    fn commands(&mut self) -> Vec<Command> {
        std::iter::from_fn(|| self.member.poll(self.now)).collect()
    }
    fn the_sync(&mut self) -> Sync {
        let commands = self.commands();
        match &commands[..] {
            [Command::Sync(sync)] => sync.clone(),
            _ => panic!("{commands:?}"),
        }
    }
    fn event(&mut self, event: Event) {
        self.member.handle(self.now, event);
    }
    fn answer(&mut self, active: bool, next_expiry: Option<Duration>) {
        let reply = SyncReply::Member {
            generation: 1,
            active,
            members: 1,
            next_expiry,
        };
        self.event(Event::Synced(Ok(reply)));
    }
    fn pass(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
    }
}

#[test]
fn it_joins_then_beats_at_a_third_of_the_session_timeout_with_rising_counters() {
    let mut d = Driver::new();
    let join = d.the_sync();
    assert_eq!((join.kind, join.counter), (SyncKind::Join, 1));
    d.answer(true, None);
    d.commands();
    assert_eq!(
        d.member.poll_timeout(),
        Some(d.now + Duration::from_secs(1))
    );
    d.pass(1_000);
    let beat = d.the_sync();
    assert_eq!((beat.kind, beat.counter), (SyncKind::Heartbeat, 2));
    assert_eq!(d.commands(), [], "one sync in the air");
}

#[test]
fn trust_counts_from_the_start_of_the_sync_and_ends_before_the_session_can() {
    let mut d = Driver::new();
    let started = d.now;
    d.the_sync();
    d.pass(900);
    assert_eq!(d.member.trust_until(), Time::ZERO);
    d.answer(true, None);
    let trust = d.member.trust_until();
    assert!(
        trust > started && trust < started + Duration::from_secs(3),
        "{trust:?}"
    );
    d.commands();
    d.pass(1_000);
    d.the_sync();
    d.event(Event::Synced(Err(Failure::Unknown("cut".to_owned()))));
    assert_eq!(
        d.member.trust_until(),
        trust,
        "an unanswered sync gives no trust"
    );
}

#[test]
fn a_standby_takes_everything_when_it_becomes_active_and_gives_it_back_after() {
    let mut d = Driver::new();
    d.the_sync();
    d.answer(false, Some(Duration::from_millis(700)));
    assert_eq!(
        d.commands(),
        [Command::Now(Standing::Standby { generation: 1 })]
    );
    assert_eq!(
        d.member.poll_timeout(),
        Some(d.now + Duration::from_millis(700)),
        "it syncs at the moment when the active one may expire"
    );
    d.pass(700);
    d.the_sync();
    d.answer(true, None);
    assert_eq!(d.commands().len(), 3);
    d.pass(1_000);
    d.the_sync();
    d.answer(false, None);
    let said = d.commands();
    assert!(
        said.contains(&Command::Revoke(Partition(0)))
            && said.contains(&Command::Revoke(Partition(1)))
    );
}

#[test]
fn a_lost_partition_comes_back_only_by_a_sync_that_began_after_the_loss() {
    let mut d = Driver::active();
    d.pass(1_000);
    d.the_sync();
    d.event(Event::Dropped(Partition(1)));
    d.answer(true, None);
    let said = d.commands();
    assert!(
        matches!(&said[..], [Command::Sync(_)]),
        "the sync in the air began before; another one follows at once: {said:?}"
    );
    d.answer(true, None);
    assert_eq!(d.commands(), [Command::Assign(Partition(1))]);
}

#[test]
fn expelled_it_stops_calls_and_joins_again() {
    let mut d = Driver::active();
    d.pass(1_000);
    d.the_sync();
    d.event(Event::Synced(Ok(SyncReply::Unknown)));
    assert_eq!(d.member.trust_until(), Time::ZERO);
    let said = d.commands();
    assert_eq!(said[0], Command::Now(Standing::Outside));
    assert!(
        said.iter()
            .any(|c| matches!(c, Command::Sync(s) if s.kind == SyncKind::Join)),
        "{said:?}"
    );
    assert!(said.contains(&Command::Verify), "{said:?}");
}

#[test]
fn superseded_or_without_a_stream_it_exits_and_says_no_more() {
    for (reply, exit) in [
        (SyncReply::Superseded, Exit::Superseded),
        (SyncReply::StreamGone, Exit::StreamGone),
    ] {
        let mut d = Driver::active();
        d.pass(1_000);
        d.the_sync();
        d.event(Event::Synced(Ok(reply)));
        assert_eq!(d.commands(), [Command::Exit(exit)]);
        d.pass(100_000);
        assert_eq!(d.commands(), []);
        assert_eq!(d.member.poll_timeout(), None);
    }
}

#[test]
fn leases_are_verified_once_per_session_timeout_on_news_and_after_a_failure() {
    let mut d = Driver::active();
    d.event(Event::News);
    let said = d.commands();
    assert!(said.contains(&Command::Verify) && said.iter().any(|c| matches!(c, Command::Sync(_))));
    d.event(Event::Verified);
    d.event(Event::Synced(Err(Failure::NotDone("away".to_owned()))));
    assert_eq!(d.commands(), []);
    d.pass(1_000);
    d.the_sync();
    d.answer(true, None);
    assert_eq!(d.commands(), [Command::Verify], "Redis was away");
    d.event(Event::Verified);
    d.pass(3_000);
    assert!(
        d.commands().contains(&Command::Verify),
        "a session timeout passed"
    );
}

#[test]
fn it_drains_everything_before_it_leaves_and_beats_meanwhile() {
    let mut d = Driver::active();
    d.event(Event::Leave);
    assert_eq!(
        d.commands(),
        [Command::Revoke(Partition(0)), Command::Revoke(Partition(1))]
    );
    d.pass(1_000);
    assert_eq!(d.the_sync().kind, SyncKind::Heartbeat);
    d.answer(true, None);
    d.event(Event::Dropped(Partition(0)));
    assert_eq!(d.commands(), []);
    d.event(Event::Dropped(Partition(1)));
    assert_eq!(d.the_sync().kind, SyncKind::Leave);
    d.event(Event::Synced(Ok(SyncReply::Left)));
    assert_eq!(d.commands(), [Command::Exit(Exit::Left)]);
}
