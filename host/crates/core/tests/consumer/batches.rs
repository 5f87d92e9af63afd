//! Handlers that take several messages a call, step by step: what a call carries, what its failures come to,
//! and that a batch that broke costs nobody an attempt.

use crate::support::*;
use segmenter_core::batch::{Batch, Takes};
use segmenter_core::consumer::{By, Command, Config, Event, Exhausted, Phase};
use segmenter_core::effects::Effects;
use segmenter_core::lease::{Attempts, Epoch};
use segmenter_core::limits;
use segmenter_core::names::Version;
use segmenter_core::outcome::{Fault, Outcome};
use segmenter_core::port::{AcquireReply, CommitReply};
use segmenter_core::rollout::Runs;
use segmenter_core::time::Duration;

fn v(name: &str) -> Version {
    name.parse().unwrap()
}

fn takes(messages: usize) -> Takes {
    Takes {
        messages: messages.try_into().unwrap(),
        bytes: 1 << 20,
    }
}

/// A version that takes so many.
fn batches(version: &str, messages: usize) -> Runs {
    Runs {
        takes: takes(messages),
        ..Runs::only(v(version))
    }
}

fn ok() -> Outcome {
    Outcome::Ok(Effects::default())
}

fn retry(at: usize) -> Outcome {
    Outcome::Retry {
        at,
        reason: "not now".to_owned(),
        after: None,
    }
}

fn reject(at: usize) -> Outcome {
    Outcome::Reject {
        at,
        reason: "never".to_owned(),
    }
}

fn broken() -> Outcome {
    Outcome::Broken {
        fault: Fault::Trap,
        reason: "unreachable".to_owned(),
    }
}

fn ids(messages: &Batch) -> Vec<u64> {
    messages.iter().map(|message| message.id.ms).collect()
}

/// Holds the lease, two attempts a message, and has read `entries`.
fn with(runs: Runs, entries: &[u64]) -> Driver {
    let mut c = Driver::with(Config {
        runs,
        attempts: 2,
        ..config(INCARNATION)
    });
    c.event(Event::Assigned);
    c.commands();
    c.acquired(EPOCH, 0);
    c.commands();
    if !entries.is_empty() {
        c.entries(EPOCH, 0, entries);
    }
    c
}

fn taking(messages: usize, entries: &[u64]) -> Driver {
    with(batches("v1", messages), entries)
}

/// The next call carries these; it comes to that.
fn called(c: &mut Driver, expected: &[u64], outcome: Outcome) {
    let batch = c.the_batch();
    assert_eq!(ids(&batch), expected);
    c.handled_all(batch, outcome);
}

/// What is settled or recorded is committed, up to there; dead letters of it.
fn commits(c: &mut Driver, to: u64) -> Vec<(u64, u32)> {
    let commit = c.the_commit();
    assert_eq!((commit.to, commit.read), (id(to), to));
    c.committed_at(id(to));
    let dead = commit.dead.iter();
    dead.map(|letter| (letter.id.ms, letter.attempts)).collect()
}

#[test]
fn a_call_carries_what_is_queued_up_to_its_bound_and_one_commit_acks_it() {
    let mut c = taking(3, &[1, 2, 3, 4, 5]);
    called(&mut c, &[1, 2, 3], ok());
    assert_eq!(commits(&mut c, 3), []);
    called(&mut c, &[4, 5], ok());
    assert_eq!(commits(&mut c, 5), []);
    assert_eq!(c.drain_commands(), [], "none is waited for");
    c.entries(EPOCH, 5, &[6]);
    called(&mut c, &[6], ok());
}

#[test]
fn bytes_bound_it_too_but_one_message_is_called_in_any_case() {
    // Key and payload have 4 bytes each.
    for (bytes, expected) in [(8, &[1, 2][..]), (11, &[1, 2]), (12, &[1, 2, 3]), (0, &[1])] {
        let takes = Takes {
            bytes,
            ..takes(100)
        };
        let runs = Runs {
            takes,
            ..Runs::only(v("v1"))
        };
        let mut c = with(runs, &[1, 2, 3]);
        called(&mut c, expected, ok());
    }
}

#[test]
fn what_needs_no_call_is_never_in_a_batch_and_keeps_its_place() {
    let mut c = taking(10, &[]);
    let only = |n: u64, group: &str| {
        let mut raw = ours(n);
        raw.fields.push((b"#g".to_vec(), group.as_bytes().to_vec()));
        raw
    };
    c.event(Event::Entries {
        epoch: Epoch(EPOCH),
        after: id(0),
        entries: vec![
            ours(1),
            only(2, "billing"),
            only(3, "audit"),
            ours(4),
            foreign(5),
            ours(6),
            ours(7),
        ],
    });
    called(&mut c, &[1, 2], ok());
    assert_eq!(commits(&mut c, 3), [], "3 is another group's");
    called(&mut c, &[4], ok());
    assert_eq!(commits(&mut c, 5), [(5, 0)]);
    called(&mut c, &[6, 7], ok());
}

#[test]
fn what_is_before_a_retry_is_acked_and_the_rest_is_called_again_once_the_lease_knows() {
    let mut c = taking(10, &[1, 2, 3, 4]);
    called(&mut c, &[1, 2, 3, 4], retry(2));
    let commit = c.the_commit();
    assert_eq!(commit.to, id(2));
    let attempts = commit.attempts.expect("recorded");
    assert_eq!((attempts.id, attempts.failed), (id(3), 1));
    c.committed_at(id(2));
    assert_eq!(c.drain_commands(), [], "with backoff");
    c.pass(Duration::from_secs(60));
    let batch = c.the_batch();
    let attempts: Vec<_> = batch.iter().map(|message| message.attempt).collect();
    assert_eq!((ids(&batch), attempts), (vec![3, 4], vec![2, 1]));
    // Its last attempt: a dead letter, and 4 goes on at once.
    c.handled_all(batch, retry(0));
    assert_eq!(commits(&mut c, 3), [(3, 2)]);
    called(&mut c, &[4], ok());
}

#[test]
fn a_reject_buries_one_message_and_what_follows_is_called_again_at_once() {
    let mut c = taking(10, &[1, 2, 3, 4]);
    called(&mut c, &[1, 2, 3, 4], reject(1));
    assert_eq!(commits(&mut c, 2), [(2, 1)]);
    called(&mut c, &[3, 4], reject(1));
    assert_eq!(commits(&mut c, 4), [(4, 1)]);
}

#[test]
fn a_failure_within_a_batch_may_halt_the_partition_with_what_was_acked_before_it() {
    let mut c = Driver::with(Config {
        runs: batches("v1", 10),
        attempts: 1,
        exhausted: Exhausted::Halt,
        ..config(INCARNATION)
    });
    c.event(Event::Assigned);
    c.commands();
    c.acquired(EPOCH, 0);
    c.commands();
    c.entries(EPOCH, 0, &[1, 2, 3]);
    called(&mut c, &[1, 2, 3], retry(1));
    let commit = c.the_commit();
    assert_eq!(commit.to, id(1));
    assert!(commit.halt.expect("it halts").contains("message 2-0"));
    c.committed_at(id(1));
    assert_eq!(c.consumer.phase(), Phase::Halted);
}

#[test]
fn a_batch_that_breaks_is_nobodys_attempt_and_the_one_that_breaks_it_is_found() {
    let mut c = taking(4, &[1, 2, 3, 4, 5, 6, 7]);
    called(&mut c, &[1, 2, 3, 4], broken());
    assert!(
        matches!(&c.drain_commands()[..], [Command::Call { messages, .. }] if ids(messages) == [1]),
        "at once, alone, and nothing is recorded"
    );
    let mut c = taking(4, &[1, 2, 3, 4, 5, 6, 7]);
    called(&mut c, &[1, 2, 3, 4], broken());
    called(&mut c, &[1], ok());
    assert_eq!(commits(&mut c, 1), []);
    for attempt in 1..=2 {
        let batch = c.the_batch();
        assert_eq!((ids(&batch), batch.first().attempt), (vec![2], attempt));
        c.handled_all(batch, broken());
        let dead = commits(&mut c, u64::from(attempt));
        assert_eq!(dead.len(), usize::from(attempt == 2), "{dead:?}");
        c.pass(Duration::from_secs(60));
    }
    for n in [3, 4] {
        called(&mut c, &[n], ok());
        assert_eq!(commits(&mut c, n), []);
    }
    called(&mut c, &[5, 6, 7], ok());
    assert_eq!(commits(&mut c, 7), []);
}

#[test]
fn a_retry_before_the_batch_broke_keeps_its_attempts() {
    let mut c = taking(3, &[1, 2, 3]);
    called(&mut c, &[1, 2, 3], retry(0));
    assert_eq!(commits(&mut c, 0), []);
    c.pass(Duration::from_secs(60));
    called(&mut c, &[1, 2, 3], broken());
    let batch = c.the_batch();
    assert_eq!((ids(&batch), batch.first().attempt), (vec![1], 2));
}

#[test]
fn if_none_breaks_alone_it_was_their_number_and_later_calls_carry_half() {
    let all: Vec<u64> = (1..=40).collect();
    let mut c = taking(8, &all);
    called(&mut c, &all[..8], broken());
    for n in 1..=8 {
        called(&mut c, &[n], ok());
    }
    called(&mut c, &all[8..12], broken());
    for n in 9..=12 {
        called(&mut c, &[n], ok());
    }
    called(&mut c, &[13, 14], ok());
}

#[test]
fn an_answer_about_a_message_that_was_not_called_acks_nothing() {
    for outcome in [retry(3), reject(3)] {
        let mut c = taking(3, &[1, 2, 3]);
        called(&mut c, &[1, 2, 3], outcome);
        called(&mut c, &[1], ok());
    }
    // Whoever is called alone is meant.
    let mut c = taking(3, &[1]);
    called(&mut c, &[1], reject(7));
    assert_eq!(commits(&mut c, 1), [(1, 1)]);
}

#[test]
fn a_batch_that_is_cut_off_comes_again_whole() {
    let mut c = taking(3, &[1, 2, 3]);
    c.trust_until = c.now + Duration::from_secs(1);
    let batch = c.the_batch();
    c.now = c.trust_until;
    assert_eq!(c.drain_commands(), [Command::CancelCall]);
    c.handled_all(batch, Outcome::Cancelled);
    assert_eq!(c.drain_commands(), [], "no call starts any more");
    c.trust_until = FAR;
    let batch = c.the_batch();
    assert_eq!(ids(&batch), [1, 2, 3]);
    assert!(batch.iter().all(|message| message.attempt == 1));
    // One that does not hear of it counts as it ended.
    c.event(Event::Cut);
    assert_eq!(c.drain_commands(), [Command::CancelCall]);
    c.handled_all(batch, ok());
    assert_eq!(c.the_commit().to, id(3));
}

#[test]
fn a_lease_that_is_lost_in_the_middle_of_a_batch_drops_all_of_it() {
    let mut c = taking(2, &[1, 2, 3, 4]);
    called(&mut c, &[1, 2], ok());
    c.the_commit();
    let batch = c.the_batch();
    c.event(Event::Committed {
        epoch: Epoch(EPOCH),
        result: Ok(CommitReply::Fenced { found: None }),
    });
    c.commands();
    c.event(Event::Assigned);
    c.pass(Duration::from_secs(60));
    assert_eq!(c.commands(), [], "the old call must end first");
    c.handled_all(batch, ok());
    assert_eq!(c.commands(), [acquire()]);
    c.acquired(EPOCH + 1, 0);
    assert_eq!(c.commands(), [read(EPOCH + 1, 0)]);
}

#[test]
fn who_is_revoked_during_a_batch_commits_it_and_releases() {
    let mut c = taking(2, &[1, 2, 3]);
    let batch = c.the_batch();
    c.event(Event::Revoked);
    c.handled_all(batch, reject(0));
    assert_eq!(commits(&mut c, 1), [(1, 1)]);
    assert!(matches!(c.commands().last(), Some(Command::Release { .. })));
}

#[test]
fn after_a_takeover_from_one_that_did_not_release_each_message_is_called_alone() {
    let mut c = Driver::with(Config {
        runs: batches("v1", 10),
        attempts: 5,
        ..config(INCARNATION)
    });
    c.event(Event::Assigned);
    c.commands();
    c.event(Event::Acquired(Ok(AcquireReply::Acquired {
        epoch: Epoch(EPOCH),
        acked: id(0),
        read: 0,
        unreleased: true,
        attempts: Some(Attempts {
            id: id(1),
            failed: 1,
            version: v("v1"),
        }),
    })));
    c.commands();
    let entries: Vec<u64> = (1..=limits::QUEUE_ENTRIES_MAX as u64 + 2).collect();
    c.entries(EPOCH, 0, &entries);
    for n in 1..=limits::QUEUE_ENTRIES_MAX as u64 {
        called(&mut c, &[n], ok());
        assert_eq!(commits(&mut c, n), []);
    }
    let area = limits::QUEUE_ENTRIES_MAX;
    called(&mut c, &entries[area..], ok());
}

#[test]
fn a_swap_changes_how_many_a_call_carries_from_the_next_call_on() {
    let mut c = taking(3, &[1, 2, 3, 4, 5, 6, 7]);
    let batch = c.the_batch();
    c.event(Event::Runs(Runs::only(v("v2"))));
    c.handled_all(batch, retry(1));
    // Under another version it counts anew.
    let commit = c.the_commit();
    assert_eq!((commit.to, commit.version), (id(1), Some(v("v2"))));
    assert_eq!(commit.attempts.map(|a| (a.id, a.failed)), Some((id(2), 0)));
    c.committed_at(id(1));
    called(&mut c, &[2], ok());
    let batch = c.the_batch();
    assert_eq!(ids(&batch), [3]);
    c.event(Event::Runs(batches("v3", 3)));
    c.handled_all(batch, ok());
    called(&mut c, &[4, 5, 6], broken());
    called(&mut c, &[4], ok());
    // Another version may do better with the same messages.
    c.event(Event::Runs(batches("v4", 3)));
    called(&mut c, &[5, 6, 7], ok());
}

/// The version before it is called with one message, whatever it takes.
#[test]
fn of_a_batch_on_trial_only_the_message_that_it_does_not_ack_is_asked_of_the_version_before() {
    let trial = Runs {
        instead: Some(v("v1")),
        ..batches("v2", 3)
    };
    for failure in [retry(1), reject(1)] {
        let mut c = with(trial.clone(), &[1, 2, 3, 4]);
        called(&mut c, &[1, 2, 3], failure);
        let commit = c.the_commit();
        assert_eq!(commit.to, id(1), "what it acked before is acked");
        let attempts = commit.attempts.expect("the lease knows of the doubt");
        assert_eq!(
            (attempts.id, attempts.failed, attempts.version),
            (id(2), 0, v("v1"))
        );
        assert_eq!(c.drain_commands(), [], "not before that is answered");
        c.committed_at(id(1));
        let (batch, by) = c.the_batch_by();
        assert_eq!((ids(&batch), by), (vec![2], By::Instead));
        assert!(c.consumer.overrules(id(2)));
        c.handled_all(batch, ok());
        let (batch, by) = c.the_batch_by();
        assert_eq!((ids(&batch), by), (vec![3, 4], By::Running));
    }

    // One that breaks says nothing of any message before each was called alone.
    let mut c = with(trial, &[1, 2, 3, 4]);
    called(&mut c, &[1, 2, 3], broken());
    called(&mut c, &[1], ok());
    called(&mut c, &[2], broken());
    assert_eq!(commits(&mut c, 1), []);
    assert_eq!(commits(&mut c, 1), [], "the doubt is said");
    let (batch, by) = c.the_batch_by();
    assert_eq!((ids(&batch), by), (vec![2], By::Instead));
    c.handled_all(batch, ok());
    called(&mut c, &[3], ok());
    called(&mut c, &[4], ok());
}

#[test]
fn all_messages_of_a_call_are_held_until_it_ends() {
    let share = 10_000;
    let mut c = Driver::with(Config {
        runs: batches("v1", 3),
        share_bytes: share,
        payload_max: 1 << 20,
        ..config(INCARNATION)
    });
    c.event(Event::Assigned);
    c.commands();
    c.acquired(EPOCH, 0);
    c.commands();
    let large = |n: u64| {
        let mut raw = ours(n);
        raw.fields[1].1 = vec![b'x'; 2_000];
        raw
    };
    c.event(Event::Entries {
        epoch: Epoch(EPOCH),
        after: id(0),
        entries: (1..=3).map(large).collect(),
    });
    let batch = c.the_batch();
    assert_eq!(batch.count(), 3);
    assert_eq!(c.commands(), [], "6,000 bytes are held: no read");
    c.handled_all(batch, ok());
    let commands = c.commands();
    assert!(commands.contains(&read(EPOCH, 3)), "{commands:?}");
    assert_eq!(c.room, share);
}
