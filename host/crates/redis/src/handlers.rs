//! What people ask about handlers: which versions are wanted, what hosts report, what was done. Reads whole
//! answers; never on the hot path.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;
use segmenter_core::names::{HandlerId, HandlerName, Namespace, Version};
use segmenter_core::port::{
    Asks, BadVersion, Change, Failure, Happened, Heard, Pointer, Report, ReportReply,
};

use crate::admin::{hash, newer};
use crate::broker::Broker;
use crate::convert::{entry, list};
use crate::key::Key;

#[derive(Debug, Clone)]
pub struct HandlerInfo {
    pub wanted: Pointer,
    /// Versions that were current before, latest first.
    pub past: Vec<Version>,
    /// Versions that can be gone back to: their bytes are kept.
    pub kept: Vec<Version>,
    /// Latest first.
    pub bad: Vec<BadVersion>,
    /// Of those that were heard of lately.
    pub hosts: Vec<Heard>,
}

/// Handlers of the namespace that were ever deployed, by name.
pub async fn list_handlers(
    broker: &Broker,
    namespace: &Namespace,
) -> Result<Vec<HandlerName>, Failure> {
    let mut cmd = redis::cmd("HGETALL");
    cmd.arg(Key::Modules(namespace));
    let users = hash(broker.send(&cmd).await?)?;
    newer(&users, &format!("the handlers of namespace {namespace}"))?;
    let mut names = BTreeSet::new();
    for (version, users) in &users {
        if version != "protocol" {
            names.extend(
                users
                    .split(' ')
                    .filter_map(|name| HandlerName::new(name).ok()),
            );
        }
    }
    Ok(names.into_iter().collect())
}

/// `None`: it was never deployed.
pub async fn describe_handler(
    broker: &Broker,
    handler: &HandlerId,
) -> Result<Option<HandlerInfo>, Failure> {
    let asked = Report {
        handler: handler.clone(),
        asks: Asks::Only,
    };
    let ReportReply { wanted, hosts } = broker.report(asked).await?;
    let Some(wanted) = wanted else {
        return Ok(None);
    };
    let mut cmd = redis::cmd("HGETALL");
    cmd.arg(Key::Handler(handler));
    let fields = hash(broker.send(&cmd).await?)?;
    let versions = |name: &str| -> Vec<Version> {
        let text = fields.get(name).map(String::as_str).unwrap_or_default();
        text.split(' ')
            .filter_map(|v| Version::new(v).ok())
            .collect()
    };
    let past = versions("past");
    let mut kept = vec![wanted.current.clone()];
    kept.extend(wanted.candidate.as_ref().map(|c| c.version.clone()));
    for version in past.iter().cloned().chain(versions("recent")) {
        if !kept.contains(&version) {
            kept.push(version);
        }
    }
    let bad = versions("bad").into_iter().map(|version| {
        let mark = fields
            .get(&format!("bad:{version}"))
            .cloned()
            .unwrap_or_default();
        let (at, reason) = mark.split_once(' ').unwrap_or(("", mark.as_str()));
        BadVersion {
            version,
            at_ms: at.parse().unwrap_or(0),
            reason: reason.to_owned(),
        }
    });
    Ok(Some(HandlerInfo {
        wanted,
        past,
        kept,
        bad: bad.collect(),
        hosts,
    }))
}

/// What was done to a handler's versions, oldest first.
pub async fn history(broker: &Broker, handler: &HandlerId) -> Result<Vec<Happened>, Failure> {
    let mut cmd = redis::cmd("XRANGE");
    cmd.arg(Key::History(handler)).arg("-").arg("+");
    let mut all = Vec::new();
    for value in list(broker.send(&cmd).await?)? {
        all.extend(happened(value)?);
    }
    Ok(all)
}

/// `None`: somebody else wrote it, or a later Segmenter.
pub(crate) fn happened(value: Value) -> Result<Option<Happened>, Failure> {
    let raw = entry(value)?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let fields: BTreeMap<String, String> = raw
        .fields
        .into_iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    let word = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    let version = |name: &str| Version::new(word(name)).ok();
    let change = Change::ALL
        .into_iter()
        .find(|change| change.as_str() == word("change"));
    let (Some(change), Some(of), Some(current)) = (change, version("version"), version("current"))
    else {
        return Ok(None);
    };
    Ok(Some(Happened {
        at_ms: raw.id.ms,
        change,
        version: of,
        from: version("from"),
        current,
        revision: word("revision").parse().unwrap_or(0),
        by: word("by").to_owned(),
        reason: word("reason").to_owned(),
    }))
}
