#!lua flags=no-writes,allow-oom
-- Entries behind a position, as many as there is room for: XREAD knows no limit in bytes. Of one node's
-- slots only.
-- KEYS: logs
-- ARGV: 1 bytes that an entry takes beside its fields, then for each log: the position, room in bytes,
--       entries at most
-- Returns: for each its entries as XRANGE has them; the first one however large it is
local overhead = tonumber(ARGV[1])
local out = {}
for i, key in ipairs(KEYS) do
  local after, room, most = ARGV[3 * i - 1], tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
  local found, bytes, full = {}, 0, false
  local chunk = 1
  while not full and #found < most do
    chunk = math.min(chunk, most - #found)
    local entries = redis.pcall('XRANGE', key, '(' .. after, '+', 'COUNT', chunk)
    if entries.err then return entries end
    for _, entry in ipairs(entries) do
      local more = overhead
      for _, text in ipairs(entry[2]) do more = more + #text end
      full = #found > 0 and bytes + more > room
      if full then break end
      found[#found + 1], bytes, after = entry, bytes + more, entry[1]
    end
    if #entries < chunk then break end
    -- So many as fit if they are like those before; what does not fit is read in vain.
    chunk = math.max(1, math.min(64, math.floor((room - bytes) * #found / bytes)))
  end
  out[i] = found
end
return out
