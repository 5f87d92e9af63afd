#!lua flags=no-writes,allow-oom
-- Counts entries of a log from an id on, some thousand at a time. No payload leaves Redis.
-- KEYS: 1 meta, 2 log
-- ARGV: 1 uid, 2 first id, 3 last id ('': the last that was given out), 4 entries at most
-- Returns: 'gone', or {counted, id to go on from ('': none), first id found ('': none), last id, entries added}
local err, meta = read_hash(KEYS[1], 'uid', 'largest')
if err then return err end
local err2, log_exists = check_type(KEYS[2], 'stream')
if err2 then return err2 end
if meta[1] ~= ARGV[1] or not log_exists then return 'gone' end
local info = to_table(redis.call('XINFO', 'STREAM', KEYS[2]))
local last = ARGV[3] ~= '' and ARGV[3] or info['last-generated-id']
local chunk, limit = chunk_for(meta[2]), tonumber(ARGV[4])
local counted, from, first = 0, ARGV[2], ''
while counted < limit do
  local entries = redis.call('XRANGE', KEYS[2], from, last, 'COUNT', math.min(chunk, limit - counted))
  if #entries == 0 then
    from = ''
    break
  end
  if first == '' then first = entries[1][1] end
  counted = counted + #entries
  from = id_next(entries[#entries][1]) or ''
  if from == '' then break end
end
return {counted, from, first, last, string.format('%.0f', info['entries-added'])}
