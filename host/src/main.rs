//! The binary `segmenter`.

use std::process::ExitCode;

fn main() -> ExitCode {
    segmenter::cli::main()
}
