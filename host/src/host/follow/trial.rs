//! What is counted while a version is on trial on this host. Knows where counting began; must not judge.

use std::sync::Arc;

use segmenter_core::rollout::{Differences, Mode, Share, Tally};

use crate::host::handler::Handler;
use crate::host::lineup::Live;
use crate::host::shadow::Shadow;

pub(super) struct Trial<H> {
    /// Of what is wanted.
    revision: u64,
    candidate: Since<H>,
    rest: Rest<H>,
    shadow: Option<Arc<Shadow<H>>>,
}

/// A version's counts from some moment on.
struct Since<H> {
    live: Arc<Live<H>>,
    from: Tally,
}

enum Rest<H> {
    /// It handles the other partitions meanwhile.
    Beside(Since<H>),
    /// It handled all of them before: nothing else can be compared.
    Before(Tally),
}

impl<H: Handler> Since<H> {
    fn now(live: &Arc<Live<H>>) -> Since<H> {
        Since {
            live: live.clone(),
            from: live.tally(),
        }
    }
    fn tally(&self) -> Tally {
        self.live.tally().since(self.from)
    }
}

impl<H: Handler> Trial<H> {
    pub(super) fn begin(
        revision: u64,
        mode: Mode,
        candidate: &Arc<Live<H>>,
        current: &Arc<Live<H>>,
    ) -> Trial<H> {
        Trial {
            revision,
            candidate: Since::now(candidate),
            rest: match mode {
                Mode::Trial(Share::ALL) => Rest::Before(current.tally()),
                _ => Rest::Beside(Since::now(current)),
            },
            shadow: match mode {
                Mode::Trial(_) => None,
                Mode::Shadow => Some(Arc::new(Shadow::new(candidate.clone()))),
            },
        }
    }

    pub(super) fn shadow(&self) -> Option<&Arc<Shadow<H>>> {
        self.shadow.as_ref()
    }

    pub(super) fn differences(&self) -> Differences {
        let found = self.shadow.as_ref().map(|shadow| shadow.found());
        found.unwrap_or_default()
    }

    pub(super) fn is_of(&self, revision: u64) -> bool {
        self.revision == revision
    }

    /// Of the candidate, and of the rest.
    pub(super) fn tallies(&self) -> (Tally, Tally) {
        let rest = match &self.rest {
            Rest::Beside(since) => since.tally(),
            Rest::Before(tally) => *tally,
        };
        (self.candidate.tally(), rest)
    }
}
