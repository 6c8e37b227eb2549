-- What a node knows of one account: taken over where it knows more. May be told any number of times, in any order.
-- ARGV: epoch, instance; work: interval, burst, full in; reads: the same; day, units used; stream version (0: none), count.
-- Answer: 0, or -1 for another epoch.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local function tell_bucket(name, at)
  local interval, burst, mine = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  if mine == 0 then return end
  local tat = bucket(name, interval, burst, mine, true)
  keep_bucket(name, interval, burst, tat)
  keep_for(tat - now)
end
tell_bucket('w', 3)
tell_bucket('r', 6)

local my_day, my_used = tonumber(ARGV[9]), tonumber(ARGV[10])
if my_used > 0 and my_day >= today then
  keep_day(day(my_day, my_used, true))
  keep_for(day_left())
end

local version, count = tonumber(ARGV[11]), tonumber(ARGV[12])
local field = 's:' .. ARGV[2]
if version > 0 and version >= streams_of(redis.call('HGET', KEYS[3], field)) then
  redis.call('HSET', KEYS[3], field, text(version) .. ':' .. text(count))
  keep_for(STREAMS_KEPT)
end
return 0
