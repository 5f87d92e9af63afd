//! Mutations from a seed, for the bounded run: what libFuzzer does, without looking at the code that
//! runs. Must not know what the bytes mean.

use crate::chaos::chance::Chance;

/// Longer ones cost time and find nothing more.
const BYTES_MAX: usize = 64 * 1024;
/// Where parsers have their edges.
const ODD: &[&[u8]] = &[
    b"\0",
    b"\n",
    b"\r\n",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b"-1",
    b"0",
    b"18446744073709551615",
    b"18446744073709551616",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"4294967296",
    b"1e999",
    b"NaN",
    b"0-0",
    b"18446744073709551615-18446744073709551615",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xf0\x9f\x92\xa9",
    b"\x80\x80\x80\x80\x10",
    b"\xff\xff\xff\xff\x0f",
];

pub struct Mutator {
    chance: Chance,
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    /// The same seed and corpus give the same inputs.
    pub fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Mutator {
        let corpus = if corpus.is_empty() {
            vec![Vec::new()]
        } else {
            corpus
        };
        Mutator {
            chance: Chance::new(seed),
            corpus,
        }
    }

    fn below(&mut self, end: usize) -> usize {
        let high = end.saturating_sub(1) as u64;
        usize::try_from(self.chance.between(0, high)).expect("below a length")
    }

    /// A piece of `bytes`, mostly a short one.
    fn piece(&mut self, len: usize) -> std::ops::Range<usize> {
        let from = self.below(len + 1);
        let longest = if self.below(4) == 0 { len } else { 16 };
        from..len.min(from + self.below(longest + 1))
    }
}

impl Iterator for Mutator {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let chosen = self.below(self.corpus.len());
        let mut bytes = self.corpus[chosen].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.chance.draw().to_le_bytes()[0],
                2 => drop(bytes.drain(self.piece(bytes.len()))),
                3 => {
                    let again = bytes[self.piece(bytes.len())].to_vec();
                    bytes.splice(at..at, again);
                }
                4 => {
                    let other = self.below(self.corpus.len());
                    let piece = self.piece(self.corpus[other].len());
                    let taken = self.corpus[other][piece].to_vec();
                    bytes.splice(at..at, taken);
                }
                5 => bytes.truncate(at),
                _ => {
                    let odd = ODD[self.below(ODD.len())];
                    let over = if self.below(2) == 0 { 0 } else { odd.len() };
                    let end = bytes.len().min(at + over);
                    bytes.splice(at..end, odd.iter().copied());
                }
            }
        }
        bytes.truncate(BYTES_MAX);
        Some(bytes)
    }
}
