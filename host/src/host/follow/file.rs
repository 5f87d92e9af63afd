//! What a module file wants: its bytes are a candidate, on trial in all partitions of this host, until they
//! stood that or were worse. Knows versions and their bytes; must not know how a file is watched.

use std::sync::Arc;

use segmenter_core::names::Version;
use segmenter_core::rollout::{Candidate, Mode, Share, Verdict, Wanted};
use segmenter_core::time::{Duration, Time};

/// How long a version from a file is on trial.
const TRIAL: Duration = Duration::from_secs(5);

/// A version, and what it is made of: the file may hold something else by now.
struct Kept {
    version: Version,
    bytes: Arc<Vec<u8>>,
}

pub(super) struct FromFile {
    /// What it holds is current at once.
    now: bool,
    revision: u64,
    current: Kept,
    candidate: Option<(Kept, Time)>,
}

impl FromFile {
    pub(super) fn new(version: Version, bytes: Arc<Vec<u8>>, now: bool) -> FromFile {
        FromFile {
            now,
            revision: 1,
            current: Kept { version, bytes },
            candidate: None,
        }
    }

    /// The file holds this now. The current version again ends a trial: somebody went back.
    pub(super) fn holds(&mut self, now: Time, version: Version, bytes: Arc<Vec<u8>>) {
        self.revision += 1;
        if self.now {
            self.current = Kept { version, bytes };
            return;
        }
        let differs = version != self.current.version;
        self.candidate = differs.then(|| (Kept { version, bytes }, now + TRIAL));
    }

    pub(super) fn settle(&mut self, revision: u64, verdict: &Verdict) {
        if revision != self.revision {
            return;
        }
        self.revision += 1;
        let candidate = self.candidate.take();
        if let (Some((kept, _)), Verdict::Promote) = (candidate, verdict) {
            self.current = kept;
        }
    }

    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            revision: self.revision,
            current: self.current.version.clone(),
            candidate: self.candidate.as_ref().map(|(kept, ends)| Candidate {
                version: kept.version.clone(),
                mode: Mode::Trial(Share::ALL),
                ends: *ends,
            }),
        }
    }

    /// What the file held last, as far as it was taken.
    pub(super) fn newest(&self) -> &Version {
        match &self.candidate {
            Some((kept, _)) => &kept.version,
            None => &self.current.version,
        }
    }

    pub(super) fn bytes(&self, version: &Version) -> Option<Arc<Vec<u8>>> {
        let candidate = self.candidate.as_ref().map(|(kept, _)| kept);
        [Some(&self.current), candidate]
            .into_iter()
            .flatten()
            .find(|kept| kept.version == *version)
            .map(|kept| kept.bytes.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn holds(file: &mut FromFile, text: &str) -> u64 {
        file.holds(
            Time::ZERO,
            version(text),
            Arc::new(text.as_bytes().to_vec()),
        );
        file.revision
    }

    fn names(file: &FromFile) -> (String, Option<String>) {
        let Wanted {
            current, candidate, ..
        } = file.wanted();
        (
            current.to_string(),
            candidate.map(|c| c.version.to_string()),
        )
    }

    #[test]
    fn what_a_file_holds_is_on_trial_until_it_is_settled() {
        let mut file = FromFile::new(version("v1"), Arc::new(b"v1".to_vec()), false);
        let first = holds(&mut file, "v2");
        assert_eq!(names(&file), ("v1".into(), Some("v2".into())));
        // Written again meanwhile: the verdict is about what is gone.
        let second = holds(&mut file, "v3");
        file.settle(first, &Verdict::Promote);
        assert_eq!(names(&file), ("v1".into(), Some("v3".into())));
        file.settle(second, &Verdict::Promote);
        assert_eq!(names(&file), ("v3".into(), None));
        let bad = holds(&mut file, "v4");
        assert_eq!(file.bytes(&version("v4")).as_deref(), Some(&b"v4".to_vec()));
        let reason = "worse".to_owned();
        file.settle(bad, &Verdict::RollBack { reason });
        assert_eq!(names(&file), ("v3".into(), None));
        assert_eq!(file.bytes(&version("v4")), None);
        holds(&mut file, "v4");
        holds(&mut file, "v3");
        assert_eq!(names(&file), ("v3".into(), None), "back by hand");
    }

    #[test]
    fn without_trials_what_a_file_holds_is_current() {
        let mut file = FromFile::new(version("v1"), Arc::new(b"v1".to_vec()), true);
        let revision = holds(&mut file, "v2");
        assert_eq!(names(&file), ("v2".into(), None));
        assert_eq!(file.bytes(&version("v2")).as_deref(), Some(&b"v2".to_vec()));
        assert_eq!((file.newest(), file.revision), (&version("v2"), revision));
    }
}
