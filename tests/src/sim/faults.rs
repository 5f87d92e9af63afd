//! Carries out what the plan says, each fault at its moment, and ends them all.

use segmenter_core::names::{MemberId, Partition};

use super::host::Links;
use super::net::LinkId;
use super::plan::{Fault, Kind};
use super::redis::Keeps;
use super::world::World;

impl World {
    pub(super) fn befall(&mut self, fault: Fault) {
        match fault {
            Fault::Start { host } => self.start(host, None),
            Fault::Leave { host } => {
                self.count(Kind::Churn);
                self.leave(host);
            }
            Fault::Kill { host } => {
                self.count(Kind::Kill);
                self.end_process(host, "killed");
            }
            Fault::Pause { host, us } => {
                self.count(Kind::Pause);
                self.pause(host, us);
            }
            Fault::Cut { host } => {
                self.count(Kind::Cut);
                self.trace.line(
                    self.now,
                    format_args!("host {} is cut off", self.hosts[host].name),
                );
                for link in self.links_of(host) {
                    self.cut(link, "the connection broke");
                }
                self.unsubscribe(host);
            }
            Fault::Blackhole { host, us } => {
                self.count(Kind::Blackhole);
                let links = self.some_links_of(host);
                self.trace.line(
                    self.now,
                    format_args!(
                        "nothing reaches host {} on {links:?} for {us} µs",
                        self.hosts[host].name
                    ),
                );
                for link in links {
                    self.blackhole(link, us);
                }
            }
            Fault::Delay { host, us } => {
                self.count(Kind::Delay);
                for link in self.some_links_of(host) {
                    self.slow_down(link, us);
                }
            }
            Fault::HostClock { host, us } => {
                self.count(Kind::HostClock);
                self.trace.line(
                    self.now,
                    format_args!(
                        "the clock of host {} jumps by {us} µs",
                        self.hosts[host].name
                    ),
                );
                self.hosts[host].clock.jump(us);
                self.wake_all(host);
            }
            Fault::BrokerClock { us } => {
                self.count(Kind::BrokerClock);
                self.trace
                    .line(self.now, format_args!("redis' clock jumps by {us} µs"));
                self.redis.clock.jump(us);
            }
            Fault::Restart { us } => {
                self.count(Kind::Restart);
                self.restart(us, Keeps::All);
            }
            Fault::Snapshot => self.snapshot(),
            Fault::Rollback { us } => self.restart(us, Keeps::Snapshot),
            Fault::Emptied { us } => {
                self.count(Kind::Emptied);
                self.restart(us, Keeps::Nothing);
            }
            Fault::SameMember { host } => self.same_member(host),
            Fault::Foreign { stream, partition } => self.foreign(stream, Partition(partition)),
            Fault::Delete { stream } => self.delete_stream(stream),
            Fault::DeleteGroup { binding } => self.delete_group(binding),
            Fault::Seek { binding, partition } => self.seek(binding, Partition(partition)),
            Fault::Halt { binding, partition } => self.halt(binding, Partition(partition)),
            Fault::Resume {
                binding,
                partition,
                skip,
            } => self.resume_halted(binding, Partition(partition), skip),
            Fault::Deploy {
                binding,
                behaviour,
                trial,
            } => self.deploy(binding, behaviour, trial),
            Fault::Settle { binding, promote } => self.settle_trial(binding, promote),
        }
    }

    /// From here on everything works, and what is not there is started.
    pub(super) fn faults_end(&mut self) {
        self.trace.line(self.now, format_args!("the faults end"));
        for link in &mut self.links {
            link.blocked_until = link.blocked_until.min(self.now);
        }
        for host in 0..self.hosts.len() {
            let life = self.hosts[host].life;
            if self.hosts[host].paused_until > self.now {
                self.hosts[host].paused_until = self.now;
                self.resume(host, life);
            }
        }
        for host in 0..self.plan.hosts {
            self.start_again(host);
        }
        if !self.redis.is_down() {
            self.resume_all();
        }
        self.start_looking();
    }

    /// Reads travel on links of their own: what befalls them need not befall the rest.
    fn some_links_of(&mut self, host: usize) -> Vec<LinkId> {
        let Links { shared, readers } = self.hosts[host].links.clone();
        match self.rng.below(4) {
            0 => vec![shared],
            1 | 2 => readers,
            _ => self.links_of(host),
        }
    }

    fn links_of(&self, host: usize) -> Vec<LinkId> {
        let Links { shared, readers } = &self.hosts[host].links;
        readers.iter().chain([shared]).copied().collect()
    }

    /// A second start with the id of a member that lives; the first one must give way.
    fn same_member(&mut self, host: usize) {
        let Some(process) = &self.hosts[host].process else {
            return;
        };
        let member: MemberId = process.member.clone();
        self.count(Kind::SameMember);
        self.start(self.plan.hosts, Some(member));
    }
}
