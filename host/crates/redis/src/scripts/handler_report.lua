#!lua flags=allow-oom
-- A host tells how far it is with a handler, and learns what is wanted. Reports that are too old go.
-- KEYS: 1 handler, 2 reports of hosts
-- ARGV: 1 only (asks), told or left, 2 whose report, 3 the report, 4 ms after which one goes
-- Returns: {revision ('': nothing was ever deployed), current, candidate, mode, share, ms left, who, then
--   whose, age in ms, report of each}; the reports only if there is a candidate, or it only asks
local err, f = read_hash(KEYS[1], 'revision', 'current', 'candidate', 'mode', 'share', 'ends', 'lasts', 'by')
if err then return err end
local err2 = read_hash(KEYS[2])
if err2 then return err2 end
local asks, whose, now, keep = ARGV[1], ARGV[2], time_ms(), tonumber(ARGV[4])
if asks ~= 'only' then
  local err3 = refused({'HSET', KEYS[2], 'f', 'v'}, {'HDEL', KEYS[2], 'f'})
  if err3 then return err3 end
end
local candidate = f[3] or ''
local left = 0
if candidate ~= '' then
  left = math.max(0, math.min(tonumber(f[6]) - now, tonumber(f[7])))
end
local answer = {f[1] or '', f[2] or '', candidate, f[4] or '', f[5] or '', string.format('%.0f', left),
  f[8] or ''}
local reports = redis.pcall('HGETALL', KEYS[2])
if reports.err then return reports end
local old, ahead = {}, {}
local wanted = candidate ~= '' or asks == 'only'
local function add(who, age, report)
  if wanted then
    answer[#answer + 1] = who
    answer[#answer + 1] = string.format('%.0f', age)
    answer[#answer + 1] = report
  end
end
for i = 1, #reports, 2 do
  local who = reports[i]
  if who ~= 'protocol' and (asks == 'only' or who ~= whose) then
    local at, report = string.match(reports[i + 1], '^(%d+) (.*)$')
    local age = at and now - tonumber(at)
    if not age or age >= keep then
      old[#old + 1] = who
    else
      -- A stamp in the future counts as now: the clock went back.
      if age < 0 then
        age = 0
        ahead[#ahead + 1] = who
        ahead[#ahead + 1] = string.format('%.0f', now) .. ' ' .. report
      end
      add(who, age, report)
    end
  end
end
if asks ~= 'only' then
  if asks == 'told' then
    add(whose, 0, ARGV[3])
    redis.call('HSET', KEYS[2], 'protocol', PROTOCOL, whose, string.format('%.0f', now) .. ' ' .. ARGV[3])
  else
    old[#old + 1] = whose
  end
  for i = 1, #ahead, 2 do redis.call('HSET', KEYS[2], ahead[i], ahead[i + 1]) end
  for _, who in ipairs(old) do redis.call('HDEL', KEYS[2], who) end
end
return answer
