//! What the tests share: real servers, real processes, a broker in memory, and the cases that hold it and
//! the Redis adapter to the same behaviour.

pub mod broker;
pub mod chaos;
pub mod conformance;
pub mod process;
pub mod server;
