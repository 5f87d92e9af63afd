#!lua flags=allow-oom
-- Creates a stream's description, or finds it. The description decides: partitions follow it.
-- KEYS: 1 description
-- ARGV: 1 uid (used if it is absent), 2 partitions, 3 capacity, 4 retain ('' leaves what is set),
--       5 key that others write ('': none), 6 its key field, 7 its payload field,
--       8 payload limit in bytes ('': the default, which is not written)
-- Returns: {existed 0|1, uid, partitions, capacity, retain, created µs, deleting 0|1, source, key field,
--   payload field, payload limit}
local err, found = read_hash(KEYS[1], 'uid', 'partitions', 'capacity', 'retain', 'created', 'deleting',
  'source', 'source_key_field', 'source_payload_field', 'payload_max')
if err then return err end
if found[1] then
  local retain = found[4] or '0'
  local same = found[2] == ARGV[2] and found[3] == ARGV[3]
    and (found[7] or '') == ARGV[5] and (found[8] or '') == ARGV[6] and (found[9] or '') == ARGV[7]
    and (found[10] or '') == ARGV[8]
  if same and not found[6] and ARGV[4] ~= '' and ARGV[4] ~= retain then
    redis.call('HSET', KEYS[1], 'retain', ARGV[4])
    retain = ARGV[4]
  end
  return {1, found[1], found[2], found[3], retain, found[5] or '0', found[6] and 1 or 0,
    found[7] or '', found[8] or '', found[9] or '', found[10] or ''}
end
local time = redis.call('TIME')
local created = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
local retain = ARGV[4] ~= '' and ARGV[4] or '0'
local more = {}
if ARGV[5] ~= '' then
  more = {'source', ARGV[5], 'source_key_field', ARGV[6], 'source_payload_field', ARGV[7]}
end
if ARGV[8] ~= '' then
  more[#more + 1] = 'payload_max'
  more[#more + 1] = ARGV[8]
end
redis.call('HSET', KEYS[1], 'protocol', PROTOCOL, 'uid', ARGV[1], 'partitions', ARGV[2],
  'capacity', ARGV[3], 'retain', retain, 'created', created, unpack(more))
return {0, ARGV[1], ARGV[2], ARGV[3], retain, created, 0, ARGV[5], ARGV[6], ARGV[7], ARGV[8]}
