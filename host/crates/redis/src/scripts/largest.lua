#!lua flags=no-writes,allow-oom
-- How large the largest entry is that was ever appended to partitions. Of one node's slots only.
-- KEYS: metas
-- ARGV: none
-- Returns: bytes for each; 0 if nobody keeps it, as for a stream that others write
local out = {}
for i, key in ipairs(KEYS) do
  local err, meta = read_hash(key, 'largest')
  if err then return err end
  out[i] = meta[1] or '0'
end
return out
