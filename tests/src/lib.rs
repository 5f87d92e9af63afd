//! What the tests share: real servers, real processes, a broker in memory, the cases that hold it and the
//! Redis adapter to the same behaviour, and the simulation of whole groups.

pub mod broker;
pub mod chaos;
pub mod conformance;
pub mod fuzz;
pub mod process;
pub mod server;
pub mod sim;
