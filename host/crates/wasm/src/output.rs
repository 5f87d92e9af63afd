//! What a guest writes (stdout, stderr, wasi:logging) as lines, handed on during the call that writes
//! them. Knows which message is being handled; must not know where lines go.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use segmenter_core::limits;
use segmenter_core::message::{EntryId, Message};
use segmenter_core::names::Partition;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi_io::bytes::Bytes;

/// How important a line is. stdout counts as info, stderr as warn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Critical => "critical",
        }
    }
}

/// One line of a guest. What a call writes over its limit is dropped; its last line then says how much.
/// Without a message (while an instance is made) id is 0-0 and attempt 0.
#[derive(Debug)]
pub struct GuestLine<'a> {
    pub partition: Partition,
    pub id: EntryId,
    pub attempt: u32,
    pub level: Level,
    pub text: &'a str,
    /// A shadow wrote it: what it tells has not happened.
    pub shadow: bool,
}

/// Takes lines, at once: when `line` returns, the line is out.
pub trait LogSink: Send + Sync {
    fn line(&self, line: &GuestLine<'_>);
}

/// Said at the end of a line that was cut.
const CUT: &str = " … (cut)";
/// What a line counts for at least: an empty one is none for whoever stores logs.
const LINE_BYTES_MIN: usize = 64;
/// What a stream accepts in one write.
const WRITE_BYTES: usize = 64 * 1024;

/// Shared by the store and its two streams.
#[derive(Clone)]
pub(crate) struct Output(Arc<Mutex<Inner>>);

struct Inner {
    sink: Arc<dyn LogSink>,
    partition: Partition,
    id: EntryId,
    attempt: u32,
    stdout: Begun,
    stderr: Begun,
    /// Of each call.
    bytes_max: usize,
    bytes: usize,
    dropped: Dropped,
    /// The last bytes of stderr in this call, for the reason of a trap.
    tail: VecDeque<u8>,
    shadow: bool,
}

/// A line without its end.
#[derive(Default)]
struct Begun {
    /// As much of it as is shown.
    text: Vec<u8>,
    bytes: usize,
}

/// Of one call.
#[derive(Default)]
struct Dropped {
    lines: u64,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Output {
    pub(crate) fn new(
        sink: Arc<dyn LogSink>,
        partition: Partition,
        bytes_max: usize,
        shadow: bool,
    ) -> Output {
        Output(Arc::new(Mutex::new(Inner {
            sink,
            partition,
            id: EntryId::ZERO,
            attempt: 0,
            stdout: Begun::default(),
            stderr: Begun::default(),
            bytes_max,
            bytes: 0,
            dropped: Dropped::default(),
            tail: VecDeque::new(),
            shadow,
        })))
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        // A sink that panicked has lost its line; ours are whole.
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn stream(&self, stream: Stream) -> LineStream {
        LineStream {
            output: self.clone(),
            stream,
        }
    }

    /// From here on lines belong to `message`.
    pub(crate) fn begin(&self, message: &Message) {
        let mut inner = self.inner();
        inner.id = message.id;
        inner.attempt = message.attempt;
        inner.tail.clear();
    }

    /// What was written without a line feed is a line, too; and what was dropped is told.
    pub(crate) fn end(&self) {
        let mut inner = self.inner();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(inner.buffer(stream));
            if rest.bytes > 0 {
                inner.say(stream.level(), &rest.text, rest.bytes);
            }
        }
        let Dropped { lines, bytes } = std::mem::take(&mut inner.dropped);
        inner.bytes = 0;
        if lines > 0 {
            let max = inner.bytes_max;
            let text = format!(
                "… (dropped {lines} lines of {bytes} bytes: this call wrote more than its limit of {max} bytes)"
            );
            inner.put(Level::Warn, &text);
        }
    }

    pub(crate) fn logged(&self, level: Level, text: &str) {
        let mut inner = self.inner();
        for line in text.split('\n') {
            inner.say(level, line.as_bytes(), line.len());
        }
    }

    /// The last [`limits::STDERR_TAIL_BYTES`] that the call wrote to stderr.
    pub(crate) fn stderr_tail(&self) -> String {
        let inner = self.inner();
        let (a, b) = inner.tail.as_slices();
        String::from_utf8_lossy(&[a, b].concat()).trim().to_owned()
    }
}

impl Stream {
    fn level(self) -> Level {
        match self {
            Stream::Stdout => Level::Info,
            Stream::Stderr => Level::Warn,
        }
    }
}

impl Inner {
    fn buffer(&mut self, stream: Stream) -> &mut Begun {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// `shown` is the beginning of a line of so many bytes.
    fn say(&mut self, level: Level, shown: &[u8], bytes: usize) {
        let cost = shown
            .len()
            .clamp(LINE_BYTES_MIN, limits::LOG_LINE_BYTES_MAX);
        // After the first that is dropped all are: a gap in the middle would mislead.
        if self.dropped.lines > 0 || self.bytes.saturating_add(cost) > self.bytes_max {
            self.dropped.lines += 1;
            self.dropped.bytes = self.dropped.bytes.saturating_add(bytes);
            return;
        }
        self.bytes += cost;
        let shown = shown.strip_suffix(b"\r").unwrap_or(shown);
        let text = String::from_utf8_lossy(shown);
        let text = match cut(&text, limits::LOG_LINE_BYTES_MAX) {
            None => text,
            Some(start) => format!("{start}{CUT}").into(),
        };
        self.put(level, &text);
    }

    fn put(&self, level: Level, text: &str) {
        self.sink.line(&GuestLine {
            partition: self.partition,
            id: self.id,
            attempt: self.attempt,
            level,
            text,
            shadow: self.shadow,
        });
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        if stream == Stream::Stderr {
            self.tail.extend(bytes);
            let over = self.tail.len().saturating_sub(limits::STDERR_TAIL_BYTES);
            self.tail.drain(..over);
        }
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let last = lines.next_back().unwrap_or_default();
        for line in lines {
            let mut whole = std::mem::take(self.buffer(stream));
            whole.add(line);
            self.say(stream.level(), &whole.text, whole.bytes);
        }
        self.buffer(stream).add(last);
    }
}

impl Begun {
    /// What exceeds the limit would be cut anyway: one byte more is enough to know.
    fn add(&mut self, piece: &[u8]) {
        let room = (limits::LOG_LINE_BYTES_MAX + 1).saturating_sub(self.text.len());
        self.text.extend_from_slice(&piece[..piece.len().min(room)]);
        self.bytes = self.bytes.saturating_add(piece.len());
    }
}

/// At most `max` bytes of `text`, on a character boundary; `None` if it fits.
pub(crate) fn cut(text: &str, max: usize) -> Option<&str> {
    (text.len() > max).then(|| &text[..text.floor_char_boundary(max)])
}

/// stdout or stderr of a guest. Never blocks, never refuses.
pub(crate) struct LineStream {
    output: Output,
    stream: Stream,
}

impl IsTerminal for LineStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LineStream {
    /// wasi 0.3 only, which is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.output.stream(self.stream))
    }
}

impl OutputStream for LineStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.output.inner().write(self.stream, &bytes);
        Ok(())
    }
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }
    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LineStream {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<(Level, String)>>);
    impl LogSink for Lines {
        fn line(&self, line: &GuestLine<'_>) {
            self.0
                .lock()
                .unwrap()
                .push((line.level, line.text.to_owned()));
        }
    }

    fn written(pieces: &[(Stream, &[u8])]) -> (Vec<(Level, String)>, String) {
        written_of(1 << 20, pieces)
    }

    fn written_of(max: usize, pieces: &[(Stream, &[u8])]) -> (Vec<(Level, String)>, String) {
        let sink = Arc::new(Lines::default());
        let output = Output::new(sink.clone(), Partition(0), max, false);
        for (stream, bytes) in pieces {
            output.inner().write(*stream, bytes);
        }
        output.end();
        let lines = sink.0.lock().unwrap().clone();
        (lines, output.stderr_tail())
    }

    #[test]
    fn pieces_become_lines_and_the_rest_is_a_line_at_the_end() {
        let (lines, tail) = written(&[
            (Stream::Stdout, b"one\ntw"),
            (Stream::Stderr, b"err"),
            (Stream::Stdout, b"o\r\n\nrest"),
        ]);
        let text: Vec<_> = lines
            .iter()
            .map(|(l, t)| (l.as_str(), t.as_str()))
            .collect();
        assert_eq!(
            text,
            [
                ("info", "one"),
                ("info", "two"),
                ("info", ""),
                ("info", "rest"),
                ("warn", "err")
            ]
        );
        assert_eq!(tail, "err");
    }

    #[test]
    fn a_long_line_is_cut_and_marked_and_the_tail_is_bounded() {
        let long = vec![b'x'; limits::LOG_LINE_BYTES_MAX * 3];
        let (lines, tail) = written(&[(Stream::Stderr, &long), (Stream::Stderr, b"end\n")]);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].1.ends_with(CUT));
        assert_eq!(lines[0].1.len(), limits::LOG_LINE_BYTES_MAX + CUT.len());
        assert!(tail.ends_with("xend") && tail.len() < limits::STDERR_TAIL_BYTES + 1);
    }

    #[test]
    fn what_is_over_is_dropped_and_told_in_one_line_and_the_next_call_begins_anew() {
        let line = [b'x'; 100];
        let flood = [&line[..], b"\n"].concat().repeat(10);
        let (lines, tail) = written_of(350, &[(Stream::Stdout, &flood), (Stream::Stderr, b"why")]);
        // Three lines fit; seven of 100 bytes do not, nor what came after them.
        assert_eq!(lines.len(), 4, "{lines:?}");
        let (level, mark) = &lines[3];
        assert_eq!(*level, Level::Warn);
        assert!(
            mark.contains("8 lines of 703 bytes") && mark.contains("350 bytes"),
            "{mark}"
        );
        assert_eq!(
            tail, "why",
            "the reason of a trap has its words all the same"
        );

        let sink = Arc::new(Lines::default());
        let output = Output::new(sink.clone(), Partition(0), 350, false);
        for _ in 0..2 {
            output.inner().write(Stream::Stdout, &flood);
            output.end();
        }
        assert_eq!(sink.0.lock().unwrap().len(), 8);
    }

    #[test]
    fn empty_lines_are_no_way_around_the_limit() {
        let (lines, _) = written_of(16 * 1024, &[(Stream::Stdout, &[b'\n'; 60_000])]);
        assert_eq!(lines.len(), 256 + 1);
        assert!(
            lines[256].1.contains("59744 lines of 0 bytes"),
            "{:?}",
            lines[256]
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_such() {
        let (lines, _) = written(&[(Stream::Stdout, b"a\xffb\n")]);
        assert_eq!(lines[0].1, "a\u{fffd}b");
    }
}
