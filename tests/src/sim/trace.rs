//! What happened, a line an event: hashed always, kept only if asked for. Knows lines; must not know what
//! they mean.

use std::fmt::{Arguments, Write};

#[derive(Debug)]
pub(super) struct Trace {
    line: String,
    hash: u64,
    lines: u64,
    kept: Option<Vec<String>>,
}

impl Trace {
    pub(super) fn new(keep: bool) -> Trace {
        Trace {
            line: String::new(),
            // FNV-1a: the same in every build.
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            kept: keep.then(Vec::new),
        }
    }

    pub(super) fn line(&mut self, now_us: u64, text: Arguments<'_>) {
        self.line.clear();
        let _ = write!(
            self.line,
            "{:>4}.{:06} {text}",
            now_us / 1_000_000,
            now_us % 1_000_000
        );
        for byte in self.line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.lines += 1;
        if let Some(kept) = &mut self.kept {
            kept.push(self.line.clone());
        }
    }

    pub(super) fn into_parts(self) -> (u64, u64, Vec<String>) {
        (self.hash, self.lines, self.kept.unwrap_or_default())
    }
}
