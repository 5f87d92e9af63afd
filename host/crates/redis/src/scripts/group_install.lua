#!lua flags=allow-oom
-- Puts an assignment in force, if the generation is still the one that it was computed for and has none.
-- KEYS: 1 group
-- ARGV: 1 uid of the stream, 2 generation, 3 news channel, 4 partitions that move,
--       then for each member: name, its set, digest of that
-- Returns: 'installed', 'overtaken' or 'gone'
local err, group = read_hash(KEYS[1], 'uid', 'generation', 'assigned', 'why')
if err then return err end
if group[1] ~= ARGV[1] then return 'gone' end
if group[2] ~= ARGV[2] or group[3] == ARGV[2] then return 'overtaken' end
local now = string.format('%.0f', time_ms())
for i = 5, #ARGV, 3 do
  redis.call('HSET', KEYS[1], 'a:' .. ARGV[i], ARGV[i + 1], 'ad:' .. ARGV[i], ARGV[i + 2])
end
redis.call('HSET', KEYS[1], 'assigned', ARGV[2], 'why', '', 'duty', '', 'last_why', group[4] or '',
  'last_moves', ARGV[4], 'last_at', now)
-- Who may not publish is heard at the next heartbeat.
redis.pcall('PUBLISH', ARGV[3], 'assigned ' .. ARGV[2])
return 'installed'
