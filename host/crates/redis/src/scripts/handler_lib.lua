-- Shared by the scripts that change which version of a handler is wanted, behind lib.lua. Lists are
-- versions separated by spaces, latest first. The first ARGV of each such script:
--   1 the handler's name, 2 prefix of the keys of modules, 3 news channel, 4 past versions kept,
--   5 recent versions kept, 6 bad marks kept, 7 entries of history kept
-- and its KEYS: 1 handler, 2 history, 3 which handlers need a module

local function split(text)
  local items = {}
  for item in string.gmatch(text or '', '%S+') do items[#items + 1] = item end
  return items
end

local function without(items, item)
  local left = {}
  for _, one in ipairs(items) do
    if one ~= item then left[#left + 1] = one end
  end
  return left
end

-- Puts it in front; what then is beyond `most` falls out. Returns the list, what fell out.
local function in_front(items, item, most)
  local all, kept, out = without(items, item), {item}, {}
  for _, one in ipairs(all) do
    if #kept < tonumber(most) then kept[#kept + 1] = one else out[#out + 1] = one end
  end
  return kept, out
end

-- Versions whose bytes the handler needs, each as a key.
local function needs(h)
  local set = {}
  for _, list in ipairs({h.past, h.recent, {h.current, h.candidate}}) do
    for _, version in ipairs(list) do
      if version ~= '' then set[version] = true end
    end
  end
  return set
end

-- What is known of the handler; checks all that `save` will do. Returns error reply, it. Its revision is
-- nil if nothing was ever deployed.
local function load_handler()
  local err, f = read_hash(KEYS[1], 'revision', 'current', 'candidate', 'mode', 'share', 'ends', 'lasts',
    'by', 'past', 'recent', 'bad')
  if err then return err end
  local err2, history_exists = check_type(KEYS[2], 'stream')
  if err2 then return err2 end
  local err3 = read_hash(KEYS[3])
  if err3 then return err3 end
  local err4 = refused({'HSET', KEYS[1], 'f', 'v'}, {'HDEL', KEYS[1], 'f'}, {'DEL', KEYS[1]},
    {'XADD', KEYS[2], '*', 'f', 'v'})
  if err4 then return err4 end
  local h = {revision = f[1] or nil, current = f[2] or '', candidate = f[3] or '', mode = f[4] or '',
    share = f[5] or '', ends = f[6] or '0', lasts = f[7] or '0', by = f[8] or '', past = split(f[9]),
    recent = split(f[10]), bad = split(f[11]), marks = {}, unmarks = {}}
  h.needed = needs(h)
  return nil, h
end

-- Milliseconds until a trial ends. A clock that went back makes it no longer than it was to be.
local function left_of(ends, lasts, now)
  return string.format('%.0f', math.max(0, math.min(tonumber(ends) - now, tonumber(lasts))))
end

local function mark_bad(h, version, reason)
  local out
  h.bad, out = in_front(h.bad, version, ARGV[6])
  h.marks['bad:' .. version] = string.format('%.0f', time_ms()) .. ' ' .. reason
  for _, old in ipairs(out) do h.unmarks[#h.unmarks + 1] = 'bad:' .. old end
end

local function unmark_bad(h, version)
  h.bad = without(h.bad, version)
  h.unmarks[#h.unmarks + 1] = 'bad:' .. version
end

-- Another version becomes the current one.
local function make_current(h, version)
  h.past = without(h.past, version)
  if h.current ~= '' then h.past = in_front(h.past, h.current, ARGV[4]) end
  h.current = version
end

-- Writes what the handler became, and its history; keeps and forgets bytes; tells. `from`: what was current
-- before. Returns an error reply if it changed nothing, the new revision.
local function save(h, change, version, from, by, reason)
  local users, changed, need = {}, {}, needs(h)
  for one in pairs(need) do
    if not h.needed[one] then changed[#changed + 1] = one end
  end
  for one in pairs(h.needed) do
    if not need[one] then changed[#changed + 1] = one end
  end
  if #changed > 0 then users = redis.call('HMGET', KEYS[3], unpack(changed)) end
  local revision = next_epoch(h.revision)
  -- First, because its id may be at its end; whatever follows cannot fail.
  local added = redis.pcall('XADD', KEYS[2], 'MAXLEN', '=', ARGV[7], '*', 'change', change, 'version', version,
    'from', from, 'current', h.current, 'revision', revision, 'by', by, 'reason', reason)
  if type(added) == 'table' and added.err then return added end
  redis.call('HSET', KEYS[1], 'protocol', PROTOCOL, 'revision', revision, 'current', h.current,
    'candidate', h.candidate, 'mode', h.mode, 'share', h.share, 'ends', h.ends, 'lasts', h.lasts, 'by', h.by,
    'past', table.concat(h.past, ' '), 'recent', table.concat(h.recent, ' '),
    'bad', table.concat(h.bad, ' '))
  if #h.unmarks > 0 then redis.call('HDEL', KEYS[1], unpack(h.unmarks)) end
  for field, value in pairs(h.marks) do redis.call('HSET', KEYS[1], field, value) end
  for i, one in ipairs(changed) do
    local names = without(split(users[i] or ''), ARGV[1])
    if need[one] then names[#names + 1] = ARGV[1] end
    if #names > 0 then
      redis.call('HSET', KEYS[3], 'protocol', PROTOCOL, one, table.concat(names, ' '))
    else
      redis.call('HDEL', KEYS[3], one)
      redis.call('DEL', ARGV[2] .. one)
    end
  end
  announce(ARGV[3], revision)
  return nil, revision
end

local function end_candidate(h)
  h.candidate, h.mode, h.share, h.ends, h.lasts, h.by = '', '', '', '0', '0', ''
end
