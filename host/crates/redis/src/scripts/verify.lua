#!lua flags=no-writes,allow-oom
-- What leases say now. Of one node's slots only.
-- KEYS: leases
-- ARGV: none
-- Returns: for each {owner, epoch, acked, halt}, or {} if there is none
local out = {}
for i, key in ipairs(KEYS) do
  local err, lease = read_hash(key, 'owner', 'epoch', 'acked', 'halt')
  if err then return err end
  out[i] = lease[3] and {lease[1] or '', lease[2] or '0', lease[3], lease[4] or ''} or {}
end
return out
