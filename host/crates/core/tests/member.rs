//! The group member alone.

use segmenter_core::member::{Command, Config, Event, Exit, Member, News, Standing};
use segmenter_core::names::{Partition, StreamId};
use segmenter_core::partition_set::PartitionSet;
use segmenter_core::port::{
    Duty, Failure, Install, InstallReply, Membership, Sync, SyncKind, SyncReply,
};
use segmenter_core::time::{Duration, Time};

struct Driver {
    member: Member,
    now: Time,
}

fn set(text: &str) -> PartitionSet {
    text.parse().unwrap()
}

/// An answer that tells nothing new.
fn quiet() -> Membership {
    Membership {
        generation: 1,
        members: 1,
        assignment: None,
        granted: PartitionSet::new(),
        tell_owned: false,
        duty: None,
        next_expiry: None,
    }
}

fn given(assignment: &str, granted: &str) -> Membership {
    Membership {
        assignment: Some(set(assignment)),
        granted: set(granted),
        ..quiet()
    }
}

fn stands(assignment: &str) -> Command {
    Command::Now(Standing::Member {
        generation: 1,
        members: 1,
        assignment: set(assignment),
    })
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
    /// With both partitions.
    fn holding() -> Driver {
        let mut d = Driver::new();
        d.the_sync();
        d.answer(given("0-1", "0-1"));
        assert_eq!(
            d.commands(),
            [
                stands("0-1"),
                Command::Assign(Partition(0)),
                Command::Assign(Partition(1)),
            ]
        );
        d
    }
    fn commands(&mut self) -> Vec<Command> {
        std::iter::from_fn(|| self.member.poll(self.now)).collect()
    }
    /// The only thing it asks for, but for a look at its leases, which is answered.
    fn the_sync(&mut self) -> Sync {
        let mut commands = self.commands();
        if commands.last() == Some(&Command::Verify) {
            commands.pop();
            self.event(Event::Verified);
        }
        match &commands[..] {
            [Command::Sync(sync)] => sync.clone(),
            _ => panic!("{commands:?}"),
        }
    }
    fn event(&mut self, event: Event) {
        self.member.handle(self.now, event);
    }
    fn dropped(&mut self, partition: u32) {
        self.event(Event::Dropped {
            partition: Partition(partition),
            refuse: false,
        });
    }
    fn answer(&mut self, reply: Membership) {
        self.event(Event::Synced(Ok(SyncReply::Member(reply))));
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
    d.answer(quiet());
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
    d.answer(quiet());
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
fn what_it_has_travels_whole_until_the_coordinator_surely_knows_it_then_as_a_digest() {
    let mut d = Driver::holding();
    d.pass(1_000);
    let sync = d.the_sync();
    assert_eq!(
        (sync.owned, sync.owned_digest),
        (Some(set("0-1")), set("0-1").digest())
    );
    d.answer(quiet());
    d.pass(1_000);
    assert_eq!(d.the_sync().owned, None);
    d.event(Event::Synced(Err(Failure::Unknown("cut".to_owned()))));
    d.pass(1_000);
    assert_eq!(d.the_sync().owned, Some(set("0-1")), "an answer was lost");
    d.answer(quiet());
    d.pass(1_000);
    assert_eq!(d.the_sync().owned, None);
    d.answer(Membership {
        tell_owned: true,
        ..quiet()
    });
    assert_eq!(d.the_sync().owned, Some(set("0-1")), "asked for, at once");
}

#[test]
fn what_is_not_assigned_any_more_is_given_back_and_reported_when_it_is() {
    let mut d = Driver::holding();
    d.event(Event::News(News::Assigned));
    assert!(!d.the_sync().wants);
    d.answer(given("0", ""));
    assert_eq!(d.commands(), [stands("0"), Command::Revoke(Partition(1))]);
    d.pass(1_000);
    assert_eq!(d.the_sync().owned, None, "it still has both");
    d.answer(quiet());
    assert_eq!(d.commands(), [], "told once");
    d.dropped(1);
    assert_eq!(d.the_sync().owned, Some(set("0")));
}

#[test]
fn what_is_assigned_and_not_granted_is_waited_for() {
    let mut d = Driver::new();
    d.the_sync();
    d.answer(given("0-1", "0"));
    assert_eq!(d.commands(), [stands("0-1"), Command::Assign(Partition(0))]);
    d.event(Event::News(News::Released(set("0"))));
    assert_eq!(d.commands(), [], "it does not wait for that one");
    d.event(Event::News(News::Released(set("1-5"))));
    assert!(d.the_sync().wants);
    d.answer(Membership {
        granted: set("1"),
        ..quiet()
    });
    assert_eq!(d.commands(), [Command::Assign(Partition(1))]);
}

/// Its answer comes by another connection than the news, and later: without a further sync, what moves
/// would stand still until the next heartbeat.
#[test]
fn what_is_released_while_the_sync_that_assigns_it_is_in_the_air_is_not_missed() {
    let mut d = Driver::new();
    d.the_sync();
    d.answer(given("0", "0"));
    d.commands();
    d.event(Event::News(News::Assigned));
    d.the_sync();
    d.event(Event::News(News::Released(set("1"))));
    assert_eq!(d.commands(), [], "one sync at a time");
    d.answer(given("0-1", ""));
    let commands = d.commands();
    assert_eq!(commands[0], stands("0-1"));
    assert!(
        matches!(&commands[1..], [Command::Sync(sync)] if sync.wants),
        "{commands:?}"
    );
    d.answer(Membership {
        granted: set("1"),
        ..quiet()
    });
    assert_eq!(d.commands(), [Command::Assign(Partition(1))]);
}

#[test]
fn a_lost_partition_comes_back_only_by_a_sync_that_began_after_the_loss() {
    let mut d = Driver::holding();
    d.pass(1_000);
    assert_eq!(d.the_sync().owned, Some(set("0-1")));
    d.dropped(1);
    d.answer(quiet());
    let sync = d.the_sync();
    assert_eq!((sync.owned, sync.wants), (Some(set("0")), true));
    d.answer(Membership {
        granted: set("1"),
        ..quiet()
    });
    assert_eq!(d.commands(), [Command::Assign(Partition(1))]);
}

#[test]
fn on_duty_it_computes_an_assignment_installs_it_and_syncs() {
    let mut d = Driver::new();
    d.the_sync();
    let candidates = vec![segmenter_core::assignor::Candidate {
        member: "m".parse().unwrap(),
        draining: false,
        previous: PartitionSet::new(),
        owned: PartitionSet::new(),
        refused: PartitionSet::new(),
    }];
    d.answer(Membership {
        duty: Some(Duty {
            why: "m joined".to_owned(),
            candidates,
        }),
        ..quiet()
    });
    let said = d.commands();
    let [
        Command::Now(_),
        Command::Install(Install {
            generation: 1,
            assignment,
            ..
        }),
    ] = &said[..]
    else {
        panic!("{said:?}");
    };
    assert_eq!(assignment[&"m".parse().unwrap()], set("0-1"));
    d.event(Event::Installed(Ok(InstallReply::Installed)));
    let said = d.commands();
    assert!(
        matches!(&said[..], [Command::Rebalanced { why, .. }, Command::Sync(_)] if why == "m joined"),
        "{said:?}"
    );
}

#[test]
fn a_partition_that_could_not_be_committed_to_is_asked_not_to_be_given_for_a_while() {
    let mut d = Driver::holding();
    d.event(Event::Dropped {
        partition: Partition(1),
        refuse: true,
    });
    let sync = d.the_sync();
    assert_eq!((sync.refused, sync.owned), (set("1"), Some(set("0"))));
    d.event(Event::Synced(Err(Failure::NotDone("away".to_owned()))));
    d.pass(40_000);
    assert_eq!(d.the_sync().refused, set(""));
    // Without a session it is not the partition's fault.
    d.event(Event::Dropped {
        partition: Partition(0),
        refuse: true,
    });
    d.answer(quiet());
    assert_eq!(d.the_sync().refused, set(""));
}

#[test]
fn expelled_it_stops_calls_and_joins_again_with_what_it_has() {
    let mut d = Driver::holding();
    d.pass(1_000);
    d.the_sync();
    d.event(Event::Synced(Ok(SyncReply::Unknown)));
    assert_eq!(d.member.trust_until(), Time::ZERO);
    let said = d.commands();
    assert_eq!(said[0], Command::Now(Standing::Outside));
    assert!(
        said.iter().any(
            |c| matches!(c, Command::Sync(s) if s.kind == SyncKind::Join && s.owned == Some(set("0-1")))
        ),
        "{said:?}"
    );
    assert!(said.contains(&Command::Verify), "{said:?}");
}

#[test]
fn superseded_without_a_stream_or_hanging_it_exits_and_says_no_more() {
    for (event, exit) in [
        (
            Event::Synced(Ok(SyncReply::Superseded)),
            Some(Exit::Superseded),
        ),
        (
            Event::Synced(Ok(SyncReply::StreamGone)),
            Some(Exit::StreamGone),
        ),
        (
            Event::Synced(Ok(SyncReply::GroupGone)),
            Some(Exit::GroupGone),
        ),
        (Event::Synced(Ok(SyncReply::Full)), None),
        (Event::Hung(Partition(1)), None),
    ] {
        let mut d = Driver::holding();
        d.pass(1_000);
        d.the_sync();
        d.event(event);
        let said = d.commands();
        match exit {
            Some(exit) => assert_eq!(said, [Command::Exit(exit)]),
            None => assert!(
                matches!(said[..], [Command::Exit(Exit::Fatal(_))]),
                "{said:?}"
            ),
        }
        d.pass(100_000);
        assert_eq!(d.commands(), []);
        assert_eq!(d.member.poll_timeout(), None);
    }
}

#[test]
fn leases_are_verified_once_per_session_timeout_on_news_and_after_a_failure() {
    let mut d = Driver::holding();
    d.event(Event::News(News::Changed));
    let said = d.commands();
    assert!(said.contains(&Command::Verify) && said.iter().any(|c| matches!(c, Command::Sync(_))));
    d.event(Event::Verified);
    d.event(Event::Synced(Err(Failure::NotDone("away".to_owned()))));
    assert_eq!(d.commands(), []);
    d.pass(1_000);
    d.the_sync();
    d.answer(quiet());
    assert_eq!(d.commands(), [Command::Verify], "Redis was away");
    d.event(Event::Verified);
    d.pass(3_000);
    assert!(
        d.commands().contains(&Command::Verify),
        "a session timeout passed"
    );
}

#[test]
fn it_says_that_it_leaves_drains_everything_and_beats_meanwhile() {
    let mut d = Driver::holding();
    d.event(Event::Leave);
    let said = d.commands();
    assert!(
        matches!(
            &said[..],
            [Command::Revoke(Partition(0)), Command::Revoke(Partition(1)), Command::Sync(s)]
                if s.kind == SyncKind::Heartbeat && s.draining && !s.wants
        ),
        "{said:?}"
    );
    d.answer(quiet());
    d.dropped(0);
    let sync = d.the_sync();
    assert_eq!(
        (sync.kind, sync.owned),
        (SyncKind::Heartbeat, Some(set("1")))
    );
    d.answer(Membership {
        granted: set("0"),
        ..quiet()
    });
    assert_eq!(d.commands(), [], "it takes nothing any more");
    d.dropped(1);
    assert_eq!(d.the_sync().kind, SyncKind::Leave);
    d.event(Event::Synced(Ok(SyncReply::Left)));
    assert_eq!(d.commands(), [Command::Exit(Exit::Left)]);
}
