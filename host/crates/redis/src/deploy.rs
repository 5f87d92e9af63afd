//! Versions of handlers, executed: their bytes, which one is wanted, what hosts report. Knows the order of
//! the scripts' arguments and answers, and how a report lies in Redis; must not know how one is judged.

use std::collections::BTreeMap;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};
use segmenter_core::limits;
use segmenter_core::names::{HandlerId, MemberId, Namespace, Version};
use segmenter_core::port::{
    Asks, Deploy, DeployReply, Failure, FetchModule, FetchModuleReply, Heard, How, Pointer, Report,
    ReportReply, RollBack, RollBackReply, Settle, SettleReply, StoreModule, StoreModuleReply,
    Trying,
};
use segmenter_core::rollout::{Candidacy, Differences, HostReport, Mode, Share, Tally, Verdict};
use segmenter_core::time::Duration;
use sha2::{Digest, Sha256};

use crate::broker::{Broker, open_slow};
use crate::convert::{bytes, list, number, odd, text};
use crate::error::failure;
use crate::execute::{keys, parts};
use crate::key::Key;
use crate::script::Script;

/// A module travels on a connection of its own, so that commits do not wait behind it; for its answer.
const MODULE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a module in one answer: Redis holds as much in memory for it.
const MODULE_CHUNK_BYTES: usize = 8 * 1024 * 1024;

/// The version whose bytes these are.
pub fn version_of(bytes: &[u8]) -> Version {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    Version::new(hex).expect("64 hex digits are a name")
}

impl Broker {
    async fn slow(&self) -> Result<MultiplexedConnection, Failure> {
        open_slow(self.address(), MODULE_TIMEOUT)
            .await
            .map_err(|error| failure(&error, false))
    }

    pub(crate) async fn store_module(&self, r: StoreModule) -> Result<StoreModuleReply, Failure> {
        if r.bytes.len() > limits::DEPLOYED_MODULE_BYTES_MAX {
            return Ok(StoreModuleReply::TooLarge);
        }
        if version_of(&r.bytes) != r.version {
            return Ok(StoreModuleReply::OtherBytes);
        }
        let key = Key::Module(&r.namespace, &r.version);
        let mut cmd = redis::cmd("STRLEN");
        cmd.arg(key);
        let existed = number(self.send(&cmd).await?)? > 0;
        // Also if it is there: whatever has come of it, these are the right bytes.
        let mut cmd = redis::cmd("SET");
        cmd.arg(key).arg(&r.bytes);
        let mut connection = self.slow().await?;
        let stored: Result<Value, _> = cmd.query_async(&mut connection).await;
        stored.map_err(|error| failure(&error, true))?;
        Ok(StoreModuleReply::Stored { existed })
    }

    pub(crate) async fn fetch_module(&self, r: FetchModule) -> Result<FetchModuleReply, Failure> {
        let module = self.module_bytes(&r.namespace, &r.version).await?;
        if module.is_empty() {
            return Ok(FetchModuleReply::Missing);
        }
        let found = version_of(&module);
        Ok(match found == r.version {
            true => FetchModuleReply::Module { bytes: module },
            false => FetchModuleReply::Damaged { found },
        })
    }

    /// In pieces. Empty: it is not there. What is longer than a module may be is cut.
    async fn module_bytes(&self, of: &Namespace, version: &Version) -> Result<Vec<u8>, Failure> {
        let mut connection = self.slow().await?;
        let mut module: Vec<u8> = Vec::new();
        while module.len() <= limits::DEPLOYED_MODULE_BYTES_MAX {
            let mut cmd = redis::cmd("GETRANGE");
            cmd.arg(Key::Module(of, version))
                .arg(module.len())
                .arg(module.len() + MODULE_CHUNK_BYTES - 1);
            let answer = cmd.query_async(&mut connection).await;
            let piece = bytes(answer.map_err(|error| failure(&error, true))?)?;
            let last = piece.len() < MODULE_CHUNK_BYTES;
            if module.is_empty() {
                module = piece;
            } else {
                module.extend_from_slice(&piece);
            }
            if last {
                break;
            }
        }
        Ok(module)
    }

    pub(crate) async fn deploy(&self, r: Deploy) -> Result<DeployReply, Failure> {
        let (how, share, lasts) = match r.how {
            How::Now => ("now", Share::ALL, Duration::ZERO),
            How::Trial { share, lasts } => ("trial", share, lasts),
            How::Shadow { lasts } => ("shadow", Share::ALL, lasts),
        };
        let answer = self
            .script(Script::HandlerDeploy, |cmd| {
                changes(cmd, &r.handler);
                cmd.arg(r.version.as_str())
                    .arg(how)
                    .arg(share.as_percent())
                    .arg(millis(lasts))
                    .arg(cut(&r.by, limits::BY_BYTES_MAX))
                    .arg(u8::from(r.again));
            })
            .await?;
        let mut parts = list(answer)?.into_iter();
        let mut next = || parts.next().unwrap_or(Value::Nil);
        Ok(match text(next())?.as_str() {
            "deployed" => DeployReply::Deployed {
                revision: number(next())?,
                current: number(next())? == 1,
            },
            "busy" => DeployReply::Busy {
                version: version(next())?,
                by: text(next())?,
                left: Duration::from_millis(number(next())?),
            },
            "bad" => DeployReply::Bad {
                at_ms: number(next())?,
                reason: text(next())?,
            },
            "current" => DeployReply::Current {
                revision: number(next())?,
            },
            "nothing" => DeployReply::NothingToShadow,
            "nomodule" => DeployReply::NoModule,
            other => return Err(strange("handler_deploy", other)),
        })
    }

    pub(crate) async fn settle(&self, r: Settle) -> Result<SettleReply, Failure> {
        let (verdict, reason) = match &r.verdict {
            Verdict::Promote => ("promote", ""),
            Verdict::RollBack { reason } => ("rollback", cut(reason, limits::REASON_BYTES_MAX)),
        };
        let answer = self
            .script(Script::HandlerSettle, |cmd| {
                changes(cmd, &r.handler);
                cmd.arg(r.revision)
                    .arg(r.version.as_str())
                    .arg(verdict)
                    .arg(reason)
                    .arg(cut(&r.evidence, limits::REASON_BYTES_MAX))
                    .arg(cut(&r.by, limits::BY_BYTES_MAX));
            })
            .await?;
        let mut parts = list(answer)?.into_iter();
        let mut next = || parts.next().unwrap_or(Value::Nil);
        let word = text(next())?;
        let revision = number(next())?;
        match word.as_str() {
            "settled" => Ok(SettleReply::Settled { revision }),
            "changed" => Ok(SettleReply::Changed { revision }),
            other => Err(strange("handler_settle", other)),
        }
    }

    pub(crate) async fn roll_back(&self, r: RollBack) -> Result<RollBackReply, Failure> {
        let reason = r.reason.as_deref().unwrap_or_default();
        let answer = self
            .script(Script::HandlerRollback, |cmd| {
                changes(cmd, &r.handler);
                cmd.arg(r.to.as_ref().map_or("", Version::as_str))
                    .arg(cut(reason, limits::REASON_BYTES_MAX))
                    .arg(cut(&r.by, limits::BY_BYTES_MAX));
            })
            .await?;
        let mut parts = list(answer)?.into_iter();
        let mut next = || parts.next().unwrap_or(Value::Nil);
        Ok(match text(next())?.as_str() {
            "back" => RollBackReply::RolledBack {
                revision: number(next())?,
                from: version(next())?,
                to: version(next())?,
            },
            "nothing" => RollBackReply::NothingBefore {
                current: version(next())?,
            },
            "current" => RollBackReply::Current,
            "nomodule" => RollBackReply::NoModule {
                version: version(next())?,
            },
            "undeployed" => RollBackReply::NotDeployed,
            other => return Err(strange("handler_rollback", other)),
        })
    }

    pub(crate) async fn report(&self, r: Report) -> Result<ReportReply, Failure> {
        let (asks, whose, report) = match &r.asks {
            Asks::Only => ("only", String::new(), Vec::new()),
            Asks::Told { host, report } => ("told", whose(host, report), packed(report)),
            Asks::Left { host, report } => ("left", whose(host, report), Vec::new()),
        };
        let answer = self
            .script(Script::HandlerReport, |cmd| {
                keys(cmd, &[Key::Handler(&r.handler), Key::Hosts(&r.handler)]);
                cmd.arg(asks)
                    .arg(&whose)
                    .arg(&report)
                    .arg(millis(limits::REPORT_KEPT));
            })
            .await?;
        reported(answer)
    }
}

/// What the scripts that change a handler begin with.
fn changes(cmd: &mut Cmd, handler: &HandlerId) {
    let namespace = &handler.namespace;
    keys(
        cmd,
        &[
            Key::Handler(handler),
            Key::History(handler),
            Key::Modules(namespace),
        ],
    );
    cmd.arg(handler.handler.as_str())
        .arg(Key::ModulePrefix(namespace))
        .arg(Key::HandlerNews(handler))
        .arg(limits::PAST_VERSIONS_MAX)
        .arg(limits::RECENT_VERSIONS_MAX)
        .arg(limits::BAD_VERSIONS_MAX)
        .arg(limits::HISTORY_ENTRIES_MAX);
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// At most so many bytes, whole characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

fn strange(script: &str, word: &str) -> Failure {
    Failure::Unknown(format!("{script} answered {word:?}"))
}

pub(crate) fn version(value: Value) -> Result<Version, Failure> {
    let text = text(value)?;
    Version::new(text).map_err(|e| Failure::Fatal(e.to_string()))
}

pub(crate) fn reported(answer: Value) -> Result<ReportReply, Failure> {
    let mut parts = list(answer)?.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    let revision = next();
    let (current, candidate) = (next(), next());
    let mode = text(next())?;
    let (share, left, by) = (next(), next(), next());
    let mut hosts = Vec::new();
    while let (Some(whose), Some(age), Some(report)) = (parts.next(), parts.next(), parts.next()) {
        let whose = text(whose)?;
        let age = Duration::from_millis(number(age)?);
        // What is not ours, or of a host that speaks otherwise, says nothing here.
        let host = whose
            .split('/')
            .next()
            .and_then(|host| MemberId::new(host).ok());
        if let (Some(host), Some(report)) = (host, unpacked(&bytes(report)?)) {
            hosts.push(Heard { host, age, report });
        }
    }
    hosts.sort_by(|a, b| {
        let of = |heard: &Heard| {
            let HostReport { stream, group, .. } = &heard.report;
            (heard.host.clone(), stream.clone(), group.clone())
        };
        of(a).cmp(&of(b))
    });
    let revision = text(revision)?;
    if revision.is_empty() {
        return Ok(ReportReply {
            wanted: None,
            hosts,
        });
    }
    let candidate = match text(candidate)?.as_str() {
        "" => None,
        candidate => Some(Trying {
            version: version(Value::SimpleString(candidate.to_owned()))?,
            mode: match mode.as_str() {
                "shadow" => Mode::Shadow,
                "trial" => Mode::Trial(
                    Share::percent(number(share)?).map_err(|e| Failure::Fatal(e.to_string()))?,
                ),
                other => return Err(odd("a mode", &Value::SimpleString(other.to_owned()))),
            },
            left: Duration::from_millis(number(left)?),
            by: text(by)?,
        }),
    };
    Ok(ReportReply {
        wanted: Some(Pointer {
            revision: number(Value::SimpleString(revision))?,
            current: version(current)?,
            candidate,
        }),
        hosts,
    })
}

/// One host may run a handler of this name over several streams, from several configurations.
fn whose(host: &MemberId, report: &HostReport) -> String {
    format!("{host}/{}/{}", report.stream, report.group)
}

/// Names and values, each with its length in front. What is zero or empty is left out.
fn packed(report: &HostReport) -> Vec<u8> {
    let HostReport {
        stream,
        group,
        revision,
        current,
        refused,
        candidacy,
        candidate,
        rest,
        live_versions,
        differences,
    } = report;
    let (candidacy, why) = match candidacy {
        Candidacy::None => ("", ""),
        Candidacy::Loading => ("loading", ""),
        Candidacy::Loaded => ("loaded", ""),
        Candidacy::Refused(why) => ("refused", why.as_str()),
    };
    let count = |n: u64| match n {
        0 => String::new(),
        n => n.to_string(),
    };
    let tally = |t: &Tally| match *t == Tally::default() {
        true => String::new(),
        false => format!("{} {} {} {}", t.calls, t.failed, t.overruled, t.micros),
    };
    let reason = |text: &str| cut(text, limits::REASON_BYTES_MAX).to_owned();
    let d = differences;
    let fields = [
        ("stream", stream.to_string()),
        ("group", group.to_string()),
        ("revision", count(*revision)),
        ("current", current.to_string()),
        (
            "is_refused",
            if refused.is_some() { "1" } else { "" }.to_owned(),
        ),
        ("refused", reason(refused.as_deref().unwrap_or_default())),
        ("candidacy", candidacy.to_owned()),
        ("why", reason(why)),
        ("candidate", tally(candidate)),
        ("rest", tally(rest)),
        ("live", count(u64::from(*live_versions))),
        ("same", count(d.same)),
        ("outcome", count(d.outcome)),
        ("emitted", count(d.emitted)),
        ("state", count(d.state)),
        (
            "example",
            cut(&d.example, limits::EXAMPLE_BYTES_MAX).to_owned(),
        ),
    ];
    let mut packed = Vec::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        for part in [*name, value.as_str()] {
            packed.extend_from_slice(format!("{}:{part}", part.len()).as_bytes());
        }
    }
    packed
}

/// What [`packed`] made; `None`: somebody else did.
fn unpacked(packed: &[u8]) -> Option<HostReport> {
    let mut fields = BTreeMap::new();
    for pair in parts(packed)?.chunks_exact(2) {
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        fields.insert(text(&pair[0]), text(&pair[1]));
    }
    let word = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let count = |name: &str| match word(name).as_str() {
        "" => Some(0),
        n => n.parse::<u64>().ok(),
    };
    let tally = |name: &str| {
        let text = word(name);
        let mut numbers = text.split(' ').map(|n| n.parse::<u64>().ok());
        let mut next = || match text.is_empty() {
            true => Some(0),
            false => numbers.next().flatten(),
        };
        Some(Tally {
            calls: next()?,
            failed: next()?,
            overruled: next()?,
            micros: next()?,
        })
    };
    Some(HostReport {
        stream: word("stream").parse().ok()?,
        group: word("group").parse().ok()?,
        revision: count("revision")?,
        current: word("current").parse().ok()?,
        refused: (!word("is_refused").is_empty()).then(|| word("refused")),
        candidacy: match word("candidacy").as_str() {
            "" => Candidacy::None,
            "loading" => Candidacy::Loading,
            "loaded" => Candidacy::Loaded,
            "refused" => Candidacy::Refused(word("why")),
            _ => return None,
        },
        candidate: tally("candidate")?,
        rest: tally("rest")?,
        live_versions: u32::try_from(count("live")?).ok()?,
        differences: Differences {
            same: count("same")?,
            outcome: count("outcome")?,
            emitted: count("emitted")?,
            state: count("state")?,
            example: word("example"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> HostReport {
        HostReport {
            stream: "orders".parse().unwrap(),
            group: "billing".parse().unwrap(),
            revision: 17,
            current: "v1".parse().unwrap(),
            refused: Some("3:no\nway".to_owned()),
            candidacy: Candidacy::Refused(String::new()),
            candidate: Tally {
                calls: 1,
                failed: 2,
                overruled: 3,
                micros: u64::MAX,
            },
            rest: Tally::default(),
            live_versions: 2,
            differences: Differences {
                same: 1,
                state: 4,
                example: "ä".repeat(10),
                ..Differences::default()
            },
        }
    }

    #[test]
    fn a_report_comes_back_as_it_was_and_others_are_none() {
        let plain = HostReport {
            revision: 0,
            refused: Some(String::new()),
            candidacy: Candidacy::None,
            candidate: Tally::default(),
            live_versions: 0,
            differences: Differences::default(),
            ..report()
        };
        for report in [report(), plain] {
            assert_eq!(unpacked(&packed(&report)), Some(report));
        }
        let whole = packed(&report());
        for end in 0..whole.len() {
            // Cut anywhere, it is another report or none; never a panic.
            let _ = unpacked(&whole[..end]);
        }
        assert_eq!(unpacked(b"whatever"), None);
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        assert_eq!(cut("aä", 2), "a");
        assert_eq!(cut("aä", 3), "aä");
        let long = HostReport {
            refused: Some("ä".repeat(limits::REASON_BYTES_MAX)),
            ..report()
        };
        let kept = unpacked(&packed(&long)).unwrap().refused.unwrap();
        assert_eq!(kept.len(), limits::REASON_BYTES_MAX);
    }
}
