#!lua flags=allow-oom
-- Messages of an outbox that can never be relayed become dead letters, whole, with their target in front.
-- What is not there any more was relayed or buried by somebody else.
-- KEYS: 1 lease, 2 outbox, 3 dead letters
-- ARGV: 1 epoch, 2 reason, 3 fields of a dead letter that travel one by one; more are packed into one,
--       4 number of stamps, then the stamps
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
local found = {}
for i = 5, 4 + tonumber(ARGV[4]) do
  local entry = redis.call('XRANGE', KEYS[2], ARGV[i], ARGV[i])[1]
  if entry then found[#found + 1] = entry end
end
for _, entry in ipairs(found) do
  local id, fields = entry[1], entry[2]
  if fields[1] == 'protocol' and fields[3] == 'to' then
    table.remove(fields, 1)
    table.remove(fields, 1)
    fields[1] = '#to'
  end
  if #fields / 2 > tonumber(ARGV[3]) then
    local packed = {}
    for i, part in ipairs(fields) do packed[i] = #part .. ':' .. part end
    fields = {'', table.concat(packed)}
  end
  redis.call('XADD', KEYS[3], '*', 'protocol', PROTOCOL, 'id', id, 'reason', ARGV[2], 'attempts', '0',
    'version', '', 'at', now, unpack(fields))
  redis.call('XDEL', KEYS[2], id)
end
return 'buried'
