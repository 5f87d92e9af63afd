//! A handler that takes batches, in a real host: order, messages that fail in the middle of a batch in each
//! way, kills, and swaps from and to a handler of one message a call.

use std::path::Path;

use serde_json::{Value, json};

use segmenter_tests::process::{self, GuestLine, Host, until};

use crate::support::{Judgement, World, judge};
use crate::swap::{rename_over, version};

const PARTITIONS: u32 = 4;

/// A host of this module with more settings of the handler.
fn host(world: &World, module: &Path, more: &str) -> Host {
    host_with(world, module, "30s", more)
}

fn host_with(world: &World, module: &Path, session: &str, more: &str) -> Host {
    let config = world.server.dir().join("segmenter.toml");
    let text = format!(
        "[[handler]]\nname = 'h'\nstream = 's'\ngroup = 'g'\nmodule = {module:?}\nsession_timeout = '{session}'\n{more}\n"
    );
    std::fs::write(&config, text).expect("the folder is there");
    Host::start(&world.url, &["-c", config.to_str().expect("UTF-8")])
}

/// What the guest logged of one message. Lines of a batch name its first message; the text names its own.
#[derive(Debug)]
struct Handled {
    /// How many the call had.
    of: usize,
    line: GuestLine,
}

fn handled(lines: Vec<GuestLine>) -> Vec<Handled> {
    let of_one = |line: GuestLine| {
        let part = |name: &str| {
            let mut parts = line.text.split(' ');
            parts.find_map(|part| part.strip_prefix(name).map(str::to_owned))
        };
        let number = |name: &str| part(name).and_then(|text| text.parse().ok());
        let (id, attempt, of) = (part("id=")?, number("attempt=")?, number("of=")?);
        let line = GuestLine {
            id,
            attempt,
            ..line
        };
        Some(Handled {
            of: usize::try_from(of).ok()?,
            line,
        })
    };
    lines.into_iter().filter_map(of_one).collect()
}

fn lines(handled: &[Handled]) -> Vec<GuestLine> {
    handled.iter().map(|handled| handled.line.clone()).collect()
}

fn message(number: usize, attributes: &[(&str, &str)]) -> String {
    let attributes: serde_json::Map<String, Value> = attributes
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    json!({"key": "k", "payload": number.to_string(), "attributes": attributes}).to_string()
}

fn dead_letters(world: &World) -> Vec<Value> {
    let args = ["--format", "json", "dead", "list", "s", "g"];
    world.run(&args).ok().objects()
}

fn failures(host: &Host) -> Vec<Value> {
    let said = host.said();
    let events = said
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok());
    events
        .filter(|line: &Value| line["event"] == "handler_failed")
        .collect()
}

/// What live version and shadow logged.
fn said_by_both(host: &Host) -> Vec<GuestLine> {
    let parse = |line: &String| serde_json::from_str::<Value>(line).ok();
    let said = host.said();
    let unmarked = said.iter().filter_map(parse).filter_map(|mut line| {
        line.as_object_mut()?.remove("shadow");
        GuestLine::of(&line)
    });
    unmarked.collect()
}

#[test]
fn what_is_queued_comes_in_batches_in_order_and_once() {
    const MESSAGES: usize = 5_000;
    for (more, most) in [("", 100), ("[handler.batch]\nmessages = 7", 7)] {
        let world = World::with_stream(PARTITIONS, 10_000);
        let sent = world.send_numbered(MESSAGES, 50);
        let host = host(&world, &process::guest("batch"), more);
        world.until_acked(PARTITIONS, "g");
        let handled = handled(host.stop());
        let expected = Judgement {
            handled: MESSAGES,
            ..Judgement::default()
        };
        assert_eq!(judge(&sent, &lines(&handled)), expected);
        let largest = handled.iter().map(|handled| handled.of).max();
        assert_eq!(largest, Some(most), "as many as are allowed");
    }
}

/// Nine messages of one partition, the fifth of which fails in some way until its attempt N.
#[test]
fn a_message_that_fails_in_the_middle_of_a_batch_is_tried_again_in_its_place() {
    for (fail, outcome, breaks) in [
        ("retry:3", "retry", false),
        ("trap:3", "trap", true),
        ("loop:2", "deadline", true),
        ("memory:2", "memory", true),
    ] {
        let world = World::with_stream(1, 100);
        let line = |n: usize| match n {
            5 => message(n, &[("fail", fail)]),
            _ => message(n, &[]),
        };
        let sent = world.send_lines(&(1..=9).map(line).collect::<Vec<_>>());
        let host = host(&world, &process::guest("batch"), "");
        world.until_acked(1, "g");
        let mut failed = failures(&host);
        let handled = handled(host.stop());
        if breaks {
            let whole = failed.remove(0);
            assert_eq!(whole["messages"], 9, "{fail}: {whole}");
            assert_eq!(whole["id"], sent[0].1.as_str(), "{fail}: {whole}");
            // What had its line before it broke has another one, alone.
            let alone: Vec<_> = handled.iter().filter(|h| h.of == 1).collect();
            assert_eq!(alone.len(), 9, "{fail}: {handled:?}");
        }
        let attempts: u64 = fail.split_once(':').unwrap().1.parse().unwrap();
        assert_eq!(failed.len() as u64, attempts - 1, "{fail}: {failed:?}");
        for (line, attempt) in failed.iter().zip(1..) {
            let found = (&line["id"], &line["outcome"], &line["attempt"]);
            let expected = (json!(sent[4].1), json!(outcome), json!(attempt));
            assert_eq!(found, (&expected.0, &expected.1, &expected.2), "{fail}");
            assert_eq!(line["messages"], Value::Null, "{fail}: it is known which");
        }
        let fifth: Vec<_> = handled
            .iter()
            .filter(|h| h.line.id == sent[4].1)
            .map(|h| h.line.attempt)
            .collect();
        assert_eq!(fifth, [attempts], "{fail}");
        let others = handled.iter().filter(|h| h.line.id != sent[4].1);
        assert!(others.into_iter().all(|h| h.line.attempt == 1), "{fail}");
        let judged = judge(&sent, &lines(&handled));
        let found = (judged.handled, judged.out_of_order, judged.lost);
        assert_eq!(found, (9, 0, 0), "{fail}");
        assert_eq!(judged.duplicates, if breaks { 4 } else { 0 }, "{fail}");
        assert_eq!(dead_letters(&world), Vec::<Value>::new(), "{fail}");
    }
}

#[test]
fn only_a_message_that_never_works_becomes_a_dead_letter_whatever_batch_it_is_in() {
    for (fail, attempts, says) in [
        ("reject", 1, "asked to reject"),
        ("retry", 2, "asked to fail"),
        ("trap", 2, "about to trap"),
        ("loop", 2, "deadline"),
        ("memory", 2, "memory"),
    ] {
        let world = World::with_stream(1, 1_000);
        let poison = |n: usize| n == 5 || n == 150;
        let line = |n: usize| match poison(n) {
            true => message(n, &[("fail", fail)]),
            false => message(n, &[]),
        };
        let sent = world.send_lines(&(1..=300).map(line).collect::<Vec<_>>());
        let more = "[handler.limits]\ndeadline = '200ms'\n[handler.retry]\nattempts = 2\nbackoff = { initial = '1ms' }";
        let host = host(&world, &process::guest("batch"), more);
        world.until_acked(1, "g");
        let handled = handled(host.stop());
        let dead = dead_letters(&world);
        let found: Vec<_> = dead.iter().map(|letter| letter["id"].as_str()).collect();
        let expected = [Some(sent[4].1.as_str()), Some(sent[149].1.as_str())];
        assert_eq!(found, expected, "{fail}: {dead:?}");
        for letter in &dead {
            assert_eq!(letter["attempts"], attempts, "{fail}: {letter}");
            let reason = letter["reason"].as_str().expect("a reason");
            assert!(reason.contains(says), "{fail}: {reason}");
        }
        let judged = judge(&sent, &lines(&handled));
        let found = (judged.handled, judged.out_of_order, judged.lost);
        assert_eq!(found, (298, 0, 2), "{fail}: {judged:?}");
        let together = handled.iter().filter(|h| h.of > 1).count();
        assert!(together > 50, "{fail}: {together} of 300 in batches");
    }
}

/// The deadline is for the whole batch: none of these messages breaks it alone.
#[test]
fn a_batch_that_takes_too_long_is_made_smaller_and_costs_no_message_an_attempt() {
    let world = World::with_stream(1, 1_000);
    let lines_sent: Vec<_> = (1..=120).map(|n| message(n, &[("ms", "5")])).collect();
    let sent = world.send_lines(&lines_sent);
    let more = "[handler.limits]\ndeadline = '300ms'\n[handler.retry]\nattempts = 1";
    let host = host(&world, &process::guest("batch"), more);
    world.until_acked(1, "g");
    let failed = failures(&host);
    let handled = handled(host.stop());
    assert!(!failed.is_empty() && failed.iter().all(|line| line["outcome"] == "deadline"));
    assert!(
        failed
            .iter()
            .all(|line| line["messages"].as_u64() > Some(1))
    );
    assert_eq!(dead_letters(&world), Vec::<Value>::new());
    let judged = judge(&sent, &lines(&handled));
    let found = (judged.handled, judged.out_of_order, judged.lost);
    assert_eq!(found, (120, 0, 0), "{judged:?}");
}

#[test]
fn killed_in_the_middle_of_batches_it_handles_everything_in_order() {
    const MESSAGES: usize = 20_000;
    let world = World::with_stream(PARTITIONS, 10_000);
    let sent = world.send_numbered(MESSAGES, 100);
    // Short: who is killed is waited for.
    let start = || host_with(&world, &process::guest("batch"), "2s", "");
    let mut all = Vec::new();
    for share in 1..=3 {
        let host = start();
        let before = all.len();
        until("a part is handled", || {
            (before + host.guest_lines().len() > share * MESSAGES / 5).then_some(())
        });
        all.extend(host.kill());
    }
    let host = start();
    world.until_acked(PARTITIONS, "g");
    all.extend(host.stop());
    let judged = judge(&sent, &lines(&handled(all)));
    let found = (judged.handled, judged.out_of_order, judged.lost);
    assert_eq!(found, (MESSAGES, 0, 0), "{judged:?}");
    assert_eq!(dead_letters(&world), Vec::<Value>::new());
}

#[test]
fn a_swap_from_one_message_a_call_to_batches_and_back_loses_and_doubles_nothing() {
    let world = World::with_stream(PARTITIONS, 100_000);
    let module = world.server.dir().join("handler.wasm");
    let guests = ["tally", "batch"].map(process::guest);
    rename_over(&module, &version(&guests[0], 0));
    let mut host = host(&world, &module, "");
    let mut sent = Vec::new();
    for number in 1..=8 {
        rename_over(&module, &version(&guests[number % 2], number));
        sent.extend(world.send_numbered(500, 20));
        host.line("it handles", |line| line["event"] == "version_live");
    }
    world.until_acked(PARTITIONS, "g");
    assert_eq!(failures(&host), Vec::<Value>::new());
    let said = host.stop();
    let (single, batches): (Vec<_>, Vec<_>) = said
        .into_iter()
        .partition(|line| line.text.starts_with("lines="));
    let mut all = lines(&handled(batches));
    assert!(!all.is_empty() && !single.is_empty(), "both handled some");
    all.extend(single);
    all.sort_by_key(|line| line.at_us);
    let expected = Judgement {
        handled: sent.len(),
        ..Judgement::default()
    };
    assert_eq!(judge(&sent, &all), expected);
}

/// What both kinds do with a message can be compared: while there is a shadow, a call carries what both take.
#[test]
fn a_shadow_of_the_other_kind_sees_one_message_a_call_and_one_of_the_same_kind_whole_batches() {
    for (live, shadow, most) in [
        ("batch", "tally", 1),
        ("noop", "batch", 1),
        ("batch", "noop-batch", 100),
    ] {
        let world = World::with_stream(1, 100_000);
        let live = process::guest(live);
        world
            .run(&["handler", "deploy", "h", live.to_str().unwrap()])
            .ok();
        let config = world.server.dir().join("segmenter.toml");
        let text = "[[handler]]\nname = 'h'\nstream = 's'\ngroup = 'g'\nmodule = 'deployed'\nsession_timeout = '30s'\n";
        std::fs::write(&config, text).expect("the folder is there");
        let mut host = Host::start(&world.url, &["-c", config.to_str().expect("UTF-8")]);
        let beside = process::guest(shadow);
        let beside = beside.to_str().unwrap();
        let deploy = ["handler", "deploy", "h", beside, "--shadow", "--for", "1h"];
        world.run(&deploy).ok();
        host.event("shadow_begun");
        let lines: Vec<_> = (1..=1_000).map(|n| message(n, &[])).collect();
        world.send_lines(&lines);
        world.until_acked(1, "g");
        host.signal("TERM");
        host.ended();
        let handled = handled(said_by_both(&host));
        let largest = handled.iter().map(|handled| handled.of).max();
        assert!(
            largest <= Some(most) && largest.is_some(),
            "{shadow}: {largest:?}"
        );
        if most > 1 {
            assert!(largest > Some(1), "{shadow}: {largest:?}");
        }
    }
}
