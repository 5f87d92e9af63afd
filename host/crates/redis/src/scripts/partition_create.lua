#!lua flags=allow-oom
-- Creates one partition of a described stream, or completes it: meta and an empty log. What an earlier
-- creation of the stream left is replaced; a later one wins over this call, which may come from a
-- process that slept while the stream was deleted and created anew. A log that others write is theirs:
-- it is there, or there is no partition.
-- KEYS: 1 meta, 2 log
-- ARGV: 1 uid, 2 capacity, 3 retain, 4 created µs, 5 prefix of the partition's keys,
--       6 others write the log 0|1
-- Returns: 'created', 'existed', 'overtaken' (read the description again), or 'missing' (others' log)
local err, meta = read_hash(KEYS[1], 'uid', 'created', 'groups', 'retain')
if err then return err end
local err2, log_exists = check_type(KEYS[2], 'stream')
if err2 then return err2 end
local err3 = refused({'DEL', KEYS[1]}, {'HSET', KEYS[1], 'f', 'v'}, {'XGROUP', 'DESTROY', KEYS[2], 'g'},
  {'XGROUP', 'CREATE', KEYS[2], 'g', '0'})
if err3 then return err3 end
local existed = meta[1] == ARGV[1]
local source = ARGV[6] == '1'
if source and not log_exists then return 'missing' end
if meta[1] and not existed then
  if number_less(ARGV[4], meta[2] or '0') then return 'overtaken' end
  for group in string.gmatch(meta[3] or '', '%S+') do
    for _, kind in ipairs({'lease:', 'state:', 'dead:', 'outbox:'}) do
      redis.call('DEL', ARGV[5] .. kind .. group)
    end
    if source then redis.call('XGROUP', 'DESTROY', KEYS[2], group) end
  end
  redis.call('DEL', KEYS[1], ARGV[5] .. 'from')
  if not source then
    redis.call('DEL', KEYS[2])
    log_exists = false
  end
end
if not log_exists then
  -- The only place that makes a log: everything else says NOMKSTREAM, because a host with an old
  -- description would else write where nobody reads.
  redis.call('XGROUP', 'CREATE', KEYS[2], 'segmenter-create', '0', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[2], 'segmenter-create')
end
if not existed then
  redis.call('HSET', KEYS[1], 'protocol', PROTOCOL, 'uid', ARGV[1], 'capacity', ARGV[2],
    'retain', ARGV[3], 'created', ARGV[4], 'largest', '0', 'groups', '',
    unpack(source and {'source', '1'} or {}))
  return 'created'
end
if meta[4] ~= ARGV[3] then redis.call('HSET', KEYS[1], 'retain', ARGV[3]) end
return 'existed'
