//! Where handlers emit to: every target must exist and be ours to write when the host starts, and a cycle
//! is warned about, since a handler that emits more than it handles into its own input fills any bound.
//! Must not know how an emitted message travels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, bail};
use segmenter_core::names::{StreamId, StreamName};
use segmenter_redis::{Broker, admin};

use super::Plan;

/// Payload limits in bytes, inclusive, of streams that are emitted to.
pub(super) type Targets = Arc<BTreeMap<StreamName, usize>>;

/// Each stream that a version of the plan's handler may `emit` to, and the payload limit of it.
pub(super) async fn check(
    broker: &Broker,
    plan: &Plan,
    emit: &BTreeSet<StreamName>,
) -> anyhow::Result<Targets> {
    let mut targets = BTreeMap::new();
    for to in emit {
        let target = StreamId {
            namespace: plan.stream.namespace.clone(),
            stream: to.clone(),
        };
        let found = admin::find_stream(broker, &target)
            .await
            .with_context(|| format!("looking up stream {target}"))?;
        if let Some(source) = found.as_ref().and_then(|info| info.source.as_ref()) {
            bail!(
                "handler {} may emit to stream {target}, which reads {source}; other programs write it, and nothing is appended there: grant another stream",
                plan.handler
            );
        }
        let Some(info) = found.filter(|info| !info.deleting) else {
            bail!(
                "handler {} may emit to stream {target}, which does not exist; create it with `segmenter --namespace {} stream create {to} --partitions N --capacity N`, or add a [[stream]] table to the configuration",
                plan.handler,
                target.namespace
            );
        };
        targets.insert(to.clone(), info.shape.payload_max());
    }
    Ok(Arc::new(targets))
}

/// Streams that reach themselves over handlers' grants (from, to), in the order in which one comes round.
pub(super) fn cycle<'a>(
    grants: impl Iterator<Item = (&'a StreamName, &'a BTreeSet<StreamName>)>,
) -> Option<Vec<&'a StreamName>> {
    let mut to: BTreeMap<&StreamName, BTreeSet<&StreamName>> = BTreeMap::new();
    for (from, targets) in grants {
        to.entry(from).or_default().extend(targets);
    }
    to.keys().find_map(|start| {
        let mut way = Vec::new();
        let found = comes_back(&to, start, start, &mut BTreeSet::new(), &mut way);
        found.then(|| {
            std::iter::once(*start)
                .chain(way.into_iter().rev())
                .collect()
        })
    })
}

/// Whether `start` is reached from `at`; the way there is put into `way`, last stream first.
fn comes_back<'a>(
    to: &BTreeMap<&'a StreamName, BTreeSet<&'a StreamName>>,
    start: &'a StreamName,
    at: &'a StreamName,
    seen: &mut BTreeSet<&'a StreamName>,
    way: &mut Vec<&'a StreamName>,
) -> bool {
    for next in to.get(at).into_iter().flatten() {
        let goes_on = |seen: &mut _, way: &mut _| comes_back(to, start, next, seen, way);
        if *next == start || (seen.insert(next) && goes_on(seen, way)) {
            way.push(next);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycle_of(grants: &[(&str, &[&str])]) -> Option<String> {
        let name = |text: &str| StreamName::new(text).unwrap();
        let names: Vec<(StreamName, BTreeSet<StreamName>)> = grants
            .iter()
            .map(|(from, to)| (name(from), to.iter().map(|t| name(t)).collect()))
            .collect();
        let found = cycle(names.iter().map(|(from, to)| (from, to)))?;
        let names: Vec<_> = found.iter().map(|name| name.as_str()).collect();
        Some(names.join(" "))
    }

    #[test]
    fn a_cycle_of_emits_is_found_and_named() {
        assert_eq!(
            cycle_of(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &["d"])]),
            None
        );
        assert_eq!(cycle_of(&[("a", &["a"])]).as_deref(), Some("a a"));
        assert_eq!(
            cycle_of(&[("x", &["b"]), ("b", &["c", "x2"]), ("c", &["b"])]).as_deref(),
            Some("b c b")
        );
    }
}
