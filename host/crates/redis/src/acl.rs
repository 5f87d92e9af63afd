//! The smallest permissions that suffice for `run`, `send` and every other command. README, doctor and
//! test servers take them from here; `permissions.lua` asks for exactly these.

/// Rules of `ACL SETUSER`, behind the name and the password. Which keys and channels, then commands that
/// are sent, then those that only scripts call.
pub const ACL_RULES: &str = "~seg:* &seg:* \
+ping +info +time +scan +evalsha +script|load +script|exists +client|id +client|unblock +publish +subscribe \
+set +strlen +getrange +hmget +hgetall +hset +hscan +del +zrange +xread +xrange \
+type +hdel +zadd +zrem +xadd +xlen +xtrim +xdel +xrevrange +xpending +xinfo|stream +xinfo|groups \
+xgroup|create +xgroup|setid +xgroup|destroy";

/// What to type for a user of this name. `reset` first, so that it is these rules and no others.
pub fn acl_setuser(user: &str) -> String {
    format!("ACL SETUSER {user} reset on >PASSWORD {ACL_RULES}")
}
