//! The pure core of Segmenter: what a partition, a lease, a group member and a commit are, and what
//! follows from what. It turns `(now, event)` into commands. It must not know async, clocks,
//! randomness, Redis, Wasm or any other I/O; its manifest proves it.

pub mod assignor;
pub mod backoff;
pub mod batch;
pub mod consumer;
pub mod effects;
pub mod entry;
pub mod lease;
pub mod limits;
pub mod member;
pub mod message;
pub mod names;
pub mod outcome;
pub mod parcel;
pub mod partition_set;
pub mod partitioner;
pub mod port;
pub mod relay;
pub mod rollout;
pub mod source;
pub mod time;
