//! The fault at which only the fence helps: a host is taken over from while a commit of it is in the air, and
//! that commit arrives between the acquire of the new owner and its first one. It is held back, and what
//! the host says behind it; it goes on reading and handling. So that there is time in between, the others are
//! slow meanwhile. It must not judge what came of it.

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
    victim: u32,
    /// That the victim held.
    partitions: Vec<usize>,
    slow: Vec<u32>,
    held_before: u64,
    gives_up: Instant,
    /// When a slow one was seen to hold what the victim held.
    taken: Option<Instant>,
}

impl Stage<'_> {
    /// Whether somebody fit for it was there.
    pub(super) fn begin_late(&mut self, step: &Step) -> anyhow::Result<bool> {
        let Some(holders) = self.place.holders() else {
            return Ok(false);
        };
        let fit =
            |life: &super::fleet::Life| life.proxy.is_some() && holders.contains(&life.member);
        let Some(victim) = self.target(step.pick, fit) else {
            return self.proxied(step.pick).map(|_| false);
        };
        let others = self
            .fleet
            .lives
            .iter()
            .filter(|life| life.is_up() && life.number != victim);
        let slow: Vec<u32> = others
            .filter(|life| life.proxy.is_some())
            .map(|life| life.number)
            .collect();
        if slow.is_empty() {
            // One that may be slow, unless it is on its way.
            let coming = |life: &super::fleet::Life| {
                life.is_alive() && life.proxy.is_some() && life.number != victim
            };
            if !self.fleet.lives.iter().any(coming) {
                self.fleet.start(None, true)?;
            }
            return Ok(false);
        }
        let incident = self.happened(step.kind, Some(victim), false);
        self.tell(&format!(
            "{}: host {victim}, while {slow:?} are slow",
            step.kind.name()
        ));
        for life in &slow {
            self.set(*life, Mode::Delay(self.session / SLOW));
        }
        let held_before = self.held_back(victim);
        self.set(victim, Mode::HoldWord);
        let member = &self.fleet.life(victim).member;
        let partitions = (0..holders.len())
            .filter(|p| holders[*p] == *member)
            .collect();
        let late = Late {
            incident,
            victim,
            partitions,
            slow,
            held_before,
            gives_up: Instant::now() + TAKEOVER,
            taken: None,
        };
        self.after(LOOK, Action::Late(late));
        Ok(true)
    }

    /// Lets the commit go as soon as others hold what the victim held, or a slow one holds a part of it. What
    /// comes behind must wait, else the victim would be a member again before the others did anything.
    pub(super) fn look_late(&mut self, mut late: Late) {
        let holders = self.place.holders().unwrap_or_default();
        let is = |p: &usize, life: &u32| {
            holders.get(*p) == Some(&self.fleet.lives[*life as usize].member)
        };
        let kept = late.partitions.iter().any(|p| is(p, &late.victim));
        let by_slow = |p| late.slow.iter().any(|life| is(p, life));
        let now = Instant::now();
        if late.taken.is_none() && late.partitions.iter().any(by_slow) {
            late.taken = Some(now);
        }
        let all_taken = !holders.is_empty() && !kept;
        // It hears of it that much later: until then there is time.
        let a_while = late.taken.is_some_and(|at| now >= at + self.session / SLOW);
        if !all_taken && !a_while && now < late.gives_up {
            return self.after(LOOK, Action::Late(late));
        }
        let held = self.held_back(late.victim) > late.held_before;
        self.incidents[late.incident].took_hold = held && (all_taken || a_while);
        self.set(late.victim, Mode::HoldBehind);
        // Until the others have handled something, slow as they are.
        self.after(self.session / 2, Action::EndLate(late));
    }

    pub(super) fn end_late(&mut self, late: &Late) {
        for life in late.slow.iter().chain([&late.victim]) {
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
