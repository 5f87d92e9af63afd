#!lua flags=allow-oom
-- Ends a trial or a shadow, if it still is what is wanted.
-- KEYS: 1 handler, 2 history, 3 which handlers need a module
-- ARGV: 1 to 7 as handler_lib.lua says, 8 revision, 9 version, 10 promote or rollback, 11 reason of a
--       rollback, 12 what was counted, 13 who
-- Returns: {'settled', revision} or {'changed', revision as it is, 0 if there is none}
local err, h = load_handler()
if err then return err end
local version, reason = ARGV[9], ARGV[12]
if h.revision ~= ARGV[8] or h.candidate ~= version then return {'changed', h.revision or '0'} end
local from, change = h.current, 'shadow_ended'
if ARGV[10] == 'rollback' then
  change = 'rolled_back'
  mark_bad(h, version, ARGV[11])
  reason = ARGV[11] .. (reason ~= '' and ' (' .. reason .. ')' or '')
elseif h.mode == 'trial' then
  change = 'promoted'
  make_current(h, version)
end
end_candidate(h)
local err2, revision = save(h, change, version, from, ARGV[13], reason)
if err2 then return err2 end
return {'settled', revision}
