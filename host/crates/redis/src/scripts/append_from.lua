#!lua
-- Appends what one source has, in the order of its stamps: a prefix, as append does. What is not above the
-- last stamp of the source is there already. The last stamp moves in the same script as the entries.
-- KEYS: 1 meta, 2 log, 3 last stamp of each source
-- ARGV: 1 uid, 2 prefix of lease keys, 3 source, 4 a stamp of it that is there for sure, or '',
--       5 producers that may be remembered, or '' (it is no producer, and not counted),
--       6 bytes of the largest message, 7 number of messages, then runs of them, each:
--       number of messages, number of fields besides key and payload that each of them has,
--       and for each: stamp, key, payload, and name, value of each such field
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
-- Where each message that is new begins among the arguments, and where each ends.
local wanted, starts, ends = tonumber(ARGV[7]), {}, {}
local count, at, last, new = 0, 8, from[1], 0
while count < wanted do
  local width = 3 + 2 * tonumber(ARGV[at + 1])
  local run_end = at + 2 + width * tonumber(ARGV[at])
  at = at + 2
  while at < run_end do
    count = count + 1
    local stamp = ARGV[at]
    if not last or id_less(last, stamp) then
      starts[count], last, new = at, stamp, new + 1
    else
      starts[count] = false
    end
    at = at + width
    ends[count] = at - 1
  end
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
-- What is done for each message is most of what an emit costs: so no more than it must.
local ids, moved = {}, nil
local log, xadd = KEYS[2], redis.pcall
for i = 1, wanted do
  local start = starts[i]
  if not start then
    ids[i] = ''
  else
    if room <= 0 then break end
    local id
    if moved then
      id = xadd('XADD', log, '*', 'k', ARGV[start + 1], 'p', ARGV[start + 2], unpack(ARGV, start + 3, ends[i]))
    else
      id = xadd('XADD', log, 'NOMKSTREAM', '*', 'k', ARGV[start + 1], 'p', ARGV[start + 2],
        unpack(ARGV, start + 3, ends[i]))
      if not id then return 'gone' end
    end
    if id.err then
      if not moved then return id end
      break
    end
    ids[i], moved, room = id, ARGV[start], room - 1
  end
end
if moved then
  redis.call('HSET', KEYS[3], 'protocol', PROTOCOL, ARGV[3], moved,
    unpack(newcomer and {'producers', producers + 1} or {}))
end
-- It is only a hint for readers, so one that was refused may count.
if moved and tonumber(ARGV[6]) > tonumber(meta[3] or '0') then redis.pcall('HSET', KEYS[1], 'largest', ARGV[6]) end
return ids
