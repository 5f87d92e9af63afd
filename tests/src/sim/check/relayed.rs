//! What handlers emit is at its target once, and in order: each message carries who emitted it and its
//! number, which is the handler's counter at that moment. In the end the numbers of each are those from 1
//! to its counter, rising in each partition of the target.

use std::collections::BTreeMap;

use segmenter_core::entry::{self, Entry};
use segmenter_core::message::Content;
use segmenter_core::names::{Partition, StreamId};

use super::{Sum, View};

/// Where the handlers of the simulation emit to.
pub(in crate::sim) const TARGET: &str = "elsewhere";

/// A message as it is emitted by a binding in a partition, as the `number`th.
pub(in crate::sim) fn emitted(
    content: &Content,
    binding: usize,
    partition: Partition,
    number: i64,
) -> Content {
    let attributes = vec![
        ("by".to_owned(), format!("{binding}/{partition}")),
        ("number".to_owned(), number.to_string()),
    ];
    let (key, payload) = (content.key().to_owned(), content.payload().to_vec());
    Content::new(key, payload, attributes, usize::MAX).expect("as valid as before")
}

/// Why not everything is at its target once and in order. `lossy`: Redis lost writes, and with them what it
/// had acknowledged.
pub(super) fn missing(view: &View<'_>, target: &StreamId, lossy: bool) -> Option<String> {
    let mut numbers: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let shape = view.broker.find(target).map(|(_, shape)| shape);
    for partition in shape.into_iter().flat_map(|shape| shape.all()) {
        let mut last: BTreeMap<String, i64> = BTreeMap::new();
        for raw in view.broker.entries(target, partition) {
            let Entry::Ours { content, .. } = entry::decode(raw.clone(), usize::MAX) else {
                return Some(format!("{} at the target is not ours", raw.id));
            };
            let [(_, by), (_, number)] = content.attributes() else {
                return Some(format!("{} at the target has no number", raw.id));
            };
            let number: i64 = number.parse().unwrap_or(0);
            let before = last.insert(by.clone(), number);
            if before >= Some(number) {
                return Some(format!(
                    "number {number} of {by} lies behind {before:?} at the target"
                ));
            }
            numbers.entry(by.clone()).or_default().push(number);
        }
    }
    for (binding, bound) in view.bindings.iter().enumerate() {
        let stream = &view.streams[bound.stream];
        for partition in view.shape.all() {
            if !view
                .broker
                .outbox(stream, partition, &bound.group)
                .is_empty()
            {
                return Some(format!(
                    "the outbox of {}/{partition} is not empty",
                    bound.group
                ));
            }
            let counter = Sum::of(view.broker, stream, partition, &bound.group).counter;
            let mut found = numbers
                .remove(&format!("{binding}/{partition}"))
                .unwrap_or_default();
            found.sort_unstable();
            let once = found.is_sorted_by(|a, b| a < b);
            if !once || (!lossy && found != (1..=counter).collect::<Vec<_>>()) {
                return Some(format!(
                    "{}/{partition} has emitted {counter} messages, and at the target are {found:?}",
                    bound.group
                ));
            }
        }
    }
    None
}
