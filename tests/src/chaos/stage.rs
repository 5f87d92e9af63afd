//! Carries a plan out: each step at its time on who is fit for it then, and writes down what was really
//! done to whom and when. It must not judge what came of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::aftermath::Place;
use super::clock::now_us;
use super::fleet::{Fleet, Life, State};
use super::late::Late;
use super::plan::{Kind, Step};
use super::proxy::{Mode, Proxy};
use crate::server::Server;

/// A fault that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Incident {
    pub(super) kind: Kind,
    /// Whom it hit or who joined; nobody, or several one after another.
    pub(super) life: Option<u32>,
    pub(super) from_us: u64,
    /// 0 while it goes on.
    pub(super) to_us: u64,
    /// What shows that it took hold: a stopped process, bytes held back, a frame broken.
    pub(super) took_hold: bool,
}

/// What is due at some moment.
pub(super) enum Action {
    Begin(Step),
    /// After a death or a leave, so that enough are left.
    Replace,
    Resume {
        incident: usize,
    },
    Heal {
        incident: usize,
        held_before: u64,
    },
    Cut {
        incident: usize,
        left: u32,
        before: u64,
    },
    RedisBack {
        incident: usize,
    },
    Churn {
        incident: usize,
        pick: u64,
        left: u32,
    },
    Late(Late),
    EndLate(Late),
}

/// A step that finds nobody fit for it is tried again after this.
const AGAIN: Duration = Duration::from_millis(50);
/// That long after the plan's end it counts as not carried out.
const PATIENCE: Duration = Duration::from_secs(30);
const PROGRESS: Duration = Duration::from_secs(5);
const CUTS: u32 = 3;
const CHURNS: u32 = 4;
/// Hosts that the group has when nothing else is happening.
pub(super) const HOSTS: usize = 3;

pub(super) struct Stage<'a> {
    pub(super) fleet: &'a mut Fleet,
    pub(super) server: &'a mut Server,
    pub(super) session: Duration,
    /// What the hosts work on.
    pub(super) place: &'a Place,
    /// Of a producer; it suffers what cuts a host.
    pub(super) producer_proxy: &'a Proxy,
    pub(super) incidents: Vec<Incident>,
    pub(super) say: &'a dyn Fn(&str),
    due: Vec<(Instant, Action)>,
    redis_away: bool,
    began: Instant,
    /// From there on nothing more is tried.
    give_up: Duration,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        fleet: &'a mut Fleet,
        server: &'a mut Server,
        session: Duration,
        place: &'a Place,
        producer_proxy: &'a Proxy,
        say: &'a dyn Fn(&str),
    ) -> Stage<'a> {
        Stage {
            fleet,
            server,
            session,
            place,
            producer_proxy,
            incidents: Vec::new(),
            say,
            due: Vec::new(),
            redis_away: false,
            began: Instant::now(),
            give_up: Duration::ZERO,
        }
    }

    /// Until the plan is done and its seconds are over. Answers how many steps found nobody.
    pub(super) fn play(
        &mut self,
        plan: &[Step],
        seconds: u64,
        sent: &dyn Fn() -> u64,
    ) -> anyhow::Result<usize> {
        self.began = Instant::now();
        let begin = |step: &Step| (self.began + step.at, Action::Begin(step.clone()));
        self.due = plan.iter().map(begin).collect();
        let end = self.began + Duration::from_secs(seconds);
        self.give_up = Duration::from_secs(seconds) + PATIENCE;
        let mut progress = self.began + PROGRESS;
        loop {
            let now = Instant::now();
            if now >= progress {
                progress = now + PROGRESS;
                let (sent, handled) = (sent(), self.fleet.handled());
                let hosts = self.fleet.alive();
                self.tell(&format!("{sent} sent, {handled} handled, {hosts} hosts"));
            }
            self.fleet.look()?;
            self.close();
            let next = (0..self.due.len()).min_by_key(|n| self.due[*n].0);
            match next {
                Some(next) if self.due[next].0 <= now => {
                    let (_, action) = self.due.swap_remove(next);
                    self.act(action)?;
                }
                None if now >= end && self.incidents.iter().all(|i| i.to_us > 0) => return Ok(0),
                _ if now >= self.began + self.give_up => {
                    let unplayed = |(_, action): &&(Instant, Action)| {
                        matches!(action, Action::Begin(_) | Action::Churn { .. })
                    };
                    return Ok(self.due.iter().filter(unplayed).count());
                }
                _ => std::thread::park_timeout(Duration::from_millis(10)),
            }
        }
    }

    pub(super) fn tell(&self, what: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        (self.say)(&format!("{seconds:6.1} s  {what}"));
    }

    pub(super) fn after(&mut self, wait: Duration, action: Action) {
        self.due.push((Instant::now() + wait, action));
    }

    /// Joins end with `ready`, leaves with the exit.
    fn close(&mut self) {
        for incident in self.incidents.iter_mut().filter(|i| i.to_us == 0) {
            let life = incident.life.map(|life| self.fleet.life(life));
            let ended = match (incident.kind, life) {
                (Kind::Join, Some(life)) => life.ready_us(),
                (Kind::Leave, Some(life)) => life.ended.map(|(at, _)| at),
                _ => None,
            };
            if let Some(at) = ended {
                incident.to_us = at;
            }
        }
    }

    pub(super) fn happened(&mut self, kind: Kind, life: Option<u32>, took_hold: bool) -> usize {
        self.incidents.push(Incident {
            kind,
            life,
            from_us: now_us(),
            to_us: 0,
            took_hold,
        });
        self.incidents.len() - 1
    }

    pub(super) fn ended(&mut self, incident: usize) {
        self.incidents[incident].to_us = now_us();
    }

    /// Somebody who is up and whom nothing befalls, if enough others are.
    pub(super) fn target(&self, pick: u64, fit: impl Fn(&Life) -> bool) -> Option<u32> {
        let up: Vec<&Life> = self.fleet.lives.iter().filter(|l| l.is_up()).collect();
        if up.len() < 2 {
            return None;
        }
        let fit: Vec<u32> = up
            .into_iter()
            .filter(|l| fit(l))
            .map(|l| l.number)
            .collect();
        let n = u64::try_from(fit.len()).expect("few");
        (n > 0).then(|| fit[usize::try_from(pick % n).expect("few")])
    }

    pub(super) fn proxied(&mut self, pick: u64) -> anyhow::Result<Option<(u32, Arc<Proxy>)>> {
        let found = self.target(pick, |life| life.proxy.is_some());
        let coming = |l: &Life| l.is_alive() && l.proxy.is_some() && l.state == State::Running;
        if found.is_none() && !self.fleet.lives.iter().any(coming) {
            self.fleet.start(None, true)?;
        }
        Ok(found.and_then(|life| Some((life, self.fleet.life(life).proxy.clone()?))))
    }

    fn act(&mut self, action: Action) -> anyhow::Result<()> {
        match action {
            Action::Begin(step) => {
                if !self.begin(&step)? {
                    self.after(AGAIN, Action::Begin(step));
                }
            }
            Action::Replace => {
                if self.fleet.alive() < HOSTS {
                    let direct = |l: &Life| l.is_alive() && l.proxy.is_none();
                    let behind_proxy = self.fleet.lives.iter().any(direct);
                    self.fleet.start(None, behind_proxy)?;
                }
            }
            Action::Resume { incident } => {
                let life = self.incidents[incident].life.expect("somebody was paused");
                let life = self.fleet.life(life);
                self.incidents[incident].took_hold = life.is_stopped();
                life.signal("CONT");
                life.state = State::Running;
                self.ended(incident);
            }
            Action::Heal {
                incident,
                held_before,
            } => {
                let life = self.incidents[incident].life.expect("somebody was hit");
                let life = self.fleet.life(life);
                if let Some(proxy) = &life.proxy {
                    self.incidents[incident].took_hold |= proxy.held_back() > held_before;
                    proxy.set(Mode::Pass);
                }
                life.state = State::Running;
                self.ended(incident);
            }
            Action::Cut {
                incident,
                left,
                before,
            } => {
                let life = self.incidents[incident].life.expect("somebody was hit");
                let life = self.fleet.life(life);
                let proxy = life.proxy.clone().expect("only proxied ones are cut");
                let took_hold = proxy.cut_in_mid_frame() > before;
                // While Redis is away there is nothing to cut: it goes on until there was.
                if left > 0 || !(took_hold || self.began.elapsed() > self.give_up) {
                    proxy.cut();
                    self.producer_proxy.cut();
                    let next = Action::Cut {
                        incident,
                        left: left.saturating_sub(1),
                        before,
                    };
                    self.after(Duration::from_millis(300), next);
                } else {
                    life.state = State::Running;
                    self.incidents[incident].took_hold = took_hold;
                    self.ended(incident);
                }
            }
            Action::RedisBack { incident } => {
                self.server.restart();
                self.redis_away = false;
                self.ended(incident);
                self.tell("the server is back");
            }
            Action::Late(late) => self.look_late(late),
            Action::EndLate(late) => self.end_late(&late),
            Action::Churn {
                incident,
                pick,
                left,
            } => {
                let joins = left.is_multiple_of(2);
                let leaver = self.target(pick.rotate_right(left), |_| true);
                let mut wait = AGAIN;
                let mut next = left;
                if joins {
                    self.fleet.start(None, left.is_multiple_of(4))?;
                    (next, wait) = (left - 1, Duration::from_millis(400));
                } else if let Some(leaver) = leaver {
                    self.leave(leaver);
                    (next, wait) = (left - 1, Duration::from_millis(400));
                }
                if next > 0 {
                    self.after(
                        wait,
                        Action::Churn {
                            incident,
                            pick,
                            left: next,
                        },
                    );
                } else {
                    self.ended(incident);
                    self.after(self.session, Action::Replace);
                }
            }
        }
        Ok(())
    }

    fn leave(&mut self, life: u32) {
        let life = self.fleet.life(life);
        life.signal("TERM");
        life.state = State::Leaving;
    }

    /// Whether somebody fit for it was there.
    fn begin(&mut self, step: &Step) -> anyhow::Result<bool> {
        let pick = step.pick;
        let name = step.kind.name();
        match step.kind {
            Kind::Kill | Kind::Revive => {
                let Some(life) = self.target(pick, |_| true) else {
                    return Ok(false);
                };
                let incident = self.happened(step.kind, Some(life), true);
                self.fleet.kill(life)?;
                self.ended(incident);
                let (member, proxied) = {
                    let life = self.fleet.life(life);
                    (life.member.clone(), life.proxy.is_some())
                };
                self.tell(&format!("{name}: host {life} ({member})"));
                if step.kind == Kind::Revive {
                    self.fleet.start(Some(member), proxied)?;
                } else {
                    self.after(step.lasts, Action::Replace);
                }
            }
            Kind::Pause => {
                let Some(life) = self.target(pick, |_| true) else {
                    return Ok(false);
                };
                let incident = self.happened(step.kind, Some(life), false);
                let host = self.fleet.life(life);
                host.signal("STOP");
                host.state = State::Paused;
                self.tell(&format!("{name}: host {life} for {:?}", step.lasts));
                self.after(step.lasts, Action::Resume { incident });
            }
            Kind::Leave => {
                let Some(life) = self.target(pick, |_| true) else {
                    return Ok(false);
                };
                self.happened(step.kind, Some(life), true);
                self.leave(life);
                self.tell(&format!("{name}: host {life}"));
                self.after(step.lasts, Action::Replace);
            }
            Kind::Join => {
                let life = self.fleet.start(None, pick.is_multiple_of(2))?;
                self.happened(step.kind, Some(life), true);
                self.tell(&format!("{name}: host {life}"));
            }
            Kind::Churn => {
                let incident = self.happened(step.kind, None, true);
                self.tell(&format!("{name}: {CHURNS} joins and leaves"));
                let left = CHURNS;
                self.act(Action::Churn {
                    incident,
                    pick,
                    left,
                })?;
            }
            Kind::Redis => {
                if self.redis_away {
                    return Ok(false);
                }
                let incident = self.happened(step.kind, None, true);
                self.server.kill();
                self.redis_away = true;
                self.tell(&format!("{name}: away for {:?}", step.lasts));
                self.after(step.lasts, Action::RedisBack { incident });
            }
            Kind::Late => return self.begin_late(step),
            Kind::Delay | Kind::Cut | Kind::Blackhole => {
                let Some((life, proxy)) = self.proxied(pick)? else {
                    return Ok(false);
                };
                let incident = self.happened(step.kind, Some(life), step.kind == Kind::Delay);
                self.fleet.life(life).state = State::Troubled;
                let held_before = proxy.held_back();
                match step.kind {
                    Kind::Cut => {
                        self.tell(&format!("{name}: host {life}, {CUTS} times"));
                        let (left, before) = (CUTS, proxy.cut_in_mid_frame());
                        self.act(Action::Cut {
                            incident,
                            left,
                            before,
                        })?;
                    }
                    Kind::Delay => {
                        // A round trip stays well below a heartbeat: being slow excuses nothing.
                        let most = u64::try_from(self.session.as_millis() / 16)?;
                        let delay = Duration::from_millis(2 + pick % most);
                        proxy.set(Mode::Delay(delay));
                        self.tell(&format!(
                            "{name}: host {life} by {delay:?} for {:?}",
                            step.lasts
                        ));
                        self.after(
                            step.lasts,
                            Action::Heal {
                                incident,
                                held_before,
                            },
                        );
                    }
                    _ => {
                        proxy.set(Mode::Blackhole);
                        self.tell(&format!("{name}: host {life} for {:?}", step.lasts));
                        self.after(
                            step.lasts,
                            Action::Heal {
                                incident,
                                held_before,
                            },
                        );
                    }
                }
            }
        }
        Ok(true)
    }
}
