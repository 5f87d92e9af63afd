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
recycle_after = 1_000
recycle_memory = "8MiB"
[handler.limits]
deadline = "250ms"
memory = "16MiB"
instantiate = "2s"
table_elements = 5_000
core_instances = 7
log = "32KiB"
module_size = "3MiB"
[handler.retry]
backoff = { initial = "10ms", max = "1s" }
[handler.batch]
messages = 7
bytes = "2KiB"
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
    let module = ModuleSource::File("dir/handlers/billing.wasm".into());
    assert_eq!((&handler.module, &handler.allow), (&module, &None));
    assert_eq!(handler.start, Start::End);
    assert_eq!(handler.session_timeout, Duration::from_secs(2));
    assert_eq!(handler.limits.deadline, Duration::from_millis(250));
    let limits = handler.limits;
    assert_eq!(limits.memory_bytes, 16 << 20);
    assert_eq!(limits.instantiate, Duration::from_secs(2));
    assert_eq!((limits.table_elements, limits.core_instances), (5_000, 7));
    assert_eq!((limits.log_bytes, limits.module_bytes), (32 << 10, 3 << 20));
    assert_eq!(handler.recycle.after_messages, Some(1_000));
    assert_eq!(handler.recycle.memory_bytes, Some(8 << 20));
    assert_eq!(handler.backoff.initial, Duration::from_millis(10));
    let Takes { messages, bytes } = handler.batch;
    assert_eq!((messages.get(), bytes), (7, 2048));
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
    assert_eq!(handler.recycle, Recycle::default());
    assert_eq!(handler.batch, BATCH);
}

#[test]
fn a_fresh_instance_is_one_that_is_replaced_after_a_message() {
    let fresh = |more: &str| {
        let text = format!(
            "[[handler]]\nname='h'\nstream='s'\ngroup='g'\nmodule='m.wasm'\ninstance='fresh'\n{more}"
        );
        Config::parse(&text, Path::new(""))
    };
    let config = fresh("").unwrap();
    assert_eq!(config.handlers[0].recycle.after_messages, Some(1));
    let error = fresh("recycle_after = 5").unwrap_err().to_string();
    assert!(error.contains("leave out recycle_after"), "{error}");
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
        &["line 23:", "billing", "limits", "deadlin", "\"deadline\""],
    );
    check(
        &WHOLE.replace("initial", "inital"),
        &["line 31:", "billing", "retry, backoff", "\"initial\""],
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
        ("\"32KiB\"", "\"1KiB\"", &["log is 1KiB", "16KiB to 1GiB"]),
        ("\"3MiB\"", "3", &["module_size", "bare number 3;"]),
        ("= 5_000", "= 0", &["table_elements is 0", "1 to 1000000"]),
        (
            "= 7\nlog",
            "= 1_001\nlog",
            &["core_instances is 1001", "1 to 1000"],
        ),
        (
            "\"2s\"\ntable",
            "\"2h\"\ntable",
            &["instantiate", "1ms to 1h"],
        ),
        ("= 1_000\nrec", "= 0\nrec", &["recycle_after is 0"]),
        ("\"8MiB\"", "\"8B\"", &["recycle_memory is 8B", "64KiB"]),
        ("\"reuse\"", "\"new\"", &["instance is \"new\"", "fresh"]),
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
        ("= 7\nbytes", "= 0\nbytes", &["messages is 0", "1 to 1024"]),
        (
            "\"2KiB\"",
            "\"65MiB\"",
            &["batch", "bytes is 65MiB", "1B to"],
        ),
    ] {
        assert!(WHOLE.contains(from), "{from}");
        check(&WHOLE.replacen(from, to, 1), says);
    }
    check("namespace = ", &["line 1"]);
}

#[test]
fn how_much_a_handler_may_keep_and_emit_is_read_and_checked() {
    let with =
        |text: &str| WHOLE.replacen("[handler.limits]", &format!("[handler.limits]\n{text}"), 1);
    let text = with("state_value = \"2KiB\"\nstate = \"1MiB\"\nemits = 3\nemit_bytes = \"64KiB\"");
    let config = Config::parse(&text, Path::new("")).unwrap();
    let effects = config.handlers[0].limits.effects;
    let found = (
        effects.value_bytes,
        effects.state_bytes,
        effects.emits,
        effects.emit_bytes,
    );
    assert_eq!(found, (2 << 10, 1 << 20, 3, 64 << 10));
    check(&with("emits = 5_000"), &["emits", "4000"]);
    check(&with("state = \"2GiB\""), &["state", "1GiB"]);
}

#[test]
fn how_much_a_host_may_read_ahead_is_read_and_checked() {
    let with = |text: &str| format!("{text}\n{WHOLE}");
    let read = |text: &str| Config::parse(&with(text), Path::new("")).map(|c| c.read_ahead);
    assert_eq!(read("").unwrap(), READ_AHEAD_BYTES);
    assert_eq!(read("read_ahead = \"64MiB\"").unwrap(), 64 << 20);
    check(
        &with("read_ahead = \"512KiB\""),
        &["line 1", "read_ahead is 512KiB", "1MiB to 1024GiB"],
    );
    check(&with("read_ahead = 64"), &["read_ahead", "bare number 64;"]);
    check(
        &with("read_ahed = \"64MiB\""),
        &["line 1", "read_ahed", "mean \"read_ahead\""],
    );
    // A flag and a variable say the same.
    assert_eq!(read_ahead("64MiB"), Ok(64 << 20));
    for (text, says) in [("64", "no unit"), ("1KiB", "1MiB to 1024GiB")] {
        let error = read_ahead(text).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn attempts_and_what_follows_them_are_read_and_checked() {
    let with =
        |text: &str| WHOLE.replacen("[handler.retry]", &format!("[handler.retry]\n{text}"), 1);
    let config = Config::parse(&with("attempts = 7\nexhausted = \"halt\""), Path::new("")).unwrap();
    let handler = &config.handlers[0];
    assert_eq!((handler.attempts, handler.exhausted), (7, Exhausted::Halt));
    check(&with("attempts = 0"), &["attempts", "1 to"]);
    check(
        &with("exhausted = \"never\""),
        &["exhausted", "dead-letter"],
    );
}

#[test]
fn a_module_may_be_the_deployed_one() {
    let text = WHOLE.replacen("handlers/billing.wasm", "deployed", 1);
    let config = Config::parse(&text, Path::new("dir")).unwrap();
    assert_eq!(config.handlers[0].module, ModuleSource::Deployed);
    // A file of that name is another thing.
    let text = WHOLE.replacen("handlers/billing.wasm", "deployed.wasm", 1);
    let config = Config::parse(&text, Path::new("dir")).unwrap();
    let file = ModuleSource::File("dir/deployed.wasm".into());
    assert_eq!(config.handlers[0].module, file);
    check(
        &WHOLE.replacen("handlers/billing.wasm", "deploy", 1),
        &["module \"deploy\"", ".wasm", "\"deployed\""],
    );
}

#[test]
fn what_may_run_is_a_list_of_digests() {
    let with = |text: &str| WHOLE.replacen("start =", &format!("{text}\nstart ="), 1);
    let (a, b) = ("0a".repeat(32), "F1".repeat(32));
    let config =
        Config::parse(&with(&format!("allow = [\"{a}\", \"{b}\"]")), Path::new("")).unwrap();
    let allow = config.handlers[0].allow.as_ref().unwrap();
    let allow: Vec<_> = allow.iter().map(|version| version.as_str()).collect();
    assert_eq!(allow, [a.as_str(), b.to_lowercase().as_str()]);
    let short = format!("allow = [\"{}\"]", &a[1..]);
    check(&with(&short), &["billing", "allow", "64 hex", "sha256sum"]);
    let odd = format!("allow = [\"{}\"]", "xy".repeat(32));
    check(&with(&odd), &["is no sha256"]);
    check(&with("allow = []"), &["allow is empty", "leave it out"]);
    check(&with("allow = \"x\""), &["allow is a text", "list"]);
    check(&with("alow = []"), &["\"alow\"", "mean \"allow\""]);
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

/// [`WHOLE`] with this in its grants.
fn granting(grants: &str) -> String {
    WHOLE.replacen(
        "[handler.retry]",
        &format!("[handler.grants]\n{grants}\n[handler.retry]"),
        1,
    )
}

#[test]
fn grants_are_read_and_nothing_is_granted_unasked() {
    let config = Config::parse(WHOLE, Path::new("dir")).unwrap();
    assert_eq!(config.handlers[0].grants, Grants::default());
    let text = granting(
        r#"emit = ["invoices", "audit"]
state = true
http = ["https://api.example.com", "http://localhost:8080"]
files = [{ host = "data", guest = "/data" }, { host = "/abs", guest = "/out", write = true }]
env = { REGION = "eu" }
config = { currency = "EUR", "any key" = "" }"#,
    );
    let config = Config::parse(&text, Path::new("dir")).unwrap();
    let grants = &config.handlers[0].grants;
    let emit: Vec<_> = grants.emit.iter().map(|name| name.as_str()).collect();
    assert_eq!(emit, ["audit", "invoices"]);
    assert!(grants.state);
    assert_eq!(grants.http.len(), 2);
    let files: Vec<_> = grants
        .files
        .iter()
        .map(|f| (f.host.as_path(), f.guest.as_str(), f.write))
        .collect();
    assert_eq!(
        files,
        [
            (Path::new("dir/data"), "/data", false),
            (Path::new("/abs"), "/out", true)
        ]
    );
    assert_eq!(grants.env["REGION"], "eu");
    assert_eq!(grants.config.as_ref().unwrap()["any key"], "");
}

#[test]
fn a_grant_that_cannot_be_given_says_why() {
    for (grants, says) in [
        ("stat = true", &["\"stat\"", "mean \"state\"", "grants"][..]),
        ("state = \"yes\"", &["state is a text", "true nor false"]),
        ("emit = \"invoices\"", &["emit is a text", "list of texts"]),
        ("emit = [1]", &["emit is a list with a number"]),
        ("emit = [\"in voices\"]", &["emit", "in voices"]),
        (
            "http = [\"api.example.com\"]",
            &["no origin", "https://HOST"],
        ),
        (
            "http = [\"https://a/b\"]",
            &["billing", "grants", "has a path"],
        ),
        ("files = [\"data\"]", &["files is a text", "list of tables"]),
        (
            "files = [{ host = \"data\" }]",
            &["files number 1", "guest is missing"],
        ),
        (
            "files = [{ host = \"data\", guest = \"data\" }]",
            &["guest is \"data\"", "absolute"],
        ),
        (
            "files = [{ host = \"data\", guest = \"/a/../b\" }]",
            &["guest", "absolute"],
        ),
        (
            "files = [{ host = \"a\", guest = \"/d\" }, { host = \"b\", guest = \"/d\" }]",
            &["files number 2", "two folders", "/d"],
        ),
        ("env = { N = 1 }", &["env: N is a number"]),
        ("env = { \"A=B\" = \"x\" }", &["env", "A=B"]),
        ("config = true", &["config is true", "table"]),
    ] {
        check(&granting(grants), says);
    }
}

#[test]
fn grants_of_the_command_line_add_up() {
    let mut grants = Grants::default();
    for text in ["state", "emit=a", "emit=b", "http=https://x"] {
        grant(&mut grants, text).unwrap();
    }
    assert!(grants.state);
    assert_eq!((grants.emit.len(), grants.http.len()), (2, 1));
    for (text, says) in [
        ("stat", "known are"),
        ("state=yes", "known are"),
        ("emit=", "empty"),
        ("http=x", "no origin"),
        ("files=data", "configuration file"),
    ] {
        let error = grant(&mut grants, text).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn a_stream_may_have_a_payload_limit_of_its_own() {
    let limit_of = |stream: &str, more: &str| {
        let text = format!("[[stream]]\nname = \"s\"\n{stream}\n{more}\n");
        let config = Config::parse(&text, Path::new("dir")).unwrap();
        config.streams[0].shape.payload_max()
    };
    let source = "source = { redis_key = \"e\", key_field = \"k\", payload_field = \"p\" }";
    for stream in ["partitions = 1\ncapacity = 1", source] {
        assert_eq!(limit_of(stream, ""), 1_048_576);
        assert_eq!(limit_of(stream, "payload_max = \"64MiB\""), 64 << 20);
        assert_eq!(limit_of(stream, "payload_max = \"1B\""), 1);
    }
    for (size, says) in [
        ("\"0B\"", "use 1B to 64MiB"),
        ("\"65MiB\"", "use 1B to 64MiB"),
        ("5", "bare number"),
    ] {
        let text = format!(
            "[[stream]]\nname = \"s\"\npartitions = 1\ncapacity = 1\npayload_max = {size}\n"
        );
        check(&text, &["line 5", "payload_max", says]);
    }
}
