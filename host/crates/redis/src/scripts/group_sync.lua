#!lua flags=allow-oom
-- A member tells that it lives and what it has; everyone past the session timeout is removed by Redis' own
-- time. Any change of members is a new generation. Whoever causes one is on duty: it computes the
-- assignment and installs it; if it does not within a third of the session timeout, the next who syncs
-- is. A partition of a member's assignment is granted once no live member has it. Costs grow with the
-- members, and with the partitions only while something moves.
-- KEYS: 1 group, 2 members by heartbeat (ms)
-- ARGV: 1 'join' | 'heartbeat' | 'leave', 2 uid of the stream, 3 member, 4 incarnation, 5 counter,
--       6 session timeout ms, 7 news channel, 8 draining 0|1, 9 digest of what it has, 10 that whole or
--       '-', 11 refused, 12 digest of the assignment that it knows, 13 wants 0|1, 14 members at most
--       (sets of partitions are texts such as 0-3,7)
-- Returns: {'member', generation, members, ms to the next other expiry or -1, its assignment or '-',
--            granted, tell what it has whole 0|1, why (on duty) or '-',
--            {member, draining 0|1, previous, owned, refused} for each member (on duty)},
--          {'unknown'}, {'superseded'}, {'overtaken'}, {'left'}, {'full'} or {'gone'}
local kind, uid, me, incarnation = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local counter, timeout, channel = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local draining, digest, whole = ARGV[8], ARGV[9], ARGV[10]
-- Of each member: incarnation, session timeout, counter, digest of what it has, what it has, digest of
-- its assignment, its assignment, draining, refused.
local FIELDS = {'i:', 't:', 'c:', 'od:', 'o:', 'ad:', 'a:', 'x:', 'r:'}
local err, group = read_hash(KEYS[1], 'uid', 'generation', 'assigned', 'duty', 'duty_at', 'last_sync',
  'why', 'i:' .. me, 'c:' .. me, 'od:' .. me, 'ad:' .. me, 'x:' .. me)
if err then return err end
local err2 = check_type(KEYS[2], 'zset')
if err2 then return err2 end
local fresh = group[1] ~= uid
if fresh then
  if kind == 'leave' then return {'left'} end
  if kind == 'heartbeat' then return {group[1] and 'gone' or 'unknown'} end
  -- The group of an earlier stream of this name: nothing of it counts.
  for i = 1, 12 do group[i] = false end
end

local now = time_ms()
local stamps, order = {}, {}
if not fresh then
  local flat = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
  for i = 1, #flat, 2 do
    order[#order + 1] = flat[i]
    stamps[flat[i]] = tonumber(flat[i + 1])
  end
end
-- One field of each of these members.
local function of_each(field, members)
  if #members == 0 then return {} end
  local names = {}
  for i, member in ipairs(members) do names[i] = field .. member end
  local values, out = redis.call('HMGET', KEYS[1], unpack(names)), {}
  for i, member in ipairs(members) do out[member] = values[i] or '' end
  return out
end

local holder = stamps[me] and group[8] or nil
if kind == 'heartbeat' and not holder then return {'unknown'} end
if kind == 'heartbeat' and holder ~= incarnation then return {'superseded'} end
if kind == 'leave' and holder ~= incarnation then return {'left'} end
if holder == incarnation and counter <= tonumber(group[9] or '0') then return {'overtaken'} end
if not holder and #order >= tonumber(ARGV[14]) then return {'full'} end

local err3 = refused({'HSET', KEYS[1], 'f', 'v'}, {'HDEL', KEYS[1], 'f'}, {'DEL', KEYS[1]},
  {'ZADD', KEYS[2], '0', 'm'}, {'ZREM', KEYS[2], 'm'})
if err3 then return err3 end

-- All checks are done; from here on it writes.
if fresh then redis.call('DEL', KEYS[1], KEYS[2]) end
local generation, assigned = tonumber(group[2] or '0'), tonumber(group[3] or '0')
local duty, why, news = group[4] or '', group[7] or '', {}

-- If nobody synced for longer than a heartbeat (a third of the session timeout) and a margin (a sixth),
-- Redis was away, or all members were: nobody shall expire for a time in which nobody could be heard.
local timeouts, longest = of_each('t:', order), 0
for _, member in ipairs(order) do longest = math.max(longest, tonumber(timeouts[member]) or 0) end
local gap = now - tonumber(group[6] or now)
local shift = gap > longest / 2 and gap or 0
for _, member in ipairs(order) do
  local stamp = math.min(stamps[member] + shift, now)
  if stamp ~= stamps[member] then
    stamps[member] = stamp
    redis.call('ZADD', KEYS[2], stamp, member)
  end
end

-- `moves`: somebody's partitions need another owner, or somebody needs some.
local function change(text, moves)
  if moves or assigned ~= generation then
    why = (why == '' and text) or (#why < 512 and why .. '; ' .. text) or why
    generation = generation + 1
  else
    generation = generation + 1
    assigned = generation
  end
end
local function remove(member)
  stamps[member] = nil
  redis.call('ZREM', KEYS[2], member)
  local names = {}
  for i, field in ipairs(FIELDS) do names[i] = field .. member end
  redis.call('HDEL', KEYS[1], unpack(names))
end

local expired = {}
for _, member in ipairs(order) do
  if member ~= me and stamps[member] + (tonumber(timeouts[member]) or 0) <= now then
    expired[#expired + 1] = member
  end
end
local released = ''
if #expired > 0 then
  for _, member in ipairs(expired) do
    remove(member)
    change(member .. ' expired', true)
  end
  duty = me
end

local before = '' -- what it had, as far as that is known
if kind == 'leave' then
  local last = redis.call('HMGET', KEYS[1], 'o:' .. me, 'ad:' .. me)
  released = last[1] or ''
  remove(me)
  change(me .. ' left', (last[2] or '0') ~= '0')
  if duty == me then duty = '' end
  if generation ~= assigned then news[#news + 1] = 'changed' end
else
  if not holder then
    order[#order + 1] = me
    change(me .. ' joined', true)
    duty = me
  elseif holder ~= incarnation then
    -- The same member, started again: it has nothing yet, and its assignment stays.
    change(me .. ' started again', false)
    news[#news + 1] = 'changed'
  end
  if kind == 'join' or whole ~= '-' then
    before = redis.call('HMGET', KEYS[1], 'o:' .. me)[1] or ''
  end
  if (group[12] or '0') ~= draining then
    change(me .. (draining == '1' and ' is leaving' or ' stays'), true)
    duty = me
  end
  stamps[me] = now
  redis.call('ZADD', KEYS[2], now, me)
  redis.call('HSET', KEYS[1], 'i:' .. me, incarnation, 't:' .. me, ARGV[6], 'c:' .. me, ARGV[5],
    'x:' .. me, draining, 'r:' .. me, ARGV[11])
end

local members, next_expiry, alive = 0, -1, {}
for _, member in ipairs(order) do
  local stamp = stamps[member]
  if stamp then
    members = members + 1
    alive[members] = member
    if member ~= me then
      local left = stamp + (tonumber(timeouts[member]) or 0) - now
      if next_expiry < 0 or left < next_expiry then next_expiry = left end
    end
  end
end

local granted, tell = '', 0
if kind ~= 'leave' then
  if whole ~= '-' then
    released = set_minus(before, whole)
    redis.call('HSET', KEYS[1], 'o:' .. me, whole, 'od:' .. me, digest)
  elseif kind == 'join' or group[10] ~= digest then
    tell = 1
  end
  -- A member that differs from its assignment as it knows it will ask again.
  local grants = (ARGV[13] == '1' or group[11] ~= ARGV[12]) and generation == assigned
  if grants and tell == 0 and draining ~= '1' then
    local mine = redis.call('HMGET', KEYS[1], 'a:' .. me, 'o:' .. me)
    local wanted = set_minus(mine[1] or '', mine[2] or '')
    if wanted ~= '' then
      for member, owned in pairs(of_each('o:', alive)) do
        if member ~= me then wanted = set_minus(wanted, owned) end
      end
      granted = wanted
    end
    if granted ~= '' then
      local owned = mine[2] or ''
      owned = owned == '' and granted or owned .. ',' .. granted
      redis.call('HSET', KEYS[1], 'o:' .. me, owned, 'od:' .. me, '')
      if released ~= '' then released = set_minus(released, granted) end
    end
  end
end
if released ~= '' then news[#news + 1] = 'released ' .. released end

local heads = {}
if kind ~= 'leave' and generation ~= assigned then
  local late = now - tonumber(group[5] or '0') > timeout / 3
  if duty == '' or not stamps[duty] or late then duty = me end
  if duty == me then
    redis.call('HSET', KEYS[1], 'duty_at', string.format('%.0f', now))
    local x, a, o, r = of_each('x:', alive), of_each('a:', alive), of_each('o:', alive), of_each('r:', alive)
    for i, member in ipairs(alive) do
      heads[i] = {member, x[member] == '1' and 1 or 0, a[member], o[member], r[member]}
    end
  end
end
redis.call('HSET', KEYS[1], 'protocol', PROTOCOL, 'uid', uid, 'generation',
  string.format('%.0f', generation), 'assigned', string.format('%.0f', assigned), 'duty', duty,
  'why', why, 'last_sync', string.format('%.0f', now))
-- The news only make it faster: who may not publish is heard at the next heartbeat.
for _, text in ipairs(news) do redis.pcall('PUBLISH', channel, text) end
if kind == 'leave' then return {'left'} end
local assignment = '-'
if (group[11] or '0') ~= ARGV[12] then
  assignment = redis.call('HMGET', KEYS[1], 'a:' .. me)[1] or ''
end
return {'member', generation, members, next_expiry, assignment, granted, tell,
  #heads > 0 and why or '-', heads}
