//! The cases. Each is a sentence that must be true of every broker.

pub mod append;
pub mod assignment;
pub mod commit;
pub mod deploy;
pub mod effects;
pub mod groups;
pub mod leases;
pub mod members;
pub mod operator;
pub mod outbox;
pub mod register;
pub mod source;
pub mod trim;
