#!lua flags=allow-oom
-- An operator ends a halt; the first entry that is not acked may become a dead letter in the same step.
-- KEYS: 1 meta, 2 log, 3 lease, 4 dead letters
-- ARGV: 1 uid, 2 group, 3 news channel, 4 reason of the dead letter ('': skip nothing),
--       5 fields of a dead letter that travel one by one; more are packed into one
-- Returns: 'gone', 'nogroup', 'running', or {id that was skipped, or ''}
local err, word, lease = operated(KEYS[1], KEYS[2], KEYS[3], ARGV[1])
if err or word then return err or word end
if not lease.halt then return 'running' end
local head, acked, read = nil, lease.acked, lease.read
if ARGV[4] ~= '' then
  local err2 = check_type(KEYS[4], 'stream')
  if err2 then return err2 end
  head = redis.call('XRANGE', KEYS[2], '(' .. lease.acked, '+', 'COUNT', 1)[1]
end
local epoch, now = next_epoch(lease.epoch), string.format('%.0f', time_ms())
local err4 = refused({'XADD', KEYS[4], '*', 'f', 'v'}, {'HSET', KEYS[3], 'f', 'v'})
if err4 then return err4 end
if head then
  local id, fields = head[1], head[2]
  local log = to_table(redis.call('XINFO', 'STREAM', KEYS[2]))
  acked, read = id, string.format('%.0f', tonumber(lease.read) + 1)
  if id == log['last-generated-id'] then read = string.format('%.0f', log['entries-added']) end
  local err3 = move_mirror(KEYS[2], ARGV[2], id, read)
  if err3 then return err3 end
  if #fields / 2 > tonumber(ARGV[5]) then
    local packed = {}
    for i, part in ipairs(fields) do packed[i] = #part .. ':' .. part end
    fields = {'', table.concat(packed)}
  end
  -- No attempts and no version: no handler gave up on it.
  redis.call('XADD', KEYS[4], '*', 'protocol', PROTOCOL, 'id', id, 'reason', ARGV[4], 'attempts', '0',
    'version', '', 'at', now, unpack(fields))
end
-- The lease, which is the truth, comes last and in one command.
redis.call('HSET', KEYS[3], 'owner', '', 'epoch', epoch, 'halt', '', 'acked', acked,
  'read', read, 'head', '', 'attempts', '0')
announce(ARGV[3], 'resume')
return {head and head[1] or ''}
