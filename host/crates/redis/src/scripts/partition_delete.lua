#!lua flags=allow-oom
-- Deletes all keys of one partition, if it is of this creation of the stream. A log that others write
-- stays, without the groups that were ours; the caller says so, because meta may be gone already.
-- KEYS: 1 meta, 2 log
-- ARGV: 1 uid, 2 prefix of the partition's keys, 3 others write the log 0|1
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
  -- The log may be gone by now.
  if ARGV[3] == '1' then redis.pcall('XGROUP', 'DESTROY', KEYS[2], group) end
end
if ARGV[3] ~= '1' then redis.call('DEL', KEYS[2]) end
redis.call('DEL', ARGV[2] .. 'from', KEYS[1])
return names
