#!lua flags=allow-oom
-- A member tells that it lives; everyone past the session timeout is removed by Redis' own time. Any
-- change of members is a new generation and is announced. One member is active, the others stand by.
-- KEYS: 1 group, 2 members by heartbeat (ms)
-- ARGV: 1 'join' | 'heartbeat' | 'leave', 2 uid of the stream, 3 member, 4 incarnation, 5 counter,
--       6 session timeout ms, 7 news channel
-- Returns: {'member', generation, active 0|1, members, ms to the next other expiry or -1},
--          {'unknown'}, {'superseded'}, {'overtaken'}, {'left'} or {'gone'}
local kind, uid, me, incarnation = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local counter, timeout = tonumber(ARGV[5]), tonumber(ARGV[6])
local err, head = read_hash(KEYS[1], 'uid')
if err then return err end
local err2 = check_type(KEYS[2], 'zset')
if err2 then return err2 end

local group = to_table(redis.call('HGETALL', KEYS[1]))
local fresh = false
if group['uid'] ~= uid then
  if kind == 'leave' then return {'left'} end
  if kind == 'heartbeat' then return {group['uid'] and 'gone' or 'unknown'} end
  -- The group of an earlier stream of this name: nothing of it counts.
  group, fresh = {}, true
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local stamps, order = {}, {}
if not fresh then
  local flat = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
  for i = 1, #flat, 2 do
    order[#order + 1] = flat[i]
    stamps[flat[i]] = tonumber(flat[i + 1])
  end
end

local holder = stamps[me] and group['i:' .. me] or nil
if kind == 'heartbeat' and not holder then return {'unknown'} end
if kind == 'heartbeat' and holder ~= incarnation then return {'superseded'} end
if kind == 'leave' and holder ~= incarnation then return {'left'} end
if holder == incarnation and counter <= tonumber(group['c:' .. me] or '0') then return {'overtaken'} end

-- All checks are done; from here on it writes.
if fresh then redis.call('DEL', KEYS[1], KEYS[2]) end

-- If nobody synced for longer than a heartbeat (a third of the session timeout) and a margin (a sixth),
-- Redis was away, or all members were: nobody shall expire for a time in which nobody could be heard.
local longest = 0
for _, member in ipairs(order) do
  longest = math.max(longest, tonumber(group['t:' .. member] or '0'))
end
local gap = now - tonumber(group['last_sync'] or now)
local shift = gap > longest / 2 and gap or 0
for _, member in ipairs(order) do
  stamps[member] = math.min(stamps[member] + shift, now)
end

local changed = false
local function remove(member)
  stamps[member] = nil
  redis.call('ZREM', KEYS[2], member)
  redis.call('HDEL', KEYS[1], 'i:' .. member, 't:' .. member, 'j:' .. member, 'c:' .. member)
  changed = true
end

if kind == 'leave' then
  remove(me)
else
  if not holder then
    local joins = tonumber(group['joins'] or '0') + 1
    group['j:' .. me] = tostring(joins)
    redis.call('HSET', KEYS[1], 'joins', joins, 'j:' .. me, joins)
    order[#order + 1] = me
  end
  if holder ~= incarnation then changed = true end
  stamps[me] = now
  group['t:' .. me] = ARGV[6]
  redis.call('HSET', KEYS[1], 'i:' .. me, incarnation, 't:' .. me, ARGV[6], 'c:' .. me, ARGV[5])
end

local members, next_expiry, oldest = 0, -1, nil
for _, member in ipairs(order) do
  local stamp = stamps[member]
  if stamp then
    local left = stamp + tonumber(group['t:' .. member] or '0') - now
    if member ~= me and left <= 0 then
      remove(member)
    else
      redis.call('ZADD', KEYS[2], stamp, member)
      members = members + 1
      if member ~= me and (next_expiry < 0 or left < next_expiry) then next_expiry = left end
      local joined = tonumber(group['j:' .. member] or '0')
      if not oldest or joined < oldest.joined then oldest = {name = member, joined = joined} end
    end
  end
end

local active = group['active']
if not active or not stamps[active] then
  active = oldest and oldest.name or ''
end
local generation = tonumber(group['generation'] or '0')
if changed then generation = generation + 1 end
redis.call('HSET', KEYS[1], 'protocol', PROTOCOL, 'uid', uid, 'generation',
  string.format('%.0f', generation), 'active', active, 'last_sync', string.format('%.0f', now))
-- The news only make it faster: who may not publish is heard at the next heartbeat.
if changed then redis.pcall('PUBLISH', ARGV[7], string.format('%.0f', generation)) end
if kind == 'leave' then return {'left'} end
return {'member', generation, active == me and 1 or 0, members, next_expiry}
