//! Reads and parses lines on a thread of its own while those before are being sent. Bounded, and never
//! waits for more input while it holds something that could be sent: a producer that writes one line a
//! minute is heard every minute.

use std::io::{BufReader, Read};

use tokio::sync::mpsc;

use super::jsonl::{BadLine, Lines, Numbered};
use super::numbers::Numbers;

/// Messages that are sent in one call: enough for full scripts in some partitions.
const CALL_MESSAGES: usize = 8_192;
/// Bytes of messages in one call, about.
const CALL_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of one read, and of what one part holds, about.
const PART_BYTES: usize = 1024 * 1024;
/// Bytes of the parts that may wait to be sent, about: 16 of them, fewer if a message may be larger.
const PARTS_BYTES: usize = 16 * PART_BYTES;

/// Some messages, and how far the input was read for them.
#[derive(Default)]
pub(super) struct Part {
    pub(super) messages: Vec<Numbered>,
    /// Of the input, up to the last of these.
    pub(super) bytes_read: u64,
    /// Why there is no more.
    pub(super) bad: Option<BadLine>,
}

pub(super) struct Parts(mpsc::Receiver<Part>);

/// `payload_max`: bytes, inclusive.
pub(super) fn start(input: impl Read + Send + 'static, ids: Numbers, payload_max: usize) -> Parts {
    let parts_max = (PARTS_BYTES / PART_BYTES.max(payload_max)).max(1);
    let (out, parts) = mpsc::channel(parts_max);
    std::thread::spawn(move || {
        let lines = Lines::new(BufReader::with_capacity(PART_BYTES, input), ids);
        read(lines, payload_max, &out);
    });
    Parts(parts)
}

impl Parts {
    /// What was read meanwhile, at least one message unless the input ended.
    pub(super) async fn next(&mut self) -> Option<Part> {
        let mut whole = self.0.recv().await?;
        let mut bytes: usize = whole.messages.iter().map(|m| m.content.bytes()).sum();
        while whole.messages.len() < CALL_MESSAGES && bytes < CALL_BYTES && whole.bad.is_none() {
            let Ok(part) = self.0.try_recv() else { break };
            bytes += part
                .messages
                .iter()
                .map(|m| m.content.bytes())
                .sum::<usize>();
            whole.messages.extend(part.messages);
            whole.bytes_read = part.bytes_read;
            whole.bad = part.bad;
        }
        Some(whole)
    }
}

fn read<R: Read>(mut lines: Lines<R>, payload_max: usize, out: &mpsc::Sender<Part>) {
    let mut ended = false;
    while !ended {
        let mut part = Part::default();
        let mut bytes = 0;
        while part.messages.len() < CALL_MESSAGES && bytes < PART_BYTES {
            match lines.next(payload_max) {
                Some(Ok(message)) => {
                    bytes += message.content.bytes();
                    part.messages.push(message);
                }
                Some(Err(bad)) => {
                    part.bad = Some(bad);
                    ended = true;
                }
                None => ended = true,
            }
            if ended || !lines.has_next_at_hand() {
                break;
            }
        }
        part.bytes_read = lines.bytes_read;
        let empty = part.messages.is_empty() && part.bad.is_none();
        if !empty && out.blocking_send(part).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Hands out one piece a read, the next only when the test says so.
    struct Slow(std::sync::mpsc::Receiver<&'static str>);

    impl Read for Slow {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let Ok(piece) = self.0.recv() else {
                return Ok(0);
            };
            into[..piece.len()].copy_from_slice(piece.as_bytes());
            Ok(piece.len())
        }
    }

    fn payloads(part: &Part) -> Vec<&[u8]> {
        part.messages.iter().map(|m| m.content.payload()).collect()
    }

    #[tokio::test]
    async fn a_line_is_handed_on_while_the_next_is_still_being_written() {
        let (pieces, input) = std::sync::mpsc::channel();
        let mut parts = start(Slow(input), Numbers::None, 10);
        pieces
            .send("{\"key\":\"k\",\"payload\":\"1\"}\n{\"key\":")
            .unwrap();
        let part = parts.next().await.unwrap();
        assert_eq!(payloads(&part), [b"1"]);
        pieces.send("\"k\",\"payload\":\"2\"}\n").unwrap();
        let part = parts.next().await.unwrap();
        assert_eq!(payloads(&part), [b"2"]);
        drop(pieces);
        assert!(parts.next().await.is_none());
    }

    #[tokio::test]
    async fn nothing_after_a_bad_line_is_handed_on() {
        let good = |n: usize| format!("{{\"key\":\"k\",\"payload\":\"{n}\"}}\n");
        let mut text: String = (0..20_000).map(good).collect();
        text.push_str("nonsense\n");
        text.push_str(&good(7));
        let mut parts = start(io::Cursor::new(text), Numbers::None, 10);
        let mut messages = 0;
        let bad = loop {
            let part = parts.next().await.expect("a bad line before the end");
            messages += part.messages.len();
            if let Some(bad) = part.bad {
                break bad;
            }
        };
        assert_eq!((messages, bad.number), (20_000, 20_001));
        assert!(parts.next().await.is_none());
    }
}
