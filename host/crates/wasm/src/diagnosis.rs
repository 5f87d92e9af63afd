//! What is left of an instance that ended: where it was, and a picture of its memory. Knows how wasmtime
//! tells both; must not know what is done about a failure.

use std::fs::OpenOptions;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use segmenter_core::limits;
use segmenter_core::message::Message;
use wasmtime::{AsContextMut, WasmBacktrace, WasmCoreDump};

use crate::output::cut;

/// Core dumps of one engine: each may be as large as an instance's memory, and a message that traps is
/// tried again.
pub const CORE_DUMPS_MAX: u32 = 10;

/// What is known of the call that ended an instance. Empty after calls that ended well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnosis {
    /// The guest's functions, innermost first, a line each, with source lines where the module has them.
    pub backtrace: Option<String>,
    /// Where the core dump lies, or why there is none.
    pub core_dump: Option<Result<PathBuf, String>>,
}

/// Of a trap; what waited in the host when it was ended has none.
pub(crate) fn backtrace(error: &wasmtime::Error) -> Option<String> {
    let trace = error.downcast_ref::<WasmBacktrace>()?.to_string();
    // The first line is a heading.
    let frames = trace.split_once('\n')?.1;
    Some(match cut(frames, limits::BACKTRACE_BYTES_MAX) {
        None => frames.to_owned(),
        Some(start) => format!("{start}\n… (cut)"),
    })
}

/// Writes the first core dumps of an engine into a folder.
pub(crate) struct CoreDumps {
    dir: PathBuf,
    written: AtomicU32,
}

impl CoreDumps {
    pub(crate) fn new(dir: PathBuf) -> CoreDumps {
        CoreDumps {
            dir,
            written: AtomicU32::new(0),
        }
    }

    /// `None` if the error is no trap, or enough were written. It takes the thread for as long as writing
    /// the guest's memory takes: whoever asks for core dumps looks for an error, not for speed.
    pub(crate) fn write(
        &self,
        error: &wasmtime::Error,
        store: impl AsContextMut,
        handler: &str,
        message: &Message,
    ) -> Option<Result<PathBuf, String>> {
        let dump = error.downcast_ref::<WasmCoreDump>()?;
        let before = self
            .written
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < CORE_DUMPS_MAX).then_some(n + 1)
            });
        before.ok()?;
        let path = self.dir.join(format!(
            "{handler}-{}-{}-{}.coredump",
            message.partition, message.id, message.attempt
        ));
        // wasmtime gives up on types that it cannot write down; a module may declare any.
        let bytes = catch_unwind(AssertUnwindSafe(|| dump.serialize(store, handler)));
        Some(match bytes {
            Ok(bytes) => put(&path, &bytes).map(|()| path),
            Err(_) => Err("no core dump: the module has types that none can hold".to_owned()),
        })
    }
}

/// For its owner alone: messages and secrets of a guest are in it.
fn put(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|e| format!("writing {}: {e}", path.display()))
}
