#!lua flags=allow-oom
-- An operator moves acked-through. The owner is fenced by a new epoch and acquires again.
-- KEYS: 1 meta, 2 log, 3 lease
-- ARGV: 1 uid, 2 group, 3 news channel, 4 'start', 'end' or the lowest id to handle next,
--       5 first entry there is from that id on ('': none), 6 entries before it since the log's first:
--       counted beforehand, because a long log is not walked in one script
-- Returns: 'gone', 'nogroup', 'again' (the log is another by now: count anew), or {acked before, acked, read}
local err, word, lease = operated(KEYS[1], KEYS[2], KEYS[3], ARGV[1])
if err or word then return err or word end
local log = to_table(redis.call('XINFO', 'STREAM', KEYS[2]))
local function edge(command, from, to)
  local entries = redis.call(command, KEYS[2], from, to, 'COUNT', 1)
  return entries[1] and entries[1][1]
end
local added = string.format('%.0f', log['entries-added'])
local acked, read = '0-0', string.format('%.0f', log['entries-added'] - log['length'])
if ARGV[4] == 'end' or (ARGV[4] ~= 'start' and id_less(log['last-generated-id'], ARGV[4])) then
  acked, read = log['last-generated-id'], added
elseif ARGV[4] ~= 'start' then
  local first, before = edge('XRANGE', ARGV[4], '+'), edge('XREVRANGE', '(' .. ARGV[4], '-')
  -- With nothing before it the count is not needed: the log begins there, or has been trimmed beyond it.
  if before then
    if (first or '') ~= ARGV[5] then return 'again' end
    acked, read = before, first and ARGV[6] or added
  end
end
local epoch = next_epoch(lease.epoch)
local err2 = refused({'HSET', KEYS[3], 'f', 'v'}) or move_mirror(KEYS[2], ARGV[2], acked, read)
if err2 then return err2 end
redis.call('HSET', KEYS[3], 'owner', '', 'epoch', epoch, 'acked', acked, 'read', read,
  'head', '', 'attempts', '0')
announce(ARGV[3], 'seek')
return {lease.acked, acked, read}
