//! `wasi:logging/logging`: lines with a level.

use crate::bindings::wasi::logging::logging::{Host, Level as WitLevel};
use crate::instance::State;
use crate::output::Level;

impl Host for State {
    fn log(&mut self, level: WitLevel, context: String, message: String) {
        let level = match level {
            WitLevel::Trace => Level::Trace,
            WitLevel::Debug => Level::Debug,
            WitLevel::Info => Level::Info,
            WitLevel::Warn => Level::Warn,
            WitLevel::Error => Level::Error,
            WitLevel::Critical => Level::Critical,
        };
        let text = if context.is_empty() {
            message
        } else {
            format!("{context}: {message}")
        };
        self.output.logged(level, &text);
    }
}
