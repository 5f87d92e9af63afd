#!lua flags=allow-oom
-- Takes the lease, whoever holds it, unless it is halted.
-- KEYS: 1 meta, 2 log, 3 lease
-- ARGV: 1 uid, 2 incarnation, 3 member, 4 version
-- A lease that its owner had not released adds one to the failed attempts at the first entry that is not
-- acked: it may be the one that ends hosts. It counts under the version that the lease has for that entry,
-- or else under the one that handled.
-- Returns: 'gone', 'nogroup', {'halted', reason, epoch, acked}, or {epoch, acked, read, unreleased 0|1,
--          entry that failed or '', how often, version}
local err, meta = read_hash(KEYS[1], 'uid')
if err then return err end
local err2, lease = read_hash(KEYS[3], 'owner', 'epoch', 'acked', 'read', 'halt', 'head',
  'attempts', 'head_version', 'version')
if err2 then return err2 end
local err3, log_exists = check_type(KEYS[2], 'stream')
if err3 then return err3 end
if meta[1] ~= ARGV[1] or not log_exists then return 'gone' end
if not lease[3] then return 'nogroup' end
if lease[5] and lease[5] ~= '' then return {'halted', lease[5], lease[2] or '0', lease[3]} end
local epoch = next_epoch(lease[2])
local unreleased = lease[1] and lease[1] ~= ''
local head, attempts, version = lease[6] or '', lease[7] or '0', lease[8] or ''
if unreleased then
  local first = redis.call('XRANGE', KEYS[2], '(' .. lease[3], '+', 'COUNT', 1)[1]
  if first then
    if head == first[1] then
      attempts = string.format('%.0f', tonumber(attempts) + 1)
    else
      head, attempts, version = first[1], '1', lease[9] or ''
    end
  end
end
redis.call('HSET', KEYS[3], 'owner', ARGV[2], 'member', ARGV[3], 'version', ARGV[4], 'epoch', epoch,
  'head', head, 'attempts', attempts, 'head_version', version)
return {epoch, lease[3], lease[4] or '0', unreleased and 1 or 0, head, attempts, version}
