//! What the tests share: real servers, real processes. Knows how to start and watch them; must not know
//! what is tested.

pub mod process;
pub mod server;
