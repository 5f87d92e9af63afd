#!lua flags=no-writes,allow-oom
-- Which of the commands that a host, a producer and the command line send, by themselves and from
-- scripts, the user may not call or the server does not have. As many as the rules in `acl.rs` grant.
-- KEYS: 1 a key of the namespace, for rules that name keys
-- ARGV: 1 a channel of the namespace
-- Returns: all that is missing, separated by commas, or ''
local key, missing = KEYS[1], {}
local function check(words, ...)
  local shown = select(1, ...)
  if words == 2 then shown = shown .. ' ' .. select(2, ...) end
  local ok, allowed = pcall(redis.acl_check_cmd, ...)
  if not ok then
    missing[#missing + 1] = shown .. ': unknown to this server'
  elseif not allowed then
    missing[#missing + 1] = shown
  end
end
for _, c in ipairs({
  {'TYPE'}, {'DEL'}, {'SET', 'v'}, {'STRLEN'}, {'GETRANGE', '0', '1'}, {'HGETALL'}, {'HMGET', 'f'}, {'HSET', 'f', 'v'}, {'HDEL', 'f'}, {'HSCAN', '0'}, {'XLEN'},
  {'XADD', '*', 'f', 'v'}, {'XRANGE', '-', '+'}, {'XREVRANGE', '+', '-'}, {'XTRIM', 'MINID', '0'},
  {'XDEL', '0-1'}, {'XPENDING', 'g'}, {'ZADD', '0', 'm'}, {'ZREM', 'm'}, {'ZRANGE', '0', '-1'},
}) do
  check(1, c[1], key, unpack(c, 2))
end
for _, c in ipairs({
  {'XINFO', 'STREAM'}, {'XINFO', 'GROUPS'}, {'XGROUP', 'CREATE', 'g', '0'},
  {'XGROUP', 'SETID', 'g', '0'}, {'XGROUP', 'DESTROY', 'g'},
}) do
  check(2, c[1], c[2], key, unpack(c, 3))
end
check(1, 'XREAD', 'STREAMS', key, '0')
check(1, 'EVALSHA', string.rep('0', 40), '1', key)
check(1, 'PUBLISH', ARGV[1], 'm')
check(1, 'SUBSCRIBE', ARGV[1])
for _, c in ipairs({
  {'SCRIPT', 'LOAD', 's'}, {'SCRIPT', 'EXISTS', 's'}, {'CLIENT', 'ID'}, {'CLIENT', 'UNBLOCK', '1'},
}) do
  check(2, unpack(c))
end
for _, c in ipairs({{'TIME'}, {'PING'}, {'INFO'}, {'SCAN', '0'}}) do check(1, unpack(c)) end
return table.concat(missing, ', ')
