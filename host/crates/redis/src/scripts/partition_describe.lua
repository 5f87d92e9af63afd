#!lua flags=no-writes,allow-oom
-- How a partition and its groups stand. Ids only: no payload leaves Redis.
-- KEYS: 1 meta, 2 log
-- ARGV: 1 prefix of lease keys
-- Returns: {} if there is none, else {uid, entries, first id, last id, entries added, now ms,
--   {group, owner member, epoch, acked, read, version, lag (-1: unknown), first unacked id, halt} for each group}
local err, meta = read_hash(KEYS[1], 'uid', 'groups')
if err then return err end
local err2, log_exists = check_type(KEYS[2], 'stream')
if err2 then return err2 end
if not meta[1] or not log_exists then return {} end
local function edge(command, from, to)
  local entries = redis.call(command, KEYS[2], from, to, 'COUNT', 1)
  return entries[1] and entries[1][1] or ''
end
local info = to_table(redis.call('XINFO', 'STREAM', KEYS[2]))
local lags = {}
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
  local group = to_table(flat)
  lags[group['name']] = group['lag']
end
local time = redis.call('TIME')
local out = {meta[1], info['length'], edge('XRANGE', '-', '+'), info['last-generated-id'],
  string.format('%.0f', info['entries-added']),
  string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))}
for name in string.gmatch(meta[2] or '', '%S+') do
  local err3, lease = read_hash(ARGV[1] .. name, 'owner', 'member', 'epoch', 'acked', 'read', 'version', 'halt')
  if err3 then return err3 end
  if lease[4] then
    local held = lease[1] and lease[1] ~= ''
    out[#out + 1] = {name, held and lease[2] or '', lease[3], lease[4], lease[5] or '0',
      held and lease[6] or '', lags[name] or -1, edge('XRANGE', '(' .. lease[4], '+'), lease[7] or ''}
  end
end
return out
