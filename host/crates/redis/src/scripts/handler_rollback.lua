#!lua flags=allow-oom
-- An operator goes back at once: from a candidate to the current version, else to the one before that.
-- KEYS: 1 handler, 2 history, 3 which handlers need a module
-- ARGV: 1 to 7 as handler_lib.lua says, 8 version to go to ('': the one before), 9 reason, which marks what is
--       left as bad ('': does not), 10 who
-- Returns: {'back', revision, from, to}, {'nothing', current}, {'current'}, {'nomodule', version} or
--   {'undeployed'}
local err, h = load_handler()
if err then return err end
if not h.revision then return {'undeployed'} end
local was, left, to = h.current, h.current, ARGV[8]
if h.candidate ~= '' then
  if to == '' then to = h.current end
  if to ~= h.candidate then left = h.candidate end
elseif to == '' then
  to = h.past[1]
  if not to then return {'nothing', h.current} end
elseif to == h.current then
  return {'current'}
end
if to ~= h.current then
  local err2, stored = check_type(ARGV[2] .. to, 'string')
  if err2 then return err2 end
  if not stored then return {'nomodule', to} end
end

local change = 'rolled_back'
if ARGV[9] ~= '' then mark_bad(h, left, ARGV[9]) end
if to == h.candidate then
  -- Its trial ends early, and well.
  change = 'deployed'
  make_current(h, to)
end
end_candidate(h)
if to ~= h.current then
  -- Going back twice leads further back, not forward again.
  for i, one in ipairs(h.past) do
    if one == to then
      h.past = {unpack(h.past, i + 1)}
      break
    end
  end
  h.current = to
end
local err3, revision = save(h, change, change == 'deployed' and to or left, was, ARGV[10], ARGV[9])
if err3 then return err3 end
return {'back', revision, left, to}
