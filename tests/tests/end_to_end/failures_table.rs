//! What a guest can do wrong, and what comes of it: one host, one handler a situation, one table. In each
//! an ordinary message comes before and after; the host must live through all of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use segmenter_tests::process::{self, Host};

use crate::failing;
use crate::support::World;

/// One row before it ran.
struct Situation {
    name: &'static str,
    /// The handler, stream and group are called so.
    id: &'static str,
    did: &'static str,
    /// Lines of `[[handler]]`, then of `[handler.limits]`.
    handler: &'static str,
    limits: &'static str,
    /// Payloads between the ordinary messages.
    payloads: &'static [&'static str],
    expected: Expected,
}

/// What must come of the messages in the middle.
enum Expected {
    /// Each fails so often as this, for a reason that says this, then is handled.
    Retried {
        times: usize,
        outcome: &'static str,
        says: &'static str,
        /// A function that its backtrace names.
        within: Option<&'static str>,
    },
    /// It becomes a dead letter at once, for a reason that says this.
    Dead { says: &'static str },
    /// It is handled at once, and a line of it says this.
    Handled { says: &'static str },
    /// No instance can be made now and then; each message is handled all the same.
    NotMade,
    /// Instances handle so many messages each: the letters that they count with.
    Counted { letters: &'static [&'static str] },
}

const fn trap(says: &'static str, within: Option<&'static str>) -> Expected {
    broken("trap", says, within)
}

const fn broken(
    outcome: &'static str,
    says: &'static str,
    within: Option<&'static str>,
) -> Expected {
    Expected::Retried {
        times: 2,
        outcome,
        says,
        within,
    }
}

/// Bytes of payload that no message may have.
const TOO_MANY: usize = 1_048_577;
/// Messages to a handler that cannot always start: none of so many instances failing is one in 600,000.
const STARTS: usize = 100;

const SITUATIONS: &[Situation] = &[
    Situation {
        name: "trap (panic)",
        id: "panic",
        did: "reached `unreachable`, two functions deep",
        handler: "",
        limits: "",
        payloads: &["p3"],
        expected: trap("unreachable", Some("panics_inside")),
    },
    Situation {
        name: "stack overflow",
        id: "stack",
        did: "called itself without end",
        handler: "",
        limits: "",
        payloads: &["s3"],
        expected: trap("stack", Some("recurses")),
    },
    Situation {
        name: "endless loop",
        id: "loop",
        did: "spun; the deadline was 300 ms",
        handler: "",
        limits: "deadline = '300ms'",
        payloads: &["l3"],
        expected: broken("deadline", "300ms", Some("spins")),
    },
    Situation {
        name: "blocked in a host call",
        id: "blocked",
        did: "waited for a clock for an hour; the deadline was 300 ms",
        handler: "",
        limits: "deadline = '300ms'",
        payloads: &["b3"],
        expected: broken("deadline", "300ms", None),
    },
    Situation {
        name: "memory hog",
        id: "memory",
        did: "grew its memory without end; the limit was 1 MiB",
        handler: "",
        limits: "memory = '1MiB'",
        payloads: &["m3"],
        expected: broken("memory", "1048576 bytes", Some("hoards")),
    },
    Situation {
        name: "table hog",
        id: "table",
        did: "grew a table without end; the limit was 1,000 elements",
        handler: "",
        limits: "table_elements = 1_000",
        payloads: &["t3"],
        expected: broken("memory", "limit of 1000", Some("grows_table")),
    },
    Situation {
        name: "exit",
        id: "exit",
        did: "called exit with a failure",
        handler: "",
        limits: "",
        payloads: &["x3"],
        expected: trap("exit status 1", None),
    },
    Situation {
        name: "reject",
        id: "reject",
        did: "returned reject",
        handler: "",
        limits: "",
        payloads: &["j9"],
        expected: Expected::Dead {
            says: "asked to fail",
        },
    },
    Situation {
        name: "retry with a delay",
        id: "later",
        did: "returned retry after 70 ms",
        handler: "",
        limits: "",
        payloads: &["d3"],
        expected: broken("retry", "asked to fail", None),
    },
    Situation {
        name: "retry without a delay",
        id: "again",
        did: "returned retry",
        handler: "",
        limits: "",
        payloads: &["r3"],
        expected: broken("retry", "asked to fail", None),
    },
    Situation {
        name: "floods its log",
        id: "flood",
        did: "logged 10,000 lines; the limit was 16 KiB",
        handler: "",
        limits: "log = '16KiB'",
        payloads: &["f2"],
        expected: Expected::Handled {
            says: "dropped 9744 lines of 29232 bytes",
        },
    },
    Situation {
        name: "output that is no UTF-8",
        id: "bytes",
        did: "wrote FF FE to stdout",
        handler: "",
        limits: "",
        payloads: &["u2"],
        expected: Expected::Handled {
            says: "bad \u{fffd}\u{fffd} bytes",
        },
    },
    Situation {
        name: "start function loops",
        id: "start",
        did: "spun before it was an instance, in one of eight; the limit was 20 ms",
        handler: "instance = 'fresh'",
        limits: "instantiate = '20ms'",
        payloads: &["o0"; STARTS],
        expected: Expected::NotMade,
    },
    Situation {
        name: "a message over its limits",
        id: "large",
        did: "nothing: it was not called for an entry of 1 MiB and a byte",
        handler: "",
        limits: "",
        payloads: &[],
        expected: Expected::Dead { says: "1048577" },
    },
    Situation {
        name: "instance recycled",
        id: "recycled",
        did: "counted its messages; recycle_after was 2",
        handler: "recycle_after = 2",
        limits: "",
        payloads: &["o0", "o0", "o0"],
        expected: Expected::Counted {
            letters: &["a", "b", "a", "b", "a"],
        },
    },
];

fn configuration(world: &World) -> String {
    let dir = world.server.dir();
    let (plain, start) = (failing::guest(dir), failing::guest_that_may_not_start(dir));
    let mut text = String::from("namespace = 'default'\n");
    for situation in SITUATIONS {
        let Situation {
            id,
            handler,
            limits,
            ..
        } = situation;
        let module = match situation.expected {
            Expected::NotMade => &start,
            _ => &plain,
        };
        write!(
            text,
            "[[stream]]\nname = '{id}'\npartitions = 1\ncapacity = 1000\n\
             [[handler]]\nname = '{id}'\nstream = '{id}'\ngroup = 'g'\nmodule = {module:?}\n{handler}\n\
             [handler.limits]\n{limits}\n\
             [handler.retry]\nbackoff = {{ initial = '1ms', max = '10ms' }}\n"
        )
        .expect("a String takes it");
    }
    let path = dir.join("segmenter.toml");
    std::fs::write(&path, text).expect("the folder is there");
    path.to_str().expect("UTF-8").to_owned()
}

fn send(world: &World, situation: &Situation) {
    let line = |key: &str, payload: &str| json!({"key": key, "payload": payload}).to_string();
    let jsonl = |lines: Vec<String>| {
        let args = ["send", situation.id, "--jsonl", "-"];
        process::with_input(&world.url, &args, lines.join("\n").as_bytes()).ok();
    };
    jsonl(vec![line("before", "o0")]);
    if let Expected::Dead { says: "1048577" } = situation.expected {
        // No producer of ours would send it.
        let log = format!("seg:{{default/{}/0}}:log", situation.id);
        let _: String = redis::cmd("XADD")
            .arg(log)
            .arg("*")
            .arg("k")
            .arg("bad")
            .arg("p")
            .arg(vec![b'x'; TOO_MANY])
            .query(&mut world.redis())
            .expect("XADD");
    }
    let mut rest: Vec<_> = situation.payloads.iter().map(|p| line("bad", p)).collect();
    rest.push(line("after", "o0"));
    jsonl(rest);
}

/// What one situation left in the host's output and in Redis.
struct Traces<'a> {
    failed: Vec<&'a Value>,
    slow: usize,
    lines: Vec<&'a Value>,
    dead: Vec<Value>,
}

impl Traces<'_> {
    fn texts(&self) -> Vec<&str> {
        self.lines
            .iter()
            .map(|l| l["text"].as_str().expect("text"))
            .collect()
    }
    /// Messages with this key that were logged as handled.
    fn handled(&self, key: &str) -> usize {
        let is = |text: &&str| text.split_once(": ").is_some_and(|(_, k)| k == key);
        self.texts().into_iter().filter(is).count()
    }
}

/// Judges a situation and says in words what happened to its messages.
fn judge(situation: &Situation, traces: &Traces<'_>) -> String {
    let id = situation.id;
    let middle = situation.payloads.len();
    // Whatever happened, the neighbours were handled once, in order.
    assert_eq!(
        (traces.handled("before"), traces.handled("after")),
        (1, 1),
        "{id}"
    );
    let texts = traces.texts();
    assert!(texts[0].ends_with(": before"), "{id}: {texts:?}");
    assert!(
        texts[texts.len() - 1].ends_with(": after"),
        "{id}: {texts:?}"
    );
    match &situation.expected {
        Expected::Retried {
            times,
            outcome,
            says,
            within,
        } => {
            assert_eq!(traces.failed.len(), *times, "{id}: {:?}", traces.failed);
            for (event, attempt) in traces.failed.iter().zip(1..) {
                assert_eq!(event["outcome"], *outcome, "{event}");
                assert_eq!(
                    (&event["key"], &event["attempt"]),
                    (&json!("bad"), &json!(attempt)),
                    "{event}"
                );
                assert_eq!(event["version"].as_str().map(str::len), Some(64), "{event}");
                let reason = event["reason"].as_str().expect("reason");
                assert!(reason.contains(says), "{id}: {reason}");
                if let Some(function) = within {
                    let trace = event["backtrace"].as_str().unwrap_or_default();
                    assert!(trace.contains(function), "{id}: {event}");
                }
            }
            let slow = *outcome == "deadline";
            if slow {
                assert_eq!(traces.slow, *times, "{id}: one warning for each slow call");
            }
            assert_eq!((traces.handled("bad"), traces.dead.len()), (1, 0), "{id}");
            let warned = if slow {
                ", each warned about at 150 ms"
            } else {
                ""
            };
            format!(
                "{times} times {outcome}{warned}; handled at attempt {}",
                times + 1
            )
        }
        Expected::Dead { says } => {
            assert_eq!((traces.handled("bad"), traces.dead.len()), (0, 1), "{id}");
            let reason = traces.dead[0]["reason"].as_str().expect("reason");
            assert!(reason.contains(says), "{id}: {reason}");
            format!("dead letter at once: {reason}")
        }
        Expected::Handled { says } => {
            assert!(traces.failed.is_empty() && traces.dead.is_empty(), "{id}");
            let says = texts.iter().find(|text| text.contains(says));
            format!("handled at attempt 1; its log says: {}", says.expect(id))
        }
        Expected::NotMade => {
            let failed = traces.failed.len();
            assert!(failed > 0, "{id}: every instance started");
            for event in &traces.failed {
                assert_eq!(event["outcome"], "instantiate", "{event}");
                let reason = event["reason"].as_str().expect("reason");
                assert!(reason.contains("20ms"), "{id}: {reason}");
            }
            assert_eq!(
                (traces.handled("bad"), traces.dead.len()),
                (middle, 0),
                "{id}"
            );
            format!("{middle} messages, {failed} times instantiate; all handled")
        }
        Expected::Counted { letters } => {
            let found: Vec<_> = texts.iter().filter_map(|t| t.split_once(": ")).collect();
            let found: Vec<_> = found.into_iter().map(|(letter, _)| letter).collect();
            assert_eq!(found, *letters, "{id}");
            assert!(traces.failed.is_empty(), "{id}");
            format!("handled at attempt 1; counts: {}", found.join(" "))
        }
    }
}

fn lag(world: &World, stream: &str) -> Option<u64> {
    let described = world
        .run(&["--format", "json", "group", "describe", stream, "g"])
        .ok();
    described.objects()[0]["partitions"][0]["lag"].as_u64()
}

#[test]
fn whatever_a_guest_does_the_host_lives_and_the_partition_goes_on() {
    let world = World::new();
    let config = configuration(&world);
    let dumps = world.server.dir().join("dumps");
    let args = ["-c", &config, "--coredump", dumps.to_str().expect("UTF-8")];
    let mut host = Host::start(&world.url, &args);
    let pid = host.pid();
    for situation in SITUATIONS {
        send(&world, situation);
    }
    for situation in SITUATIONS {
        process::until(&format!("{} is acked to its end", situation.id), || {
            (lag(&world, situation.id) == Some(0)).then_some(())
        });
    }
    host.signal("TERM");
    assert_eq!(host.ended().code(), Some(0), "{}", host.said().join("\n"));

    let said: Vec<Value> = host
        .said()
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let mut of: BTreeMap<&str, Traces<'_>> = BTreeMap::new();
    for situation in SITUATIONS {
        let of_this = |event: &'static str| {
            said.iter()
                .filter(move |line| line["event"] == event && line["handler"] == situation.id)
        };
        let args = ["--format", "json", "dead", "list", situation.id, "g"];
        let traces = Traces {
            failed: of_this("handler_failed")
                .filter(|e| e["outcome"] != "reject")
                .collect(),
            slow: of_this("handler_slow")
                .filter(|e| e["key"] == "bad")
                .count(),
            lines: of_this("guest_log").collect(),
            dead: world.run(&args).ok().objects(),
        };
        of.insert(situation.id, traces);
    }

    let mut table = String::from(
        "| situation | what the guest did | the message | the partition | the host |\n|---|---|---|---|---|\n",
    );
    for situation in SITUATIONS {
        let message = judge(situation, &of[situation.id]);
        let Situation { name, did, .. } = situation;
        writeln!(
            table,
            "| {name} | {did} | {message} | the message after it handled, lag 0 | lives on (process {pid}), exit 0 when told to end |"
        )
        .expect("a String takes it");
    }
    show(&table);
    core_dumps_are_where_the_events_say(&dumps, &said);
}

/// In the test's output, which cargo shows with `--nocapture`, and in a file, which `cargo xtask test` shows.
fn show(table: &str) {
    println!("{table}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let path = target.expect("target/tmp").join("failures.md");
    std::fs::write(path, table).expect("target is there");
}

fn core_dumps_are_where_the_events_say(dir: &Path, said: &[Value]) {
    let mut told: Vec<_> = said
        .iter()
        .filter_map(|event| event["core_dump"].as_str())
        .collect();
    told.sort();
    let entries = std::fs::read_dir(dir).expect("the folder was made");
    let mut found: Vec<_> = entries
        .map(|entry| entry.expect("readable").path().display().to_string())
        .collect();
    found.sort();
    // More than ten calls trapped.
    assert_eq!(
        (found.len(), &found[..]),
        (
            10,
            &told.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>()[..]
        )
    );
}

#[test]
fn a_module_over_its_limits_is_refused_before_the_host_joins() {
    let world = World::new();
    let dir = world.server.dir();
    let plain = failing::guest(dir);
    let size = std::fs::metadata(&plain).expect("it is there").len();
    for (limits, says) in [
        (
            "module_size = '1KiB'",
            &[&*format!("{size} bytes"), "1024", "module_size"][..],
        ),
        ("core_instances = 1", &["1 core instances (core_instances)"]),
        (
            "memory = '64KiB'",
            &["more when it starts than the limits allow", "memory"],
        ),
        ("", &[]),
    ] {
        let text = format!(
            "[[handler]]\nname = 'h'\nstream = 's'\ngroup = 'g'\nmodule = {plain:?}\n[handler.limits]\n{limits}\n"
        );
        let path = dir.join("segmenter.toml");
        std::fs::write(&path, text).expect("the folder is there");
        let ended = world.run(&["run", "--check", "-c", path.to_str().expect("UTF-8")]);
        let expected = if says.is_empty() { 0 } else { 1 };
        assert_eq!(ended.code(), Some(expected), "{limits}: {ended:?}");
        for word in says {
            assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
        }
    }
}
