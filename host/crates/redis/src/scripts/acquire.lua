#!lua flags=allow-oom
-- Takes the lease, whoever holds it. The epoch is above every one that was ever given out, also if the
-- lease went back: max(old + 1, TIME in µs), below 2^53 for the next two centuries.
-- KEYS: 1 meta, 2 log, 3 lease
-- ARGV: 1 uid, 2 incarnation, 3 member, 4 version
-- Returns: 'gone', 'nogroup', or {epoch, acked, read, unreleased 0|1}
local err, meta = read_hash(KEYS[1], 'uid')
if err then return err end
local err2, lease = read_hash(KEYS[3], 'owner', 'epoch', 'acked', 'read')
if err2 then return err2 end
local err3, log_exists = check_type(KEYS[2], 'stream')
if err3 then return err3 end
if meta[1] ~= ARGV[1] or not log_exists then return 'gone' end
if not lease[3] then return 'nogroup' end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local epoch = string.format('%.0f', math.max(tonumber(lease[2] or '0') + 1, now))
redis.call('HSET', KEYS[3], 'owner', ARGV[2], 'member', ARGV[3], 'version', ARGV[4], 'epoch', epoch)
local unreleased = lease[1] and lease[1] ~= ''
return {epoch, lease[3], lease[4] or '0', unreleased and 1 or 0}
