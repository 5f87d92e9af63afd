//! Sees every entry of a stream before it may be trimmed: it holds a consumer group of its own, which
//! no trim overtakes, and moves it over what it has written down. It must not know who handles what.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::streams::{StreamId, StreamRangeReply};
use segmenter_core::message::EntryId;

use super::record::{Numbered, What};

const GROUP: &str = "witness";
const ENTRIES_PER_LOOK: usize = 5_000;
const LOOK: Duration = Duration::from_millis(100);

/// What the stream held, per partition in the order of the log.
pub(super) type Log<T> = Vec<Vec<(EntryId, T)>>;

/// What the judge needs to know of an entry.
pub(super) trait Seen: Sized + Send + 'static {
    fn of(entry: &StreamId) -> Option<Self>;
}

impl Seen for What {
    fn of(entry: &StreamId) -> Option<What> {
        What::of(&entry.get::<String>("k")?, &entry.get::<String>("p")?)
    }
}

impl Seen for Numbered {
    fn of(entry: &StreamId) -> Option<Numbered> {
        Some(Numbered {
            what: Seen::of(entry)?,
            number: entry.get("@number")?,
        })
    }
}

pub(super) struct Witness<T> {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<anyhow::Result<Log<T>>>,
}

impl<T: Seen> Witness<T> {
    /// Of a stream that is still empty.
    pub(super) fn start(url: &str, stream: &str, partitions: u32) -> anyhow::Result<Witness<T>> {
        let client = redis::Client::open(url)?;
        let logs: Vec<String> = (0..partitions)
            .map(|p| format!("seg:{{default/{stream}/{p}}}:log"))
            .collect();
        let mut connection = client.get_connection()?;
        for log in &logs {
            redis::cmd("XGROUP")
                .arg(&["CREATE", log, GROUP, "0"])
                .exec(&mut connection)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || watch(&client, &logs, &stopped));
        Ok(Witness { stop, thread })
    }

    /// After the last append: what there was in all.
    pub(super) fn end(self) -> anyhow::Result<Log<T>> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the witness panicked"))?
    }
}

fn watch<T: Seen>(
    client: &redis::Client,
    logs: &[String],
    stop: &AtomicBool,
) -> anyhow::Result<Log<T>> {
    let mut seen: Log<T> = logs.iter().map(|_| Vec::new()).collect();
    let mut connection = None;
    loop {
        let last_look = stop.load(Ordering::SeqCst);
        let found = match &mut connection {
            Some(connection) => look(connection, logs, &mut seen),
            None => match client.get_connection() {
                Ok(new) => {
                    let _ = new.set_read_timeout(Some(Duration::from_secs(5)));
                    connection = Some(new);
                    continue;
                }
                Err(error) => Err(error.into()),
            },
        };
        match found {
            Ok(0) if last_look => return Ok(seen),
            Ok(_) => {}
            // Redis is away now and then: that is part of the game, unless it is at the end.
            Err(error) if last_look => return Err(error),
            Err(_) => connection = None,
        }
        if !last_look {
            std::thread::park_timeout(LOOK);
        }
    }
}

fn look<T: Seen>(
    connection: &mut redis::Connection,
    logs: &[String],
    seen: &mut Log<T>,
) -> anyhow::Result<usize> {
    let mut reads = redis::pipe();
    for (log, seen) in logs.iter().zip(&*seen) {
        let after = seen
            .last()
            .map_or("-".to_owned(), |(id, _)| format!("({id}"));
        let cmd = reads.cmd("XRANGE").arg(log).arg(after).arg("+");
        cmd.arg("COUNT").arg(ENTRIES_PER_LOOK);
    }
    let replies: Vec<StreamRangeReply> = reads.query(connection)?;
    let mut moves = redis::pipe();
    let mut found = 0;
    for ((log, seen), reply) in logs.iter().zip(seen).zip(replies) {
        for entry in reply.ids {
            let what =
                T::of(&entry).ok_or_else(|| anyhow::anyhow!("{log} holds a strange {entry:?}"))?;
            seen.push((entry.id.parse()?, what));
            found += 1;
        }
        if let Some((id, _)) = seen.last() {
            moves
                .cmd("XGROUP")
                .arg(&["SETID", log, GROUP, &id.to_string()])
                .ignore();
        }
    }
    if found > 0 {
        moves.exec(connection)?;
    }
    Ok(found)
}
