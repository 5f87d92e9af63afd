#!lua
-- Appends what one source has, in the order of its stamps: a prefix, as append does. What is not above the
-- last stamp of the source is there already. The last stamp moves in the same script as the entries.
-- KEYS: 1 meta, 2 log, 3 last stamp of each source
-- ARGV: 1 uid, 2 prefix of lease keys, 3 source, 4 a stamp of it that is there for sure, or '',
--       5 producers that may be remembered, or '' (it is no producer, and not counted), 6 number of messages,
--       then for each message: stamp, bytes, number of fields, and name, value of each
-- Returns: 'gone', 'behind' (that stamp is not there any more), 'crowded' (it would be one producer too
--   many), or for each accepted message its id, or '' if it was there already
local err, meta = read_hash(KEYS[1], 'uid', 'capacity', 'largest')
if err then return err end
local err2, from = read_hash(KEYS[3], ARGV[3], 'producers')
if err2 then return err2 end
if meta[1] ~= ARGV[1] then return 'gone' end
if ARGV[4] ~= '' and (not from[1] or id_less(from[1], ARGV[4])) then return 'behind' end
local length = redis.pcall('XLEN', KEYS[2])
if type(length) == 'table' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[2] .. ' is not a stream')
end
local newcomer = ARGV[5] ~= '' and not from[1]
local producers = tonumber(from[2] or '0') or 0
if newcomer and producers >= tonumber(ARGV[5]) then return 'crowded' end
-- Where each message begins among the arguments, and which are new.
local starts, at, last = {}, 7, from[1]
local new = 0
for i = 1, tonumber(ARGV[6]) do
  starts[i] = at
  if not last or id_less(last, ARGV[at]) then
    last = ARGV[at]
    new = new + 1
  end
  at = at + 3 + 2 * tonumber(ARGV[at + 2])
end
local room = tonumber(meta[2]) - length
if new > 0 then
  local err3 = refused({'XADD', KEYS[2], '*', 'f', 'v'}, {'HSET', KEYS[3], 'f', 'v'})
  if err3 then return err3 end
  if room < new then
    local err4, dropped = trim(KEYS[2], KEYS[1], ARGV[2], new - room)
    if err4 then return err4 end
    room = room + dropped
  end
end
local largest, before = tonumber(meta[3] or '0'), tonumber(meta[3] or '0')
local ids, moved = {}, nil
last = from[1]
for i, start in ipairs(starts) do
  if last and not id_less(last, ARGV[start]) then
    ids[i] = ''
  else
    if room <= 0 then break end
    local fields = tonumber(ARGV[start + 2])
    local id = redis.pcall('XADD', KEYS[2], 'NOMKSTREAM', '*',
      unpack(ARGV, start + 3, start + 2 + 2 * fields))
    if not id then return 'gone' end
    if id.err then
      if not moved then return id end
      break
    end
    ids[i], last, moved, room = id, ARGV[start], ARGV[start], room - 1
    local bytes = tonumber(ARGV[start + 1])
    if bytes > largest then largest = bytes end
  end
end
if moved then
  redis.call('HSET', KEYS[3], 'protocol', PROTOCOL, ARGV[3], moved,
    unpack(newcomer and {'producers', producers + 1} or {}))
end
if largest > before then redis.pcall('HSET', KEYS[1], 'largest', string.format('%.0f', largest)) end
return ids
