//! The fault at which only the fence helps: a host that became mute is taken over from, and what it had in
//! the air arrives between the acquire of the new owner and its first commit. So that there is time in
//! between, the others are slow meanwhile. It must not judge what came of it.

use std::time::{Duration, Instant};

use super::fleet::State;
use super::plan::Step;
use super::proxy::Mode;
use super::stage::{Action, Stage};

/// Beyond this nobody takes over any more: the fault counts as not carried out.
const TAKEOVER: Duration = Duration::from_secs(20);
/// Between two looks at who holds what.
const LOOK: Duration = Duration::from_millis(5);
/// How slow the others are, as a part of the session timeout. A round trip stays well below a heartbeat.
const SLOW: u32 = 16;

pub(super) struct Late {
    incident: usize,
    /// Those that the mute one held.
    partitions: Vec<usize>,
    slow: Vec<u32>,
    held_before: u64,
    gives_up: Instant,
}

impl Stage<'_> {
    /// Whether somebody fit for it was there.
    pub(super) fn begin_late(&mut self, step: &Step) -> anyhow::Result<bool> {
        let Some(holders) = self.place.holders() else {
            return Ok(false);
        };
        let fit =
            |life: &super::fleet::Life| life.proxy.is_some() && holders.contains(&life.member);
        let Some(mute) = self.target(step.pick, fit) else {
            return self.proxied(step.pick).map(|_| false);
        };
        let others = self
            .fleet
            .lives
            .iter()
            .filter(|life| life.is_up() && life.number != mute);
        let slow: Vec<u32> = others
            .filter(|life| life.proxy.is_some())
            .map(|life| life.number)
            .collect();
        if slow.is_empty() {
            // One that may be slow, unless it is on its way.
            let coming = |life: &super::fleet::Life| {
                life.is_alive() && life.proxy.is_some() && life.number != mute
            };
            if !self.fleet.lives.iter().any(coming) {
                self.fleet.start(None, true)?;
            }
            return Ok(false);
        }
        let incident = self.happened(step.kind, Some(mute), false);
        self.tell(&format!(
            "{}: host {mute}, while {slow:?} are slow",
            step.kind.name()
        ));
        for life in &slow {
            self.set(*life, Mode::Delay(self.session / SLOW));
        }
        let held_before = self.held_back(mute);
        self.set(mute, Mode::Mute);
        let member = &self.fleet.life(mute).member;
        let partitions = (0..holders.len())
            .filter(|p| holders[*p] == *member)
            .collect();
        let late = Late {
            incident,
            partitions,
            slow,
            held_before,
            gives_up: Instant::now() + TAKEOVER,
        };
        self.after(LOOK, Action::Late(late));
        Ok(true)
    }

    /// Lets the mute one speak as soon as a slow one holds what it held; or another, if none does.
    pub(super) fn look_late(&mut self, late: Late) {
        let mute = self.incidents[late.incident]
            .life
            .expect("somebody is mute");
        let holders = self.place.holders().unwrap_or_default();
        let is = |p: &usize, life: &u32| {
            holders.get(*p) == Some(&self.fleet.lives[*life as usize].member)
        };
        let kept = late.partitions.iter().any(|p| is(p, &mute));
        let taken = late
            .partitions
            .iter()
            .any(|p| late.slow.iter().any(|life| is(p, life)));
        let all_taken = !holders.is_empty() && !kept;
        if !taken && !all_taken && Instant::now() < late.gives_up {
            return self.after(LOOK, Action::Late(late));
        }
        let held = self.held_back(mute) > late.held_before;
        self.incidents[late.incident].took_hold = held && (taken || all_taken);
        self.set(mute, Mode::Pass);
        // Until what they have asked for so far has come back, some of it in several steps.
        self.after(self.session / 2, Action::EndLate(late));
    }

    pub(super) fn end_late(&mut self, late: &Late) {
        let mute = self.incidents[late.incident]
            .life
            .expect("somebody was mute");
        for life in late.slow.iter().chain([&mute]) {
            self.set(*life, Mode::Pass);
            let life = self.fleet.life(*life);
            if life.state == State::Troubled {
                life.state = State::Running;
            }
        }
        self.ended(late.incident);
    }

    fn set(&mut self, life: u32, mode: Mode) {
        let life = self.fleet.life(life);
        life.state = State::Troubled;
        if let Some(proxy) = &life.proxy {
            proxy.set(mode);
        }
    }

    fn held_back(&mut self, life: u32) -> u64 {
        let proxy = &self.fleet.life(life).proxy;
        proxy.as_ref().map_or(0, |proxy| proxy.held_back())
    }
}
