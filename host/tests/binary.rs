//! The binary by itself. (That it is a test of this package also makes cargo build the binary with the
//! same features as all tests, so that nothing is compiled twice.)

use std::process::Command;

#[test]
fn help_is_for_stdout_and_misuse_for_stderr() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_segmenter"))
            .args(args)
            .output();
        let output = output.expect("the binary runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, stdout, stderr) = run(&["--help"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for command in ["new", "stream", "send", "tail", "run", "group", "dead"] {
        assert!(
            stdout.contains(&format!("\n  {command} ")),
            "{command} is missing in {stdout}"
        );
    }
    let (code, stdout, stderr) = run(&["strem"]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(
        stderr.contains("'stream'"),
        "it should know what was meant: {stderr}"
    );
}

#[test]
fn arguments_that_are_not_utf8_are_misuse_and_no_crash() {
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"n\xe9=1");
    for format in ["human", "json"] {
        let output = Command::new(env!("CARGO_BIN_EXE_segmenter"))
            .args(["--format", format, "send", "s", "--key", "k", "--attr"])
            .arg(odd)
            .arg("payload")
            .output()
            .expect("the binary runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("UTF-8"), "{stderr}");
        assert_eq!(stderr.starts_with('{'), format == "json", "{stderr}");
    }
}

/// Points at which a process ends by itself are for tests alone.
#[test]
fn what_is_built_for_people_has_no_fail_points() {
    let features = |selected: &[&str]| {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--locked", "--prefix", "none"])
            .args(["--format", "{p} features: {f}"])
            .args(selected)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        let mine = said.lines().find(|line| line.starts_with("segmenter v"));
        mine.unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    let people = features(&["--package", "segmenter", "--edges", "normal,build"]);
    assert!(!people.contains("failpoints"), "{people}");
    let tests = features(&["--workspace", "--edges", "normal,build,dev"]);
    assert!(tests.contains("failpoints"), "{tests}");
}

#[test]
fn new_writes_into_empty_folders_alone_and_under_names_that_every_tool_takes() {
    let place = tempfile::tempdir().expect("a folder");
    let new = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_segmenter"))
            .arg("new")
            .args(args)
            .current_dir(place.path())
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let files = |folder: &str| {
        let entries = std::fs::read_dir(place.path().join(folder));
        entries.map_or(0, |entries| entries.count())
    };

    // An empty folder will do, and one that is not there with those above it; its name is the project's.
    std::fs::create_dir(place.path().join("empty")).expect("created");
    for dir in ["empty", "deep/below/shop"] {
        assert_eq!(new(&[dir, "--lang", "rust"]).0, Some(0));
        let manifest = place.path().join(dir).join("Cargo.toml");
        let name = dir.rsplit('/').next().expect("a name");
        let manifest = std::fs::read_to_string(manifest).expect("it is there");
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "{manifest}"
        );
    }

    std::fs::create_dir(place.path().join("full")).expect("created");
    std::fs::write(place.path().join("full/mine.txt"), "mine").expect("written");
    for (args, code, says) in [
        (&["full", "--lang", "c"][..], 1, "\"mine.txt\" is in it"),
        (
            &["full/mine.txt", "--lang", "c", "--name", "x"],
            1,
            "is a file",
        ),
        (&["Shop", "--lang", "c"], 2, "--name"),
        (
            &["shop", "--lang", "c", "--name", "a b"],
            2,
            "only lower-case",
        ),
        (&["shop", "--lang", "pyton"], 2, "'python'"),
        (&["shop"], 2, "--lang"),
    ] {
        let (found, said) = new(args);
        assert_eq!(found, Some(code), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?}: {said}");
    }
    assert_eq!((files("full"), files("Shop"), files("shop")), (1, 0, 0));
}
