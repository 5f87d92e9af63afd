#!lua flags=allow-oom
-- Acks up to an id, keeps dead letters, changes state, puts emitted messages into the outbox and records a
-- failed attempt, if the lease holds exactly incarnation, epoch and `from`.
-- Absolute values, never deltas. The mirror moves in the same script.
-- KEYS: 1 lease, 2 log, 3 meta, 4 dead letters, 5 state, 6 outbox
-- ARGV: 1 incarnation, 2 epoch, 3 from, 4 to, 5 read, 6 caught up 0|1, 7 trim 0|1, 8 group,
--       9 prefix of lease keys, 10 number of dead letters,
--       then for each: id, reason, attempts, version, number of fields, and name, value of each;
--       then the number of values that are set, and name, value of each;
--       then the number of values that are deleted, and the name of each;
--       then the number of entries of the outbox, and for each: its id, target stream, number of messages,
--       number of names and values that follow, and name, value of each field of the messages, one by one;
--       then the entry that failed ('': none), how often, version; reason of a halt ('': none); letters
--       and bytes of letters that are kept at most; the version that handles by now ('': as before)
-- Returns: {'ok', read}, {'deadfull', letters, bytes}, {'fenced'} (no lease) or {'fenced', owner, epoch, acked, halt}
local err, lease = read_hash(KEYS[1], 'owner', 'epoch', 'acked', 'halt')
if err then return err end
if not lease[3] then return {'fenced'} end
local view = {'fenced', lease[1] or '', lease[2] or '0', lease[3], lease[4] or ''}
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] or lease[3] ~= ARGV[3] then return view end
if id_less(ARGV[4], ARGV[3]) then
  return redis.error_reply('ERR commit to ' .. ARGV[4] .. ' goes behind ' .. ARGV[3])
end
local dead = tonumber(ARGV[10])
if dead > 0 then
  local err2 = check_type(KEYS[4], 'stream')
  if err2 then return err2 end
end
if ARGV[7] == '1' then
  local err2 = read_hash(KEYS[3], 'uid')
  if err2 then return err2 end
end
local read = ARGV[5]
if ARGV[6] == '1' then
  local info = redis.pcall('XINFO', 'STREAM', KEYS[2])
  if info.err then
    if string.find(info.err, 'WRONGTYPE', 1, true) then
      return redis.error_reply('WRONGTYPE ' .. KEYS[2] .. ' is not a stream')
    end
    return view
  end
  local log = to_table(info)
  if log['last-generated-id'] == ARGV[4] then read = string.format('%.0f', log['entries-added']) end
end
local now = ''
if dead > 0 then
  now = string.format('%.0f', time_ms())
  local err2 = refused({'XADD', KEYS[4], '*', 'f', 'v'})
  if err2 then return err2 end
end
local err3 = refused({'HSET', KEYS[1], 'f', 'v'})
if err3 then return err3 end
-- Where state begins among the arguments, and what it becomes.
local at = 11
local dead_bytes = 0
for _ = 1, dead do
  local last = at + 4 + 2 * tonumber(ARGV[at + 4])
  for i = at + 5, last do dead_bytes = dead_bytes + #ARGV[i] end
  at = last + 1
end
local first_set, last_set = at + 1, at + 2 * tonumber(ARGV[at])
at = last_set + 1
local first_deleted, last_deleted = at + 1, at + tonumber(ARGV[at])
if last_set >= first_set or last_deleted >= first_deleted then
  local err4 = read_hash(KEYS[5])
    or refused({'HSET', KEYS[5], 'f', 'v'}, {'HDEL', KEYS[5], 'f'})
  if err4 then return err4 end
end
at = last_deleted + 1
local parcels, first_parcel = tonumber(ARGV[at]), at + 1
if parcels > 0 then
  local err4, outbox_exists = check_type(KEYS[6], 'stream')
  err4 = err4 or refused({'XADD', KEYS[6], '*', 'f', 'v'})
  if err4 then return err4 end
  if outbox_exists then
    local outbox = to_table(redis.call('XINFO', 'STREAM', KEYS[6]))
    if not id_less(outbox['last-generated-id'], ARGV[first_parcel]) then
      return redis.error_reply('ERR the outbox has messages up to ' .. outbox['last-generated-id']
        .. ', above ' .. ARGV[first_parcel])
    end
  end
end
at = first_parcel
for _ = 1, parcels do at = at + 4 + tonumber(ARGV[at + 3]) end
local failed, halt, version = at, ARGV[at + 3], ARGV[at + 6]
if dead > 0 then
  local kept = redis.call('XLEN', KEYS[4])
  dead_bytes = dead_bytes + tonumber(redis.call('HMGET', KEYS[1], 'dead_bytes')[1] or '0')
  if kept + dead > tonumber(ARGV[at + 4]) or dead_bytes > tonumber(ARGV[at + 5]) then
    return {'deadfull', kept, string.format('%.0f', dead_bytes)}
  end
end
-- The first write checks the log and the mirror by itself: it changes nothing if it is refused.
local moved = redis.pcall('XGROUP', 'SETID', KEYS[2], ARGV[8], ARGV[4], 'ENTRIESREAD', read)
if moved.err then
  if string.find(moved.err, 'WRONGTYPE', 1, true) then
    return redis.error_reply('WRONGTYPE ' .. KEYS[2] .. ' is not a stream')
  end
  local err2, log_exists = check_type(KEYS[2], 'stream')
  -- Without its log the lease is worth nothing; the owner acquires again and learns that it is gone.
  if err2 or not log_exists then return err2 or view end
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[8], ARGV[4], 'ENTRIESREAD', read)
  if made.err then return made end
end
if dead > 0 then
  at = 11
  for _ = 1, dead do
    local last = at + 4 + 2 * tonumber(ARGV[at + 4])
    redis.call('XADD', KEYS[4], '*', 'protocol', PROTOCOL, 'id', ARGV[at], 'reason', ARGV[at + 1],
      'attempts', ARGV[at + 2], 'version', ARGV[at + 3], 'at', now, unpack(ARGV, at + 5, last))
    at = last + 1
  end
end
-- What Lua can pass on at once is limited.
for i = first_set, last_set, 1000 do
  redis.call('HSET', KEYS[5], 'protocol', PROTOCOL, unpack(ARGV, i, math.min(i + 999, last_set)))
end
for i = first_deleted, last_deleted, 1000 do
  redis.call('HDEL', KEYS[5], unpack(ARGV, i, math.min(i + 999, last_deleted)))
end
at = first_parcel
for _ = 1, parcels do
  local last = at + 3 + tonumber(ARGV[at + 3])
  redis.call('XADD', KEYS[6], ARGV[at], 'protocol', PROTOCOL, 'to', ARGV[at + 1], 'n', ARGV[at + 2],
    unpack(ARGV, at + 4, last))
  at = last + 1
end
local change = {'acked', ARGV[4], 'read', read}
local function also(...)
  for _, part in ipairs({...}) do change[#change + 1] = part end
end
if dead > 0 then also('dead_bytes', string.format('%.0f', dead_bytes)) end
if ARGV[failed] ~= '' then
  also('head', ARGV[failed], 'attempts', ARGV[failed + 1], 'head_version', ARGV[failed + 2])
end
if version ~= '' then also('version', version) end
if halt ~= '' then also('halt', halt, 'owner', '') end
redis.call('HSET', KEYS[1], unpack(change))
if ARGV[7] == '1' then trim(KEYS[2], KEYS[3], ARGV[9], nil) end
return {'ok', read}
