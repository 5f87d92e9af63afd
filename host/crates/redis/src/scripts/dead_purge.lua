#!lua flags=allow-oom
-- Removes dead letters for good.
-- KEYS: 1 lease, 2 dead letters
-- ARGV: ids among the dead letters
-- Returns: how many were there
local err, lease = read_hash(KEYS[1], 'dead_bytes')
if err then return err end
local err2 = check_type(KEYS[2], 'stream')
if err2 then return err2 end
local ids, bytes = {}, 0
for _, id in ipairs(ARGV) do
  local letter = redis.call('XRANGE', KEYS[2], id, id)[1]
  if letter then
    ids[#ids + 1] = id
    bytes = bytes + letter_bytes(letter[2])
  end
end
local err3 = refused({'XDEL', KEYS[2], '0-1'}, {'HSET', KEYS[1], 'f', 'v'})
if err3 then return err3 end
for _, id in ipairs(ids) do redis.call('XDEL', KEYS[2], id) end
if lease[1] then redis.call('HSET', KEYS[1], 'dead_bytes', less_dead(lease[1], bytes)) end
return #ids
