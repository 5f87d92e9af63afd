#!lua
-- Appends a prefix of the messages: as many as the capacity leaves room for, after a trim behind the
-- slowest group if it leaves too little. No allow-oom flag: a Redis without memory refuses at once.
-- KEYS: 1 meta, 2 log
-- ARGV: 1 uid, 2 prefix of lease keys, 3 number of messages,
--       then for each message: bytes, number of fields, and name, value of each
-- Returns: 'gone', or the ids of the accepted ones
local err, meta = read_hash(KEYS[1], 'uid', 'capacity', 'largest')
if err then return err end
if meta[1] ~= ARGV[1] then return 'gone' end
local length = redis.pcall('XLEN', KEYS[2])
if type(length) == 'table' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[2] .. ' is not a stream')
end
local wanted = tonumber(ARGV[3])
local room = tonumber(meta[2]) - length
if room < wanted then
  local err3 = refused({'XADD', KEYS[2], '*', 'f', 'v'})
  if err3 then return err3 end
  local err2, dropped = trim(KEYS[2], KEYS[1], ARGV[2], wanted - room)
  if err2 then return err2 end
  room = room + dropped
end
local largest, before = tonumber(meta[3] or '0'), tonumber(meta[3] or '0')
local ids, at = {}, 4
for i = 1, math.min(room, wanted) do
  local fields = tonumber(ARGV[at + 1])
  local last = at + 1 + 2 * fields
  local id = redis.pcall('XADD', KEYS[2], 'NOMKSTREAM', '*', unpack(ARGV, at + 2, last))
  if not id then return 'gone' end
  if id.err then
    -- Such as a log whose ids are used up. What was written is told, else the producer sends it twice.
    if i == 1 then return id end
    break
  end
  ids[i] = id
  local bytes = tonumber(ARGV[at])
  if bytes > largest then largest = bytes end
  at = last + 1
end
-- It is only a hint for readers: what was appended is told in any case.
if largest > before then redis.pcall('HSET', KEYS[1], 'largest', string.format('%.0f', largest)) end
return ids
