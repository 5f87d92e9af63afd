#!lua flags=allow-oom
-- Deletes all keys of one partition, if it is of this creation of the stream.
-- KEYS: 1 meta, 2 log
-- ARGV: 1 uid, 2 prefix of the partition's keys
-- Returns: names of the groups that it had
local err, meta = read_hash(KEYS[1], 'uid', 'groups')
if err then return err end
local names = {}
if meta[1] and meta[1] ~= ARGV[1] then return names end
for group in string.gmatch(meta[2] or '', '%S+') do
  names[#names + 1] = group
  for _, kind in ipairs({'lease:', 'state:', 'dead:', 'outbox:'}) do
    redis.call('DEL', ARGV[2] .. kind .. group)
  end
end
redis.call('DEL', KEYS[2], ARGV[2] .. 'from', KEYS[1])
return names
