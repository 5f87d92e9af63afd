use super::*;

fn check(text: &str, says: &[&str]) {
    let error = Config::parse(text, Path::new("dir"))
        .expect_err(text)
        .to_string();
    for expected in says {
        assert!(
            error.contains(expected),
            "{expected:?} is missing in {error:?} of {text}"
        );
    }
}

const WHOLE: &str = r#"
namespace = "shop"
member = "host-1"
drain_timeout = "5s"
[redis]
url = "redis://127.0.0.1:6379"
[[stream]]
name = "orders"
partitions = 16
capacity = 100_000
retain = 7
[[handler]]
name = "billing"
stream = "orders"
group = "g"
module = "handlers/billing.wasm"
start = "end"
session_timeout = "2s"
instance = "reuse"
[handler.limits]
deadline = "250ms"
memory = "16MiB"
[handler.retry]
backoff = { initial = "10ms", max = "1s" }
"#;

#[test]
fn a_whole_file_is_read() {
    let config = Config::parse(WHOLE, Path::new("dir")).unwrap();
    assert_eq!(config.namespace.as_str(), "shop");
    assert_eq!(config.member.unwrap().as_str(), "host-1");
    assert_eq!(config.drain_timeout, Duration::from_secs(5));
    let stream = &config.streams[0];
    assert_eq!(
        (stream.shape, stream.retain),
        (Shape::new(16, 100_000).unwrap(), 7)
    );
    let handler = &config.handlers[0];
    assert_eq!(handler.module, Path::new("dir/handlers/billing.wasm"));
    assert_eq!(handler.start, Start::End);
    assert_eq!(handler.session_timeout, Duration::from_secs(2));
    assert_eq!(handler.limits.deadline, Duration::from_millis(250));
    assert_eq!(handler.limits.memory_bytes, 16 << 20);
    assert_eq!(handler.backoff.initial, Duration::from_millis(10));
}

#[test]
fn what_is_left_out_has_its_default() {
    let text = "[[handler]]\nname='h'\nstream='s'\ngroup='g'\nmodule='m.wasm'";
    let config = Config::parse(text, Path::new("")).unwrap();
    let handler = &config.handlers[0];
    assert_eq!(config.namespace.as_str(), NAMESPACE);
    assert_eq!(config.drain_timeout, DRAIN_TIMEOUT);
    assert_eq!(handler.session_timeout, SESSION_TIMEOUT);
    assert_eq!(handler.limits.memory_bytes, MEMORY_BYTES);
    assert_eq!(handler.start, Start::Beginning);
}

#[test]
fn an_unknown_key_is_named_with_its_line_table_and_the_nearest_known_one() {
    check(
        &WHOLE.replace("capacity", "capactiy"),
        &[
            "line 10:",
            "[[stream]] \"orders\"",
            "\"capactiy\"",
            "mean \"capacity\"",
        ],
    );
    check(
        &format!("nmaespace = 'x'\n{WHOLE}"),
        &["line 1:", "top level", "nmaespace", "\"namespace\""],
    );
    check(
        &WHOLE.replace("deadline", "deadlin"),
        &["line 21:", "billing", "limits", "deadlin", "\"deadline\""],
    );
    check(
        &WHOLE.replace("initial", "inital"),
        &["line 24:", "billing", "retry, backoff", "\"initial\""],
    );
    check(
        &WHOLE.replace("url", "zzzzzzzz"),
        &["[redis]", "known are: url, password_file"],
    );
    // Of several, the first in the file.
    check("zzz = 1\naaa = 1\n", &["line 1:", "\"zzz\""]);
}

#[test]
fn a_value_that_is_wrong_says_what_is_right() {
    for (from, to, says) in [
        (
            "\"5s\"",
            "5",
            &[
                "line 4: the top level",
                "drain_timeout",
                "bare number 5;",
                "unit",
            ][..],
        ),
        ("\"5s\"", "true", &["drain_timeout", "is true", "text"]),
        ("\"5s\"", "\"5\"", &["drain_timeout", "no unit"]),
        ("\"5s\"", "\"2h\"", &["drain_timeout", "100ms to 1h"]),
        ("\"16MiB\"", "\"1KiB\"", &["memory", "64KiB"]),
        ("\"16MiB\"", "\"16MB\"", &["memory", "MiB"]),
        (
            "partitions = 16",
            "partitions = 0",
            &["partitions", "1 to 4096"],
        ),
        (
            "partitions = 16",
            "partitions = \"16\"",
            &["partitions is a text", "whole number"],
        ),
        (
            "partitions = 16",
            "partitions = 5_000_000_000",
            &["5000000000 partitions", "1 to 4096"],
        ),
        (
            "capacity = 100_000",
            "",
            &["capacity is missing", "line 7: [[stream]]"],
        ),
        (
            "capacity = 100_000",
            "capacity = -1",
            &["capacity", "negative"],
        ),
        (
            "retain = 7",
            "retain = 100_001",
            &["retain is 100001", "100000"],
        ),
        ("\"end\"", "\"middle\"", &["start", "beginning"]),
        ("billing.wasm", "billing.js", &["module", ".wasm"]),
        (
            "\"orders\"\npart",
            "\"or ders\"\npart",
            &["name", "or ders"],
        ),
        ("[[stream]]", "[stream]", &["[[stream]]"]),
        ("max = \"1s\"", "max = \"1ms\"", &["max", "initial"]),
    ] {
        assert!(WHOLE.contains(from), "{from}");
        check(&WHOLE.replacen(from, to, 1), says);
    }
    check("namespace = ", &["line 1"]);
}

#[test]
fn settings_of_later_versions_are_refused_not_ignored() {
    for (from, to, says) in [
        ("\"reuse\"", "\"fresh\"", "fresh"),
        ("handlers/billing.wasm", "deployed", "deployed"),
        (
            "[handler.retry]",
            "[handler.retry]\nattempts = 5",
            "attempts",
        ),
        (
            "[handler.retry]",
            "[handler.retry]\nexhausted = \"halt\"",
            "exhausted",
        ),
        (
            "[handler.retry]",
            "[handler.grants]\nstate = true\n[handler.retry]",
            "grants",
        ),
    ] {
        check(
            &WHOLE.replacen(from, to, 1),
            &[says, "not available in this version"],
        );
    }
}

#[test]
fn two_of_a_kind_are_refused() {
    let handler = |name: &str, group: &str| {
        format!("[[handler]]\nname='{name}'\nstream='s'\ngroup='{group}'\nmodule='m.wasm'\n")
    };
    check(
        &(handler("a", "g") + &handler("a", "h")),
        &["two handlers", "\"a\""],
    );
    check(
        &(handler("a", "g") + &handler("b", "g")),
        &["\"a\"", "\"b\"", "stream s", "group g"],
    );
    let stream = "[[stream]]\nname='s'\npartitions=1\ncapacity=1\n";
    check(&stream.repeat(2), &["[[stream]]", "\"s\""]);
}

#[test]
fn a_source_has_one_partition_and_nothing_that_bounds_it() {
    let source =
        "source = { redis_key = \"events\", key_field = \"user\", payload_field = \"body\" }";
    let text = format!("[[stream]]\nname = \"legacy\"\n{source}\n");
    let config = Config::parse(&text, Path::new("dir")).unwrap();
    let stream = &config.streams[0];
    assert_eq!((stream.shape, stream.retain), (Shape::SOURCE, 0));
    let bound = stream.source.as_ref().expect("a source");
    assert_eq!(bound.redis_key(), "events");
    for (more, says) in [
        (
            "partitions = 1",
            "partitions goes not with source: it has one partition",
        ),
        (
            "capacity = 9",
            "capacity goes not with source: nothing of ours bounds",
        ),
        (
            "retain = 0",
            "retain goes not with source: it is never trimmed",
        ),
    ] {
        check(&format!("{text}{more}\n"), &[says, "legacy"]);
    }
    for (from, to, says) in [
        ("events", "seg:{a/b/0}:log", "begins with seg:"),
        ("user", "body", "both \"body\""),
        (
            "payload_field",
            "payload_feld",
            "did you mean \"payload_field\"?",
        ),
        (", key_field = \"user\"", "", "key_field is missing"),
    ] {
        check(&text.replace(from, to), &[says]);
    }
}
