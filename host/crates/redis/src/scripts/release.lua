#!lua flags=allow-oom
-- Gives the lease back, if it holds exactly incarnation, epoch and `from`.
-- KEYS: 1 lease
-- ARGV: 1 incarnation, 2 epoch, 3 from
-- Returns: {'ok'}, {'fenced'} (no lease) or {'fenced', owner, epoch, acked, halt}
local err, lease = read_hash(KEYS[1], 'owner', 'epoch', 'acked', 'halt')
if err then return err end
if not lease[3] then return {'fenced'} end
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] or lease[3] ~= ARGV[3] then
  return {'fenced', lease[1] or '', lease[2] or '0', lease[3], lease[4] or ''}
end
redis.call('HSET', KEYS[1], 'owner', '')
return {'ok'}
