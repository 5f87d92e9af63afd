//! A TCP proxy in front of the server, through which one host speaks: it passes, delays, holds back,
//! breaks in mid-frame, or says one word for another. Knows bytes; must not know what they mean.

use std::borrow::Cow;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Each chunk waits so long, in both directions.
    Delay(Duration),
    /// Connections are accepted and stay; nothing comes through until it ends, then everything does.
    Blackhole,
    /// The same for what a client says on a connection from the first time on that it says the word there.
    HoldWord,
    /// After that: what was held goes through, nothing that comes behind it does.
    HoldBehind,
}

/// What a client says now and then, and what gets to the server instead: of the same length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    pub instead: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Requests,
    Answers,
}

pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: u16,
    word: Option<Word>,
    replaced: AtomicU64,
    mode: Mutex<Mode>,
    changed: Condvar,
    /// Connections of an earlier cut are broken.
    cuts: AtomicU64,
    mid_frame: AtomicU64,
    held: AtomicU64,
    closed: AtomicBool,
}

/// Between two looks at what changed, for a connection that is silent.
const LOOK: Duration = Duration::from_millis(100);
const CHUNK_BYTES: usize = 64 << 10;

impl Proxy {
    pub fn start(upstream: u16, word: Option<Word>) -> Proxy {
        if let Some(Word { text, instead }) = &word {
            let length = instead.as_ref().map_or(text.len(), |instead| instead.len());
            assert_eq!(text.len(), length, "a frame names its length");
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared {
            upstream,
            word,
            replaced: AtomicU64::new(0),
            mode: Mutex::new(Mode::Pass),
            changed: Condvar::new(),
            cuts: AtomicU64::new(0),
            mid_frame: AtomicU64::new(0),
            held: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.closed.load(Ordering::Relaxed) {
                    return;
                }
                let shared = accepting.clone();
                std::thread::spawn(move || shared.connect(client));
            }
        });
        Proxy { port, shared }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().expect("no panic") = mode;
        self.shared.changed.notify_all();
    }

    /// Breaks every connection: of what comes next, half is passed on.
    pub fn cut(&self) {
        self.shared.cuts.fetch_add(1, Ordering::SeqCst);
    }

    /// Connections that were broken inside of what was sent, so far.
    pub fn cut_in_mid_frame(&self) -> u64 {
        self.shared.mid_frame.load(Ordering::SeqCst)
    }

    /// Chunks and connections that were held back, so far.
    pub fn held_back(&self) -> u64 {
        self.shared.held.load(Ordering::SeqCst)
    }

    /// How often a word was replaced, so far.
    pub fn replaced(&self) -> u64 {
        self.shared.replaced.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
        // Wakes who accepts.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Shared {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Waits until this is not held back any more; answers the mode then.
    fn admitted(&self, direction: Direction, chunk: &[u8]) -> Mode {
        let holds = |mode| match mode {
            Mode::Blackhole | Mode::HoldBehind => true,
            Mode::HoldWord => direction == Direction::Requests && self.says_word(chunk),
            Mode::Pass | Mode::Delay(_) => false,
        };
        let mut mode = self.mode.lock().expect("no panic");
        let first = *mode;
        if holds(first) {
            self.held.fetch_add(1, Ordering::SeqCst);
        }
        let goes = |mode| first == Mode::HoldWord && mode == Mode::HoldBehind;
        while holds(*mode) && !goes(*mode) && !self.is_closed() {
            mode = self.changed.wait_timeout(mode, LOOK).expect("no panic").0;
        }
        *mode
    }

    /// Whole: one that two chunks share is not seen, the next one will be.
    fn says_word(&self, chunk: &[u8]) -> bool {
        let word = self.word.as_ref();
        word.is_some_and(|word| find(chunk, word.text.as_bytes()).is_some())
    }

    fn connect(self: Arc<Shared>, client: TcpStream) {
        let born = self.cuts.load(Ordering::SeqCst);
        self.admitted(Direction::Requests, b"");
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.upstream)) else {
            let _ = client.shutdown(Shutdown::Both);
            return;
        };
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
            let _ = stream.set_read_timeout(Some(LOOK));
        }
        let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else {
            return;
        };
        let back = self.clone();
        let answers = Direction::Answers;
        std::thread::spawn(move || back.pump(server_too, client_too, answers, born));
        self.pump(client, server, Direction::Requests, born);
    }

    /// One direction, until either side ends or the connection is cut.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream, direction: Direction, born: u64) {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut words = match (&self.word, direction) {
            (Some(word), Direction::Requests) => Words::new(word),
            _ => None,
        };
        loop {
            let cut = || self.cuts.load(Ordering::SeqCst) != born || self.is_closed();
            let read = match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if cut() {
                        break;
                    }
                    continue;
                }
                Err(_) => break,
            };
            if let Mode::Delay(delay) = self.admitted(direction, &chunk[..read]) {
                let due = Instant::now() + delay;
                while let Some(left) = due.checked_duration_since(Instant::now()) {
                    std::thread::park_timeout(left);
                }
            }
            let passed = match &mut words {
                Some(words) => {
                    let (passed, replaced) = words.pass(&chunk[..read]);
                    self.replaced.fetch_add(replaced, Ordering::SeqCst);
                    Cow::Owned(passed)
                }
                None => Cow::Borrowed(&chunk[..read]),
            };
            if cut() {
                let half = passed.len() / 2;
                if half > 0 && to.write_all(&passed[..half]).is_ok() {
                    self.mid_frame.fetch_add(1, Ordering::SeqCst);
                }
                break;
            }
            if to.write_all(&passed).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

fn find(bytes: &[u8], word: &[u8]) -> Option<usize> {
    bytes.windows(word.len()).position(|part| part == word)
}

/// Replaces a word also where two chunks meet.
struct Words<'a> {
    word: &'a [u8],
    instead: &'a [u8],
    /// What may be the beginning of a word. More follows: no request ends in the middle of one.
    begun: Vec<u8>,
}

impl Words<'_> {
    fn new(word: &Word) -> Option<Words<'_>> {
        Some(Words {
            word: word.text.as_bytes(),
            instead: word.instead.as_ref()?.as_bytes(),
            begun: Vec::new(),
        })
    }

    fn pass(&mut self, chunk: &[u8]) -> (Vec<u8>, u64) {
        let word = self.word;
        let mut bytes = std::mem::take(&mut self.begun);
        bytes.extend_from_slice(chunk);
        let (mut at, mut replaced) = (0, 0);
        while let Some(found) = find(&bytes[at..], word) {
            bytes[at + found..][..word.len()].copy_from_slice(self.instead);
            at += found + word.len();
            replaced += 1;
        }
        let longest = (word.len() - 1).min(bytes.len() - at);
        let begun = (1..=longest)
            .rev()
            .find(|n| bytes.ends_with(&word[..*n]))
            .unwrap_or(0);
        self.begun = bytes.split_off(bytes.len() - begun);
        (bytes, replaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::until;

    /// An upstream that sends back what it gets.
    fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut from = stream.try_clone().unwrap();
                    let mut to = stream;
                    let _ = std::io::copy(&mut from, &mut to);
                });
            }
        });
        port
    }

    fn client(proxy: &Proxy) -> TcpStream {
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap();
        client
            .set_read_timeout(Some(crate::process::PATIENCE))
            .unwrap();
        client
    }

    fn echoed(client: &mut TcpStream, text: &[u8]) -> bool {
        let mut back = vec![0; text.len()];
        client.write_all(text).is_ok() && client.read_exact(&mut back).is_ok() && back == text
    }

    #[test]
    fn it_passes_and_delays() {
        let proxy = Proxy::start(echo(), None);
        let mut client = client(&proxy);
        assert!(echoed(&mut client, b"one"));
        proxy.set(Mode::Delay(Duration::from_millis(20)));
        let started = Instant::now();
        assert!(echoed(&mut client, b"two"));
        assert!(started.elapsed() >= Duration::from_millis(40));
    }

    #[test]
    fn a_blackhole_holds_back_and_gives_all_of_it_at_its_end() {
        let proxy = Proxy::start(echo(), None);
        let mut old = client(&proxy);
        assert!(echoed(&mut old, b"one"));
        proxy.set(Mode::Blackhole);
        let mut new = client(&proxy);
        old.write_all(b"two").unwrap();
        new.write_all(b"three").unwrap();
        until("the proxy holds something", || {
            (proxy.held_back() > 0).then_some(())
        });
        let mut back = [0; 8];
        old.set_nonblocking(true).unwrap();
        assert_eq!(
            old.read(&mut back).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        old.set_nonblocking(false).unwrap();
        proxy.set(Mode::Pass);
        old.read_exact(&mut back[..3]).unwrap();
        new.read_exact(&mut back[3..]).unwrap();
        assert_eq!(&back, b"twothree");
    }

    #[test]
    fn a_cut_breaks_in_the_middle_of_what_is_sent_and_new_connections_live() {
        let proxy = Proxy::start(echo(), None);
        let mut old = client(&proxy);
        assert!(echoed(&mut old, b"one"));
        proxy.cut();
        old.write_all(b"0123456789").unwrap();
        let mut back = Vec::new();
        let _ = old.read_to_end(&mut back);
        assert!(back.len() < 10, "{back:?}");
        assert!(proxy.cut_in_mid_frame() > 0);
        assert!(echoed(&mut client(&proxy), b"two"));
    }

    #[test]
    fn who_says_the_word_is_held_back_from_there_on_and_others_are_not() {
        let word = Word {
            text: "word".to_owned(),
            instead: None,
        };
        let proxy = Proxy::start(echo(), Some(word));
        let (mut says, mut other) = (client(&proxy), client(&proxy));
        proxy.set(Mode::HoldWord);
        assert!(echoed(&mut says, b"one"));
        assert_eq!(proxy.held_back(), 0);
        says.write_all(b"a word, ").unwrap();
        until("the proxy holds something", || {
            (proxy.held_back() > 0).then_some(())
        });
        says.write_all(b"and more").unwrap();
        assert!(echoed(&mut other, b"two"));
        says.set_nonblocking(true).unwrap();
        let mut back = [0; 16];
        let nothing = says.read(&mut back).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        says.set_nonblocking(false).unwrap();
        let before = proxy.held_back();
        proxy.set(Mode::HoldBehind);
        until("what comes behind is held", || {
            (proxy.held_back() > before).then_some(())
        });
        proxy.set(Mode::Pass);
        says.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"a word, and more");
    }

    #[test]
    fn a_word_is_replaced_wherever_chunks_meet() {
        let word = Word {
            text: "abab".to_owned(),
            instead: Some("1234".to_owned()),
        };
        let text = b"xabab ababab aab abab";
        for first in 0..text.len() {
            for second in first..text.len() {
                let mut words = Words::new(&word).unwrap();
                let (mut all, mut times) = (Vec::new(), 0);
                for chunk in [&text[..first], &text[first..second], &text[second..]] {
                    let (passed, replaced) = words.pass(chunk);
                    all.extend(passed);
                    times += replaced;
                }
                assert_eq!((all.as_slice(), times), (&b"x1234 1234ab aab 1234"[..], 3));
            }
        }
        let proxy = Proxy::start(echo(), Some(word));
        let mut client = client(&proxy);
        client.write_all(b"abab").unwrap();
        let mut back = [0; 4];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"1234", "not in answers: they say what was asked");
        assert_eq!(proxy.replaced(), 1);
    }
}
