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
    for command in ["stream", "send", "tail", "run", "group", "dead"] {
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
