#!lua flags=allow-oom
-- An operator halts a partition for a group: its owner is fenced by a new epoch, nobody acquires it.
-- KEYS: 1 meta, 2 log, 3 lease
-- ARGV: 1 uid, 2 news channel, 3 reason
-- Returns: 'gone', 'nogroup', {'halted'} or {'already', reason, which stays}
local err, word, lease = operated(KEYS[1], KEYS[2], KEYS[3], ARGV[1])
if err or word then return err or word end
if lease.halt then return {'already', lease.halt} end
redis.call('HSET', KEYS[3], 'owner', '', 'epoch', next_epoch(lease.epoch), 'halt', ARGV[3])
announce(ARGV[2], 'halt')
return {'halted'}
