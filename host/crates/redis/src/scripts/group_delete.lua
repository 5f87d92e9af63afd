#!lua flags=allow-oom
-- Removes a group from one partition with all that is its own, and trims what it alone needed. A Redis
-- group of this name that is somebody else's stays.
-- KEYS: 1 meta, 2 log, 3 lease
-- ARGV: 1 uid, 2 group, 3 prefix of the partition's keys
-- Returns: 'gone', or existed 0|1
local err, meta = read_hash(KEYS[1], 'uid', 'groups')
if err then return err end
local err2, lease = read_hash(KEYS[3], 'acked')
if err2 then return err2 end
local err3, log_exists = check_type(KEYS[2], 'stream')
if err3 then return err3 end
if meta[1] ~= ARGV[1] or not log_exists then return 'gone' end
local others, known = {}, false
for name in string.gmatch(meta[2] or '', '%S+') do
  if name == ARGV[2] then known = true else others[#others + 1] = name end
end
if not known and not lease[1] then return 0 end
local err4 = refused({'HSET', KEYS[1], 'f', 'v'}, {'DEL', KEYS[3]})
if err4 then return err4 end
redis.call('XGROUP', 'DESTROY', KEYS[2], ARGV[2])
redis.call('HSET', KEYS[1], 'groups', table.concat(others, ' '))
for _, kind in ipairs({'lease:', 'state:', 'dead:', 'outbox:'}) do
  redis.call('DEL', ARGV[3] .. kind .. ARGV[2])
end
trim(KEYS[2], KEYS[1], ARGV[3] .. 'lease:', nil)
return 1
