//! What a host may read ahead, divided over the partitions of all its handlers, whoever owns them: a share
//! that depends on no other partition, so that none ever waits for another. Knows the arithmetic and what to
//! say of it; must not know how a partition keeps to its share (see `core::consumer`).

use segmenter_core::limits::ENTRY_OVERHEAD_BYTES;
use segmenter_core::names::{Partition, Shape, StreamId};
use segmenter_redis::Broker;
use segmenter_redis::admin::StreamInfo;

use super::{Say, telemetry};
use crate::config::{Config, units};
use crate::output::Format;

pub(super) struct Shares {
    /// Bytes.
    read_ahead: usize,
    partitions: usize,
}

impl Shares {
    pub(super) fn new<'a>(
        read_ahead: usize,
        streams: impl Iterator<Item = (&'a StreamId, &'a StreamInfo)>,
    ) -> Shares {
        let partitions = streams.map(|(_, found)| found.shape.partitions() as usize);
        Shares {
            read_ahead,
            partitions: partitions.sum(),
        }
    }

    /// Of one partition.
    pub(super) fn bytes(&self) -> usize {
        self.read_ahead / self.partitions.max(1)
    }

    /// What a partition may hold whose largest entry has so many bytes: it reads on when it holds less than
    /// half of its share, and then one entry in any case. Without any entry it is the share.
    fn held_max(&self, largest: usize) -> usize {
        let share = self.bytes();
        match largest {
            0 => share,
            _ => share.max((share / 2).saturating_add(in_memory(largest))),
        }
    }

    /// The least number of whole MiB that holds for so many partitions with such entries.
    fn enough(&self, largest: usize) -> usize {
        let bytes = in_memory(largest).saturating_mul(2 * self.partitions);
        bytes.checked_next_multiple_of(1 << 20).unwrap_or(bytes)
    }

    /// Says so if what lies in the partitions by now does not fit.
    pub(super) async fn warn<'a>(
        &self,
        broker: &Broker,
        streams: impl Iterator<Item = (&'a StreamId, &'a StreamInfo)>,
        say: &Say,
    ) {
        let mut held = 0usize;
        let mut largest_of_all = 0;
        for (stream, found) in streams {
            let partitions: Vec<Partition> = found.shape.all().collect();
            // It is only a hint; whatever is wrong with Redis will show.
            let Ok(largest) = segmenter_redis::largest(broker, stream, &partitions).await else {
                return;
            };
            for largest in largest {
                held = held.saturating_add(self.held_max(largest));
                largest_of_all = largest_of_all.max(largest);
            }
        }
        if held > self.read_ahead {
            let text = format!(
                "read_ahead is {} for {} partitions, but their entries have up to {}: each partition holds one nevertheless, in all up to {}; {} would be enough",
                units::show(self.read_ahead),
                self.partitions,
                units::show(largest_of_all),
                units::show(held),
                units::show(self.enough(largest_of_all)),
            );
            say.event(&telemetry::Event::Warning { text: &text });
        }
    }
}

fn in_memory(entry_bytes: usize) -> usize {
    entry_bytes.saturating_add(ENTRY_OVERHEAD_BYTES)
}

/// What `read_ahead` comes to, as far as the configuration alone tells.
pub(super) fn say_checked(format: Format, config: &Config) {
    let shapes = config.handlers.iter().map(|handler| {
        let mut streams = config.streams.iter();
        let stream = streams.find(|stream| stream.name == handler.stream)?;
        Some(stream.shape)
    });
    let shapes: Option<Vec<Shape>> = shapes.collect();
    let partitions = shapes.as_ref().map(|shapes| {
        let partitions = shapes.iter().map(|shape| shape.partitions() as usize);
        partitions.sum::<usize>()
    });
    let largest = shapes.iter().flatten().map(|shape| shape.payload_max());
    let largest = largest.max().unwrap_or(0);
    let shares = partitions.map(|partitions| Shares {
        read_ahead: config.read_ahead,
        partitions,
    });
    match format {
        Format::Json => println!(
            "{}",
            serde_json::json!({
                "event": "checked_read_ahead",
                "bytes": config.read_ahead,
                "partitions": partitions,
                "bytes_per_partition": shares.as_ref().map(Shares::bytes),
            })
        ),
        Format::Human => {
            let bytes = units::show(config.read_ahead);
            match &shares {
                Some(shares) => println!(
                    "ok: read_ahead {bytes}, {} for each of {} partitions; {} would be enough if all messages had {}",
                    units::show(shares.bytes()),
                    shares.partitions,
                    units::show(shares.enough(largest)),
                    units::show(largest),
                ),
                None => println!(
                    "ok: read_ahead {bytes}, divided over the partitions of all streams; not all of them are in the configuration"
                ),
            }
        }
    }
}
