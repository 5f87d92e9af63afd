#!lua flags=no-writes,allow-oom
-- Which of the commands that scripts call the user may not call, or the server does not have.
-- KEYS: 1 a key of the namespace, for rules that name keys
-- ARGV: 1 a channel of the namespace, for rules that name channels
-- Returns: the first such command with what stands against it, or '' if all may be called
local wanted = {
  {'TYPE'}, {'DEL'}, {'HGETALL'}, {'HMGET', 'f'}, {'HSET', 'f', 'v'}, {'HDEL', 'f'}, {'XLEN'},
  {'XADD', '*', 'f', 'v'}, {'XRANGE', '-', '+'}, {'XREVRANGE', '+', '-'}, {'XTRIM', 'MINID', '0'},
  {'XPENDING', 'g'}, {'ZADD', '0', 'm'}, {'ZREM', 'm'}, {'ZRANGE', '0', '-1'},
}
local wanted_with_word = {
  {'XINFO', 'STREAM'}, {'XINFO', 'GROUPS'}, {'XGROUP', 'CREATE', 'g', '0'},
  {'XGROUP', 'SETID', 'g', '0'}, {'XGROUP', 'DESTROY', 'g'},
}
local function check(shown, ...)
  local ok, allowed = pcall(redis.acl_check_cmd, ...)
  if not ok then return shown .. ': unknown to this server' end
  if not allowed then return shown end
end
for _, c in ipairs(wanted) do
  local missing = check(c[1], c[1], KEYS[1], unpack(c, 2))
  if missing then return missing end
end
for _, c in ipairs(wanted_with_word) do
  local missing = check(c[1] .. ' ' .. c[2], c[1], c[2], KEYS[1], unpack(c, 3))
  if missing then return missing end
end
return check('XREAD', 'XREAD', 'STREAMS', KEYS[1], '0') or check('TIME', 'TIME')
  or check('SUBSCRIBE', 'SUBSCRIBE', ARGV[1]) or check('PUBLISH', 'PUBLISH', ARGV[1], '')
  or check('CLIENT UNBLOCK', 'CLIENT', 'UNBLOCK', '1') or check('CLIENT ID', 'CLIENT', 'ID') or ''
