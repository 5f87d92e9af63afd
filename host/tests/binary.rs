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
