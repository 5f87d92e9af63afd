-- Shared by the scripts (put in front of each when it is loaded). Knows ids, hashes and the trim rule.
-- Entry ids are strings here, never numbers: both halves may exceed 2^53.

local PROTOCOL = 1
local MAX64 = '18446744073709551615'

-- Decimal strings without leading zeros.
local function number_less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

local function id_parts(id)
  local dash = string.find(id, '-', 1, true)
  return string.sub(id, 1, dash - 1), string.sub(id, dash + 1)
end

local function id_less(a, b)
  -- Mostly both halves are as long as the other's: then text is in the order of numbers.
  local dash = string.find(a, '-', 1, true)
  if #a == #b and string.byte(b, dash) == 45 then return a < b end
  local a_ms, a_seq = id_parts(a)
  local b_ms, b_seq = id_parts(b)
  if a_ms ~= b_ms then return number_less(a_ms, b_ms) end
  return number_less(a_seq, b_seq)
end

local function number_next(text)
  local tail = string.match(text, '9*$')
  local head = string.sub(text, 1, #text - #tail)
  if head == '' then
    head = '1'
  else
    head = string.sub(head, 1, -2) .. tostring(tonumber(string.sub(head, -1)) + 1)
  end
  return head .. string.rep('0', #tail)
end

-- The smallest id above; nil above the largest.
local function id_next(id)
  local ms, seq = id_parts(id)
  if seq ~= MAX64 then return ms .. '-' .. number_next(seq) end
  if ms ~= MAX64 then return number_next(ms) .. '-0' end
  return nil
end

-- What `key` holds must be of this type or absent. Returns an error reply, or nil and whether it exists.
local function check_type(key, wanted)
  local found = redis.call('TYPE', key).ok
  if found == 'none' then return nil, false end
  if found ~= wanted then
    return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. found .. ', not a ' .. wanted)
  end
  return nil, true
end

-- Fields of one of our hashes, after its protocol number was checked. Returns error reply, values.
local function read_hash(key, ...)
  local values = redis.pcall('HMGET', key, 'protocol', ...)
  if values.err then
    if string.find(values.err, 'WRONGTYPE', 1, true) then
      return redis.error_reply('WRONGTYPE ' .. key .. ' is not a hash')
    end
    return values
  end
  local protocol = values[1]
  if protocol and tonumber(protocol) ~= nil and tonumber(protocol) > PROTOCOL then
    return redis.error_reply('SEGPROTOCOL ' .. key .. ' speaks protocol ' .. protocol
      .. ', this host speaks ' .. PROTOCOL .. '; use a newer host')
  end
  table.remove(values, 1)
  return nil, values
end

-- A script that fails midway keeps what it wrote. So the commands behind its first write are asked for
-- before that. Returns an error reply if the user may not call one of them.
local function refused(...)
  for _, command in ipairs({...}) do
    if not redis.acl_check_cmd(unpack(command)) then
      return redis.error_reply('NOPERM this user may not call ' .. command[1] .. '; nothing was done')
    end
  end
end

-- Above every epoch that was ever given out, also if the lease went back: max(old + 1, TIME in µs), below
-- 2^53 for the next two centuries.
local function next_epoch(old)
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  return string.format('%.0f', math.max(tonumber(old or '0') + 1, now))
end

-- A flat reply of names and values as a table.
local function to_table(flat)
  local out = {}
  for i = 1, #flat, 2 do out[flat[i]] = flat[i + 1] end
  return out
end

-- Milliseconds of this server's clock.
local function time_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Bytes of the message in a dead letter, whose first six fields are about the letter.
local function letter_bytes(fields)
  local bytes = 0
  for i = 13, #fields do bytes = bytes + #fields[i] end
  return bytes
end

-- What is left of the bytes of all dead letters without some.
local function less_dead(all, bytes)
  return string.format('%.0f', math.max(0, tonumber(all or '0') - bytes))
end

-- Numbers of a set of partitions such as 0-3,7, each as a key. What is no partition is left out.
local function set_of(text)
  local set = {}
  for first, last in string.gmatch(text, '(%d+)%-?(%d*)') do
    first = tonumber(first)
    last = math.min(tonumber(last) or first, 4095)
    for partition = first, last do set[partition] = true end
  end
  return set
end

-- What is in the first set and not in the second, as a text.
local function set_minus(text, other)
  if text == '' or text == other then return '' end
  local set, left = set_of(text), {}
  local without = other == '' and {} or set_of(other)
  for partition in pairs(set) do
    if not without[partition] then left[#left + 1] = partition end
  end
  table.sort(left)
  local out, i = {}, 1
  while i <= #left do
    local j = i
    while left[j + 1] == left[j] + 1 do j = j + 1 end
    out[#out + 1] = i == j and tostring(left[i]) or left[i] .. '-' .. left[j]
    i = j + 1
  end
  return table.concat(out, ',')
end

-- What an operator's script acts on: checks meta, log and lease of a group. Returns error reply, word to
-- answer instead, {acked, read, epoch, halt}.
local function operated(meta_key, log, lease_key, uid)
  local err, meta = read_hash(meta_key, 'uid')
  if err then return err end
  local err2, lease = read_hash(lease_key, 'acked', 'read', 'epoch', 'halt')
  if err2 then return err2 end
  local err3, log_exists = check_type(log, 'stream')
  if err3 then return err3 end
  if meta[1] ~= uid or not log_exists then return nil, 'gone' end
  if not lease[1] then return nil, 'nogroup' end
  return nil, nil, {acked = lease[1], read = lease[2] or '0', epoch = lease[3],
    halt = lease[4] ~= '' and lease[4] or nil}
end

-- Moves the mirror of a group, or makes it anew. Returns an error reply if it changed nothing.
local function move_mirror(log, group, acked, read)
  local moved = redis.pcall('XGROUP', 'SETID', log, group, acked, 'ENTRIESREAD', read)
  if moved.err then moved = redis.pcall('XGROUP', 'CREATE', log, group, acked, 'ENTRIESREAD', read) end
  if moved.err then return moved end
end

-- The news only make it faster: who may not publish is heard at the next heartbeat.
local function announce(channel, what)
  redis.pcall('PUBLISH', channel, what)
end

-- The first id that some group still needs. `groups`: names of ours, separated by spaces; the lease of
-- each is the truth, also if its mirror is gone. Groups that are not ours need their oldest pending
-- entry and all that follows their last delivered one. Returns error reply, id (nil: nothing may go),
-- and how many entries the slowest has before it, about.
local function needed_from(log, groups, lease_prefix)
  local low, behind, ours = nil, 0, {}
  local function consider(id, lag)
    if low == nil or id_less(id, low) then low = id end
    if lag and lag > behind then behind = lag end
  end
  local found = redis.pcall('XINFO', 'GROUPS', log)
  if found.err then return found end
  local lags = {}
  for _, flat in ipairs(found) do
    local group = to_table(flat)
    lags[group['name']] = tonumber(group['lag'] or nil)
  end
  for name in string.gmatch(groups or '', '%S+') do
    ours[name] = true
    local err, lease = read_hash(lease_prefix .. name, 'acked')
    if err then return err end
    if lease[1] then
      -- Above the largest id there is nothing; such a group needs no entry, but bounds nothing either.
      consider(id_next(lease[1]) or (MAX64 .. '-' .. MAX64), lags[name])
    end
  end
  for _, flat in ipairs(found) do
    local group = to_table(flat)
    if not ours[group['name']] then
      local first = nil
      if group['pending'] > 0 then
        local pending = redis.pcall('XPENDING', log, group['name'])
        if pending.err then return pending end
        first = pending[2]
      end
      local after = id_next(group['last-delivered-id'])
      if not first or (after and id_less(after, first)) then first = after end
      consider(first or (MAX64 .. '-' .. MAX64), (lags[group['name']] or 0) + group['pending'])
    end
  end
  return nil, low, behind
end

-- The id of the entry that comes after the oldest `drop` ones, or nil if there is none. Reads at most
-- `chunk` entries at a time, because a script holds them all in memory.
local function id_after(log, drop, chunk)
  local from, last = '-', nil
  while drop >= 0 do
    local entries = redis.pcall('XRANGE', log, from, '+', 'COUNT', math.min(drop + 1, chunk))
    -- Who may not read its entries trims none.
    if entries.err then return '0-0' end
    if #entries == 0 then return nil end
    drop = drop - #entries
    last = entries[#entries][1]
    if drop < 0 then return last end
    from = '(' .. last
  end
  return last
end

-- Entries in one XRANGE of id_after: about a MiB.
local function chunk_for(largest)
  return math.max(1, math.min(128, math.floor(1048576 / math.max(1, tonumber(largest or 1) or 1))))
end

-- Drops entries that no group needs. `need` nil: a routine trim, which keeps `retain` of them; else a
-- full partition, which drops as many as it needs. Exact, never `~`. Returns error reply, dropped.
local function trim(log, meta, lease_prefix, need)
  local err, groups_retain = read_hash(meta, 'groups', 'retain', 'largest', 'source', 'uid')
  if err then return err end
  -- What others write is theirs to trim, and without its meta nobody knows whose it is.
  if groups_retain[4] or not groups_retain[5] then return nil, 0 end
  local err2, low, behind = needed_from(log, groups_retain[1], lease_prefix)
  if err2 then return err2 end
  if not low then return nil, 0 end
  local retain = tonumber(groups_retain[2] or '0') or 0
  if retain > 0 then
    local length = redis.pcall('XLEN', log)
    if type(length) == 'table' then return length end
    local drop = need or (length - behind - retain)
    if drop <= 0 then return nil, 0 end
    local kept = id_after(log, drop, chunk_for(groups_retain[3]))
    if kept and id_less(kept, low) then low = kept end
  end
  local dropped = redis.pcall('XTRIM', log, 'MINID', '=', low)
  if type(dropped) == 'table' then return dropped end
  return nil, dropped
end
