//! A client on a raw socket: the yardstick. It builds nothing but what it needs to ask again: ids to ack
//! are spans of the read buffer. Knows RESP2; must not know Segmenter.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;

use anyhow::{Context, bail};

const READ_BYTES: usize = 1 << 20;

pub(crate) struct Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    used: usize,
}

/// A reply, or a part of it: what a scan of the buffer tells apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// Bytes of a bulk string or a simple string.
    Text(Range<usize>),
    Int(i64),
    Nil,
    /// That many items follow.
    Array(usize),
}

/// Each command with its length: what goes over the wire.
pub(crate) fn encode(out: &mut Vec<u8>, args: &[&[u8]]) {
    let _ = write!(out, "*{}\r\n", args.len());
    for arg in args {
        let _ = write!(out, "${}\r\n", arg.len());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

impl Raw {
    pub(crate) fn connect(port: u16) -> anyhow::Result<Raw> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("connecting to the server")?;
        stream.set_nodelay(true)?;
        Ok(Raw {
            stream,
            buffer: vec![0; READ_BYTES],
            filled: 0,
            used: 0,
        })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    pub(crate) fn command(&mut self, args: &[&str]) -> anyhow::Result<Vec<Item>> {
        let mut out = Vec::new();
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        encode(&mut out, &args);
        self.send(&out)?;
        let mut items = Vec::new();
        self.reply(&mut items)?;
        Ok(items)
    }

    pub(crate) fn text(&self, range: &Range<usize>) -> &[u8] {
        &self.buffer[range.clone()]
    }

    pub(crate) fn string(&self, item: &Item) -> String {
        match item {
            Item::Text(range) => String::from_utf8_lossy(self.text(range)).into_owned(),
            Item::Int(n) => n.to_string(),
            _ => String::new(),
        }
    }

    /// One whole reply into `items`, flat. Ranges hold until the next call.
    pub(crate) fn reply(&mut self, items: &mut Vec<Item>) -> anyhow::Result<()> {
        self.buffer.copy_within(self.used..self.filled, 0);
        self.filled -= self.used;
        self.used = 0;
        items.clear();
        // Where the scan goes on when more has arrived, and how many items are still to come.
        let (mut at, mut left) = (0, 1usize);
        loop {
            while left > 0 {
                let Some((item, end)) = scan(&self.buffer[..self.filled], at)? else {
                    break;
                };
                at = end;
                left -= 1;
                if let Item::Array(n) = item {
                    left += n;
                }
                items.push(item);
            }
            if left == 0 {
                self.used = at;
                return Ok(());
            }
            if self.filled + READ_BYTES / 4 > self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            let n = self.stream.read(&mut self.buffer[self.filled..])?;
            if n == 0 {
                bail!("the server closed the connection");
            }
            self.filled += n;
        }
    }

    /// Lines until the time is over: for MONITOR.
    pub(crate) fn lines_for(&mut self, time: std::time::Duration) -> anyhow::Result<Vec<String>> {
        let until = std::time::Instant::now() + time;
        let mut bytes = Vec::new();
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                break;
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => bytes.extend_from_slice(&chunk[..n]),
                Err(e)
                    if matches!(
                        e.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) =>
                {
                    break;
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(String::from_utf8_lossy(&bytes)
            .lines()
            .map(str::to_owned)
            .collect())
    }
}

/// The item at `at` and where it ends; `None`: not there yet.
fn scan(buffer: &[u8], at: usize) -> anyhow::Result<Option<(Item, usize)>> {
    let Some(kind) = buffer.get(at) else {
        return Ok(None);
    };
    let Some(line) = buffer[at..]
        .iter()
        .take(64 * 1024)
        .position(|b| *b == b'\r')
    else {
        return Ok(None);
    };
    let (start, end) = (at + 1, at + line);
    if buffer.len() < end + 2 {
        return Ok(None);
    }
    let after = end + 2;
    let number = || -> i64 {
        let (sign, digits) = match buffer[start..end].strip_prefix(b"-") {
            Some(digits) => (-1, digits),
            None => (1, &buffer[start..end]),
        };
        sign * digits
            .iter()
            .fold(0i64, |n, d| n * 10 + i64::from(d - b'0'))
    };
    Ok(Some(match kind {
        b'+' => (Item::Text(start..end), after),
        b'-' => bail!(
            "the server said: {}",
            String::from_utf8_lossy(&buffer[start..end])
        ),
        b':' => (Item::Int(number()), after),
        b'$' => match number() {
            -1 => (Item::Nil, after),
            n => {
                let n = usize::try_from(n)?;
                if buffer.len() < after + n + 2 {
                    return Ok(None);
                }
                (Item::Text(after..after + n), after + n + 2)
            }
        },
        b'*' => match number() {
            -1 => (Item::Nil, after),
            n => (Item::Array(usize::try_from(n)?), after),
        },
        other => bail!("an odd reply begins with {other}"),
    }))
}
