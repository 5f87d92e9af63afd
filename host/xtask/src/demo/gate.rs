//! How much may be sent: whoever watches the hosts moves it on, the sender waits at it. So the steps of the
//! demo come while messages flow, however fast they do.

use std::sync::{Condvar, Mutex};

pub(super) struct Gate {
    up_to: Mutex<u64>,
    moved: Condvar,
}

impl Gate {
    pub(super) fn closed() -> Gate {
        Gate {
            up_to: Mutex::new(0),
            moved: Condvar::new(),
        }
    }

    /// So many messages may be sent in all. It never goes back.
    pub(super) fn move_to(&self, messages: u64) {
        let mut up_to = self.up_to.lock().expect("no panic");
        if messages > *up_to {
            *up_to = messages;
            self.moved.notify_all();
        }
    }

    pub(super) fn lets_pass(&self, message: u64) -> bool {
        message < *self.up_to.lock().expect("no panic")
    }

    /// Until the message of this number, the first is 0, may be sent.
    pub(super) fn wait(&self, message: u64) {
        let up_to = self.up_to.lock().expect("no panic");
        let closed = |up_to: &mut u64| message >= *up_to;
        drop(self.moved.wait_while(up_to, closed).expect("no panic"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_waits_until_the_gate_moves() {
        let gate = Gate::closed();
        gate.move_to(2);
        gate.move_to(1);
        assert!(gate.lets_pass(1) && !gate.lets_pass(2));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| gate.wait(2));
            gate.move_to(3);
            waits.join().unwrap();
        });
        assert!(gate.lets_pass(2));
    }
}
