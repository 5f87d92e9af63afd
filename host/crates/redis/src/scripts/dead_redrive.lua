#!lua flags=allow-oom
-- An operator moves dead letters into the outbox, in the order given. Their stamps begin with a new epoch,
-- so that they come last; the owner is fenced by it and acquires again.
-- KEYS: 1 meta, 2 log, 3 lease, 4 dead letters, 5 outbox
-- ARGV: 1 uid, 2 news channel, 3 key field and 4 payload field of a source ('': our own names),
--       5 number of letters, then for each: its id among the dead letters, target stream,
--       the group that shall handle it or '', whether a handler emitted it 0|1
-- Returns: 'gone', 'nogroup', or {epoch, ids of the letters that were there}
local err, word, lease = operated(KEYS[1], KEYS[2], KEYS[3], ARGV[1])
if err or word then return err or word end
local err2 = check_type(KEYS[4], 'stream')
if err2 then return err2 end
local err3, outbox_exists = check_type(KEYS[5], 'stream')
if err3 then return err3 end
-- The first six fields are about the letter; the message follows, of a source under its own names.
local function add_source_fields(fields, from, key_field, payload_field)
  local key, payload, attributes = '', '', {}
  for f = 13, #from, 2 do
    if from[f] == key_field then
      key = from[f + 1]
    elseif from[f] == payload_field then
      payload = from[f + 1]
    else
      attributes[#attributes + 1] = '@' .. from[f]
      attributes[#attributes + 1] = from[f + 1]
    end
  end
  for _, part in ipairs({'k', key, 'p', payload}) do fields[#fields + 1] = part end
  for _, part in ipairs(attributes) do fields[#fields + 1] = part end
end
local epoch = next_epoch(lease.epoch)
local found, moved, bytes = {}, {epoch}, 0
for i = 0, tonumber(ARGV[5]) - 1 do
  local at = 6 + 4 * i
  local letter = redis.call('XRANGE', KEYS[4], ARGV[at], ARGV[at])[1]
  if letter then
    local fields = {'protocol', PROTOCOL, 'to', ARGV[at + 1]}
    local from = letter[2]
    if ARGV[4] ~= '' and ARGV[at + 3] == '0' then
      add_source_fields(fields, from, ARGV[3], ARGV[4])
    else
      -- Where it was to go before, and for whom, is said anew.
      for f = 13, #from, 2 do
        if from[f] ~= '#g' and not (f == 13 and from[f] == '#to') then
          fields[#fields + 1] = from[f]
          fields[#fields + 1] = from[f + 1]
        end
      end
    end
    if ARGV[at + 2] ~= '' then
      fields[#fields + 1] = '#g'
      fields[#fields + 1] = ARGV[at + 2]
    end
    bytes = bytes + letter_bytes(from)
    found[#found + 1] = {letter[1], fields}
    moved[#moved + 1] = letter[1]
  end
end
if #found == 0 then return {lease.epoch or '0'} end
local err4 = refused({'XADD', KEYS[5], '*', 'f', 'v'}, {'XDEL', KEYS[4], '0-1'}, {'HSET', KEYS[3], 'f', 'v'})
if err4 then return err4 end
if outbox_exists then
  local outbox = to_table(redis.call('XINFO', 'STREAM', KEYS[5]))
  if not id_less(outbox['last-generated-id'], epoch .. '-1') then
    return redis.error_reply('ERR the outbox has messages up to ' .. outbox['last-generated-id']
      .. ', above epoch ' .. epoch)
  end
end
local kept = redis.call('HMGET', KEYS[3], 'dead_bytes')[1]
redis.call('HSET', KEYS[3], 'owner', '', 'epoch', epoch, 'dead_bytes', less_dead(kept, bytes))
for i, letter in ipairs(found) do
  redis.call('XADD', KEYS[5], epoch .. '-' .. i, unpack(letter[2]))
  redis.call('XDEL', KEYS[4], letter[1])
end
announce(ARGV[2], 'redrive')
return moved
