-- One call: stream slot, daily quota, bucket; all of them or none.
-- ARGV: epoch, instance, bucket, interval, burst, units, and what the node knows: full in, owed;
--       daily limit (-1: none, -2: not counted), the node's day, its units; stream version (0: no stream), count, limit (-1: none).
-- Answer: verdict (0 passes, 1 streams, 2 day, 3 bucket, -1 another epoch), now, full in, wait, units used today.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {-1, 0, 0, 0, 0} end
local instance, name = ARGV[2], ARGV[3]
local interval, burst, units = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local mine, owed = tonumber(ARGV[7]), ARGV[8] == '1'
local limit, my_day, my_used = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local version, count, slots = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])

local charged = units > 0
local counted = charged and limit > -2
local tat, used, wait = now, 0, 0
if charged then
  tat = bucket(name, interval, burst, mine, owed)
  wait = math.max(0, tat + interval * units - interval * burst - now)
end
if counted then used = day(my_day, my_used, owed) end

local function keep()
  if charged then
    keep_bucket(name, interval, burst, tat)
    keep_for(tat - now)
  end
  if counted then
    keep_day(used)
    keep_for(day_left())
  end
end

local function refuse(verdict)
  -- What the node owed is told once: it stays, though the call does not pass.
  if owed then keep() end
  return {verdict, now, tat - now, wait, used}
end

if version > 0 then
  local fields, others = redis.call('HGETALL', KEYS[3]), 0
  for i = 1, #fields, 2 do
    local whose = string.match(fields[i], '^s:(.+)$')
    if whose == instance then
      local newer, known = streams_of(fields[i + 1])
      if newer > version then version, count = newer, known end
    elseif whose then
      local seen = redis.call('ZSCORE', KEYS[2], whose)
      local _, open = streams_of(fields[i + 1])
      if not seen then
        redis.call('HDEL', KEYS[3], fields[i])
      elseif now - tonumber(seen) <= SEEN then
        others = others + open
      end
    end
  end
  if slots >= 0 and others + count > slots then return refuse(1) end
end
if counted and limit >= 0 and used + units > limit then return refuse(2) end
if wait > 0 then return refuse(3) end

tat = tat + interval * units
used = math.min(used + units, MOST)
keep()
if version > 0 then
  redis.call('HSET', KEYS[3], 's:' .. instance, text(version) .. ':' .. text(count))
  keep_for(STREAMS_KEPT)
end
return {0, now, tat - now, 0, used}
