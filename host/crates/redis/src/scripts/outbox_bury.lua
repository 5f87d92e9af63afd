#!lua flags=allow-oom
-- Messages of an outbox that can never be relayed become dead letters, whole, with their target in front;
-- the entries that they are part of go, because the others of those are at their targets. What is not there
-- any more was relayed or buried by somebody else.
-- KEYS: 1 lease, 2 outbox, 3 dead letters
-- ARGV: 1 epoch, 2 reason, 3 fields of a dead letter that travel one by one; more are packed into one,
--       4 number of entries, then for each: its id, how many of its messages (0: all that it is), and the
--       stamp of each
-- Returns: 'buried', or 'fenced'
local err, lease = read_hash(KEYS[1], 'epoch')
if err then return err end
if lease[1] ~= ARGV[1] then return 'fenced' end
local err2 = check_type(KEYS[2], 'stream')
if err2 then return err2 end
local err3 = check_type(KEYS[3], 'stream')
if err3 then return err3 end
local err4 = refused({'XADD', KEYS[3], '*', 'f', 'v'}, {'XDEL', KEYS[2], '0-1'})
if err4 then return err4 end
local now = string.format('%.0f', time_ms())

-- Which of so many messages of an entry has this stamp. Both have the same epoch, so that the last digits
-- tell: they differ by less than 1,000, and Lua knows larger numbers only nearly.
local function place_of(stamp, id, count)
  local function digits(text) return tonumber(string.sub('00' .. string.match(text, '-(%d+)$'), -3)) end
  return count - (digits(id) - digits(stamp)) % 1000
end

-- The fields of each message of an entry.
local function messages_of(fields)
  local messages = {}
  for i = 7, #fields, 2 do
    if fields[i] == 'k' then messages[#messages + 1] = {} end
    local message = messages[#messages]
    message[#message + 1] = fields[i]
    message[#message + 1] = fields[i + 1]
  end
  return messages
end

local letters, ids, at = {}, {}, 5
for _ = 1, tonumber(ARGV[4]) do
  local id, wanted = ARGV[at], tonumber(ARGV[at + 1])
  local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
  if entry then
    ids[#ids + 1] = id
    local fields = entry[2]
    local ours = fields[1] == 'protocol' and fields[3] == 'to'
    if ours and fields[5] == 'n' and wanted > 0 then
      local messages = messages_of(fields)
      for i = at + 2, at + 1 + wanted do
        local message = messages[place_of(ARGV[i], id, #messages)]
        letters[#letters + 1] = {ARGV[i], {'#to', fields[4], unpack(message)}}
      end
    else
      if ours then
        table.remove(fields, 1)
        table.remove(fields, 1)
        fields[1] = '#to'
      end
      letters[#letters + 1] = {id, fields}
    end
  end
  at = at + 2 + wanted
end
for _, letter in ipairs(letters) do
  local fields = letter[2]
  if #fields / 2 > tonumber(ARGV[3]) then
    local packed = {}
    for i, part in ipairs(fields) do packed[i] = #part .. ':' .. part end
    fields = {'', table.concat(packed)}
  end
  redis.call('XADD', KEYS[3], '*', 'protocol', PROTOCOL, 'id', letter[1], 'reason', ARGV[2], 'attempts', '0',
    'version', '', 'at', now, unpack(fields))
end
for _, id in ipairs(ids) do redis.call('XDEL', KEYS[2], id) end
return 'buried'
