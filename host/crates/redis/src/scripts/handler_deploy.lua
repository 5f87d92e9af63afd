#!lua
-- A version, whose bytes are stored, shall run: at once, after a trial, or as a shadow. One candidate at a
-- time; the first version of a handler is current at once.
-- KEYS: 1 handler, 2 history, 3 which handlers need a module
-- ARGV: 1 to 7 as handler_lib.lua says, 8 version, 9 now, trial or shadow, 10 share in percent,
--       11 how long it lasts in ms, 12 who asks, 13 although it is marked bad 0|1
-- Returns: {'deployed', revision, current 0|1}, {'busy', version, who, ms left}, {'current', revision},
--   {'bad', at ms, reason}, {'nothing'} (to shadow) or {'nomodule'}
local err, h = load_handler()
if err then return err end
local version, how, by = ARGV[8], ARGV[9], ARGV[12]
local err2, stored = check_type(ARGV[2] .. version, 'string')
if err2 then return err2 end
local now = time_ms()
if h.candidate ~= '' then return {'busy', h.candidate, h.by, left_of(h.ends, h.lasts, now)} end
if h.current == version then return {'current', h.revision} end
local err3, bad = read_hash(KEYS[1], 'bad:' .. version)
if err3 then return err3 end
if bad[1] and ARGV[13] == '0' then
  local at, reason = string.match(bad[1], '^(%d+) (.*)$')
  return {'bad', at or '0', reason or bad[1]}
end
if h.current == '' and how == 'shadow' then return {'nothing'} end
if not stored then return {'nomodule'} end

if bad[1] then unmark_bad(h, version) end
h.recent = in_front(h.recent, version, ARGV[5])
local from, change, why = h.current, how, ''
if how == 'now' or from == '' then
  change = 'deployed'
  make_current(h, version)
else
  h.candidate, h.mode, h.share, h.lasts, h.by = version, how, ARGV[10], ARGV[11], by
  h.ends = string.format('%.0f', now + tonumber(ARGV[11]))
  why = 'for ' .. ARGV[11] .. ' ms'
  if how == 'trial' then why = 'in ' .. ARGV[10] .. ' % of the partitions ' .. why end
end
local err4, revision = save(h, change, version, from, by, why)
if err4 then return err4 end
return {'deployed', revision, h.current == version and 1 or 0}
