//! Numbers and names that no other process has. Not for secrets.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// From the keys that the standard library takes from the system for each thread, and the time.
pub(crate) fn number() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(super::clock::now().0);
    hasher.write_u32(std::process::id());
    hasher.finish()
}

/// 128 bits in hex: an incarnation or a uid.
pub(crate) fn name() -> String {
    format!("{:016x}{:016x}", number(), number())
}
