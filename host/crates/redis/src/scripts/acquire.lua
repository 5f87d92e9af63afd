#!lua flags=allow-oom
-- Takes the lease, whoever holds it, unless it is halted.
-- KEYS: 1 meta, 2 log, 3 lease
-- ARGV: 1 uid, 2 incarnation, 3 member, 4 version
-- Returns: 'gone', 'nogroup', {'halted', reason, epoch, acked}, or {epoch, acked, read, unreleased 0|1}
local err, meta = read_hash(KEYS[1], 'uid')
if err then return err end
local err2, lease = read_hash(KEYS[3], 'owner', 'epoch', 'acked', 'read', 'halt')
if err2 then return err2 end
local err3, log_exists = check_type(KEYS[2], 'stream')
if err3 then return err3 end
if meta[1] ~= ARGV[1] or not log_exists then return 'gone' end
if not lease[3] then return 'nogroup' end
if lease[5] and lease[5] ~= '' then return {'halted', lease[5], lease[2] or '0', lease[3]} end
local epoch = next_epoch(lease[2])
redis.call('HSET', KEYS[3], 'owner', ARGV[2], 'member', ARGV[3], 'version', ARGV[4], 'epoch', epoch)
local unreleased = lease[1] and lease[1] ~= ''
return {epoch, lease[3], lease[4] or '0', unreleased and 1 or 0}
