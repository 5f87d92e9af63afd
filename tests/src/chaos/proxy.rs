//! A TCP proxy in front of the server, through which one host speaks: it passes, delays, holds back
//! or breaks in mid-frame. Knows bytes; must not know what they say.

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
}

pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: u16,
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
    pub fn start(upstream: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared {
            upstream,
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

    /// Chunks and connections that a blackhole held back, so far.
    pub fn held_back(&self) -> u64 {
        self.shared.held.load(Ordering::SeqCst)
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

    fn note_if_held(&self) {
        if *self.mode.lock().expect("no panic") == Mode::Blackhole {
            self.held.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Until the blackhole ends; answers the mode then.
    fn admitted(&self) -> Mode {
        let mut mode = self.mode.lock().expect("no panic");
        while *mode == Mode::Blackhole && !self.is_closed() {
            mode = self.changed.wait_timeout(mode, LOOK).expect("no panic").0;
        }
        *mode
    }

    fn connect(self: Arc<Shared>, client: TcpStream) {
        let born = self.cuts.load(Ordering::SeqCst);
        self.note_if_held();
        self.admitted();
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
        std::thread::spawn(move || back.pump(server_too, client_too, born));
        self.pump(client, server, born);
    }

    /// One direction, until either side ends or the connection is cut.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream, born: u64) {
        let mut chunk = vec![0; CHUNK_BYTES];
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
            self.note_if_held();
            if let Mode::Delay(delay) = self.admitted() {
                let due = Instant::now() + delay;
                while let Some(left) = due.checked_duration_since(Instant::now()) {
                    std::thread::park_timeout(left);
                }
            }
            if cut() {
                if read > 1 && to.write_all(&chunk[..read / 2]).is_ok() {
                    self.mid_frame.fetch_add(1, Ordering::SeqCst);
                }
                break;
            }
            if to.write_all(&chunk[..read]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
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
        let proxy = Proxy::start(echo());
        let mut client = client(&proxy);
        assert!(echoed(&mut client, b"one"));
        proxy.set(Mode::Delay(Duration::from_millis(20)));
        let started = Instant::now();
        assert!(echoed(&mut client, b"two"));
        assert!(started.elapsed() >= Duration::from_millis(40));
    }

    #[test]
    fn a_blackhole_holds_back_and_gives_all_of_it_at_its_end() {
        let proxy = Proxy::start(echo());
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
        let proxy = Proxy::start(echo());
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
}
