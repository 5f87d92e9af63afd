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
