//! One handler on one host: from what is wanted to what its partitions run. `(now, event)` in, commands
//! out. It must not know files, Redis, or how a module is loaded.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::judge::{Evidence, Verdict, judge};
use super::{Candidate, Edition, Lineup, Mode, Wanted};
use crate::backoff::Backoff;
use crate::names::Version;
use crate::time::Time;

/// Of any trial, however long loading took of its time: a version is not promoted unseen.
pub const TRIAL_MIN: Duration = Duration::from_secs(2);
/// Between two tries to load what could not be fetched.
const LOAD_AGAIN: Backoff = Backoff {
    initial: Duration::from_millis(200),
    max: Duration::from_secs(10),
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Wanted(Wanted),
    /// The host's own settings of this handler are others now, by their number.
    Settings(u32),
    /// How [`Command::Load`] went.
    Loaded {
        edition: Edition,
        result: Result<(), Loading>,
    },
    /// What is known of the candidate of this revision.
    Evidence {
        revision: u64,
        evidence: Evidence,
    },
}

/// Why an edition was not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loading {
    /// It could not be had: it may be there later.
    Away(String),
    /// It will not do, however often it is tried.
    Refused(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Answered by [`Event::Loaded`]. Whatever it costs, it must not delay calls.
    Load(Edition),
    /// From the next message on, partitions run this.
    Publish(Lineup),
    /// Ends the trial of this revision, unless somebody else has.
    Settle {
        revision: u64,
        version: Version,
        verdict: Verdict,
    },
    /// For people: what ran goes on running.
    Refused { edition: Edition, why: String },
    /// For people: it is tried again.
    Away { edition: Edition, why: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// In the air; `tries`: how often it was away before.
    Asked {
        tries: u32,
    },
    Loaded,
    Refused(String),
    Again {
        at: Time,
        tries: u32,
    },
}

/// How far a wanted version is on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    Loading,
    Loaded,
    Refused(&'a str),
}

#[derive(Debug)]
pub struct Follower {
    settings: u32,
    wanted: Wanted,
    known: BTreeMap<Edition, Known>,
    published: Lineup,
    /// Since when the published candidate runs, and for which revision: the same version may be deployed
    /// again before this host heard that it was taken back.
    since: Time,
    tried: u64,
    to_do: VecDeque<Command>,
    noise: u64,
}

impl Follower {
    /// `first` is loaded and runs.
    pub fn new(first: Edition, noise: u64) -> Follower {
        Follower {
            settings: first.settings,
            wanted: Wanted {
                revision: 0,
                current: first.version.clone(),
                candidate: None,
            },
            known: BTreeMap::from([(first.clone(), Known::Loaded)]),
            published: Lineup {
                current: first,
                candidate: None,
            },
            since: Time::ZERO,
            tried: 0,
            to_do: VecDeque::new(),
            noise,
        }
    }

    pub fn published(&self) -> &Lineup {
        &self.published
    }

    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Whether it runs or is wanted: code of any other may go.
    pub fn needs(&self, edition: &Edition) -> bool {
        self.known.contains_key(edition)
    }

    /// How far the wanted candidate is; `None`: there is none.
    pub fn candidate(&self) -> Option<Progress<'_>> {
        let candidate = self.wanted.candidate.as_ref()?;
        Some(self.progress(&candidate.version))
    }

    /// How far what is wanted as the current version is.
    pub fn current(&self) -> Progress<'_> {
        self.progress(&self.wanted.current)
    }

    fn progress(&self, version: &Version) -> Progress<'_> {
        match self.known.get(&self.edition(version)) {
            Some(Known::Loaded) => Progress::Loaded,
            Some(Known::Refused(why)) => Progress::Refused(why),
            _ => Progress::Loading,
        }
    }

    fn edition(&self, version: &Version) -> Edition {
        Edition {
            version: version.clone(),
            settings: self.settings,
        }
    }

    pub fn handle(&mut self, now: Time, event: Event) {
        match event {
            Event::Wanted(wanted) => self.wanted = wanted,
            Event::Settings(settings) => self.settings = settings,
            Event::Loaded { edition, result } => self.loaded(now, edition, result),
            Event::Evidence { revision, evidence } => {
                self.judge(now, revision, &evidence);
                return;
            }
        }
        self.resolve(now);
    }

    pub fn poll(&mut self, now: Time) -> Option<Command> {
        if let Some(command) = self.to_do.pop_front() {
            return Some(command);
        }
        let next = self
            .known
            .iter_mut()
            .find_map(|(edition, known)| match known {
                Known::Again { at, tries } if *at <= now => Some((edition.clone(), *tries, known)),
                _ => None,
            });
        let (edition, tries, known) = next?;
        *known = Known::Asked { tries };
        Some(Command::Load(edition))
    }

    /// When to poll again if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Time> {
        let again = |known: &Known| match known {
            Known::Again { at, .. } => Some(*at),
            _ => None,
        };
        self.known.values().filter_map(again).min()
    }

    fn loaded(&mut self, now: Time, edition: Edition, result: Result<(), Loading>) {
        let Some(known) = self.known.get_mut(&edition) else {
            // Nobody wants it any more.
            return;
        };
        if *known == Known::Loaded {
            // It was asked for twice: wanted, forgotten and wanted again. It is there.
            return;
        }
        match result {
            Ok(()) => *known = Known::Loaded,
            Err(Loading::Refused(why)) => {
                *known = Known::Refused(why.clone());
                self.to_do.push_back(Command::Refused { edition, why });
            }
            Err(Loading::Away(why)) => {
                let tries = match known {
                    Known::Asked { tries } => tries.saturating_add(1),
                    _ => 1,
                };
                let at = now + LOAD_AGAIN.wait(tries, self.noise);
                *known = Known::Again { at, tries };
                self.to_do.push_back(Command::Away { edition, why });
            }
        }
    }

    /// Asks for what is missing, forgets what nobody wants, publishes what changed.
    fn resolve(&mut self, now: Time) {
        let mut wanted = vec![self.edition(&self.wanted.current)];
        if let Some(candidate) = &self.wanted.candidate {
            wanted.push(self.edition(&candidate.version));
        }
        for edition in &wanted {
            if !self.known.contains_key(edition) {
                self.known
                    .insert(edition.clone(), Known::Asked { tries: 0 });
                self.to_do.push_back(Command::Load(edition.clone()));
            }
        }
        let lineup = self.lineup();
        let mine = |(edition, _): &(Edition, Mode)| {
            let wanted = self.wanted.candidate.as_ref();
            wanted.is_some_and(|wanted| wanted.version == edition.version)
        };
        let again =
            lineup.candidate.as_ref().is_some_and(mine) && self.tried != self.wanted.revision;
        if again {
            (self.since, self.tried) = (now, self.wanted.revision);
        }
        if again || lineup != self.published {
            let candidate = |lineup: &Lineup| {
                lineup
                    .candidate
                    .as_ref()
                    .map(|(edition, _)| edition.clone())
            };
            if candidate(&lineup) != candidate(&self.published) {
                self.since = now;
            }
            self.published = lineup.clone();
            self.to_do.push_back(Command::Publish(lineup));
        }
        let published = &self.published;
        self.known.retain(|edition, _| {
            let candidate = published.candidate.as_ref().map(|(edition, _)| edition);
            wanted.contains(edition) || *edition == published.current || Some(edition) == candidate
        });
    }

    fn is_loaded(&self, edition: &Edition) -> bool {
        self.known.get(edition) == Some(&Known::Loaded)
    }

    fn is_loading(&self, edition: &Edition) -> bool {
        !matches!(
            self.known.get(edition),
            Some(Known::Loaded | Known::Refused(_))
        )
    }

    /// What can run of what is wanted.
    fn lineup(&self) -> Lineup {
        let newest = self.edition(&self.wanted.current);
        let current = match self.is_loaded(&newest) {
            true => newest,
            false => self.runs_already(&self.wanted.current),
        };
        let other = |candidate: &&Candidate| candidate.version != self.wanted.current;
        let candidate = self.wanted.candidate.as_ref().filter(other);
        let candidate = candidate.and_then(|candidate| {
            let newest = self.edition(&candidate.version);
            let edition = match self.is_loaded(&newest) {
                true => newest,
                // Under the settings of before, if it ran already.
                false => match &self.published.candidate {
                    Some((edition, _)) if edition.version == candidate.version => edition.clone(),
                    // Another one was on trial: it goes on until this one takes its place.
                    Some((edition, mode @ Mode::Trial(_))) if self.is_loading(&newest) => {
                        let differs = edition.version != current.version;
                        return differs.then(|| (edition.clone(), *mode));
                    }
                    _ => return None,
                },
            };
            (edition.version != current.version).then_some((edition, candidate.mode))
        });
        Lineup { current, candidate }
    }

    /// An edition that stays until the wanted one is loaded: of the same version under the settings of
    /// before, if there is one.
    fn runs_already(&self, version: &Version) -> Edition {
        match &self.published.candidate {
            Some((edition, Mode::Trial(_))) if edition.version == *version => edition.clone(),
            _ => self.published.current.clone(),
        }
    }

    fn judge(&mut self, now: Time, revision: u64, evidence: &Evidence) {
        let Some(candidate) = &self.wanted.candidate else {
            return;
        };
        if revision != self.wanted.revision {
            return;
        }
        // A host that has just begun knows of nothing that speaks against it, and has not even loaded it.
        let loaded = self.progress(&candidate.version) == Progress::Loaded;
        let seen = loaded && now >= self.since + TRIAL_MIN;
        let over = now >= candidate.ends && seen;
        let verdict = match candidate.mode {
            Mode::Trial(_) => judge(evidence, over),
            // Nothing that it does counts.
            Mode::Shadow => judge(
                &Evidence {
                    refused: evidence.refused.clone(),
                    waiting: evidence.waiting,
                    ..Evidence::default()
                },
                over,
            ),
        };
        if let Some(verdict) = verdict {
            self.to_do.push_back(Command::Settle {
                revision,
                version: candidate.version.clone(),
                verdict,
            });
        }
    }
}
