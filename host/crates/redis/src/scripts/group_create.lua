#!lua flags=allow-oom
-- Creates a group in one partition: lease and mirror. One that exists stays as it is; a mirror that is
-- missing comes back.
-- KEYS: 1 meta, 2 log, 3 lease
-- ARGV: 1 uid, 2 group, 3 'beginning' or 'end'
-- Returns: 'created', 'existed', 'gone' or 'foreign'
local err, meta = read_hash(KEYS[1], 'uid', 'groups')
if err then return err end
local err2, lease = read_hash(KEYS[3], 'acked', 'read')
if err2 then return err2 end
local err3, log_exists = check_type(KEYS[2], 'stream')
if err3 then return err3 end
if meta[1] ~= ARGV[1] or not log_exists then return 'gone' end
local mirror = false
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
  if to_table(flat)['name'] == ARGV[2] then mirror = true end
end
local log = to_table(redis.call('XINFO', 'STREAM', KEYS[2]))
local err4 = refused({'XGROUP', 'CREATE', KEYS[2], 'g', '0'}, {'HSET', KEYS[3], 'f', 'v'})
if err4 then return err4 end
local known = string.find(' ' .. (meta[2] or '') .. ' ', ' ' .. ARGV[2] .. ' ', 1, true)
if mirror and not lease[1] then return 'foreign' end
if not known then
  local names = meta[2] or ''
  redis.call('HSET', KEYS[1], 'groups', names == '' and ARGV[2] or names .. ' ' .. ARGV[2])
end
if lease[1] then
  if not mirror then
    redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[2], lease[1], 'ENTRIESREAD', lease[2] or '0')
  end
  return 'existed'
end
local acked, read = '0-0', log['entries-added'] - log['length']
if ARGV[3] == 'end' then
  acked, read = log['last-generated-id'], log['entries-added']
end
read = string.format('%.0f', read)
redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[2], acked, 'ENTRIESREAD', read)
redis.call('HSET', KEYS[3], 'protocol', PROTOCOL, 'owner', '', 'member', '', 'version', '',
  'epoch', '0', 'acked', acked, 'read', read)
return 'created'
