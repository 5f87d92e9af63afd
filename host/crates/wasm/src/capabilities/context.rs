//! `segmenter:handler/context`: where the handler runs.

use crate::bindings::segmenter::handler::context::Host;
use crate::instance::State;

impl Host for State {
    fn namespace(&mut self) -> String {
        self.context.namespace.to_string()
    }
    fn stream(&mut self) -> String {
        self.context.stream.to_string()
    }
    fn partitions(&mut self) -> u32 {
        self.context.partitions
    }
    fn group(&mut self) -> String {
        self.context.group.to_string()
    }
    fn handler_name(&mut self) -> String {
        self.context.handler.to_string()
    }
    fn version(&mut self) -> String {
        self.version.to_string()
    }
    fn lease_epoch(&mut self) -> u64 {
        self.context.epoch.0
    }
}
