//! The partition consumer alone: what it asks for, and what it must never ask for.

use crate::support::*;
use segmenter_core::consumer::{Command, Config, Event, Exhausted, Phase};
use segmenter_core::effects::Effects;
use segmenter_core::lease::{Attempts, Epoch, LeaseView};
use segmenter_core::limits;
use segmenter_core::outcome::{Fault, Outcome};
use segmenter_core::port::{AcquireReply, CommitReply, Failure, ReleaseReply};
use segmenter_core::relay::Room;
use segmenter_core::time::{Duration, Time};

#[test]
fn a_partition_goes_from_acquire_over_consume_and_drain_to_released() {
    let mut c = Driver::new();
    c.event(Event::Assigned);
    assert_eq!(c.commands(), [acquire()]);
    c.acquired(7, 0);
    assert_eq!(c.commands(), [read(7, 0)]);
    c.entries(7, 0, &[1, 2]);
    let first = c.the_call();
    c.event(Event::Revoked);
    assert_eq!(c.drain_commands(), [], "the call in the air is waited for");
    c.handled(first, Outcome::Ok(Effects::default()));
    let commit = c.the_commit();
    assert_eq!(
        (commit.fence.from, commit.to, commit.read),
        (id(0), id(1), 1)
    );
    assert!(!commit.caught_up, "entry 2 is known");
    c.committed(7, 1);
    let released = c.commands();
    let [
        Command::StopReading,
        Command::DropInstance,
        Command::Release { fence },
    ] = &released[..]
    else {
        panic!("{released:?}");
    };
    assert_eq!((fence.epoch, fence.from), (Epoch(7), id(1)));
    assert_eq!(c.consumer.phase(), Phase::Releasing);
    c.event(Event::Released(Ok(ReleaseReply::Released)));
    assert!(c.consumer.is_idle());
}

#[test]
fn what_is_handled_while_a_commit_is_in_the_air_rides_in_the_next_one() {
    let mut c = Driver::consuming(&[1, 2, 3]);
    let call = c.the_call();
    c.handled(call, Outcome::Ok(Effects::default()));
    assert_eq!(c.the_commit().to, id(1));
    for expected in [2, 3] {
        let call = c.the_call();
        assert_eq!(call.id, id(expected));
        c.handled(call, Outcome::Ok(Effects::default()));
    }
    assert_eq!(c.drain_commands(), [], "no second commit in the air");
    c.committed(EPOCH, 1);
    let commit = c.the_commit();
    assert_eq!(
        (commit.fence.from, commit.to, commit.read),
        (id(1), id(3), 3)
    );
    assert!(commit.caught_up);
}

#[test]
fn a_retry_waits_in_place_and_counts_attempts() {
    let mut c = Driver::consuming(&[1, 2]);
    for attempt in 1..=3 {
        let call = c.the_call();
        assert_eq!((call.id, call.attempt), (id(1), attempt));
        let outcome = if attempt == 1 {
            Outcome::Broken {
                fault: Fault::Trap,
                reason: "trap".to_owned(),
            }
        } else {
            Outcome::Retry {
                at: 0,
                reason: "later".to_owned(),
                after: None,
            }
        };
        c.handled(call, outcome);
        let record = c.the_commit();
        assert_eq!(record.attempts.expect("it failed").failed, attempt);
        c.committed_at(id(0));
        assert_eq!(c.drain_commands(), [], "message 2 must not overtake");
        c.now = c
            .consumer
            .poll_timeout(c.now, FAR)
            .expect("a retry is due some time");
    }
    let call = c.the_call();
    c.handled(call, Outcome::Ok(Effects::default()));
    assert_eq!(c.the_call().attempt, 1, "attempts belong to one message");
}

#[test]
fn the_delay_that_a_handler_asks_for_wins() {
    let mut c = Driver::consuming(&[1]);
    let call = c.the_call();
    let after = Some(Duration::from_secs(77));
    c.handled(
        call,
        Outcome::Retry {
            at: 0,
            reason: String::new(),
            after,
        },
    );
    c.the_commit();
    c.committed_at(id(0));
    assert_eq!(
        c.consumer.poll_timeout(c.now, FAR),
        Some(c.now + Duration::from_secs(77))
    );
}

#[test]
fn a_reject_and_an_entry_of_another_shape_become_dead_letters_of_the_same_commit() {
    let mut c = Driver::consuming(&[1]);
    let call = c.the_call();
    c.drain_commands();
    c.event(Event::Entries {
        epoch: Epoch(EPOCH),
        after: id(1),
        entries: vec![foreign(2)],
    });
    assert_eq!(
        c.commands(),
        [read(EPOCH, 2)],
        "what is behind the running call waits"
    );
    c.handled(
        call,
        Outcome::Reject {
            at: 0,
            reason: "no".to_owned(),
        },
    );
    let commit = c.the_commit();
    let dead: Vec<_> = commit.dead.iter().map(|d| (d.id, d.attempts)).collect();
    assert_eq!((commit.to, dead), (id(2), vec![(id(1), 1), (id(2), 0)]));
    assert_eq!(commit.dead[1].fields, foreign(2).fields, "kept whole");
}

#[test]
fn no_more_dead_letters_pile_up_than_one_commit_carries() {
    let mut c = Driver::consuming(&[]);
    let entries = (1..=200).map(foreign).collect();
    c.event(Event::Entries {
        epoch: Epoch(EPOCH),
        after: id(0),
        entries,
    });
    let mut buried = 0;
    while buried < 200 {
        let commit = c.the_commit();
        assert!(commit.dead.len() <= limits::COMMIT_DEAD_MAX);
        buried += commit.dead.len();
        c.committed(EPOCH, commit.read);
    }
}

#[test]
fn what_was_read_in_another_epoch_or_from_another_position_is_discarded() {
    let mut c = Driver::consuming(&[]);
    c.entries(EPOCH - 1, 0, &[1]);
    c.entries(EPOCH, 5, &[6]);
    assert_eq!(c.commands(), []);
    c.entries(EPOCH, 0, &[1]);
    assert_eq!(c.the_call().id, id(1));
    c.entries(EPOCH, 0, &[1]);
    c.drain_commands();
    assert_eq!(c.commands(), [], "the same answer twice counts once");
}

#[test]
fn no_call_starts_after_the_trust_window_and_the_running_one_is_cancelled() {
    let mut c = Driver::consuming(&[1]);
    c.trust_until = c.now;
    assert!(c.drain_commands().is_empty());
    c.trust_until = c.now + Duration::from_secs(1);
    let call = c.the_call();
    assert_eq!(
        c.consumer.poll_timeout(c.now, c.trust_until),
        Some(c.trust_until)
    );
    c.now = c.trust_until;
    assert_eq!(c.commands(), [Command::CancelCall]);
    c.handled(call, Outcome::Cancelled);
    assert_eq!(c.commands(), []);
    c.trust_until = FAR;
    assert_eq!(c.the_call().attempt, 1, "a cancelled call is no attempt");
}

#[test]
fn a_fenced_commit_drops_everything_and_waits_for_a_sync() {
    let mut c = Driver::consuming(&[1, 2]);
    let call = c.the_call();
    c.handled(call, Outcome::Ok(Effects::default()));
    c.the_commit();
    let running = c.the_call();
    let result = Ok(CommitReply::Fenced { found: None });
    c.event(Event::Committed {
        epoch: Epoch(EPOCH),
        result,
    });
    let said = c.commands();
    assert!(matches!(
        &said[..],
        [
            Command::CancelCall,
            Command::StopReading,
            Command::DropInstance,
            Command::Lost { .. }
        ]
    ));
    c.event(Event::Assigned);
    c.now = c.now + Duration::from_secs(60);
    assert_eq!(
        c.commands(),
        [],
        "the old call must end before anything new begins"
    );
    c.handled(running, Outcome::Ok(Effects::default()));
    assert_eq!(c.commands(), [acquire()]);
    c.acquired(EPOCH + 1, 1);
    assert_eq!(
        c.commands(),
        [read(EPOCH + 1, 1)],
        "nothing of the old tenure counts"
    );
}

#[test]
fn a_commit_that_surely_did_nothing_is_sent_again_with_the_same_fence_and_letters() {
    let mut c = Driver::consuming(&[1]);
    let call = c.the_call();
    c.handled(
        call,
        Outcome::Reject {
            at: 0,
            reason: "no".to_owned(),
        },
    );
    let first = c.the_commit();
    let result = Err(Failure::NotDone("OOM".to_owned()));
    c.event(Event::Committed {
        epoch: Epoch(EPOCH),
        result,
    });
    assert_eq!(c.drain_commands(), []);
    c.now = c
        .consumer
        .poll_timeout(c.now, FAR)
        .expect("it will be tried again");
    let second = c.the_commit();
    assert_eq!(
        (first.fence, first.to, first.dead),
        (second.fence, second.to, second.dead)
    );
}

#[test]
fn a_commit_whose_answer_was_lost_is_never_sent_again() {
    let mut c = Driver::consuming(&[1]);
    let call = c.the_call();
    c.handled(call, Outcome::Ok(Effects::default()));
    c.the_commit();
    let result = Err(Failure::Unknown("cut".to_owned()));
    c.event(Event::Committed {
        epoch: Epoch(EPOCH),
        result,
    });
    assert!(matches!(c.commands().last(), Some(Command::Lost { .. })));
    c.now = c.now + Duration::from_secs(60);
    assert_eq!(c.commands(), [], "not before a sync says so");
}

#[test]
fn a_lease_that_differs_is_dropped_and_one_that_is_merely_ahead_is_not() {
    let view = |incarnation: &str, epoch, acked| {
        Some(LeaseView {
            incarnation: Some(incarnation.parse().unwrap()),
            epoch: Epoch(epoch),
            acked: id(acked),
            halt: None,
        })
    };
    for (found, lost) in [
        (view(INCARNATION, EPOCH, 1), false),
        (view(INCARNATION, EPOCH, 2), false),
        (view(INCARNATION, EPOCH, 3), true),
        (view(INCARNATION, EPOCH, 0), true),
        (view(INCARNATION, EPOCH + 1, 1), true),
        (view("other", EPOCH, 1), true),
        (None, true),
    ] {
        let mut c = Driver::consuming(&[1, 2]);
        let call = c.the_call();
        c.handled(call, Outcome::Ok(Effects::default()));
        c.the_commit();
        c.committed(EPOCH, 1);
        let call = c.the_call();
        c.handled(call, Outcome::Ok(Effects::default()));
        let claim = c.consumer.claim().expect("consuming");
        c.the_commit();
        c.event(Event::Verified {
            claim,
            found: found.clone(),
        });
        let said = c.drain_commands();
        let was_lost = said.iter().any(|c| matches!(c, Command::Lost { .. }));
        assert_eq!(was_lost, lost, "{found:?}: {said:?}");
    }
}

#[test]
fn a_group_that_is_gone_breaks_the_partition_with_a_reason() {
    let mut c = Driver::new();
    c.event(Event::Assigned);
    c.commands();
    c.event(Event::Acquired(Ok(AcquireReply::GroupGone)));
    assert!(
        matches!(&c.commands()[..], [Command::Broken { why }] if why.contains("group is gone"))
    );
    c.event(Event::Assigned);
    assert_eq!(c.commands(), [], "broken stays broken");
}

#[test]
fn entries_that_others_removed_are_counted() {
    let mut c = Driver::consuming(&[5]);
    let call = c.the_call();
    c.handled(call, Outcome::Ok(Effects::default()));
    assert!(c.the_commit().caught_up);
    c.committed(EPOCH, 5);
    assert_eq!(
        c.drain_commands().last(),
        Some(&Command::Vanished { entries: 4 })
    );
}

#[test]
fn a_revoke_while_an_acquire_is_in_the_air_gives_the_lease_back() {
    let mut c = Driver::new();
    c.event(Event::Assigned);
    c.commands();
    c.event(Event::Revoked);
    assert!(!c.consumer.is_idle());
    c.acquired(9, 4);
    assert!(matches!(c.commands().last(), Some(Command::Release { .. })));
    c.event(Event::Released(Ok(ReleaseReply::Fenced { found: None })));
    assert!(
        c.consumer.is_idle(),
        "someone else's by now is as good as released"
    );
}

#[test]
fn losing_again_and_again_is_no_hot_loop() {
    let mut c = Driver::new();
    let mut waits = Vec::new();
    for _ in 0..6 {
        c.event(Event::Assigned);
        let due = c
            .consumer
            .poll_timeout(c.now, FAR)
            .expect("an acquire is due");
        waits.push(due.max(c.now).since(c.now));
        c.now = c.now.max(due);
        assert_eq!(c.commands(), [acquire()]);
        c.event(Event::Acquired(Err(Failure::Unknown("cut".to_owned()))));
        c.drain_commands();
    }
    assert_eq!(waits[0], Duration::ZERO);
    assert!(waits[5] > waits[1] * 4, "{waits:?}");
    assert!(Time::ZERO < c.now);
}

fn halted_view(epoch: u64, acked: u64) -> Option<LeaseView> {
    Some(LeaseView {
        incarnation: None,
        epoch: Epoch(epoch),
        acked: id(acked),
        halt: Some("paused".to_owned()),
    })
}

fn halted(c: &mut Driver) {
    c.event(Event::Acquired(Ok(AcquireReply::Halted {
        reason: "paused".to_owned(),
        epoch: Epoch(EPOCH + 1),
        acked: id(0),
    })));
}

#[test]
fn a_halted_partition_is_dropped_and_waits_until_a_verify_finds_no_halt() {
    let mut c = Driver::consuming(&[1, 2]);
    c.the_call();
    let claim = c.consumer.claim().expect("consuming");
    c.event(Event::Verified {
        claim,
        found: halted_view(EPOCH + 1, 0),
    });
    let told = c.drain_commands();
    assert_eq!(
        told,
        [
            Command::CancelCall,
            Command::StopReading,
            Command::DropInstance,
            Command::Halted {
                reason: "paused".to_owned()
            }
        ],
        "it is not lost: no sync is needed"
    );
    assert_eq!(c.consumer.phase(), Phase::Halted);
    assert!(!c.consumer.is_idle(), "it is still this member's");
    assert_eq!(c.consumer.poll_timeout(c.now, FAR), None);
    let claim = c.consumer.claim().expect("a halted lease is verified, too");
    c.event(Event::Verified {
        claim,
        found: halted_view(EPOCH + 1, 0),
    });
    assert_eq!(c.commands(), [], "still halted, and said once");
    let mut found = halted_view(EPOCH + 2, 0);
    found.as_mut().expect("some").halt = None;
    c.event(Event::Verified { claim, found });
    assert_eq!(
        c.commands(),
        [],
        "the call that was cancelled is still in the air"
    );
    let message = segmenter_core::message::Message {
        id: id(1),
        partition: segmenter_core::names::Partition(3),
        attempt: 1,
        content: segmenter_core::message::Content::new("key", Vec::new(), Vec::new(), 1).unwrap(),
    };
    c.handled(message, Outcome::Cancelled);
    assert_eq!(c.commands(), [acquire()]);
    c.acquired(EPOCH + 3, 0);
    assert_eq!(c.commands(), [Command::Resumed, read(EPOCH + 3, 0)]);
}

#[test]
fn a_commit_that_meets_a_halt_is_fenced_into_it() {
    let mut c = Driver::consuming(&[1]);
    let call = c.the_call();
    c.handled(call, Outcome::Ok(Effects::default()));
    c.the_commit();
    c.event(Event::Committed {
        epoch: Epoch(EPOCH),
        result: Ok(CommitReply::Fenced {
            found: halted_view(EPOCH + 1, 0),
        }),
    });
    assert!(matches!(c.commands().last(), Some(Command::Halted { .. })));
    assert_eq!(c.consumer.phase(), Phase::Halted);
}

#[test]
fn an_acquire_of_a_halted_lease_takes_nothing_and_a_new_assignment_tries_again() {
    let mut c = Driver::new();
    for round in 0..3 {
        c.event(Event::Assigned);
        assert_eq!(c.commands(), [acquire()]);
        halted(&mut c);
        assert_eq!(c.commands().len(), usize::from(round == 0), "said once");
        assert_eq!(c.consumer.phase(), Phase::Halted);
    }
    c.event(Event::Revoked);
    assert_eq!(c.commands(), [], "nothing is held: nothing to release");
    assert!(c.consumer.is_idle());
}

#[test]
fn who_is_revoked_meanwhile_does_not_stay_with_a_halt() {
    let mut c = Driver::new();
    c.event(Event::Assigned);
    c.commands();
    c.event(Event::Revoked);
    halted(&mut c);
    assert!(c.consumer.is_idle(), "the answer came after the revoke");

    let mut c = Driver::consuming(&[1]);
    let call = c.the_call();
    c.event(Event::Revoked);
    c.handled(call, Outcome::Ok(Effects::default()));
    c.the_commit();
    c.event(Event::Committed {
        epoch: Epoch(EPOCH),
        result: Ok(CommitReply::Fenced {
            found: halted_view(EPOCH + 1, 0),
        }),
    });
    assert!(matches!(c.commands().last(), Some(Command::Lost { .. })));
    assert!(c.consumer.is_idle(), "the drain is over");
}

#[test]
fn what_is_for_another_group_is_acked_without_a_call() {
    let mut c = Driver::consuming(&[]);
    let only = |n: u64, group: &str| {
        let mut raw = ours(n);
        raw.fields.push((b"#g".to_vec(), group.as_bytes().to_vec()));
        raw
    };
    c.event(Event::Entries {
        epoch: Epoch(EPOCH),
        after: id(0),
        entries: vec![only(1, "audit"), only(2, "billing"), only(3, "audit")],
    });
    let commit = c.the_commit();
    assert_eq!((commit.to, commit.read, commit.dead.len()), (id(1), 1, 0));
    let call = c.the_call();
    assert_eq!(call.id, id(2));
    c.committed(EPOCH, 1);
    c.handled(call, Outcome::Ok(Effects::default()));
    let commit = c.the_commit();
    assert_eq!((commit.to, commit.read, commit.dead.len()), (id(3), 3, 0));
}

#[test]
fn with_a_full_outbox_the_next_message_waits_and_uses_no_attempt() {
    let mut c = Driver::consuming(&[1, 2, 3]);
    let call = c.the_call();
    let waits_for = None;
    c.event(Event::Outbox(Room::None { waits_for }));
    c.handled(call, Outcome::Ok(Effects::default()));
    // What was handled before is committed.
    assert_eq!(c.the_commit().to, id(1));
    c.committed(EPOCH, 1);
    c.now = c.now + Duration::from_secs(3600);
    assert_eq!(c.drain_commands(), []);
    assert_eq!(c.consumer.poll_timeout(c.now, FAR), None);
    let waits_for = None;
    c.event(Event::Outbox(Room::Little { waits_for }));
    let call = c.the_call();
    assert_eq!((call.id, call.attempt), (id(2), 1));
    c.handled(call, Outcome::Ok(Effects::default()));
    assert_eq!(c.the_commit().to, id(2));
    c.committed(EPOCH, 2);
    assert_eq!(c.drain_commands(), [], "one a second");
    let next = c.consumer.poll_timeout(c.now, FAR).expect("a wake");
    assert_eq!(next, c.now + segmenter_core::limits::OUTBOX_FULL_EVERY);
    c.event(Event::Outbox(Room::Free));
    assert_eq!(c.the_call().id, id(3));
}

/// Found by the simulator: seed 4294.
#[test]
fn a_partition_that_drains_waits_for_its_commit_without_a_hot_loop() {
    let mut c = Driver::consuming(&[1, 2]);
    let call = c.the_call();
    c.handled(call, Outcome::Ok(Effects::default()));
    c.event(Event::Revoked);
    let _in_the_air = c.the_commit();
    assert_eq!(c.drain_commands(), [], "2 is left to the next owner");
    assert_eq!(c.consumer.poll_timeout(c.now, c.trust_until), None);
}

fn failing() -> Outcome {
    Outcome::Retry {
        at: 0,
        reason: "no luck".to_owned(),
        after: None,
    }
}

fn policy(attempts: u32, exhausted: Exhausted) -> Driver {
    let mut c = Driver::with(Config {
        attempts,
        exhausted,
        ..config(INCARNATION)
    });
    c.event(Event::Assigned);
    assert_eq!(c.commands(), [acquire()]);
    c
}

fn take_over(c: &mut Driver, unreleased: bool, failed: Option<(u64, u32)>, entries: &[u64]) {
    c.event(Event::Acquired(Ok(AcquireReply::Acquired {
        epoch: Epoch(EPOCH),
        acked: id(0),
        read: 0,
        unreleased,
        attempts: failed.map(|(of, failed)| Attempts {
            id: id(of),
            failed,
            version: "v1".parse().unwrap(),
        }),
    })));
    assert_eq!(c.commands(), [read(EPOCH, 0)]);
    c.entries(EPOCH, 0, entries);
}

#[test]
fn a_failed_attempt_is_in_the_lease_before_the_next_one_begins() {
    let mut c = policy(3, Exhausted::DeadLetter);
    take_over(&mut c, false, None, &[1]);
    let call = c.the_call();
    c.handled(call, failing());
    c.pass(Duration::from_secs(60));
    let commit = c.the_commit();
    assert_eq!(
        (commit.to, commit.fence.from),
        (id(0), id(0)),
        "nothing is acked"
    );
    let attempts = commit.attempts.expect("recorded");
    assert_eq!((attempts.id, attempts.failed), (id(1), 1));
    assert_eq!(c.commands(), [], "not before that is answered");
    c.committed_at(id(0));
    assert_eq!(c.the_call().attempt, 2);
}

#[test]
fn the_last_attempt_that_fails_makes_a_dead_letter_and_the_next_message_goes_on() {
    let mut c = policy(2, Exhausted::DeadLetter);
    // One attempt was made by somebody else.
    take_over(&mut c, false, Some((1, 1)), &[1, 2]);
    let call = c.the_call();
    assert_eq!(call.attempt, 2);
    c.handled(call, failing());
    let commit = c.the_commit();
    assert_eq!(commit.to, id(1));
    assert_eq!(commit.dead.len(), 1);
    assert_eq!(
        (commit.dead[0].attempts, &*commit.dead[0].reason),
        (2, "no luck")
    );
    assert_eq!(commit.attempts, None);
    c.committed_at(id(1));
    let next = c.the_call();
    assert_eq!((next.id, next.attempt), (id(2), 1));
}

#[test]
fn or_it_halts_the_partition_with_what_was_settled_before() {
    let mut c = policy(1, Exhausted::Halt);
    take_over(&mut c, false, None, &[1, 2]);
    let first = c.the_call();
    c.handled(first, Outcome::Ok(Effects::default()));
    let commit = c.the_commit();
    let second = c.the_call();
    c.handled(second, failing());
    assert_eq!(c.commands(), [], "one commit in the air");
    c.committed_at(commit.to);
    let commit = c.the_commit();
    assert_eq!(commit.to, id(1));
    let why = commit.halt.expect("it halts");
    assert!(why.contains("message 2-0 failed 1 times: no luck"), "{why}");
    c.committed_at(id(1));
    let told = c.drain_commands();
    assert!(
        matches!(told.last(), Some(Command::Halted { reason }) if *reason == why),
        "{told:?}"
    );
    assert_eq!(c.consumer.phase(), Phase::Halted);
}

#[test]
fn after_a_takeover_from_one_that_did_not_release_each_message_commits_alone() {
    let mut c = policy(5, Exhausted::DeadLetter);
    take_over(&mut c, true, Some((1, 1)), &[1, 2]);
    let call = c.the_call();
    assert_eq!(call.attempt, 2, "the crash counts");
    c.handled(call, Outcome::Ok(Effects::default()));
    let commit = c.the_commit();
    assert_eq!(c.commands(), [], "2 is not called while 1 is not acked");
    c.committed_at(commit.to);
    assert_eq!(c.the_call().id, id(2));
}

#[test]
fn a_message_that_ended_its_hosts_too_often_is_not_called_again() {
    let mut c = policy(3, Exhausted::DeadLetter);
    take_over(&mut c, true, Some((1, 3)), &[1, 2]);
    let commit = c.the_commit();
    assert_eq!(commit.to, id(1));
    assert_eq!(commit.dead[0].attempts, 3);
    assert!(
        commit.dead[0].reason.contains("crashed"),
        "{}",
        commit.dead[0].reason
    );
}

#[test]
fn without_room_for_dead_letters_the_partition_halts_and_acks_nothing_of_them() {
    let mut c = policy(1, Exhausted::DeadLetter);
    take_over(&mut c, false, None, &[1]);
    let call = c.the_call();
    c.handled(call, failing());
    c.the_commit();
    c.event(Event::Committed {
        epoch: Epoch(EPOCH),
        result: Ok(CommitReply::DeadFull {
            entries: 7,
            bytes: 70,
        }),
    });
    let commit = c.the_commit();
    assert_eq!((commit.to, commit.read, commit.dead.len()), (id(0), 0, 0));
    assert!(commit.halt.expect("it halts").contains("7 letters"));
    c.committed_at(id(0));
    assert_eq!(c.consumer.phase(), Phase::Halted);
}

/// An entry that takes so many bytes in memory.
fn of_bytes(n: u64, bytes: usize) -> segmenter_core::entry::RawEntry {
    let mut raw = ours(n);
    let key = raw.fields[0].1.len();
    raw.fields[1].1 = vec![b'x'; bytes - key - limits::ENTRY_OVERHEAD_BYTES];
    raw
}

/// With a share of so many bytes; what is read first is in the air, with all of it as room.
fn sharing(share_bytes: usize) -> Driver {
    let mut c = Driver::with(Config {
        share_bytes,
        payload_max: 1 << 20,
        attempts: 1,
        ..config(INCARNATION)
    });
    c.event(Event::Assigned);
    c.commands();
    c.acquired(EPOCH, 0);
    assert_eq!(c.commands(), [read(EPOCH, 0)]);
    assert_eq!(c.room, share_bytes);
    c
}

fn entries_of(c: &mut Driver, after: u64, sizes: &[usize]) {
    let entries = (after + 1..)
        .zip(sizes)
        .map(|(n, bytes)| of_bytes(n, *bytes));
    c.event(Event::Entries {
        epoch: Epoch(EPOCH),
        after: id(after),
        entries: entries.collect(),
    });
}

#[test]
fn a_partition_reads_on_below_half_of_its_share_and_asks_for_no_more_than_the_rest() {
    let mut c = sharing(10_000);
    entries_of(&mut c, 0, &[3_000, 3_000, 3_000]);
    // 9,000 bytes are held: one is being handled, without what holds it in the queue.
    let first = c.the_call();
    assert_eq!(c.commands(), []);
    c.handled(first, Outcome::Ok(Effects::default()));
    let second = c.the_call();
    assert_eq!(c.drain_commands().len(), 1, "a commit, and no read");
    c.handled(second, Outcome::Ok(Effects::default()));
    assert!(c.commands().contains(&read(EPOCH, 3)));
    assert_eq!(c.room, 10_000 - 3_000);
}

#[test]
fn what_waits_as_a_dead_letter_for_its_commit_is_held() {
    let mut c = sharing(10_000);
    entries_of(&mut c, 0, &[8_000]);
    let call = c.the_call();
    c.handled(call, failing());
    let commit = c.the_commit();
    assert_eq!(commit.dead.len(), 1);
    assert_eq!(c.commands(), [], "it is held until the commit is answered");
    c.event(Event::Committed {
        epoch: Epoch(EPOCH),
        result: Err(Failure::NotDone("OOM".to_owned())),
    });
    assert_eq!(c.commands(), [], "it waits to be sent again");
    c.now = c.consumer.poll_timeout(c.now, FAR).expect("again");
    c.the_commit();
    c.committed(EPOCH, 1);
    assert_eq!(c.commands(), [read(EPOCH, 1)]);
    assert_eq!(c.room, 10_000);
}

#[test]
fn a_share_smaller_than_a_message_holds_one_at_a_time() {
    let mut c = sharing(0);
    for n in 1..=3 {
        entries_of(&mut c, n - 1, &[5_000]);
        let call = c.the_call();
        assert_eq!(c.commands(), [], "nothing is read while one is held");
        c.handled(call, Outcome::Ok(Effects::default()));
        let commands = c.commands();
        assert!(commands.contains(&read(EPOCH, n)), "{commands:?}");
        assert_eq!(c.room, 0);
        c.committed(EPOCH, n);
    }
}
